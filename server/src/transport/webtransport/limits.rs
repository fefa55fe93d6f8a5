//! What a client may take from this layer.

use std::time::Duration;

/// Every limit of the HTTP/3 and WebTransport layer, with a default that says why.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Silence after which QUIC gives a connection up. 30 s: RFC 9308 recommends no less, and NATs
    /// forget UDP flows at about that age.
    pub(crate) max_idle_timeout: Duration,
    /// How often a silent connection is pinged, so that a quiet session outlives the idle timeout and
    /// NAT bindings. 10 s: two pings may be lost before the timeout. `None` leaves it to what runs inside.
    pub(crate) keep_alive: Option<Duration>,
    /// How long a QUIC handshake, and then HTTP/3's own set-up, may take. 10 s: three lost packets
    /// with the initial timeouts.
    pub(crate) handshake_timeout: Duration,
    /// How long a stream may take to say what it is, and a request to send its headers. 10 s: as
    /// above; a stalled one holds one of `max_bidi_streams`, nothing else.
    pub(crate) headers_timeout: Duration,
    /// The largest HTTP/3 frame other than DATA that is read, in bytes, and the largest field section
    /// after decompression. 16 KiB: what browsers send with cookies and a token, and what others cap at.
    pub(crate) max_field_section_size: usize,
    /// Bidirectional streams that a client may have open from the start: its CONNECT request, and what comes right behind it. 8: quinn has a place ready
    /// for each, used or not, which an idle session pays for. Whoever shows that it wants more is allowed `max_session_streams` besides.
    pub(crate) max_bidi_streams: u32,
    /// Unidirectional streams that a client may have open; HTTP/3 itself takes three and may add one that means nothing, and sessions none. 6: with the others they
    /// are 14, which is what fits into a table of 16 places.
    pub(crate) max_uni_streams: u32,
    /// Bidirectional streams that a client may open beside those, once it has opened one in a session or made a second request. 100: what a session allows, and
    /// what RFC 9114 recommends for requests.
    pub(crate) max_session_streams: u32,
    /// Unread bytes that one stream may hold. 256 KiB: 2.5 MB/s at 100 ms.
    pub(crate) stream_receive_window: u32,
    /// Unread bytes that one connection may hold, which is all that a hostile one can pin. 1 MiB:
    /// four full streams.
    pub(crate) receive_window: u32,
    /// Unacknowledged bytes kept for one connection. 512 KiB: 5 MB/s at 100 ms.
    pub(crate) send_window: u64,
    /// Datagrams waiting to be sent on one connection, in bytes; the oldest are dropped beyond. 32 KiB:
    /// about a second of state at 30 per second; more would only be stale.
    pub(crate) datagram_send_buffer: usize,
    /// Datagrams received and not yet read on one connection, in bytes. 32 KiB: as above.
    pub(crate) datagram_receive_buffer: usize,
    /// Datagrams waiting in one session; the oldest is dropped beyond. 64: two seconds of input at 30
    /// per second.
    pub(crate) max_queued_datagrams: usize,
    /// Client-opened streams of each direction waiting to be accepted in one session; those beyond
    /// are reset with 0x3994bd84. 116: as many as may be open, so that none that was allowed is lost.
    pub(crate) max_queued_streams: usize,
    /// Streams that came before their session's CONNECT, in one connection. 8: a burst at the start.
    pub(crate) max_early_streams: usize,
    /// How long such a stream waits for its session. 5 s: reordering does not last longer.
    pub(crate) early_stream_timeout: Duration,
    /// Sessions on one connection, as advertised in SETTINGS. 16: browsers open one each.
    pub(crate) max_sessions_per_connection: u32,
    /// How long a connection without a session or request stays. 5 s: browsers never close the
    /// connection of a closed session, and Firefox opens spare ones; a page loads the rest sooner.
    pub(crate) linger: Duration,
    /// How long a closing session waits until the client has its close code. 3 s: a few round trips
    /// on a bad path.
    pub(crate) close_timeout: Duration,
    /// Connections in all; more are refused. 20,000: about 1 GB when idle.
    pub(crate) max_connections: usize,
    /// Connections of one address (IPv4, or IPv6 /64); more are refused. 256: an office behind one NAT.
    /// From half of it on, an address has to prove itself by a retry, so that nobody can use up another's.
    pub(crate) max_connections_per_ip: usize,
    /// Handshakes under way from which on every client has to prove its address (a QUIC retry). 256:
    /// a burst of honest clients does not pay the round trip.
    pub(crate) retry_above: usize,
    /// Handshakes under way from which on packets of new clients are dropped unanswered. 4,096: a flood.
    pub(crate) max_incoming: usize,
    /// Size asked for the UDP socket's buffers, in bytes. 4 MiB: with the usual 208 KiB, 500 clients
    /// that close at once lose a third of the packets. The kernel may grant less.
    pub(crate) socket_buffer_size: usize,
    /// Whether quinn searches for a larger MTU than 1,200 bytes. Off: it costs memory per connection,
    /// and what is sent here is small.
    pub(crate) mtu_discovery: bool,
}

impl Limits {
    /// Bidirectional streams of a client that has shown that it uses them.
    pub(super) fn all_bidi_streams(&self) -> quinn::VarInt {
        self.max_bidi_streams.saturating_add(self.max_session_streams).into()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_idle_timeout: Duration::from_secs(30),
            keep_alive: Some(Duration::from_secs(10)),
            handshake_timeout: Duration::from_secs(10),
            headers_timeout: Duration::from_secs(10),
            max_field_section_size: 16 * 1024,
            max_bidi_streams: 8,
            max_uni_streams: 6,
            max_session_streams: 100,
            stream_receive_window: 256 * 1024,
            receive_window: 1024 * 1024,
            send_window: 512 * 1024,
            datagram_send_buffer: 32 * 1024,
            datagram_receive_buffer: 32 * 1024,
            max_queued_datagrams: 64,
            max_queued_streams: 116,
            max_early_streams: 8,
            early_stream_timeout: Duration::from_secs(5),
            max_sessions_per_connection: 16,
            linger: Duration::from_secs(5),
            close_timeout: Duration::from_secs(3),
            max_connections: 20_000,
            max_connections_per_ip: 256,
            retry_above: 256,
            max_incoming: 4096,
            socket_buffer_size: 4 * 1024 * 1024,
            mtu_discovery: false,
        }
    }
}
