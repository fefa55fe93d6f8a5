//! What a link is asked to carry: whole frames, in pieces that may be shared between sessions.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

/// One packet. Its bytes are the pieces in order; a large payload is a piece of its own, so that sending the same payload to many sessions copies none of
/// it. Whoever sends many can use one again and again: then small packets take no memory from the allocator.
#[derive(Debug, Clone, Default)]
pub struct Packet {
    /// Bytes of its own, one piece after the other.
    own: BytesMut,
    /// Payloads, and how many of its own bytes are before each.
    shared: Vec<(usize, Bytes)>,
    /// Bytes of these payloads.
    shared_len: usize,
}

/// Payloads up to this many bytes are copied beside their neighbours: a piece of their own costs more.
const COPY_BELOW: usize = 512;

impl Packet {
    /// Length of the packet, in bytes.
    pub fn len(&self) -> usize {
        self.own.len() + self.shared_len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces, in order; none is empty.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.shared.iter().map(|(at, _)| *at).chain([self.own.len()]);
        let payloads = self.shared.iter().map(|(_, payload)| &payload[..]).chain([&[][..]]);
        let mut begin = 0;
        let both = ends.zip(payloads).flat_map(move |(end, payload)| {
            let own = &self.own[std::mem::replace(&mut begin, end)..end];
            [own, payload]
        });
        both.filter(|piece| !piece.is_empty())
    }

    /// The pieces, in order, to keep.
    pub fn into_pieces(mut self) -> Vec<Bytes> {
        let mut pieces = Vec::with_capacity(2 * self.shared.len() + 1);
        let mut begin = 0;
        for (at, payload) in self.shared {
            pieces.extend([self.own.split_to(at - begin).freeze(), payload]);
            begin = at;
        }
        pieces.push(self.own.freeze());
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }

    /// The packet in one piece: copied only when it has several.
    pub fn into_bytes(self) -> Bytes {
        let mut pieces = self.into_pieces();
        if pieces.len() == 1 {
            return pieces.remove(0);
        }
        pieces.concat().into()
    }

    /// Makes it an empty one.
    pub fn clear(&mut self) {
        self.own.clear();
        self.shared.clear();
        self.shared_len = 0;
    }

    /// Where frames without a large payload are written.
    pub(crate) fn small(&mut self) -> &mut BytesMut {
        &mut self.own
    }

    /// Adds a part of a payload; it is shared when it is large.
    pub(crate) fn payload(&mut self, payload: &Bytes, part: Range<usize>) {
        if part.len() <= COPY_BELOW {
            self.own.put_slice(&payload[part]);
        } else {
            self.shared_len += part.len();
            self.shared.push((self.own.len(), payload.slice(part)));
        }
    }
}

impl From<Bytes> for Packet {
    /// A packet of frames that were encoded elsewhere.
    fn from(frames: Bytes) -> Self {
        Self { own: BytesMut::new(), shared_len: frames.len(), shared: vec![(0, frames)] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_payloads_are_pieces_and_small_ones_are_copied() {
        let large = Bytes::from(vec![7; 2 * COPY_BELOW]);
        let mut packet = Packet::default();
        for _ in 0..2 {
            packet.clear();
            assert!(packet.is_empty() && packet.pieces().next().is_none());
            packet.small().put_slice(b"ab");
            packet.payload(&large, 1..1 + COPY_BELOW);
            packet.payload(&large, 0..COPY_BELOW + 1);
            packet.payload(&large, 1..2 * COPY_BELOW);
            packet.small().put_slice(b"c");
            let lens: Vec<usize> = packet.pieces().map(<[u8]>::len).collect();
            assert_eq!(lens, [2 + COPY_BELOW, COPY_BELOW + 1, 2 * COPY_BELOW - 1, 1]);
            assert_eq!(packet.len(), lens.iter().sum::<usize>());
            let pieces = packet.clone().into_pieces();
            assert!(pieces.iter().map(|piece| &piece[..]).eq(packet.pieces()));
            assert_eq!(pieces[2].as_ptr(), large[1..].as_ptr(), "it is not copied");
            assert_eq!(packet.clone().into_bytes(), pieces.concat());
        }
    }

    #[test]
    fn what_was_encoded_elsewhere_is_one_piece() {
        let frames = Bytes::from_static(b"frames");
        let packet = Packet::from(frames.clone());
        assert_eq!(packet.len(), 6);
        assert_eq!(packet.into_bytes().as_ptr(), frames.as_ptr());
    }
}
