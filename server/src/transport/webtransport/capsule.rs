//! Capsules on the CONNECT stream (RFC 9297, section 3.2).
//!
//! The one that matters is CLOSE_WEBTRANSPORT_SESSION; others, known or not, are skipped unbuffered.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::varint;

/// CLOSE_WEBTRANSPORT_SESSION (draft-ietf-webtrans-http3, section 6).
const CLOSE: u64 = 0x2843;
/// The longest reason, in bytes, that the draft allows.
const MAX_REASON: usize = 1024;
/// The longest capsule that is skipped: nothing known is larger, and a capsule without end would be a
/// way to keep a session busy for free.
const MAX_SKIPPED: u64 = 64 * 1024;

/// The bytes of a CLOSE_WEBTRANSPORT_SESSION capsule. A `reason` of more than 1,024 bytes is cut at
/// the last character that fits.
pub(super) fn close(code: u32, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
    let mut out = BytesMut::with_capacity(2 + 2 + 4 + reason.len());
    varint::encode(CLOSE, &mut out);
    varint::encode(4 + reason.len() as u64, &mut out);
    out.put_u32(code);
    out.put_slice(reason.as_bytes());
    out.freeze()
}

/// A capsule that breaks the rules: the message is malformed (RFC 9297, section 3.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What a client said when it closed its session.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Close {
    pub(super) code: u32,
    pub(super) reason: String,
}

/// Reads capsules from pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Reader {
    header: [u8; 16],
    header_len: u8,
    payload: Payload,
}

#[derive(Debug, Default)]
enum Payload {
    /// Between two capsules, or in the header of one.
    #[default]
    None,
    Skip(u64),
    /// The rest of a close capsule: what is here, and how long it will be.
    Close(Vec<u8>, usize),
}

impl Reader {
    /// Takes the next bytes of the stream. `Some` is the close capsule, after which nothing may come.
    pub(super) fn read(&mut self, mut input: impl Buf) -> Result<Option<Close>, Malformed> {
        loop {
            match &mut self.payload {
                Payload::None => {
                    if !input.has_remaining() {
                        return Ok(None);
                    }
                    self.header[usize::from(self.header_len)] = input.get_u8();
                    self.header_len += 1;
                    self.capsule()?;
                }
                Payload::Skip(left) => {
                    let len = usize::try_from(*left).map_or(input.remaining(), |left| left.min(input.remaining()));
                    input.advance(len);
                    *left -= len as u64;
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.payload = Payload::None;
                }
                Payload::Close(bytes, len) => {
                    let missing = (*len - bytes.len()).min(input.remaining());
                    bytes.put((&mut input).take(missing));
                    if bytes.len() < *len {
                        return Ok(None);
                    }
                    if input.has_remaining() {
                        return Err(Malformed);
                    }
                    let mut bytes = &bytes[..];
                    let code = bytes.get_u32();
                    let reason = String::from_utf8_lossy(bytes).into_owned();
                    self.payload = Payload::None;
                    return Ok(Some(Close { code, reason }));
                }
            }
        }
    }

    /// Whether the stream may end here: between two capsules.
    pub(super) fn finish(&self) -> Result<(), Malformed> {
        match self.payload {
            Payload::None if self.header_len == 0 => Ok(()),
            _ => Err(Malformed),
        }
    }

    fn capsule(&mut self) -> Result<(), Malformed> {
        let header = &self.header[..usize::from(self.header_len)];
        let Some((kind, kind_len)) = varint::decode(header) else {
            return Ok(());
        };
        let Some((len, _)) = varint::decode(&header[kind_len..]) else {
            return Ok(());
        };
        self.header_len = 0;
        self.payload = match (kind, usize::try_from(len)) {
            (CLOSE, Ok(len)) if (4..=4 + MAX_REASON).contains(&len) => Payload::Close(Vec::with_capacity(len), len),
            (CLOSE, _) => return Err(Malformed),
            _ if len > MAX_SKIPPED => return Err(Malformed),
            _ if len == 0 => Payload::None,
            _ => Payload::Skip(len),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn capsule(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        varint::encode(kind, &mut out);
        varint::encode(payload.len() as u64, &mut out);
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn a_close_is_read_back() {
        let mut reader = Reader::default();
        let close = reader.read(close(4001, "späť")).expect("well formed");
        assert_eq!(close, Some(Close { code: 4001, reason: "späť".into() }));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = format!("x{}", "ž".repeat(600));
        let close = Reader::default().read(close(7, &reason)).expect("well formed").expect("complete");
        assert_eq!(close.reason.len(), 1023);
        assert!(reason.starts_with(&close.reason));
    }

    #[test]
    fn other_capsules_are_skipped_up_to_a_length() {
        let mut bytes = capsule(0x17 * 3 + 0x29, b"grease");
        bytes.extend(capsule(0x00, b"datagram"));
        bytes.extend(capsule(0x78ae, b""));
        bytes.extend(&close(1, "")[..]);
        assert!(matches!(Reader::default().read(&bytes[..]), Ok(Some(Close { code: 1, .. }))));
        let mut long = Vec::new();
        varint::encode(0x17, &mut long);
        varint::encode(MAX_SKIPPED + 1, &mut long);
        assert_eq!(Reader::default().read(&long[..]), Err(Malformed));
    }

    #[test]
    fn a_close_of_the_wrong_size_is_malformed() {
        for payload in [&[][..], &[1, 2, 3], &[0; 4 + MAX_REASON + 1]] {
            assert_eq!(Reader::default().read(&capsule(CLOSE, payload)[..]), Err(Malformed));
        }
    }

    #[test]
    fn nothing_may_follow_a_close_and_nothing_may_end_inside_a_capsule() {
        let mut bytes = close(1, "x").to_vec();
        for len in 1..bytes.len() {
            let mut reader = Reader::default();
            assert_eq!(reader.read(&bytes[..len]), Ok(None));
            assert_eq!(reader.finish(), Err(Malformed), "{len}");
        }
        bytes.push(0);
        assert_eq!(Reader::default().read(&bytes[..]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_does_not_matter(code: u32, reason in ".{0,40}", before in prop::collection::vec(any::<u8>(), 0..20), cut in any::<usize>()) {
            let mut bytes = capsule(0x40, &before);
            bytes.extend(&close(code, &reason)[..]);
            let cut = cut % bytes.len();
            let mut reader = Reader::default();
            prop_assert_eq!(reader.read(&bytes[..cut]), Ok(None));
            prop_assert_eq!(reader.read(&bytes[cut..]), Ok(Some(Close { code, reason })));
        }

        #[test]
        fn random_bytes_never_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8)) {
            let mut reader = Reader::default();
            for piece in pieces {
                if !matches!(reader.read(&piece[..]), Ok(None)) { break; }
            }
            let _ = reader.finish();
        }
    }
}
