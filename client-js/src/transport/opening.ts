// The fields of an opening, and how each transport writes them (SPEC section 7).

import { toBase64Url } from '../protocol/base64.js';

/** What is asked for when a link is opened. */
export interface Opening {
  /** The absolute base without a slash at its end, such as `https://example.org/rt`. */
  readonly base: string;
  /** The session to resume. */
  readonly resumption:
    | { readonly session: string; readonly key: string; readonly received: string }
    | undefined;
  token: string | undefined;
  /** Where WebTransport is, when the application says it. */
  readonly webtransport: WebTransportEndpoint | undefined;
  /** Whether `/info` may be asked where WebTransport is. */
  readonly info: boolean;
}

/** Where WebTransport listens. */
export interface WebTransportEndpoint {
  readonly url: string;
  /** SHA-256 of certificates to accept, in base64 with padding. */
  readonly certificateHashes?: readonly string[];
}

const VERSION = '1';

/** Headers of an opening by sse or poll. */
export function openingHeaders({ resumption, token }: Opening): Record<string, string> {
  return {
    'Throughline-Version': VERSION,
    ...(resumption && {
      'Throughline-Session': resumption.session,
      'Throughline-Key': resumption.key,
      'Throughline-Received': resumption.received,
    }),
    ...(token !== undefined && { Authorization: `Bearer ${token}` }),
  };
}

/** Headers of what follows on a link of sse or poll. */
export function linkHeaders(session: string, key: string, link: number): Record<string, string> {
  return { 'Throughline-Session': session, 'Throughline-Key': key, 'Throughline-Link': String(link) };
}

/** Subprotocols of a websocket: the only place of a browser's WebSocket that is no URL, and so in no proxy's log. */
export function openingProtocols({ resumption, token }: Opening): string[] {
  const protocols = ['throughline.v1'];
  if (resumption) {
    protocols.push(
      `throughline.session.${resumption.session}`,
      `throughline.key.${resumption.key}`,
      `throughline.received.${resumption.received}`,
    );
  }
  if (token !== undefined) {
    protocols.push(`throughline.token.${toBase64Url(new TextEncoder().encode(token))}`);
  }
  return protocols;
}

/** The URL of a WebTransport session: the query of its CONNECT is inside QUIC, where no proxy reads it. */
export function openingUrl(endpoint: string, { resumption, token }: Opening): string {
  const url = new URL(endpoint);
  url.searchParams.set('v', VERSION);
  if (resumption) {
    url.searchParams.set('session', resumption.session);
    url.searchParams.set('key', resumption.key);
    url.searchParams.set('received', resumption.received);
  }
  if (token !== undefined) {
    url.searchParams.set('token', token);
  }
  return url.href;
}
