//! Messages and datagrams that wait for the application, in the order of their arrival; and channel and request messages, and values of channels of state,
//! which wait for whoever handles those.

use std::collections::VecDeque;

use bytes::Bytes;
use bytestring::ByteString;

use super::rare::{Blank, Rare};
use crate::limits::{MAX_INCOMING_DATAGRAMS, MAX_INCOMING_STATES};
use crate::message::{Assembled, Message};

/// Entries that wait as they are; behind them, small messages are packed. An application that keeps up never gets there.
const UNPACKED: usize = 64;

/// The longest body that is packed, in bytes. A message with a longer one is worth the hundred bytes around it.
const SMALL: usize = 64;

/// What waits. Datagrams are bounded by their count; messages by the credit that they cost, and since small ones are packed,
/// they take no more than a few times as much memory: 131,072 empty ones fit in a window of 256 KiB, and took 7 MB one by one.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    messages: Queue,
    /// Each with the number of messages that had arrived before it, and the link that wants to hear that it was taken.
    datagrams: VecDeque<(u64, Option<u64>, Bytes)>,
    messages_arrived: u64,
    messages_taken: u64,
    others: Rare<Others>,
}

/// What is not the application's.
#[derive(Debug, Default)]
struct Others {
    channels: Queue,
    requests: Queue,
    /// How many of the requests, one after the other, had how many messages before them.
    requests_after: VecDeque<(u64, u64)>,
    /// Values of channels of state, each with the link that wants to hear that it was taken.
    states: VecDeque<(Option<u64>, Bytes)>,
}

impl Blank for Others {
    const BLANK: &'static Self = &Self {
        channels: Queue(VecDeque::new()),
        requests: Queue(VecDeque::new()),
        requests_after: VecDeque::new(),
        states: VecDeque::new(),
    };
}

/// What is next.
#[derive(Debug)]
pub(super) enum Arrived {
    /// A message, and what it cost of the stream's credit.
    Message(Message, u64),
    /// A datagram, and the link that wants to hear that it was taken.
    Datagram(Bytes, Option<u64>),
}

/// Messages, small ones packed.
#[derive(Debug, Default)]
struct Queue(VecDeque<Waiting>);

#[derive(Debug)]
enum Waiting {
    Whole(Assembled),
    Small(Packed),
}

impl Inbox {
    pub(super) fn push_message(&mut self, assembled: Assembled) {
        self.messages_arrived += 1;
        self.messages.push(assembled);
    }

    /// Takes the body of a channel message, as a message.
    pub(super) fn push_channel(&mut self, assembled: Assembled) {
        self.others.make().channels.push(assembled);
    }

    pub(super) fn pop_channel(&mut self) -> Option<Assembled> {
        self.others.get_mut()?.channels.pop()
    }

    /// Takes the body of a request message, as a message.
    pub(super) fn push_request(&mut self, assembled: Assembled) {
        let others = self.others.make();
        others.requests.push(assembled);
        match others.requests_after.back_mut() {
            Some((count, after)) if *after == self.messages_arrived => *count += 1,
            _ => others.requests_after.push_back((1, self.messages_arrived)),
        }
    }

    /// The next of them, and how many messages had arrived before it.
    pub(super) fn pop_request(&mut self) -> Option<(Assembled, u64)> {
        let others = self.others.get_mut()?;
        let assembled = others.requests.pop()?;
        let (count, after) = others.requests_after.front_mut()?;
        let after = *after;
        *count -= 1;
        if *count == 0 {
            others.requests_after.pop_front();
        }
        Some((assembled, after))
    }

    pub(super) fn has_requests(&self) -> bool {
        !self.others.requests.0.is_empty()
    }

    pub(super) fn messages_taken(&self) -> u64 {
        self.messages_taken
    }

    /// Takes a datagram; `link` wants to hear when it is taken. Returns the link of an older one that made way for it.
    pub(super) fn push_datagram(&mut self, payload: &[u8], link: Option<u64>) -> Option<Option<u64>> {
        let full = self.datagrams.len() == MAX_INCOMING_DATAGRAMS;
        let oldest = if full { self.datagrams.pop_front() } else { None };
        // Copied: a slice would keep the whole packet in memory while it waits.
        self.datagrams.push_back((self.messages_arrived, link, Bytes::copy_from_slice(payload)));
        oldest.map(|(_, link, _)| link)
    }

    /// Takes a value of a channel of state; `link` wants to hear when it is taken. Returns the link of an older one that made way for it.
    pub(super) fn push_state(&mut self, value: &[u8], link: Option<u64>) -> Option<Option<u64>> {
        let states = &mut self.others.make().states;
        let full = states.len() == MAX_INCOMING_STATES;
        let oldest = if full { states.pop_front() } else { None };
        states.push_back((link, Bytes::copy_from_slice(value)));
        oldest.map(|(link, _)| link)
    }

    pub(super) fn pop_state(&mut self) -> Option<(Option<u64>, Bytes)> {
        self.others.get_mut()?.states.pop_front()
    }

    /// Whether anything waits for the application.
    pub(super) fn has_events(&self) -> bool {
        !self.messages.0.is_empty() || !self.datagrams.is_empty()
    }

    pub(super) fn has_channels(&self) -> bool {
        !self.others.channels.0.is_empty()
    }

    /// Gives back the room of what has been taken.
    pub(super) fn trim(&mut self) {
        if self.messages.0.is_empty() {
            self.messages = Queue::default();
        }
        if self.datagrams.is_empty() {
            self.datagrams = VecDeque::new();
        }
        let Others { channels, requests, states, .. } = &*self.others;
        if channels.0.is_empty() && requests.0.is_empty() && states.is_empty() {
            self.others.clear();
        }
    }

    pub(super) fn pop(&mut self) -> Option<Arrived> {
        if self.datagrams.front().is_some_and(|(before, ..)| *before <= self.messages_taken) {
            return self.datagrams.pop_front().map(|(_, link, payload)| Arrived::Datagram(payload, link));
        }
        let Assembled { message, cost } = self.messages.pop()?;
        self.messages_taken += 1;
        Some(Arrived::Message(message, cost))
    }
}

impl Queue {
    fn push(&mut self, assembled: Assembled) {
        if self.0.len() < UNPACKED || assembled.message.len() > SMALL {
            self.0.push_back(Waiting::Whole(assembled));
        } else if let Some(Waiting::Small(packed)) = self.0.back_mut() {
            packed.push(&assembled);
        } else {
            let mut packed = Packed::default();
            packed.push(&assembled);
            self.0.push_back(Waiting::Small(packed));
        }
    }

    fn pop(&mut self) -> Option<Assembled> {
        let assembled = match self.0.front_mut()? {
            Waiting::Small(packed) => {
                let assembled = packed.pop();
                if packed.is_empty() {
                    self.0.pop_front();
                }
                assembled
            }
            Waiting::Whole(_) => match self.0.pop_front() {
                Some(Waiting::Whole(assembled)) => Some(assembled),
                _ => None,
            },
        };
        if self.0.is_empty() && self.0.capacity() > UNPACKED {
            self.0 = VecDeque::new(); // an idle session holds no buffer
        }
        assembled
    }
}

/// Small messages, one behind the other: kind, length of the header, length of the body, and the body.
#[derive(Debug, Default)]
struct Packed {
    bytes: Vec<u8>,
    at: usize,
}

impl Packed {
    fn push(&mut self, assembled: &Assembled) {
        let Assembled { message, cost } = assembled;
        let body = message.as_bytes();
        let header = *cost as usize - body.len(); // two varints: 16 at most
        self.bytes.extend([u8::from(message.as_text().is_some()) << 7 | header as u8, body.len() as u8]);
        self.bytes.extend_from_slice(body);
    }

    fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn pop(&mut self) -> Option<Assembled> {
        let [head, len, rest @ ..] = &self.bytes[self.at..] else { return None };
        let body = &rest[..usize::from(*len)];
        self.at += 2 + body.len();
        let message = if head >> 7 == 1 {
            let text = std::str::from_utf8(body).expect("a text was UTF-8 when it was packed");
            Message::Text(ByteString::from(text))
        } else {
            Message::Binary(Bytes::copy_from_slice(body))
        };
        Some(Assembled { cost: u64::from(head & 0x7f) + body.len() as u64, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembled(message: Message) -> Assembled {
        Assembled { cost: 2 + message.len() as u64, message }
    }

    /// Bytes that the queue of messages holds.
    fn held(inbox: &Inbox) -> usize {
        let packed = inbox.messages.0.iter().map(|waiting| match waiting {
            Waiting::Whole(assembled) => assembled.message.len(),
            Waiting::Small(packed) => packed.bytes.capacity(),
        });
        packed.sum::<usize>() + inbox.messages.0.capacity() * size_of::<Waiting>()
    }

    #[test]
    fn a_window_of_empty_messages_takes_about_a_window_of_memory() {
        let mut inbox = Inbox::default();
        for _ in 0..131_072 {
            inbox.push_message(assembled(Message::from("")));
            inbox.push_datagram(b"a datagram does not break the row", None);
        }
        assert!(held(&inbox) < 600_000, "{} bytes", held(&inbox));
        while inbox.pop().is_some() {}
        assert!(held(&inbox) < 5_000, "{} bytes", held(&inbox));
    }

    #[test]
    fn channel_messages_wait_as_cheaply_and_stay_out_of_the_applications_way() {
        let mut inbox = Inbox::default();
        for i in 0..80_000 {
            inbox.push_channel(assembled(Message::from(vec![i as u8])));
        }
        let held: usize = inbox
            .others
            .channels
            .0
            .iter()
            .map(|waiting| match waiting {
                Waiting::Whole(_) => size_of::<Waiting>(),
                Waiting::Small(packed) => packed.bytes.capacity(),
            })
            .sum();
        assert!(held < 600_000, "{held} bytes");
        assert!(inbox.pop().is_none());
        for i in 0..80_000 {
            let Assembled { message, cost } = inbox.pop_channel().expect("it waits");
            assert_eq!((message, cost), (Message::from(vec![i as u8]), 3));
        }
        assert!(inbox.pop_channel().is_none());
    }

    #[test]
    fn packed_messages_come_out_as_they_went_in() {
        let mut inbox = Inbox::default();
        let message = |i: usize| match i % 5 {
            0 => Message::from(format!("späť {i}")),
            1 => Message::from(vec![i as u8; i % 130]),
            2 => Message::from(""),
            3 => Message::from(vec![]),
            _ => Message::from("x".repeat(60 + i % 8)),
        };
        let (mut pushed, mut popped) = (0, 0);
        for round in 0..40 {
            for _ in 0..round * 7 % 90 {
                let cost = if pushed % 11 == 0 { 16 } else { 2 };
                inbox.push_message(Assembled { cost: cost + message(pushed).len() as u64, message: message(pushed) });
                pushed += 1;
                if pushed % 50 == 0 {
                    inbox.push_datagram(&(pushed as u32).to_be_bytes(), None);
                }
            }
            for _ in 0..round * 5 % 70 {
                match inbox.pop() {
                    Some(Arrived::Message(read, cost)) => {
                        let header = if popped % 11 == 0 { 16 } else { 2 };
                        assert_eq!((&read, cost), (&message(popped), header + read.len() as u64));
                        popped += 1;
                    }
                    Some(Arrived::Datagram(payload, _)) => {
                        assert_eq!(payload[..], (popped as u32).to_be_bytes(), "in the order of arrival");
                    }
                    None => assert_eq!(popped, pushed),
                }
            }
        }
        while let Some(arrived) = inbox.pop() {
            if let Arrived::Message(read, _) = arrived {
                assert_eq!(read, message(popped));
                popped += 1;
            }
        }
        assert!(popped == pushed && pushed > 1_000);
        assert!(inbox.messages.0.is_empty());
    }
}
