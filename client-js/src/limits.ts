// The client's own bounds and times, each with its reason. What is on the wire is in protocol/limits.ts.

/** Head start of WebTransport before a WebSocket is opened beside it: longer than a QUIC handshake takes nearly everywhere, shorter than a person notices. */
export const HEDGE_MS = 200;
/** Upper bound of the head start when the last round trip was long. */
export const MAX_HEDGE_MS = 1_000;
/** When the next rung starts if the one above has not answered: three rungs hanging silently leave polling 800 ms of 3 s. */
export const STEP_MS = 1_000;
/** How long one attempt may take: a TLS or QUIC handshake over a bad mobile network is done by then. */
export const ATTEMPT_MS = 10_000;
/** Longest wait for `/info`. */
export const INFO_MS = 5_000;
/** Bytes that wait to be acknowledged before `send` refuses more: 10 Mbit/s at 200 ms fit, and the server has no more for its side. One message may go beyond it. */
export const MAX_BUFFERED_BYTES = 262_144;
/** Bytes handed to a link that it has not passed on: few, so that a datagram does not stand behind seconds of messages. */
export const LINK_BUFFER_BYTES = 65_536;
/** The first packet on a link: what TCP sends before it hears anything. The server takes the link over when it has come whole. */
export const FIRST_PACKET_BYTES = 12_000;
/** Longest packet on a websocket, in bytes: the server reads it when it has come whole, so that a datagram or a PING never waits behind more. */
export const WEBSOCKET_PACKET_BYTES = 32_768;
/** Largest body of one POST, in bytes; the server would take four times that. */
export const POST_BYTES = 262_144;
/** Body of the first POSTs of a link, in bytes: what TCP sends before it hears anything. Fast ones double it, slow ones halve it again. */
export const FIRST_POST_BYTES = 16_384;
/** A POST that took less is fast: the path takes more at once. */
export const FAST_POST_MS = 250;
/** A POST that took more is slow: what comes after it would wait too long. */
export const SLOW_POST_MS = 1_000;
/** A POST that hangs is given up after this long: hung requests would use up the browser's six connections. */
export const POST_MS = 10_000;
/** A held GET is answered after the server's 20 s at the latest; later than this it hangs. */
export const POLL_MS = 60_000;
/** Wait before a failed POST goes out again, once. */
export const POST_RETRY_MS = 100;
/** Longest line of an event stream, in characters: base64 of the largest packet, with room. */
export const MAX_SSE_LINE = 400_000;
/** Longest wait for messages and CLOSE to leave when closing; then the link is cut. */
export const CLOSE_MS = 3_000;
/** First reconnect delay after the immediate one; it doubles from here. */
export const RECONNECT_BASE_MS = 500;
/** Cap of the reconnect delay, applied before the jitter. */
export const RECONNECT_MAX_MS = 30_000;
/** No delay is below this, except the first: jitter may draw 0, and a loop without delay is an attack. */
export const RECONNECT_MIN_MS = 50;
/** Longest `Retry-After` that is obeyed. */
export const MAX_RETRY_AFTER_MS = 3_600_000;
/** A link that carried the session this long was good, and its loss is answered at once; after a shorter one there is a delay, but it does not grow. */
export const STABLE_MS = 2_000;
/** Patience after a PING on a link in doubt: after sleep, a network change, a tab that comes back. */
export const PROBE_MS = 5_000;
/** A timer this late means that the machine slept or the tab was throttled. */
export const LATE_MS = 2_000;
/** How long a failed transport stays out of the way, by number of failures in a row: Chromium delays WebTransport after some five failures. */
export const MEMORY_MS = [10_000, 30_000, 120_000, 600_000] as const;
/** How long failures count as failures in a row: yesterday's network says little about today's. */
export const FORGET_MS = 3_600_000;
/** A link that carried the session this long works: what failed before is forgotten. Firewalls that let a flow begin and then stop it do so sooner. */
export const TRUST_MS = 60_000;
/** After the network, the tab or the machine came back, doubt about the link is not its transport's fault for so long. */
export const EXCUSED_MS = 10_000;
/** Better transports are not probed again sooner than this, however often the network or the tab comes back. */
export const CLIMB_GAP_MS = 10_000;
/** Removals that a subscription of a channel of state remembers, so that a late datagram does not bring a value back: the oldest are forgotten, when no datagram can be that late. */
export const MAX_REMOVALS = 10_000;
/** A new token is asked for when this much of the time of the one before is left, or a quarter of it (SPEC section 12), in milliseconds. */
export const REFRESH_MS = 60_000;
/** Not sooner than this after the last time, however short tokens live. */
export const REFRESH_GAP_MS = 1_000;
/** Longest time that a timer of a browser can wait, in milliseconds. */
export const MAX_TIMER_MS = 0x7fff_ffff;
/** Moves that `explain()` remembers. */
export const MAX_MOVES = 16;
/** What a frozen link holds until it takes nothing more. */
export const FROZEN_PACKETS = 64;
/** How long a browser may take to give a native stream before the link stream carries it. */
export const NATIVE_STREAM_MS = 1_000;
/** Attempts that `explain()` remembers. */
export const MAX_ATTEMPTS = 32;
/** Datagrams of WebTransport that the browser keeps for a page that is busy, and how long: older state is stale. */
export const INCOMING_DATAGRAMS = 64;
export const INCOMING_DATAGRAM_AGE_MS = 500;
