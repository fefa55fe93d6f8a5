//! Datagrams that wait to be sent: for each key only the newest (SPEC section 5).

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::frame::{encode_bytes, kind};
use crate::limits::{MAX_DATAGRAM, MAX_OUTGOING_DATAGRAMS, MAX_OUTGOING_STATES};

/// One datagram, encoded once as a DATAGRAM frame: clones share the bytes, so that a broadcast costs one encoding.
#[derive(Debug, Clone)]
pub struct Datagram {
    frame: Bytes,
    header: usize,
}

impl Datagram {
    /// The application's bytes.
    pub fn payload(&self) -> Bytes {
        self.frame.slice(self.header..)
    }

    /// Length of the payload, in bytes. Over [`MAX_DATAGRAM`] it cannot be sent.
    pub fn len(&self) -> usize {
        self.frame.len() - self.header
    }

    /// Whether the payload is empty, which is allowed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn frame(&self) -> &Bytes {
        &self.frame
    }

    fn encode(kind: u64, payload: &[u8]) -> Self {
        let mut frame = BytesMut::with_capacity(payload.len() + 5);
        encode_bytes(kind, payload, &mut frame);
        Self { header: frame.len() - payload.len(), frame: frame.freeze() }
    }
}

/// A value of a channel of state, as a datagram: the fields of VALUE from `number` on (SPEC section 10.1). Encoded once as a STATE frame, as a
/// [`Datagram`] is.
#[derive(Debug, Clone)]
pub struct StateDatagram(Datagram);

impl StateDatagram {
    /// `None` when it is longer than [`MAX_DATAGRAM`] bytes: then it travels as a message only.
    pub fn new(payload: &[u8]) -> Option<Self> {
        (payload.len() <= MAX_DATAGRAM).then(|| Self(Datagram::encode(kind::STATE, payload)))
    }

    /// The fields of the value.
    pub fn payload(&self) -> Bytes {
        self.0.payload()
    }

    /// Length of the payload, in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the payload is empty, which no value is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Which value a [`StateDatagram`] is the newest of: the number of its channel, and what stands for its key there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateSlot(pub u64, pub u64);

/// What native datagrams begin with on a link that is marked: whose they are (SPEC section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mark {
    /// The application's.
    Application = 0,
    /// A value of a channel of state.
    State = 1,
}

impl From<&[u8]> for Datagram {
    fn from(payload: &[u8]) -> Self {
        Self::encode(kind::DATAGRAM, payload)
    }
}
impl From<Bytes> for Datagram {
    fn from(payload: Bytes) -> Self {
        Self::from(&payload[..])
    }
}
impl From<Vec<u8>> for Datagram {
    fn from(payload: Vec<u8>) -> Self {
        Self::from(&payload[..])
    }
}

/// The datagram is longer than [`MAX_DATAGRAM`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a datagram of {0} bytes; at most {MAX_DATAGRAM} are allowed on every transport: send less, or send a message")]
pub struct TooLarge(pub usize);

/// What waits to be sent as datagrams: the application's, and the values of channels of state, which have a bound of their own and take turns with them.
#[derive(Debug)]
pub(crate) struct Outgoing {
    application: Slots<Option<u64>>,
    states: Slots<StateSlot>,
    /// Whose turn it is when both wait.
    turn: Mark,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self::NONE
    }
}

impl Outgoing {
    /// Nothing waits.
    pub(crate) const NONE: Self = Self {
        application: Slots::new(MAX_OUTGOING_DATAGRAMS),
        states: Slots::new(MAX_OUTGOING_STATES),
        turn: Mark::Application,
    };

    /// Puts a datagram in its key's slot; without a key, in one of its own. Returns how many it pushed out.
    pub(crate) fn put(&mut self, key: Option<u64>, datagram: Datagram) -> u64 {
        self.application.put(key, key.is_some(), datagram)
    }

    /// Puts a value in its key's slot. Returns how many it pushed out.
    pub(crate) fn put_state(&mut self, slot: StateSlot, StateDatagram(value): StateDatagram) -> u64 {
        self.states.put(slot, true, value)
    }

    /// The next of this kind.
    pub(crate) fn front(&self, mark: Mark) -> Option<&Datagram> {
        match mark {
            Mark::Application => self.application.front(),
            Mark::State => self.states.front(),
        }
    }

    pub(crate) fn pop(&mut self, mark: Mark) -> Option<Datagram> {
        match mark {
            Mark::Application => {
                self.turn = Mark::State;
                self.application.pop()
            }
            Mark::State => {
                self.turn = Mark::Application;
                self.states.pop()
            }
        }
    }

    /// Whose turn it is when both wait.
    pub(crate) fn turn(&self) -> Mark {
        self.turn
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.application.waiting.is_empty() && self.states.waiting.is_empty()
    }
}

/// The slots of one kind: one per key, in the order in which their keys came.
#[derive(Debug)]
struct Slots<K> {
    waiting: VecDeque<(K, Datagram)>,
    max: usize,
}

impl<K> Slots<K> {
    const fn new(max: usize) -> Self {
        Self { waiting: VecDeque::new(), max }
    }
}

impl<K: PartialEq> Slots<K> {
    /// Puts a datagram in its key's slot. Returns how many it pushed out: an older one of the same key, or the oldest of all when there is no slot left.
    fn put(&mut self, key: K, is_shared: bool, datagram: Datagram) -> u64 {
        let same = if is_shared { self.waiting.iter().position(|(other, _)| *other == key) } else { None };
        if let Some(slot) = same.and_then(|index| self.waiting.get_mut(index)) {
            slot.1 = datagram;
            return 1;
        }
        let full = self.waiting.len() == self.max;
        if full {
            self.waiting.pop_front();
        }
        self.waiting.push_back((key, datagram));
        u64::from(full)
    }

    fn front(&self) -> Option<&Datagram> {
        self.waiting.front().map(|(_, datagram)| datagram)
    }

    fn pop(&mut self) -> Option<Datagram> {
        self.waiting.pop_front().map(|(_, datagram)| datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(byte: u8) -> Datagram {
        Datagram::from(vec![byte])
    }

    fn state(byte: u8) -> StateDatagram {
        StateDatagram::new(&[byte]).expect("it is short")
    }

    fn all(outgoing: &mut Outgoing, mark: Mark) -> Vec<u8> {
        std::iter::from_fn(|| outgoing.pop(mark)).map(|datagram| datagram.payload()[0]).collect()
    }

    #[test]
    fn the_newest_of_a_key_takes_the_place_of_the_older() {
        let mut outgoing = Outgoing::default();
        assert_eq!(outgoing.put(Some(1), datagram(1)), 0);
        assert_eq!(outgoing.put(Some(2), datagram(2)), 0);
        assert_eq!(outgoing.put(Some(1), datagram(3)), 1);
        assert_eq!(outgoing.put(None, datagram(4)), 0);
        assert_eq!(outgoing.put(None, datagram(5)), 0);
        assert_eq!(all(&mut outgoing, Mark::Application), [3, 2, 4, 5]);
    }

    #[test]
    fn the_newest_value_of_a_key_of_a_channel_takes_the_place_of_the_older() {
        let mut outgoing = Outgoing::default();
        assert_eq!(outgoing.put_state(StateSlot(1, 7), state(1)), 0);
        assert_eq!(outgoing.put_state(StateSlot(2, 7), state(2)), 0);
        assert_eq!(outgoing.put_state(StateSlot(1, 8), state(3)), 0);
        assert_eq!(outgoing.put_state(StateSlot(1, 7), state(4)), 1);
        assert_eq!(all(&mut outgoing, Mark::State), [4, 2, 3]);
    }

    #[test]
    fn slots_are_bounded_and_the_oldest_goes() {
        let mut outgoing = Outgoing::default();
        for key in 0..MAX_OUTGOING_DATAGRAMS as u64 {
            assert_eq!(outgoing.put(Some(key), datagram(key as u8)), 0);
        }
        for key in 0..MAX_OUTGOING_STATES as u64 {
            assert_eq!(outgoing.put_state(StateSlot(1, key), state(key as u8)), 0, "they have a bound of their own");
        }
        assert_eq!(outgoing.put(Some(1000), datagram(200)), 1);
        assert_eq!(outgoing.pop(Mark::Application).map(|d| d.payload()[0]), Some(1));
        assert_eq!(outgoing.put_state(StateSlot(1, 1000), state(200)), 1);
        assert_eq!(outgoing.pop(Mark::State).map(|d| d.payload()[0]), Some(1));
    }

    #[test]
    fn what_does_not_fit_is_no_datagram() {
        assert!(StateDatagram::new(&[7; MAX_DATAGRAM]).is_some());
        assert!(StateDatagram::new(&[7; MAX_DATAGRAM + 1]).is_none());
    }
}
