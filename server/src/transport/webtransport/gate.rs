//! What h3 may see of a stream of HTTP/3 frames.
//!
//! h3 buffers a frame whole before it looks at its length, takes an empty DATA frame for the end of
//! the body, and takes the end of a stream in the middle of a DATA frame for a clean one. The gate
//! reads the frame headers itself, and passes only what h3 handles well.

use bytes::{Buf, Bytes};
use quinn::VarInt;

use super::{codes, varint};

const DATA: u64 = 0x00;
/// HTTP/3's own frames, and those of HTTP/2 that HTTP/3 forbids (h3 answers them with the right error).
const KNOWN: [u64; 10] = [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0d];
/// The start of a WebTransport stream, which has no length and may only be the first thing on a stream.
const WEBTRANSPORT_STREAM: u64 = 0x41;

/// The state of one stream.
#[derive(Debug)]
pub(super) struct Gate {
    /// The type and length of the frame that is being read, as far as they are here.
    header: [u8; 16],
    header_len: u8,
    /// Bytes of the current frame's payload that are still to come.
    payload: u64,
    /// Whether that payload is passed on; otherwise it is skipped, unbuffered.
    pass: bool,
    max_frame: u64,
}

impl Gate {
    /// A gate that refuses frames, other than DATA, of more than `max_frame` bytes.
    pub(super) fn new(max_frame: usize) -> Self {
        Self { header: [0; 16], header_len: 0, payload: 0, pass: false, max_frame: max_frame as u64 }
    }

    /// Takes bytes off the front of `input` and returns the next ones that may pass; `None` when
    /// `input` is used up. An error is the HTTP/3 code that the stream is to be stopped with.
    pub(super) fn pass(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, VarInt> {
        while !input.is_empty() {
            if self.payload > 0 {
                let len = usize::try_from(self.payload).map_or(input.len(), |left| left.min(input.len()));
                self.payload -= len as u64;
                let part = input.split_to(len);
                if self.pass {
                    return Ok(Some(part));
                }
                continue;
            }
            self.header[usize::from(self.header_len)] = input.get_u8();
            self.header_len += 1;
            if let Some(header) = self.frame()? {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Whether the stream may end here: between two frames.
    pub(super) fn finish(&self) -> Result<(), VarInt> {
        if self.payload == 0 && self.header_len == 0 { Ok(()) } else { Err(codes::H3_FRAME_ERROR) }
    }

    /// Looks at the header bytes; when they are complete, decides what becomes of the frame.
    fn frame(&mut self) -> Result<Option<Bytes>, VarInt> {
        let header = &self.header[..usize::from(self.header_len)];
        let Some((kind, kind_len)) = varint::decode(header) else {
            return Ok(None);
        };
        if kind == WEBTRANSPORT_STREAM {
            return Err(codes::H3_FRAME_ERROR);
        }
        let Some((len, _)) = varint::decode(&header[kind_len..]) else {
            return Ok(None);
        };
        let known = KNOWN.contains(&kind);
        if known && len > self.max_frame {
            return Err(codes::H3_EXCESSIVE_LOAD);
        }
        self.pass = known || (kind == DATA && len > 0);
        self.payload = len;
        let header = self.pass.then(|| Bytes::copy_from_slice(header));
        self.header_len = 0;
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        varint::encode(kind, &mut out);
        varint::encode(payload.len() as u64, &mut out);
        out.extend_from_slice(payload);
        out
    }

    /// Feeds `bytes` in pieces cut at `cuts`, and returns all that passes.
    fn run(bytes: &[u8], cuts: &[usize]) -> Result<Vec<u8>, VarInt> {
        let mut gate = Gate::new(64);
        let mut out = Vec::new();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            let mut input = Bytes::copy_from_slice(&bytes[pair[0]..pair[1]]);
            while let Some(part) = gate.pass(&mut input)? {
                out.extend_from_slice(&part);
            }
        }
        gate.finish()?;
        Ok(out)
    }

    #[test]
    fn headers_and_data_pass_and_the_rest_is_skipped() {
        let mut bytes = frame(0x21, b"grease");
        bytes.extend(frame(0x01, b"headers"));
        bytes.extend(frame(DATA, b""));
        bytes.extend(frame(DATA, b"body"));
        bytes.extend(frame(0x1f * 5 + 0x21, &[7; 1000]));
        let mut expected = frame(0x01, b"headers");
        expected.extend(frame(DATA, b"body"));
        assert_eq!(run(&bytes, &[]), Ok(expected));
    }

    #[test]
    fn a_large_header_block_is_refused_from_its_length_alone() {
        assert_eq!(run(&[0x01, 0x40, 0x41], &[]), Err(codes::H3_EXCESSIVE_LOAD));
        assert!(run(&frame(0x01, &[1; 64]), &[]).is_ok());
        assert!(run(&frame(DATA, &[1; 10_000]), &[]).is_ok());
    }

    #[test]
    fn an_end_inside_a_frame_is_an_error() {
        let bytes = frame(DATA, b"body");
        for len in 1..bytes.len() {
            assert_eq!(run(&bytes[..len], &[]), Err(codes::H3_FRAME_ERROR), "{len}");
        }
    }

    #[test]
    fn a_webtransport_stream_cannot_start_late() {
        let mut bytes = frame(0x01, b"headers");
        bytes.extend([0x40, 0x41, 0x00]);
        assert_eq!(run(&bytes, &[]), Err(codes::H3_FRAME_ERROR));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_does_not_matter(
            frames in prop::collection::vec((prop_oneof![Just(0u64), Just(1), Just(0x0d), 0x21u64..0x3f, Just(varint::MAX)],
                prop::collection::vec(any::<u8>(), 0..80)), 0..8),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
            prop_assert_eq!(run(&bytes, &cuts), run(&bytes, &[]));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(any::<usize>(), 0..20)) {
            let _ = run(&bytes, &cuts);
        }
    }
}
