//! Datagrams that wait to be sent: for each key only the newest (SPEC section 5).

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::kind;
use crate::limits::{MAX_DATAGRAM, MAX_OUTGOING_DATAGRAMS};
use crate::varint;

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
}

impl From<&[u8]> for Datagram {
    fn from(payload: &[u8]) -> Self {
        let mut frame = BytesMut::with_capacity(payload.len() + 5);
        varint::encode(kind::DATAGRAM, &mut frame);
        varint::encode(payload.len() as u64, &mut frame);
        let header = frame.len();
        frame.put_slice(payload);
        Self { frame: frame.freeze(), header }
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

/// The slots: one per key, in the order in which their keys came; without a key each datagram has its own.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    waiting: VecDeque<(Option<u64>, Datagram)>,
}

impl Slots {
    /// Puts a datagram in its key's slot. Returns how many it pushed out: an older one of the same key, or the
    /// oldest of all when [`MAX_OUTGOING_DATAGRAMS`] wait.
    pub(crate) fn put(&mut self, key: Option<u64>, datagram: Datagram) -> u64 {
        let same = key.and_then(|_| self.waiting.iter().position(|(other, _)| *other == key));
        if let Some(slot) = same.and_then(|index| self.waiting.get_mut(index)) {
            slot.1 = datagram;
            return 1;
        }
        let full = self.waiting.len() == MAX_OUTGOING_DATAGRAMS;
        if full {
            self.waiting.pop_front();
        }
        self.waiting.push_back((key, datagram));
        u64::from(full)
    }

    pub(crate) fn front(&self) -> Option<&Datagram> {
        self.waiting.front().map(|(_, datagram)| datagram)
    }

    pub(crate) fn pop(&mut self) -> Option<Datagram> {
        self.waiting.pop_front().map(|(_, datagram)| datagram)
    }

    pub(crate) fn clear(&mut self) {
        self.waiting = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(byte: u8) -> Datagram {
        Datagram::from(vec![byte])
    }

    #[test]
    fn the_newest_of_a_key_takes_the_place_of_the_older() {
        let mut slots = Slots::default();
        assert_eq!(slots.put(Some(1), datagram(1)), 0);
        assert_eq!(slots.put(Some(2), datagram(2)), 0);
        assert_eq!(slots.put(Some(1), datagram(3)), 1);
        assert_eq!(slots.put(None, datagram(4)), 0);
        assert_eq!(slots.put(None, datagram(5)), 0);
        let order: Vec<u8> = std::iter::from_fn(|| slots.pop()).map(|d| d.payload()[0]).collect();
        assert_eq!(order, [3, 2, 4, 5]);
    }

    #[test]
    fn slots_are_bounded_and_the_oldest_goes() {
        let mut slots = Slots::default();
        for key in 0..MAX_OUTGOING_DATAGRAMS as u64 {
            assert_eq!(slots.put(Some(key), datagram(key as u8)), 0);
        }
        assert_eq!(slots.put(Some(1000), datagram(200)), 1);
        assert_eq!(slots.pop().map(|d| d.payload()[0]), Some(1));
    }
}
