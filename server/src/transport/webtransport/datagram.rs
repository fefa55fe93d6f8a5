//! Datagrams of a WebTransport session (RFC 9297, section 2.1).

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::{table::Inbox, varint};

/// Why a datagram was not sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub(crate) enum DatagramError {
    /// It does not fit into a packet on this path.
    #[error("a datagram on this path has at most {max} bytes")]
    TooLarge {
        /// The most that fits now.
        max: usize,
    },
    /// The client does not take QUIC datagrams.
    #[error("the client does not support datagrams")]
    Unsupported,
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// The connection was lost.
    #[error("the connection was lost: {0}")]
    ConnectionLost(quinn::ConnectionError),
}

/// Sends datagrams of one session: cheap to clone, usable from any thread, never waiting.
#[derive(Clone)]
pub(crate) struct DatagramSender {
    conn: quinn::Connection,
    inbox: Arc<Inbox>,
    quarter: u64,
}

impl DatagramSender {
    pub(super) fn new(conn: quinn::Connection, inbox: Arc<Inbox>, session: u64) -> Self {
        Self { conn, inbox, quarter: session / 4 }
    }

    /// Queues a datagram. When the connection's send buffer is full, the oldest in it are dropped: the
    /// newest wins.
    ///
    /// # Errors
    /// When it is too large for the path as it is now, or can never be sent.
    pub(crate) fn send(&self, payload: &[u8]) -> Result<(), DatagramError> {
        self.send_behind(None, payload)
    }

    /// Queues a datagram that begins with a byte which is not in `payload`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) fn send_behind(&self, first: Option<u8>, payload: &[u8]) -> Result<(), DatagramError> {
        let mut framed = BytesMut::with_capacity(9 + payload.len());
        varint::encode(self.quarter, &mut framed);
        framed.extend(first);
        framed.put_slice(payload);
        self.send_framed(framed.freeze())
    }

    /// The most bytes that a datagram can have on this path, as it is now; `None` when the client
    /// takes none.
    pub(crate) fn max_size(&self) -> Option<usize> {
        let quarter_len = match self.quarter {
            0..64 => 1,
            64..16_384 => 2,
            16_384..0x4000_0000 => 4,
            _ => 8,
        };
        Some(self.conn.max_datagram_size()?.saturating_sub(quarter_len))
    }

    fn send_framed(&self, framed: Bytes) -> Result<(), DatagramError> {
        if self.inbox.is_ended() {
            return Err(DatagramError::Ended);
        }
        self.conn.send_datagram(framed).map_err(|error| match error {
            quinn::SendDatagramError::TooLarge => DatagramError::TooLarge { max: self.max_size().unwrap_or(0) },
            quinn::SendDatagramError::ConnectionLost(error) => DatagramError::ConnectionLost(error),
            _ => DatagramError::Unsupported,
        })
    }
}

impl std::fmt::Debug for DatagramSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatagramSender").field("session", &(self.quarter * 4)).finish_non_exhaustive()
    }
}
