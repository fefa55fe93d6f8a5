// The options of `connect`, checked before anything is tried.

import { HEDGE_MS, MAX_BUFFERED_BYTES, STEP_MS } from './limits.js';
import { MAX_TOKEN } from './protocol/limits.js';
import { TRANSPORTS, type Transport } from './transport/link.js';
import type { WebTransportEndpoint } from './transport/opening.js';

/** All are optional. */
export interface ConnectOptions {
  /** Which transports may be used, best first. By default all of them: webtransport, websocket, sse, poll. */
  readonly transports?: readonly Transport[];
  /** What the server's application authenticates with, at most 4,096 bytes; a function is asked before each race. */
  readonly token?: string | (() => string | Promise<string>);
  /** Closes the session when it is aborted. */
  readonly signal?: AbortSignal;
  /** Head start of webtransport before a websocket is opened beside it, in milliseconds. Default 200. */
  readonly hedgeMs?: number;
  /** When the next transport starts if the one above it has not answered, in milliseconds. Default 1,000. */
  readonly stepMs?: number;
  /** Bytes that may wait to be acknowledged before `send` throws. Default 16 MiB. */
  readonly maxBufferedBytes?: number;
  /** Where WebTransport listens, instead of asking the server. */
  readonly webtransport?: WebTransportEndpoint;
  /** `false`: never ask `{base}/info`. Default `'auto'`: when the base has a port of its own or is not https. */
  readonly info?: 'auto' | false;
}

/** The options with their defaults. */
export interface Settings {
  /** Absolute, without a slash at its end. */
  readonly base: string;
  readonly transports: readonly Transport[];
  readonly token: ConnectOptions['token'];
  readonly signal: AbortSignal | undefined;
  readonly hedgeMs: number;
  readonly stepMs: number;
  readonly maxBufferedBytes: number;
  readonly webtransport: WebTransportEndpoint | undefined;
  readonly info: boolean;
}

/** Throws TypeError, which says what to do, for anything that cannot work. */
export function settingsOf(
  base: string | URL,
  options: ConnectOptions,
  pageUrl: string | undefined,
): Settings {
  const { transports = TRANSPORTS, token, signal, webtransport, info } = options;
  const unknown = transports.find((transport) => !TRANSPORTS.includes(transport));
  if (unknown !== undefined) {
    throw new TypeError(`connect: no transport '${unknown}'; there are ${TRANSPORTS}`);
  }
  if (typeof token !== 'function') {
    checkToken(token ?? '');
  }
  return {
    base: resolveBase(base, pageUrl),
    transports: [...new Set(transports)],
    token,
    signal,
    hedgeMs: options.hedgeMs ?? HEDGE_MS,
    stepMs: options.stepMs ?? STEP_MS,
    maxBufferedBytes: options.maxBufferedBytes ?? MAX_BUFFERED_BYTES,
    webtransport,
    info: info !== false,
  };
}

/** Throws TypeError when `token` cannot be sent. */
export function checkToken(token: unknown): string {
  if (typeof token !== 'string' || new TextEncoder().encode(token).length > MAX_TOKEN) {
    throw new TypeError(`connect: a token is a string of at most ${MAX_TOKEN} bytes`);
  }
  return token;
}

function resolveBase(base: string | URL, pageUrl: string | undefined): string {
  let url: URL | null = null;
  try {
    url = new URL(base, pageUrl);
  } catch {
    // Said below.
  }
  if (!url?.protocol.startsWith('http')) {
    throw new TypeError(`connect: '${base}' must be a path such as '/rt', or an http(s) URL`);
  }
  return url.origin + url.pathname.replace(/\/+$/, '');
}
