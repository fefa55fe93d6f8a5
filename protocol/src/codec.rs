//! Frames out of bytes that arrive in pieces of any size.

use bytes::{Bytes, BytesMut};

use crate::frame::{Frame, FrameError};
use crate::limits::MAX_FRAME_PAYLOAD;
use crate::varint::{self, Decoded};

/// An incremental decoder. Its memory is bounded by one frame and one piece, and its time is linear in
/// the input: a whole frame inside a piece is a slice of it, and any other byte is copied once.
///
/// After an error the input has no meaning any more; the decoder goes on returning that error.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What is left of the newest piece, while no frame lies across pieces.
    piece: Bytes,
    /// A frame that began in an earlier piece, and all that came after it.
    partial: BytesMut,
    failed: Option<Box<FrameError>>,
}

impl Decoder {
    /// A decoder with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next bytes of the input. After an error they are dropped.
    pub fn push(&mut self, piece: Bytes) {
        if self.failed.is_some() {
            return;
        }
        if self.partial.is_empty() && self.piece.is_empty() {
            self.piece = piece;
        } else {
            self.partial.extend_from_slice(&std::mem::take(&mut self.piece));
            self.partial.extend_from_slice(&piece);
        }
    }

    /// The next frame, or `None` until more bytes are there.
    ///
    /// # Errors
    /// The first frame that cannot be read ends the input.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(**error);
        }
        let result = self.read();
        if let Err(error) = result {
            self.failed = Some(Box::new(error));
            self.piece = Bytes::new();
            self.partial = BytesMut::new();
        }
        result
    }

    /// Whether the input ended at the end of a frame, as the packets of a websocket, an SSE event and a POST must.
    pub fn is_empty(&self) -> bool {
        self.piece.is_empty() && self.partial.is_empty()
    }

    fn read(&mut self) -> Result<Option<Frame>, FrameError> {
        let whole = if self.partial.is_empty() { &self.piece[..] } else { &self.partial[..] };
        let Some(header) = Header::read(whole)? else {
            self.keep();
            return Ok(None);
        };
        if whole.len() < header.len + header.payload {
            self.keep();
            return Ok(None);
        }
        let mut frame = if self.partial.is_empty() {
            self.piece.split_to(header.len + header.payload)
        } else {
            let frame = self.partial.split_to(header.len + header.payload).freeze();
            if self.partial.is_empty() {
                self.partial = BytesMut::new(); // an idle decoder holds no buffer
            }
            frame
        };
        let payload = frame.split_off(header.len);
        Frame::decode(header.kind, payload).map(Some)
    }

    /// Keeps the start of a frame whose rest is still to come.
    fn keep(&mut self) {
        if !self.piece.is_empty() {
            self.partial.extend_from_slice(&std::mem::take(&mut self.piece));
        }
    }
}

struct Header {
    kind: u64,
    len: usize,
    payload: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let (kind, kind_len) = match varint::decode(bytes) {
            Decoded::Value(kind, len) => (kind, len),
            Decoded::Incomplete => return Ok(None),
            Decoded::TooLarge => return Err(FrameError::Malformed("frame type")),
        };
        match varint::decode(&bytes[kind_len..]) {
            Decoded::Value(payload, _) if payload > MAX_FRAME_PAYLOAD as u64 => Err(FrameError::TooLarge(payload)),
            Decoded::Value(payload, len) => Ok(Some(Self { kind, len: kind_len + len, payload: payload as usize })),
            Decoded::Incomplete => Ok(None),
            Decoded::TooLarge => Err(FrameError::Malformed("frame length")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_over_the_limit_is_refused_when_its_length_is_known() {
        let mut decoder = Decoder::new();
        let mut header = vec![0x05];
        varint::encode(MAX_FRAME_PAYLOAD as u64 + 1, &mut header);
        decoder.push(header.into());
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLarge(65_537)));
        decoder.push(Bytes::from_static(&[6, 1, 1]));
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLarge(65_537)), "an error is final");
    }

    #[test]
    fn what_comes_after_an_error_is_not_kept() {
        // push() did not look at the error: an owner that goes on reading its socket filled the memory.
        let mut decoder = Decoder::new();
        decoder.push(Bytes::from_static(&[0x3f, 0x00]));
        assert_eq!(decoder.next_frame(), Err(FrameError::Unknown(63)));
        decoder.push(Bytes::from_static(&[0x06, 0x01]));
        decoder.push(Bytes::from_static(&[0x01]));
        assert!(decoder.is_empty());
        assert_eq!(decoder.next_frame(), Err(FrameError::Unknown(63)));
    }

    #[test]
    fn the_largest_frame_is_read() {
        let mut bytes = BytesMut::new();
        let frame = Frame::Stream { stream: 0, offset: 0, data: Bytes::from(vec![7; MAX_FRAME_PAYLOAD - 2]) };
        frame.encode(&mut bytes);
        let mut decoder = Decoder::new();
        for piece in bytes.chunks(1000) {
            assert_eq!(decoder.next_frame(), Ok(None));
            decoder.push(Bytes::copy_from_slice(piece));
        }
        assert_eq!(decoder.next_frame(), Ok(Some(frame)));
        assert!(decoder.is_empty());
    }
}
