//! Bounds that both sides know (SPEC section 9). What an operator may change is in the server's configuration.

/// Longest payload of a frame, in bytes. One STREAM frame of the recommended size fits four times, so that a sender
/// with other habits still works, and a hostile length costs a receiver at most this much.
pub const MAX_FRAME_PAYLOAD: usize = 65_536;

/// Data that this implementation puts in one STREAM frame, in bytes. A datagram never waits behind more than this.
pub const STREAM_CHUNK: usize = 16_384;

/// Longest packet on a websocket or in a poll's answer, in bytes: four of the largest frames.
pub const MAX_PACKET: usize = 262_144;

/// Longest packet in the body of a POST, in bytes.
pub const MAX_UPLINK_PACKET: usize = 1_048_576;

/// Longest datagram, in bytes: what fits in one QUIC packet on any path of 1,200 bytes and more.
pub const MAX_DATAGRAM: usize = 1_100;

/// Longest reason of a CLOSE, in bytes of UTF-8: WebTransport's own limit.
pub const MAX_REASON: usize = 1_024;

/// Longest token of an opening or a TOKEN, in bytes: a signed token with a few claims fits, and so does the request in
/// everybody's header limits.
pub const MAX_TOKEN: usize = 4_096;

/// Credit that a server has on stream 0 before the client's first ACK, in bytes.
pub const INITIAL_CLIENT_CREDIT: u64 = 262_144;

/// Longest name of a channel, in bytes of UTF-8: room for a path or two ids, and one byte would hold its length.
pub const MAX_CHANNEL_NAME: usize = 255;

/// Longest key of a channel of state, in bytes of UTF-8: as a name, so that whatever has a channel may have a value as well.
pub const MAX_KEY: usize = 255;

/// Longest `about` of a subscription, in bytes of UTF-8: a name, a colour, where somebody is; and a member of a full list still fits into a datagram.
pub const MAX_ABOUT: usize = 512;

/// Most publications that a client gets of a history at once: a screenful many times over, and a page of small ones is still far below [`MAX_PACKET`].
pub const MAX_HISTORY_LIMIT: usize = 1_000;

/// Longest PAGE that we write, in bytes, unless its only publication is longer: it comes on top of a full buffer, and so is not longer than all other answers together.
pub const MAX_PAGE: usize = 65_536;

/// How much longer the body of a channel message may be than an application's: whatever may be sent as a message can be published.
pub const MAX_CHANNEL_OVERHEAD: usize = 1_024;

/// Longest reason in a channel message that we write, in bytes: with the numbers before it, within [`MAX_CHANNEL_OVERHEAD`].
pub const MAX_CHANNEL_REASON: usize = 512;

/// Requests about channels that may wait for their answers, or whose answers may wait beyond a full buffer, in one session. Further ones are not
/// read: so answers of at most 64 KiB come on top of the buffer.
pub const MAX_CHANNEL_ANSWERS: usize = 64;

/// How much longer the body of a request message may be than an application's: whatever may be sent as a message can be asked with, and answered.
pub const MAX_REQUEST_OVERHEAD: usize = 1_024;

/// Longest method of a request, in bytes of UTF-8: as a name of a channel.
pub const MAX_METHOD: usize = 255;

/// Longest reason in a request message that we write, in bytes: with the numbers before it, within [`MAX_REQUEST_OVERHEAD`].
pub const MAX_REQUEST_REASON: usize = 512;

/// Requests of one side that may be under way at once in a session: more than a page asks for in one go, and few enough to remember for everybody.
pub const MAX_REQUESTS: usize = 100;

/// Answers and other words about requests that may wait beyond a full buffer in one session, before further request messages are read.
pub const MAX_REQUEST_ANSWERS: usize = 100;

/// Bytes of chunks that may be sent before the first MORE: a packet or two are under way while the first ones are looked at.
pub const CHUNK_WINDOW: u64 = 65_536;

/// What waits in the message stream to be sent or acknowledged while it counts as little, in bytes: one STREAM frame of the size that is recommended. A path
/// of 50 ms and 2.5 Mbit/s has as much under way.
pub const FRESH_BYTES: u64 = STREAM_CHUNK as u64;

/// Longest message body by default, in bytes.
pub const DEFAULT_MAX_MESSAGE: usize = 4 * 1_048_576;

/// Most datagrams that wait to be sent: one per key. More keys than this push out the oldest.
pub const MAX_OUTGOING_DATAGRAMS: usize = 64;

/// Most values of channels of state that wait to be sent as datagrams: one per key. Of more than these the oldest are left to the messages that follow a
/// lost datagram. What waits is shared with the other sessions, so that a place costs about a hundred bytes.
pub const MAX_OUTGOING_STATES: usize = 256;

/// Most received datagrams that wait for the application; the oldest go first. Eight seconds at 30 per second.
pub const MAX_INCOMING_DATAGRAMS: usize = 256;

/// Most received values of channels of state that wait for whoever handles channels; the oldest go first.
pub const MAX_INCOMING_STATES: usize = 256;

/// Credit on each half of a stream above 0 before its receiver's first ACK, in bytes.
pub const INITIAL_STREAM_CREDIT: u64 = 16_384;

/// Streams that a server may open before the client's first STREAMS.
pub const INITIAL_CLIENT_STREAMS: u64 = 100;

/// Links of one session that wait to be chosen by its client: one of each kind of transport. A further one takes the place of the oldest.
pub const MAX_CANDIDATES: usize = 4;

/// Most DATAGRAM and STATE frames that may be on their way without TAKEN, whatever rate and path: a second at 250 per second.
pub const MAX_DATAGRAMS_UNDER_WAY: u64 = 256;

/// DATAGRAM and STATE frames that may be on their way without TAKEN on a path without length.
pub const MIN_DATAGRAMS_UNDER_WAY: u64 = 2;

/// Longest time that a server's ACK may wait for company, in microseconds: a page that waits for it wants to go on.
pub const SERVER_ACK_DELAY_US: u64 = 50_000;

/// The same of a client's ACK, which frees only memory. What is published 20 times a second to everybody would otherwise come back from everybody as often. It is longer than a client waits with
/// the PING that follows traffic, so that a message by itself is answered by one packet.
pub const CLIENT_ACK_DELAY_US: u64 = 1_000_000;

/// Bytes of the message stream that a client acknowledges at once: half of [`FRESH_BYTES`], so that a server that keeps little under way need not wait.
pub const CLIENT_ACK_BYTES: u64 = FRESH_BYTES / 2;

/// PINGs without an answer that are remembered: more mean that the link is dead long since.
pub const MAX_OPEN_PINGS: usize = 8;
