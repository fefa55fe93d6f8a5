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
/** The largest code of CLOSE, RESET and STOP, and the longest delay of GOAWAY. */
export const MAX_U32 = 0xffff_ffff;
/** Longest token of an opening, in bytes of UTF-8. */
export const MAX_TOKEN = 4_096;
/** Credit that the server has on stream 0 before the client's first ACK, and the client's window, in bytes. */
export const WINDOW = 262_144;
/** Credit on each half of a stream above 0 before its receiver's first ACK, in bytes: what every stream has of its own. */
export const STREAM_CREDIT = 16_384;
/** Bytes of one stream that the server may be ahead of the application, or that wait to be acknowledged, at most. */
export const MAX_STREAM_WINDOW = 262_144;
/** What all streams together may have beyond their `STREAM_CREDIT`, each way, in bytes: memory is bounded by the session, not by the number of streams. */
export const STREAMS_POOL = 1_048_576;
/** Streams that the server may have open at once, and open in all before the client's first STREAMS. */
export const SERVER_STREAMS = 100;
/** Longest message body until WELCOME says otherwise, in bytes. */
export const DEFAULT_MAX_MESSAGE = 4 * 1_048_576;
/** What a channel message or a request message may have beyond its data, in bytes: numbers, names and keys take less. */
export const MAX_CONTROL_HEADER = 1_024;
/** Longest name of a channel, key of a value and method of a request, in bytes of UTF-8. */
export const MAX_NAME = 255;
/** Longest `about` of a subscription, in bytes of UTF-8. */
export const MAX_ABOUT = 512;
/** Most publications that are asked for at once. */
export const MAX_HISTORY = 1_000;
/** Requests of one side that are under way at once, at most. */
export const MAX_REQUESTS = 100;
/** Bytes of an answer in parts that may come before their receiver says that it has taken any. */
export const ANSWER_CREDIT = 65_536;
/** Most datagrams that wait to be sent, one per key: more keys than this push out the oldest. */
export const MAX_OUTGOING_DATAGRAMS = 64;
/** Longest time that an ACK waits for company, in milliseconds. */
export const ACK_DELAY_MS = 1_000;
/** Bytes of the message stream that are acknowledged at once. */
export const ACK_BYTES = 8_192;
/** PINGs without an answer that are remembered: more mean that the link is dead long since. */
export const MAX_OPEN_PINGS = 8;
/** A PING without an answer for this long makes a link suspect, or for 4 RTT, in milliseconds: below it a busy page or a lost packet would do. SPEC section 6 allows a second. */
export const MIN_DOUBT_MS = 750;
/** Quiet after traffic until a PING asks whether the link still lives, in milliseconds. SPEC section 6 allows a second. */
export const QUIET_MS = 750;
/** DATAGRAM frames without TAKEN that a path of no length may hold: one that is being read, one behind it. */
export const MIN_DATAGRAMS_UNDER_WAY = 2;
/** The most of them, whatever rate and path: a second at 250 per second. */
export const MAX_DATAGRAMS_UNDER_WAY = 256;
/** How long datagrams are counted before their rate is known anew, in milliseconds. */
export const RATE_MS = 250;
/** How much longer than the path itself a datagram and its TAKEN may be on their way: what readers and POSTs take. */
export const PATIENCE_MS = 50;
