// What a session tells its application: states, events, counters, and how it ended.

import type { ErrorCode } from './errors.js';
import type { Message } from './protocol/message.js';
import type { Counters } from './protocol/report.js';
import type { SessionStream } from './streams.js';
import type { Subscription } from './subscription.js';
import type { Transport } from './transport/link.js';

/** What a session is doing. While it moves from one link to another it stays `open`. */
export type State = 'connecting' | 'open' | 'reconnecting' | 'closed';

/** How a session ended. */
export interface CloseInfo {
  /** A close code of the protocol, or the application's own. */
  readonly code: number;
  /** The code's name; `APPLICATION` for the application's own. */
  readonly name: ErrorCode;
  readonly reason: string;
  /** Whether the application, on either side, chose the code. */
  readonly application: boolean;
  /** Whether connecting again may help. */
  readonly retry: boolean;
}

/** The session moved to another link, which may be of the same kind, or got one, or lost one. */
export interface TransportChange {
  readonly from: Transport | null;
  readonly to: Transport | null;
  /** In words. */
  readonly reason: string;
}

/** A new session took the place of one that could not go on: what was not acknowledged may be lost, and so are its streams and requests. Subscriptions go on by themselves. */
export interface GapInfo {
  readonly previousId: string;
  readonly id: string;
  /** Why the old session could not go on. */
  readonly reason: string;
  /** Bytes of messages, those about channels among them, that had been sent and not acknowledged. Messages that had never been sent follow on the new session. */
  readonly unacknowledgedBytes: number;
}

/** The events of a session, and what their listeners get. */
export interface SessionEvents {
  message: Message;
  datagram: Uint8Array<ArrayBuffer>;
  /** The server opened a stream. One that nobody listens for is stopped and reset, with code 0. */
  stream: SessionStream;
  /** The server has subscribed the session to a channel by itself. Not asked for again by a new session in the place of this one. */
  subscription: Subscription;
  transport: TransportChange;
  gap: GapInfo;
  state: State;
  close: CloseInfo;
}

/** Counters since `connect`. Bytes are those of frames and datagrams, without what the carrier adds. */
export interface Stats extends Counters {
  /** Smoothed round trip on the current link, in milliseconds; `null` before the first answer. */
  rttMs: number | null;
  /** Bytes of messages that the server has not acknowledged. */
  bufferedBytes: number;
  /** Links that carried the session. */
  links: number;
  /** Times that the session went from one link to another while it had both. */
  moves: number;
  /** Times that a new session took the place of an old one. */
  gaps: number;
}
