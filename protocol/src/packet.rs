//! What a link is asked to carry: whole frames, in pieces that may be shared between sessions.

use bytes::{BufMut, Bytes, BytesMut};

/// One packet. Its bytes are the pieces in order; a large payload is a piece of its own, so that sending the
/// same payload to many sessions copies none of it.
#[derive(Debug, Clone, Default)]
pub struct Packet {
    pieces: Vec<Bytes>,
    len: usize,
}

impl Packet {
    /// Length of the packet, in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// The pieces, in order, to keep.
    pub fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }

    /// The packet in one piece: copied only when it has several.
    pub fn into_bytes(mut self) -> Bytes {
        if self.pieces.len() == 1 {
            return self.pieces.remove(0);
        }
        let mut bytes = BytesMut::with_capacity(self.len);
        for piece in &self.pieces {
            bytes.put_slice(piece);
        }
        bytes.freeze()
    }
}

impl From<Bytes> for Packet {
    /// A packet of frames that were encoded elsewhere.
    fn from(frames: Bytes) -> Self {
        Self { len: frames.len(), pieces: vec![frames] }
    }
}

/// Payloads up to this many bytes are copied beside their neighbours: a piece of their own costs more.
const COPY_BELOW: usize = 512;

/// Puts a packet together.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    packet: Packet,
    small: BytesMut,
}

impl Builder {
    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.packet.len + self.small.len()
    }

    /// Where frames without a large payload are written.
    pub(crate) fn small(&mut self) -> &mut BytesMut {
        &mut self.small
    }

    /// Adds a payload that is shared when it is large.
    pub(crate) fn payload(&mut self, payload: &Bytes) {
        if payload.len() <= COPY_BELOW {
            self.small.put_slice(payload);
        } else {
            self.flush();
            self.packet.len += payload.len();
            self.packet.pieces.push(payload.clone());
        }
    }

    /// The packet; `None` when nothing was put in it.
    pub(crate) fn finish(mut self) -> Option<Packet> {
        self.flush();
        (!self.packet.is_empty()).then_some(self.packet)
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.packet.len += self.small.len();
            self.packet.pieces.push(self.small.split().freeze());
        }
    }
}
