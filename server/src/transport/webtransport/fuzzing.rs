//! What is fuzzed of this layer: everything that reads bytes of a client. In each body the first byte says how the rest
//! is cut into pieces, since no answer may depend on that.

use bytes::Bytes;
use quinn::VarInt;

use super::capsule::{self, Close, Malformed};
use super::gate::Gate;
use super::probe::{self, Failed, Kind, Prefix};
use super::varint;

/// The largest frame that the gate lets through here, in bytes: small, so that short inputs reach it.
const MAX_FRAME: usize = 64;

/// Capsules of the CONNECT stream.
pub fn capsules(input: &[u8]) {
    let Some((&cut, input)) = input.split_first() else { return };
    let whole = read_capsules([input].into_iter());
    assert_eq!(read_capsules(input.chunks(usize::from(cut) + 1)), whole);
    if let Ok(Some(Close { code, reason })) = whole {
        let again = capsule::Reader::default().read(capsule::close(code, &reason)).expect("it is well formed");
        let again = again.expect("it is whole");
        assert_eq!(again.code, code);
        assert!(reason.starts_with(&again.reason));
    }
}

fn read_capsules<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> Result<Option<Close>, Malformed> {
    let mut reader = capsule::Reader::default();
    while let Some(piece) = pieces.next() {
        if let Some(close) = reader.read(piece)? {
            // Nothing may follow a close; its owner reads no further.
            return if pieces.all(<[u8]>::is_empty) { Ok(Some(close)) } else { Err(Malformed) };
        }
    }
    reader.finish().map(|()| None)
}

/// The first bytes of a stream, in both directions: no more of them are taken than say what it is.
pub fn probe(input: &[u8]) {
    let Some((&cut, input)) = input.split_first() else { return };
    for webtransport in [probe::BIDI, probe::UNI] {
        let (kind, taken) = read_prefix(input, webtransport, input.len().max(1));
        assert_eq!(read_prefix(input, webtransport, usize::from(cut) + 1), (kind.clone(), taken));
        let first = varint::decode(input);
        match kind {
            Ok(Some(Kind::Session(id))) => {
                let (kind, kind_len) = first.expect("it was read");
                assert_eq!((kind, id % 4), (webtransport, 0));
                assert_eq!(varint::decode(&input[kind_len..]), Some((id, taken - kind_len)));
            }
            Ok(Some(Kind::Http3(kind, bytes))) => {
                assert!(kind != webtransport && bytes == input[..taken]);
                assert_eq!(first, Some((kind, taken)));
            }
            Ok(None) => assert!(taken == input.len() && taken < 16),
            Err(Failed::Connection(_)) => assert!(taken <= 16),
            Err(Failed::Ended) => unreachable!("a prefix knows of no end"),
        }
    }
}

fn read_prefix(mut input: &[u8], webtransport: u64, read: usize) -> (Result<Option<Kind>, Failed>, usize) {
    let (mut prefix, mut taken) = (Prefix::default(), 0);
    loop {
        match prefix.kind(webtransport) {
            Ok(None) if !input.is_empty() => {
                let room = prefix.missing();
                assert!(!room.is_empty(), "no room and no answer: the stream would wait for ever");
                let len = room.len().min(read).min(input.len());
                room[..len].copy_from_slice(&input[..len]);
                prefix.filled(len);
                input = &input[len..];
                taken += len;
            }
            outcome => return (outcome, taken),
        }
    }
}

/// Frames of HTTP/3: what passes is whole frames that h3 may see, and would pass again.
pub fn gate(input: &[u8]) {
    let Some((&cut, input)) = input.split_first() else { return };
    let (passed, end) = pass(input, input.len().max(1));
    assert_eq!(pass(input, usize::from(cut) + 1), (passed.clone(), end));
    assert!(passed.len() <= input.len());
    if end.is_ok() {
        let mut rest = &passed[..];
        while let Some((kind, kind_len)) = varint::decode(rest) {
            let (len, len_len) = varint::decode(&rest[kind_len..]).expect("a length follows");
            assert!(if kind == 0 { len > 0 } else { len <= MAX_FRAME as u64 });
            rest = rest.get(kind_len + len_len + len as usize..).expect("the payload follows");
        }
        assert!(rest.is_empty());
        assert_eq!(pass(&passed, passed.len().max(1)), (passed.clone(), Ok(())));
    }
}

fn pass(input: &[u8], piece: usize) -> (Vec<u8>, Result<(), VarInt>) {
    let (mut gate, mut passed) = (Gate::new(MAX_FRAME), Vec::new());
    for piece in input.chunks(piece) {
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match gate.pass(&mut piece) {
                Ok(Some(part)) => passed.extend_from_slice(&part),
                Ok(None) => break assert!(piece.is_empty()),
                Err(code) => return (passed, Err(code)),
            }
        }
    }
    (passed, gate.finish())
}
