//! Request messages (SPEC section 11): those that wait to be handled, and how much may be said about requests on top of a full buffer.

use std::collections::VecDeque;

use super::rare::Blank;
use super::{Machine, TrySendError};
use crate::close::Close;
use crate::limits::MAX_REQUEST_ANSWERS;
use crate::message::Message;
use crate::request::{self, RequestMessage};

/// What this side owes for requests of the other one.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Requests that were handed out, and not answered yet.
    owed: usize,
    /// Where in the stream those words end that found the buffer full, and that the peer has not acknowledged.
    beyond: VecDeque<u64>,
}

impl Requests {
    /// Whether nothing is owed, and nothing waits beyond the buffer.
    pub(super) fn is_empty(&self) -> bool {
        self.owed == 0 && self.beyond.is_empty()
    }
}

impl Blank for Requests {
    const BLANK: &'static Self = &Self { owed: 0, beyond: VecDeque::new() };
}

/// A request message of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrivedRequest {
    /// What it says.
    pub message: RequestMessage,
    /// What it keeps of the stream's credit until [`Machine::request_taken`] is told: all of it for a REQUEST, what is beside the data for a CHUNK, and
    /// nothing for what nobody has to take.
    pub cost: u64,
    /// The application's messages that had arrived before it.
    pub after: u64,
}

impl Machine {
    /// The next request message. While [`MAX_REQUEST_ANSWERS`] of ours wait beyond a full buffer there is none: a peer that asks and does not read costs no
    /// more than that.
    ///
    /// The bytes of chunks and answers are freed at once: they were asked for, and who waits for one answer must not be held up by the others.
    ///
    /// # Errors
    /// `MALFORMED_MESSAGE`: the session is to be ended with [`Machine::handle_violation`].
    pub fn poll_request(&mut self) -> Option<Result<ArrivedRequest, Close>> {
        let acked = self.sender.acked();
        self.requests.get_mut().into_iter().for_each(|requests| requests.beyond.retain(|end| *end > acked));
        if self.requests.beyond.len() >= MAX_REQUEST_ANSWERS && self.closed().is_none() {
            return None;
        }
        let (assembled, after) = self.inbox.pop_request()?;
        let message = match request::decode(assembled.message.into_bytes()) {
            Ok(message) => message,
            Err(close) => return Some(Err(close)),
        };
        let cost = match &message {
            RequestMessage::Request { .. } => {
                self.requests.make().owed += 1;
                assembled.cost
            }
            RequestMessage::Chunk { data, .. } => assembled.cost - data.len() as u64,
            _ => 0,
        };
        self.receiver.taken(assembled.cost - cost);
        Some(Ok(ArrivedRequest { message, cost, after }))
    }

    /// Whoever it is for has taken what cost so much of the stream's credit.
    pub fn request_taken(&mut self, cost: u64) {
        self.receiver.taken(cost);
    }

    /// How many messages the application has taken: who wants requests in their order among them compares [`ArrivedRequest::after`] with it.
    pub fn messages_taken(&self) -> u64 {
        self.inbox.messages_taken()
    }

    /// Takes a REQUEST or CHUNK to send, after what was sent before.
    ///
    /// # Errors
    /// [`TrySendError`]; it was then not taken.
    pub fn send_request(&mut self, message: &RequestMessage) -> Result<(), TrySendError> {
        if let Some(close) = self.refusal() {
            return Err(TrySendError::Closed(close));
        }
        self.check_request(message)?;
        if !self.has_room() {
            return Err(TrySendError::Full);
        }
        self.push_message(message.encode());
        Ok(())
    }

    /// Takes ANSWER or ERROR, which end a request, CANCEL or MORE: also when the buffer is full, and when the server is about to go.
    ///
    /// # Errors
    /// [`TrySendError`], but never `Full`; it was then not taken. A request is as good as answered when the session is ending, and not when the data is
    /// too long.
    pub fn say_request(&mut self, message: &RequestMessage) -> Result<(), TrySendError> {
        let checked = match self.closing() {
            Some(close) => Err(TrySendError::Closed(close.clone())),
            None => self.check_request(message),
        };
        let is_end = matches!(message, RequestMessage::Answer { .. } | RequestMessage::Error { .. });
        if is_end && !matches!(checked, Err(TrySendError::TooLarge { .. })) {
            self.requests.get_mut().into_iter().for_each(|requests| requests.owed = requests.owed.saturating_sub(1));
        }
        checked?;
        let is_beyond = !self.has_room();
        self.push_message(message.encode());
        if is_beyond {
            self.requests.make().beyond.push_back(self.sender.end());
        }
        Ok(())
    }

    /// Whether every request of the peer that has come is answered.
    pub(super) fn has_answered_requests(&self) -> bool {
        self.requests.owed == 0 && !self.inbox.has_requests()
    }

    fn check_request(&self, message: &RequestMessage) -> Result<(), TrySendError> {
        self.check_data(message.data().map_or(0, Message::len))
    }
}
