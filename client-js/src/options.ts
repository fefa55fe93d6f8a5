// The options of `connect`, and what is checked before anything is tried.

import { MAX_TOKEN } from './protocol/limits.js';
import type { Transport } from './transport/link.js';
import type { WebTransportEndpoint } from './transport/opening.js';

/** What a session authenticates with, or who knows it. */
export type Token = string | (() => string | Promise<string>);

/** All are optional. */
export interface ConnectOptions {
  /** Which transports may be used, best first. By default all of them: webtransport, websocket, sse, poll. */
  readonly transports?: readonly Transport[];
  /**
   * What the server authenticates with: printable ASCII, at most 4,096 bytes. A function is asked before each race
   * for a link, and before the time is over for which the server takes the token: when a quarter of it, or a minute, is
   * left, and again, at growing intervals, when the function fails. The session goes on with the new token. A string is used as it is.
   * When the time is over, the server ends the session with `UNAUTHORIZED`.
   */
  readonly token?: Token;
  /** Closes the session when it is aborted. */
  readonly signal?: AbortSignal;
  /** Head start of webtransport before a websocket is opened beside it, in milliseconds. Default 200. */
  readonly hedgeMs?: number;
  /** When the next transport starts if the one above it has not answered, in milliseconds. Default 1,000. */
  readonly stepMs?: number;
  /**
   * Bytes that may wait to be acknowledged before `send` throws; one message may go beyond it. Default 262,144.
   * More than a path holds (bandwidth × round trip) only grows old in the queue.
   */
  readonly maxBufferedBytes?: number;
  /** Where WebTransport listens, instead of asking the server. */
  readonly webtransport?: WebTransportEndpoint;
  /** `false`: never ask `{base}/info`. Default `'auto'`: when the base has a port of its own or is not https. */
  readonly info?: 'auto' | false;
}

/** The absolute base, without a slash at its end. Throws TypeError, which says what to do. */
export function resolveBase(base: string | URL, pageUrl: string | undefined): string {
  let url: URL | undefined;
  try {
    url = new URL(base, pageUrl);
  } catch {
    // Said below.
  }
  if (!url?.protocol.startsWith('http')) {
    throw new TypeError(`connect: '${base}' must be a path like '/rt' or an http(s) URL`);
  }
  return url.origin + url.pathname.replace(/\/+$/, '');
}

/** Throws TypeError when `token` cannot travel on every transport. */
export function checkToken(token: string | undefined): string | undefined {
  if (token !== undefined && !(token.length <= MAX_TOKEN && /^[!-~]([ -~]*[!-~])?$/.test(token))) {
    throw new TypeError(`connect: a token is printable ASCII of at most ${MAX_TOKEN} bytes`);
  }
  return token;
}
