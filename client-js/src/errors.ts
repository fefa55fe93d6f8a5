// The one error class of this package, and its closed list of codes.

import type { ChannelCode } from './protocol/channels.js';
import type { CodeName } from './protocol/close.js';

/** What a ThroughlineError says in `code`: a close code of the protocol, one of its codes of channels, or one of the client's own. */
export type ErrorCode =
  | CodeName
  | ChannelCode
  /** A session that has ended or is ending sends, subscribes and publishes no more. */
  | 'SESSION_CLOSED'
  /** `send` or `publish` beyond `maxBufferedBytes`. */
  | 'BUFFER_FULL'
  /** The `signal` of `connect` was aborted. */
  | 'ABORTED'
  /** The `token` function threw. */
  | 'TOKEN_FAILED'
  /** The session ended, before it was ready, with a code of the application's. */
  | 'APPLICATION'
  /** The server reads a stream no more; `streamCode` says why. */
  | 'STREAM_STOPPED'
  /** A stream was given up by the server; `streamCode` says why. */
  | 'STREAM_RESET'
  /** A stream of a session that another one has replaced. */
  | 'STREAM_LOST'
  /** The session ended before the server said whether it has published something: it may have. */
  | 'UNCERTAIN'
  | 'UNKNOWN';

/** An error of a session. `message` says what happened and what to do. */
export class ThroughlineError extends Error {
  override readonly name = 'ThroughlineError';
  readonly code: ErrorCode;
  /** The code that the server's application gave to the end of a stream. */
  readonly streamCode: number | undefined;

  constructor(code: ErrorCode, message: string, cause?: unknown, streamCode?: number) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.streamCode = streamCode;
  }
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message || error.name : String(error);
}
