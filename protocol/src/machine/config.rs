//! What an operator chooses for a session.

use crate::limits::{self, INITIAL_CLIENT_CREDIT};

/// What an operator chooses for a session. A client takes `heartbeat_ms`, `idle_timeout_ms` and
/// `max_message_bytes` from WELCOME instead.
#[derive(Debug, Clone)]
pub struct Config {
    /// Milliseconds between PINGs.
    pub heartbeat_ms: u64,
    /// Milliseconds of silence after which the link counts as dead.
    pub idle_timeout_ms: u64,
    /// Milliseconds in which a client must have sent its first frame.
    pub open_timeout_ms: u64,
    /// Longest message body, in bytes.
    pub max_message_bytes: usize,
    /// While this many bytes are unacknowledged, no further message is taken. One message may go beyond it.
    pub send_buffer_bytes: u64,
    /// Bytes that the peer may send beyond what the application has taken. At least
    /// [`INITIAL_CLIENT_CREDIT`] for a client, whose server counts on it.
    pub receive_window_bytes: u64,
    /// Milliseconds that a server keeps a session without a link.
    pub resume_window_ms: u64,
    /// Streams above 0 that the peer may have open at once.
    pub max_streams: u64,
    /// Bytes that the peer may send ahead on one stream above 0, at most; it begins with [`limits::INITIAL_STREAM_CREDIT`].
    pub stream_window_bytes: u64,
    /// Bytes of one stream above 0 that may wait to be acknowledged, at most.
    pub stream_buffer_bytes: u64,
    /// What all streams above 0 together may use of these beyond [`limits::INITIAL_STREAM_CREDIT`] each, in each direction.
    pub session_stream_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat_ms: 10_000,
            idle_timeout_ms: 30_000,
            open_timeout_ms: 10_000,
            max_message_bytes: limits::DEFAULT_MAX_MESSAGE,
            send_buffer_bytes: INITIAL_CLIENT_CREDIT,
            receive_window_bytes: INITIAL_CLIENT_CREDIT,
            resume_window_ms: 120_000,
            max_streams: limits::INITIAL_CLIENT_STREAMS,
            stream_window_bytes: 262_144,
            stream_buffer_bytes: 262_144,
            session_stream_bytes: 1_048_576,
        }
    }
}
