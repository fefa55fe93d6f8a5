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

type Fields = Readonly<Record<string, string | number>>;

/** Headers of an opening by sse or poll. */
export function openingHeaders({ resumption, token }: Opening): Record<string, string> {
  const headers = linkHeaders({ version: 1, ...resumption });
  return token === undefined ? headers : { ...headers, Authorization: `Bearer ${token}` };
}

/** Headers of what follows on a link of sse or poll: session, key and link. */
export function linkHeaders(fields: Fields): Record<string, string> {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [`Throughline-${name}`, `${value}`]),
  );
}

/** Subprotocols of a websocket: the only place of a browser's WebSocket that is no URL, and so in no proxy's log. */
export function openingProtocols({ resumption, token }: Opening): string[] {
  const encoded = token === undefined ? {} : { token: toBase64Url(new TextEncoder().encode(token)) };
  const fields = Object.entries({ ...resumption, ...encoded });
  return ['throughline.v1', ...fields.map(([name, value]) => `throughline.${name}.${value}`)];
}

/** The URL of a WebTransport session: the query of its CONNECT is inside QUIC, where no proxy reads it. */
export function openingUrl(endpoint: string, { resumption, token }: Opening): string {
  const url = new URL(endpoint);
  const fields: Fields = { v: 1, ...resumption, ...(token !== undefined && { token }), marks: 1 };
  for (const [name, value] of Object.entries(fields)) {
    url.searchParams.set(name, `${value}`);
  }
  return url.href;
}
