//! What the application sends: messages within the buffer, and datagrams of which the newest wins.

use bytes::Bytes;

use super::{Machine, OpenStreamError, StreamError, StreamRead};
use crate::close::Close;
use crate::datagram::{Datagram, StateDatagram, StateSlot, TooLarge};
use crate::limits::MAX_DATAGRAM;
use crate::message::Message;

impl Machine {
    /// Takes a message to send, after those before it.
    ///
    /// # Errors
    /// [`TrySendError`]; the message was then not taken.
    pub fn send(&mut self, message: Message) -> Result<(), TrySendError> {
        if let Some(close) = self.refusal() {
            return Err(TrySendError::Closed(close));
        }
        self.check_data(message.len())?;
        if !self.has_room() {
            return Err(TrySendError::Full);
        }
        self.push_message(message.encode());
        Ok(())
    }

    /// Whether this side may send so many bytes of the application's in one message, of whatever kind.
    pub(super) fn check_data(&self, len: usize) -> Result<(), TrySendError> {
        let max = self.config.max_message_bytes;
        if len > max { Err(TrySendError::TooLarge { len, max }) } else { Ok(()) }
    }

    /// Puts one whole message, of whatever kind, behind those before it.
    pub(super) fn push_message(&mut self, [head, body]: [Option<Bytes>; 2]) {
        let is_inline = body.is_none();
        for (chunk, is_last) in [(head, is_inline), (body, true)] {
            if let Some(chunk) = chunk {
                self.sender.push(chunk, is_last);
            }
        }
        self.stats.messages_out += 1;
    }

    /// Takes a datagram to send: of those with the same key, the newest is sent.
    ///
    /// # Errors
    /// [`SendDatagramError`]; the datagram was then not taken.
    pub fn send_datagram(&mut self, datagram: Datagram, key: Option<u64>) -> Result<(), SendDatagramError> {
        if let Some(close) = self.refusal() {
            return Err(SendDatagramError::Closed(close));
        }
        if datagram.len() > MAX_DATAGRAM {
            return Err(TooLarge(datagram.len()).into());
        }
        self.credit.offered();
        self.stats.datagrams_dropped += self.outgoing.make().put(key, datagram);
        Ok(())
    }

    /// Takes a value of a channel of state to send as a datagram: of those of the same slot, the newest is sent.
    ///
    /// # Errors
    /// The session has ended, or is ending.
    pub fn send_state(&mut self, slot: StateSlot, value: StateDatagram) -> Result<(), Close> {
        if let Some(close) = self.refusal() {
            return Err(close);
        }
        self.credit.offered();
        self.stats.datagrams_dropped += self.outgoing.make().put_state(slot, value);
        Ok(())
    }

    // ---- streams above 0 ----

    /// Opens a stream.
    ///
    /// # Errors
    /// [`OpenStreamError`].
    pub fn open_stream(&mut self) -> Result<u64, OpenStreamError> {
        match self.refusal() {
            Some(close) => Err(OpenStreamError::Closed(close)),
            None => self.streams.open(),
        }
    }

    /// Writes the beginning of `data`, as much as there is room for; 0 says to wait.
    ///
    /// # Errors
    /// [`StreamError`]; nothing was written then.
    pub fn stream_write(&mut self, stream: u64, data: &Bytes) -> Result<usize, StreamError> {
        match self.refusal() {
            Some(close) => Err(StreamError::Closed(close)),
            None if self.leaving.is_holding() => Ok(0),
            None => self.streams.write(stream, data),
        }
    }

    /// Ends the half that this side writes, after what was written.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn stream_finish(&mut self, stream: u64) -> Result<(), StreamError> {
        match self.refusal() {
            Some(close) => Err(StreamError::Closed(close)),
            None => self.streams.finish(stream),
        }
    }

    /// Gives up the half that this side writes, unless it has ended.
    pub fn stream_reset(&mut self, stream: u64, code: u32) {
        self.streams.abandon(stream, code);
    }

    /// Reads at most `max` bytes. What had arrived can be read after the session's end, too.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn stream_read(&mut self, stream: u64, max: usize) -> Result<StreamRead, StreamError> {
        match (self.streams.read(stream, max), self.closed()) {
            (Ok(StreamRead::Nothing), Some(close)) => Err(StreamError::Closed(close.clone())),
            (read, _) => read,
        }
    }

    /// Reads no more of a stream.
    pub fn stream_stop(&mut self, stream: u64, code: u32) {
        self.streams.refuse(stream, code);
    }

    /// Nobody holds the stream any more: what is not over is reset and stopped, with code 0.
    pub fn stream_release(&mut self, stream: u64) {
        self.streams.release(stream);
    }

    /// Streams whose readers and writers should look again, since this was asked last; 0 stands for whoever waits to open one.
    pub fn take_touched(&mut self) -> Vec<u64> {
        self.streams.take_touched()
    }

    /// On a link with native streams: a stream of this side that is not announced on it. Answer with [`Machine::route`].
    pub fn poll_unrouted(&self) -> Option<u64> {
        self.streams.unrouted().filter(|_| self.is_open())
    }

    /// The stream goes over a native one of its own ([`Machine::poll_native`]), or over the link stream.
    pub fn route(&mut self, stream: u64, native: bool) {
        self.streams.route(stream, native);
    }

    /// Whether the stream is not over.
    pub fn has_stream(&self, stream: u64) -> bool {
        self.streams.contains(stream)
    }

    /// Whether the half that this side writes was given up: what a native stream still holds of it is not wanted.
    pub fn is_reset(&self, stream: u64) -> bool {
        self.streams.is_reset(stream)
    }

    /// Why the application can send nothing more.
    pub(super) fn refusal(&self) -> Option<Close> {
        self.closing().cloned().or_else(|| self.left())
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
