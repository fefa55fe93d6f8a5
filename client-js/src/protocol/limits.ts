// Bounds that both sides know (SPEC section 9), and the protocol's own times.

/** Longest payload of a frame, in bytes. */
export const MAX_FRAME_PAYLOAD = 65_536;
/** Data put in one STREAM frame, in bytes: a datagram never waits behind more than this. */
export const STREAM_CHUNK = 16_384;
/** Longest packet on a websocket or in a poll's answer, in bytes. */
export const MAX_PACKET = 262_144;
/** Longest datagram, in bytes: what fits in one QUIC packet on any path. */
export const MAX_DATAGRAM = 1_100;
/** Longest reason of a CLOSE, in bytes of UTF-8: WebTransport's own limit. */
export const MAX_REASON = 1_024;
/** Longest token of an opening, in bytes of UTF-8. */
export const MAX_TOKEN = 4_096;
/** Credit that the server has on stream 0 before the client's first ACK, and the client's window, in bytes. */
export const WINDOW = 262_144;
/** Longest message body until WELCOME says otherwise, in bytes. */
export const DEFAULT_MAX_MESSAGE = 4 * 1_048_576;
/** Most datagrams that wait to be sent, one per key: more keys than this push out the oldest. */
export const MAX_OUTGOING_DATAGRAMS = 64;
/** Longest time that an ACK waits for company, in milliseconds. */
export const ACK_DELAY_MS = 50;
/** PINGs without an answer that are remembered: more mean that the link is dead long since. */
export const MAX_OPEN_PINGS = 8;
