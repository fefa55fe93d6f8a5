// The one error class of this package, and its closed list of codes.

import type { ChannelCode } from './protocol/channels.js';
import type { CodeName } from './protocol/close.js';
import type { RequestCode } from './protocol/requests.js';

/** What a ThroughlineError says in `code`: a close code of the protocol, one of its codes of channels or of requests, or one of the client's own. */
export type ErrorCode =
  | CodeName
  | ChannelCode
  | RequestCode
  /** A session that has ended or is ending sends, subscribes, publishes and asks no more. */
  | 'SESSION_CLOSED'
  /** `send`, `publish` or `request` beyond `maxBufferedBytes`. */
  | 'BUFFER_FULL'
  /** The `signal` of `connect` was aborted. */
  | 'ABORTED'
  /** The `token` function threw. */
  | 'TOKEN_FAILED'
  /** A code of the application's: the session ended with it before it was ready, or a request failed with it; `requestCode` says which. */
  | 'APPLICATION'
  /** The server reads a stream no more; `streamCode` says why. */
  | 'STREAM_STOPPED'
  /** A stream was given up by the server; `streamCode` says why. */
  | 'STREAM_RESET'
  /** A stream of a session that another one has replaced. */
  | 'STREAM_LOST'
  /** A request did not end within its `timeoutMs`: it was cancelled. */
  | 'TIMEOUT'
  /** The session ended before the server said whether it has done something: it may have. */
  | 'UNCERTAIN'
  | 'UNKNOWN';

/** An error of a session. `message` says what happened and what to do. */
export class ThroughlineError extends Error {
  override readonly name = 'ThroughlineError';
  readonly code: ErrorCode;
  /** The code that the server's application gave to the end of a stream. */
  readonly streamCode: number | undefined;
  /**
   * The code with which the other side answered a request. In an error that a handler throws: what the server gets, if
   * it is one of the application's own, 100 to 4,294,967,295.
   */
  readonly requestCode: number | undefined;

  constructor(code: ErrorCode, message: string, cause?: unknown, streamCode?: number, requestCode?: number) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.streamCode = streamCode;
    this.requestCode = requestCode;
  }
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message || error.name : String(error);
}
