//! What an incoming stream is, from exactly the bytes that say so.
//!
//! Only these bytes are taken off the stream, so that a WebTransport stream goes on as a bare QUIC
//! stream with nothing to push back. A stream whose first bytes do not come blocks no other.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::{ReadError, RecvStream, VarInt};
use tokio::time::Instant;

use super::{codes, varint};

/// The frame type that opens a bidirectional WebTransport stream.
pub(super) const BIDI: u64 = 0x41;
/// The stream type of a unidirectional WebTransport stream.
pub(super) const UNI: u64 = 0x54;

/// A stream that has not yet said what it is.
#[derive(Debug)]
pub(super) struct Probe {
    prefix: Prefix,
    /// The type that opens a WebTransport stream in this direction: [`BIDI`] or [`UNI`].
    webtransport: u64,
    /// When the stream has had long enough.
    pub(super) until: Instant,
    /// Whether the connection's task knows of it.
    pub(super) announced: bool,
}

/// What a stream turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A stream of the WebTransport session with this id; what follows is the application's.
    Session(u64),
    /// A stream of HTTP/3 of this type, with the bytes that were read (at most 8).
    Http3(u64, Bytes),
}

/// Why a stream never became anything. The code is what its sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// The stream ended or was reset, or the connection was lost.
    Ended,
    /// The connection is to be closed with this code.
    Connection(VarInt),
}

impl Probe {
    /// A probe of a stream whose WebTransport type is `webtransport`, given up at `until`.
    pub(super) fn new(webtransport: u64, until: Instant) -> Self {
        Self { prefix: Prefix::default(), webtransport, until, announced: false }
    }

    /// Reads until the stream has said what it is.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, recv: &mut RecvStream) -> Poll<Result<Kind, Failed>> {
        loop {
            if let Some(kind) = self.prefix.kind(self.webtransport)? {
                return Poll::Ready(Ok(kind));
            }
            match ready!(recv.poll_read(cx, self.prefix.missing())) {
                Ok(0) | Err(ReadError::Reset(_) | ReadError::ConnectionLost(_)) => {
                    return Poll::Ready(Err(Failed::Ended));
                }
                Ok(len) => self.prefix.filled(len),
                Err(_) => return Poll::Ready(Err(Failed::Ended)),
            }
        }
    }
}

/// The first one or two integers of a stream.
#[derive(Debug, Default)]
pub(super) struct Prefix {
    bytes: [u8; 16],
    len: u8,
    /// How many bytes the integers take, as far as that is known.
    want: u8,
}

impl Prefix {
    /// Where the next bytes go: never more of them than the integers take.
    pub(super) fn missing(&mut self) -> &mut [u8] {
        let want = self.want.max(self.len + 1);
        &mut self.bytes[usize::from(self.len)..usize::from(want)]
    }

    pub(super) fn filled(&mut self, len: usize) {
        self.len += len as u8; // `missing` is at most 16 bytes
    }

    pub(super) fn kind(&mut self, webtransport: u64) -> Result<Option<Kind>, Failed> {
        let bytes = &self.bytes[..usize::from(self.len)];
        let Some(first) = bytes.first() else {
            return Ok(None);
        };
        let Some((kind, kind_len)) = varint::decode(bytes) else {
            self.want = varint::len_from_first(*first) as u8;
            return Ok(None);
        };
        if kind != webtransport {
            return Ok(Some(Kind::Http3(kind, Bytes::copy_from_slice(bytes))));
        }
        let rest = &bytes[kind_len..];
        match varint::decode(rest) {
            // A session is named after its CONNECT stream, which the client opened, bidirectional.
            Some((id, _)) if id & 0b11 == 0 => Ok(Some(Kind::Session(id))),
            Some(_) => Err(Failed::Connection(codes::H3_ID_ERROR)),
            None => {
                if let Some(first) = rest.first() {
                    self.want = (kind_len + varint::len_from_first(*first)) as u8;
                }
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `bytes` in reads of at most `read` bytes; returns the outcome and what was not taken.
    fn run(mut bytes: &[u8], webtransport: u64, read: usize) -> (Result<Option<Kind>, Failed>, &[u8]) {
        let mut prefix = Prefix::default();
        loop {
            match prefix.kind(webtransport) {
                Ok(None) if !bytes.is_empty() => {
                    let room = prefix.missing();
                    let len = room.len().min(read).min(bytes.len());
                    room[..len].copy_from_slice(&bytes[..len]);
                    prefix.filled(len);
                    bytes = &bytes[len..];
                }
                outcome => return (outcome, bytes),
            }
        }
    }

    #[test]
    fn exactly_the_header_is_taken() {
        for read in 1..9 {
            assert_eq!(run(b"\x40\x41\x04payload", BIDI, read), (Ok(Some(Kind::Session(4))), &b"payload"[..]));
            assert_eq!(run(b"\x40\x54\x40\x80payload", UNI, read), (Ok(Some(Kind::Session(128))), &b"payload"[..]));
            let headers = Kind::Http3(1, Bytes::from_static(&[1]));
            assert_eq!(run(b"\x01\x05hello", BIDI, read), (Ok(Some(headers)), &b"\x05hello"[..]));
        }
    }

    #[test]
    fn the_types_are_those_of_their_direction() {
        assert!(matches!(run(b"\x40\x54\x00", BIDI, 8).0, Ok(Some(Kind::Http3(UNI, _)))));
        assert!(matches!(run(b"\x40\x41\x00", UNI, 8).0, Ok(Some(Kind::Http3(BIDI, _)))));
    }

    #[test]
    fn an_id_that_no_request_can_have_ends_the_connection() {
        for id in [1, 2, 3, 7] {
            assert_eq!(run(&[0x40, 0x41, id], BIDI, 8).0, Err(Failed::Connection(codes::H3_ID_ERROR)));
        }
    }

    #[test]
    fn an_unfinished_header_waits() {
        for bytes in [&b""[..], b"\x40", b"\x40\x41", b"\x40\x41\xc0\x00\x00"] {
            assert_eq!(run(bytes, BIDI, 8).0, Ok(None));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), read in 1usize..20) {
            let _ = run(&bytes, BIDI, read);
            let _ = run(&bytes, UNI, read);
        }
    }
}
