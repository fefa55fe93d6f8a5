//! Messages and datagrams that wait for the application, in the order of their arrival.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::limits::MAX_INCOMING_DATAGRAMS;
use crate::message::{Assembled, Message};

/// What waits. Messages are bounded by the credit that they cost, datagrams by their count.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    messages: VecDeque<Assembled>,
    /// Each with the number of messages that had arrived before it.
    datagrams: VecDeque<(u64, Bytes)>,
    messages_arrived: u64,
    messages_taken: u64,
}

/// What is next.
#[derive(Debug)]
pub(super) enum Arrived {
    /// A message, and what it cost of the stream's credit.
    Message(Message, u64),
    Datagram(Bytes),
}

impl Inbox {
    pub(super) fn push_message(&mut self, assembled: Assembled) {
        self.messages_arrived += 1;
        self.messages.push_back(assembled);
    }

    /// Returns how many older datagrams made way for this one.
    pub(super) fn push_datagram(&mut self, payload: &[u8]) -> u64 {
        let full = self.datagrams.len() == MAX_INCOMING_DATAGRAMS;
        if full {
            self.datagrams.pop_front();
        }
        // Copied: a slice would keep the whole packet in memory while it waits.
        self.datagrams.push_back((self.messages_arrived, Bytes::copy_from_slice(payload)));
        full.into()
    }

    pub(super) fn pop(&mut self) -> Option<Arrived> {
        if self.datagrams.front().is_some_and(|(before, _)| *before <= self.messages_taken) {
            return self.datagrams.pop_front().map(|(_, payload)| Arrived::Datagram(payload));
        }
        let Assembled { message, cost } = self.messages.pop_front()?;
        self.messages_taken += 1;
        Some(Arrived::Message(message, cost))
    }
}
