//! What the application sends: messages within the buffer, and datagrams of which the newest wins.

use super::Machine;
use crate::close::Close;
use crate::datagram::{Datagram, TooLarge};
use crate::limits::MAX_DATAGRAM;
use crate::message::Message;

impl Machine {
    /// Takes a message to send, after those before it.
    ///
    /// # Errors
    /// [`TrySendError`]; the message was then not taken.
    pub fn send(&mut self, message: Message) -> Result<(), TrySendError> {
        if let Some(close) = self.closing() {
            return Err(TrySendError::Closed(close.clone()));
        }
        let (len, max) = (message.len(), self.config.max_message_bytes);
        if len > max {
            return Err(TrySendError::TooLarge { len, max });
        }
        if !self.has_room() {
            return Err(TrySendError::Full);
        }
        for chunk in message.encode().into_iter().flatten() {
            self.sender.push(chunk);
        }
        self.stats.messages_out += 1;
        Ok(())
    }

    /// Takes a datagram to send: of those with the same key, the newest is sent.
    ///
    /// # Errors
    /// [`SendDatagramError`]; the datagram was then not taken.
    pub fn send_datagram(&mut self, datagram: Datagram, key: Option<u64>) -> Result<(), SendDatagramError> {
        if let Some(close) = self.closing() {
            return Err(SendDatagramError::Closed(close.clone()));
        }
        if datagram.len() > MAX_DATAGRAM {
            return Err(TooLarge(datagram.len()).into());
        }
        self.stats.datagrams_dropped += self.outgoing.put(key, datagram);
        Ok(())
    }

    /// Whether the application may send a further message.
    pub fn has_room(&self) -> bool {
        self.sender.buffered() < self.config.send_buffer_bytes
    }

    /// Bytes of messages that the peer has not acknowledged.
    pub fn buffered_bytes(&self) -> u64 {
        self.sender.buffered()
    }

    /// Whether the peer has acknowledged everything.
    pub fn is_drained(&self) -> bool {
        self.sender.all_acked()
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError {
    /// The buffer of unacknowledged bytes is full: wait until the peer has received some.
    #[error("the session's send buffer is full: wait for the peer to receive what was sent")]
    Full,
    /// The session has ended.
    #[error("the session is closed ({0}): open a new one to send")]
    Closed(Close),
    /// The message is longer than the session allows.
    #[error("a message of {len} bytes; at most {max} are allowed in this session: send it in parts")]
    TooLarge {
        /// Its length, in bytes.
        len: usize,
        /// The longest allowed, in bytes.
        max: usize,
    },
}

/// Why a datagram was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendDatagramError {
    /// The session has ended.
    #[error("the session is closed ({0}): open a new one to send")]
    Closed(Close),
    /// It is longer than [`MAX_DATAGRAM`] bytes.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}
