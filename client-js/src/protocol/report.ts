// What a machine and its owner tell each other beside frames.

import type { ChannelMessage, Value } from './channels.js';
import type { Close } from './close.js';
import type { RequestMessage } from './requests.js';

/** What the owner gets to see. */
export type MachineEvent =
  /**
   * WELCOME has arrived. `gap` says what was lost when it opened another session than the one before, and `unsent`
   * then, which messages of the protocol's own had never left on that.
   */
  | { readonly type: 'opened'; readonly gap: Gap | undefined; readonly unsent: readonly Uint8Array[] }
  /** The server said something about channels. */
  | { readonly type: 'channel'; readonly message: ChannelMessage }
  /** The server asks, or answers. */
  | { readonly type: 'request'; readonly message: RequestMessage }
  /** `link`: which link's credit it holds until it is taken; 0 for none. */
  | { readonly type: 'datagram'; readonly bytes: Uint8Array<ArrayBuffer>; readonly link: number }
  /** A value of a channel of state came as a datagram; `link` as there. */
  | { readonly type: 'state'; readonly value: Value; readonly link: number }
  /** How long the new token is good for; 0: for ever. */
  | { readonly type: 'expires'; readonly inMs: number }
  /** The server has opened a stream. */
  | { readonly type: 'stream'; readonly id: number }
  /** The link may be dead: it is time to open another. And: something was heard again. */
  | { readonly type: 'suspect' | 'trusted' }
  /** Nothing was heard for too long: the link is dead. Its owner decides what follows. */
  | { readonly type: 'silent'; readonly close: Close }
  /** The session has ended. */
  | { readonly type: 'closed'; readonly close: Close };

/** What a new session in the place of an older one means for the application. */
export interface Gap {
  readonly previousId: string;
  /** Bytes of messages that were sent on the old session and not acknowledged: they may have been lost. */
  readonly unacknowledgedBytes: number;
}

/** What a link can do beside carrying packets. */
export interface LinkTraits {
  /** The largest of its own datagrams, in bytes; 0 when it has none. */
  readonly nativeDatagram: number;
  /** Whether streams above 0 can have native streams of their own. */
  readonly nativeStreams: boolean;
}

/** Counters of one session. Bytes are those of frames and native datagrams, without what the carrier adds. */
export interface Counters {
  bytesIn: number;
  bytesOut: number;
  messagesIn: number;
  messagesOut: number;
  datagramsIn: number;
  datagramsOut: number;
  /** Outgoing datagrams that a newer one replaced, or that too many others pushed out. */
  datagramsDropped: number;
}
