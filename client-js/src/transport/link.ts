// What every transport is to the rest: the small interface behind which nobody can tell which one it is.

import type { Environment } from '../environment.js';
import type { Close } from '../protocol/close.js';
import type { Frame } from '../protocol/frames.js';
import type { Opening } from './opening.js';

/** The transports, best first. */
export const TRANSPORTS = ['webtransport', 'websocket', 'sse', 'poll'] as const;

/** The kind of a link. */
export type Transport = (typeof TRANSPORTS)[number];

/** One live connection, from the moment it is being opened. Its first frame is WELCOME. */
export interface Link {
  /** Bytes that `send` takes now; 0 means: wait for `writable`. */
  room(): number;
  /** Sends one packet of whole frames. */
  send(packet: Uint8Array<ArrayBuffer>): void;
  /** Native datagrams, when the transport has them. */
  readonly datagrams?: LinkDatagrams;
  /** Native streams, when the transport has them. */
  readonly streams?: LinkStreams;
  /** Closes in the carrier's own way once what was sent has left. Resolves when it is done. */
  close(close: Close): Promise<void>;
  /** The page is going away: sends this last packet in whatever way outlives it. */
  leave(packet: Uint8Array<ArrayBuffer>, close: Close): void;
  /** Ends at once, and not the session: it may go on over another. */
  abort(): void;
}

/** The native datagrams of a link. */
export interface LinkDatagrams {
  /** Longest one, in bytes; 0 before WELCOME. */
  maxSize(): number;
  /** Whether `send` takes one now; otherwise `writable` comes. */
  room(): boolean;
  send(bytes: Uint8Array): void;
}

/** The native streams of a link. */
export interface LinkStreams {
  /** Opens one. Rejects when the link has ended. */
  open(handlers: NativeStreamHandlers): Promise<NativeStream>;
}

/** One native stream: it carries frames of one stream of the session, both ways. Its own end means nothing. */
export interface NativeStream {
  /** Bytes that `send` takes now; 0 means: wait for `writable` of the link. */
  room(): number;
  /** Sends one packet of whole frames. */
  send(packet: Uint8Array<ArrayBuffer>): void;
  /** Nothing more is sent on it; `abandon`: not even what was sent and has not left. It is read on. */
  finish(abandon: boolean): void;
}

/** What a native stream reports. */
export interface NativeStreamHandlers {
  frame(frame: Frame): void;
}

/** What a link reports. After `lost`, `abort` or `close` nothing more has to be listened to. */
export interface LinkHandlers {
  frame(frame: Frame): void;
  /** The server opened a native stream. Returns what gets its frames. */
  stream(stream: NativeStream): NativeStreamHandlers;
  /** A native datagram. */
  datagram(bytes: Uint8Array): void;
  /** Something arrived, `bytes` of it; called before the frames in it. */
  heard(bytes: number): void;
  /** There is room again. */
  writable(): void;
  /** The server broke the protocol: `close` is the answer to it. */
  violation(close: Close): void;
  /** Nothing can be sent any more, but something may still arrive. `lost` follows, or another link. */
  failing(loss: Loss): void;
  lost(loss: Loss): void;
}

/** Why a link could not be opened, or ended without CLOSE. */
export interface Loss {
  /** In words, for a person. */
  readonly reason: string;
  /** The HTTP status of a refusal, where the browser shows it. */
  readonly status?: number;
  /** What the server said in the carrier's own way: the body of a refusal, or a close code. */
  readonly close?: Close;
  /** The server's `Retry-After`, in milliseconds. */
  readonly retryAfterMs?: number;
  /** The server does not offer this transport: nothing that could have failed was tried. */
  readonly unavailable?: boolean;
}

/** One transport: a file of its own. */
export interface TransportKind {
  readonly name: Transport;
  /** Why it cannot be used here, in words; `null` when it can. */
  missing(env: Environment): string | null;
  /** Starts to open a link. Never throws; failure is `lost`, and comes later than this call. */
  open(env: Environment, opening: Opening, handlers: LinkHandlers): Link;
}
