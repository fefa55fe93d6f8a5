//! Channel messages (SPEC section 10): those that wait to be handled, and how many answers may come on top of a full buffer.

use std::collections::VecDeque;

use bytes::Bytes;

use super::rare::Blank;
use super::{Machine, Role, TrySendError};
use crate::limits::{FRESH_BYTES, MAX_CHANNEL_ANSWERS, MAX_CHANNEL_OVERHEAD};
use crate::varint;

/// What a server owes its client for requests.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Requests that were taken out, and not answered yet.
    owed: usize,
    /// Where in the stream those answers end that found the buffer full, and that the client has not acknowledged.
    beyond: VecDeque<u64>,
}

impl Answers {
    /// Whether nothing is owed, and nothing waits beyond the buffer.
    pub(super) fn is_empty(&self) -> bool {
        self.owed == 0 && self.beyond.is_empty()
    }
}

impl Blank for Answers {
    const BLANK: &'static Self = &Self { owed: 0, beyond: VecDeque::new() };
}

impl Machine {
    /// The body of the next channel message. Its credit is freed. A server that is asked owes an answer to each, by [`Machine::answer_channel`], and gets no more
    /// of them while [`MAX_CHANNEL_ANSWERS`] are owed, or wait beyond a full buffer: a client that asks and does not read costs no more than that.
    pub fn poll_channel(&mut self) -> Option<Bytes> {
        // Whoever has ended a session is answered no more: what it said before is handled all the same.
        if self.role == Role::Server && self.closed().is_none() {
            let acked = self.sender.acked();
            self.answers.get_mut().into_iter().for_each(|answers| answers.beyond.retain(|end| *end > acked));
            if self.answers.owed + self.answers.beyond.len() >= MAX_CHANNEL_ANSWERS {
                return None;
            }
        }
        let assembled = self.inbox.pop_channel()?;
        self.receiver.taken(assembled.cost);
        if self.role == Role::Server {
            self.answers.make().owed += 1;
        }
        Some(assembled.message.into_bytes())
    }

    /// On a client: the next value of a channel of state that came as a datagram, the fields of VALUE from `number` on. At most
    /// [`MAX_INCOMING_STATES`](crate::limits::MAX_INCOMING_STATES) wait; then the oldest go.
    pub fn poll_state(&mut self) -> Option<Bytes> {
        let (link, value) = self.inbox.pop_state()?;
        self.took(link);
        Some(value)
    }

    /// Takes a whole channel message, as [`ChannelMessage::encode`](crate::ChannelMessage::encode) makes it, to send after what was sent before. It is kept as it is,
    /// and not copied: one for many sessions lies in memory once.
    ///
    /// # Errors
    /// [`TrySendError`]; the message was then not taken.
    pub fn send_channel(&mut self, message: Bytes) -> Result<(), TrySendError> {
        if let Some(close) = self.refusal() {
            return Err(TrySendError::Closed(close));
        }
        self.check_length(&message)?;
        if !self.has_room() {
            return Err(TrySendError::Full);
        }
        self.push_message([Some(message), None]);
        Ok(())
    }

    /// Takes `count` whole channel messages, one behind the other, as [`Machine::send_channel`] takes one: for a server, that knows that none is too long.
    ///
    /// # Errors
    /// [`TrySendError`]; none of them was then taken.
    pub fn send_channels(&mut self, messages: Bytes, count: u64) -> Result<(), TrySendError> {
        if let Some(close) = self.refusal() {
            return Err(TrySendError::Closed(close));
        }
        if !self.has_room() {
            return Err(TrySendError::Full);
        }
        self.push_message([Some(messages), None]);
        self.stats.messages_out += count - 1;
        Ok(())
    }

    /// Whether little waits in the message stream to be sent or acknowledged: what is put there now is not much older when it arrives.
    pub fn is_fresh(&self) -> bool {
        self.sender.buffered() < FRESH_BYTES
    }

    /// Takes the answer to a request, as [`Machine::send_channel`] does, but also when the buffer is full, and when the server is about to go: the client's last
    /// requests are answered before the session is closed.
    ///
    /// # Errors
    /// [`TrySendError`], but never `Full`; the answer was then not taken.
    pub fn answer_channel(&mut self, answer: Bytes) -> Result<(), TrySendError> {
        if let Some(answers) = self.answers.get_mut() {
            answers.owed = answers.owed.saturating_sub(1);
        }
        if let Some(close) = self.closing() {
            return Err(TrySendError::Closed(close.clone()));
        }
        self.check_length(&answer)?;
        let is_beyond = !self.has_room();
        self.push_message([Some(answer), None]);
        if is_beyond {
            self.answers.make().beyond.push_back(self.sender.end());
        }
        Ok(())
    }

    /// Whether every request that has come is answered.
    pub(super) fn has_answered(&self) -> bool {
        self.answers.owed == 0 && (self.role == Role::Client || !self.inbox.has_channels())
    }

    fn check_length(&self, message: &Bytes) -> Result<(), TrySendError> {
        let max = self.config.max_message_bytes.saturating_add(MAX_CHANNEL_OVERHEAD);
        // Before the body there are its kind and its length.
        let len = message.len().saturating_sub(1 + varint::len(message.len() as u64));
        if len > max { Err(TrySendError::TooLarge { len, max }) } else { Ok(()) }
    }
}
