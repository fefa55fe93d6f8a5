//! Plain WebSocket (RFC 6455), read in place: no copy and no allocation for a message that lies in one piece.

use super::http::{Answers, Part};
use super::wire::{Io, Wire};
use crate::Failure;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Longest message, in bytes: more than any workload asks for.
const MESSAGE_MAX: usize = 16 * 1_048_576;

/// What a client masks with. It should be new for each frame, which protects proxies from pages; here are neither.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client whose messages are binary WebSocket messages.
pub(crate) struct WebSocket {
    path: String,
    codec: Codec,
}

impl WebSocket {
    pub(crate) fn new(path: String) -> Self {
        Self { path, codec: Codec::default() }
    }
}

impl Wire for WebSocket {
    fn start(&mut self, io: &mut Io<'_>) {
        self.codec = Codec::default();
        request(&self.path, None, &mut io.out[0]);
    }

    fn take(&mut self, _: usize, bytes: &[u8], io: &mut Io<'_>) -> Result<(), Failure> {
        let Io { out, message } = io;
        self.codec.take(bytes, &mut out[0], |_, body, _| {
            message(body);
            Ok(())
        })
    }

    fn send(&mut self, message: &[u8], io: &mut Io<'_>) -> Result<(), Failure> {
        frame(Kind::Binary, message, &mut io.out[0]);
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.codec.is_open
    }
}

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
}

/// The request that opens a WebSocket, with the subprotocols that it offers.
pub(crate) fn request(path: &str, offers: Option<&str>, out: &mut Vec<u8>) {
    // The key proves to a client that the server is no cache; these servers are known.
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    out.extend_from_slice(head.as_bytes());
    if let Some(offers) = offers {
        out.extend_from_slice(format!("Sec-WebSocket-Protocol: {offers}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a message as a client does.
pub(crate) fn frame(kind: Kind, body: &[u8], out: &mut Vec<u8>) {
    masked(if kind == Kind::Text { TEXT } else { BINARY }, body, out);
}

fn masked(opcode: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match body.len() {
        short @ ..126 => out.push(0x80 | short as u8),
        middle @ ..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(body.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Messages out of the bytes of a server. Answers pings by itself.
#[derive(Debug, Default)]
pub(crate) struct Codec {
    answers: Answers,
    pub(crate) is_open: bool,
    frames: Frames,
}

impl Codec {
    /// Takes what has come. `each` gets a message, and where it can answer.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut each: impl FnMut(Kind, &[u8], &mut Vec<u8>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.is_open {
            return self.frames.take(bytes, out, &mut each);
        }
        let Self { answers, is_open, frames } = self;
        answers.take(bytes, |part| match part {
            Part::Head(head) if head.status == 101 => {
                *is_open = true;
                Ok(())
            }
            Part::Head(head) => Err(format!("a WebSocket was answered {}", head.status).into()),
            Part::Body(bytes) => frames.take(bytes, out, &mut each),
            Part::End => Ok(()),
        })
    }
}

#[derive(Debug, Default)]
struct Frames {
    /// A frame that is not whole yet.
    rest: Vec<u8>,
    /// A message of several frames that is not whole yet, and its kind.
    parts: Option<(Kind, Vec<u8>)>,
}

/// A frame of a server: first byte, where its body begins, and where it ends.
struct Header {
    first: u8,
    body: usize,
    end: usize,
}

impl Frames {
    fn take(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        each: &mut impl FnMut(Kind, &[u8], &mut Vec<u8>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            let used = self.read(bytes, out, each)?;
            self.rest.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        rest.extend_from_slice(bytes);
        let used = self.read(&rest, out, each)?;
        rest.drain(..used);
        self.rest = rest;
        Ok(())
    }

    /// Handles all whole frames, and returns how many bytes they have.
    fn read(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        each: &mut impl FnMut(Kind, &[u8], &mut Vec<u8>) -> Result<(), Failure>,
    ) -> Result<usize, Failure> {
        let mut used = 0;
        while let Some(header) = header(&bytes[used..])? {
            if bytes.len() - used < header.end {
                break;
            }
            let body = &bytes[used + header.body..used + header.end];
            used += header.end;
            let is_last = header.first & 0x80 != 0;
            match header.first & 0x0f {
                opcode @ (TEXT | BINARY) => {
                    let kind = if opcode == TEXT { Kind::Text } else { Kind::Binary };
                    if is_last {
                        each(kind, body, out)?;
                    } else {
                        self.parts = Some((kind, body.to_vec()));
                    }
                }
                0 => {
                    let (kind, mut whole) = self.parts.take().ok_or("a frame goes on with nothing")?;
                    whole.extend_from_slice(body);
                    if whole.len() > MESSAGE_MAX {
                        return Err("a message is too long".into());
                    }
                    if is_last {
                        each(kind, &whole, out)?;
                    } else {
                        self.parts = Some((kind, whole));
                    }
                }
                PING => masked(PONG, body, out),
                PONG => {}
                CLOSE => {
                    let code = body.first_chunk().map_or(1_005, |code| u16::from_be_bytes(*code));
                    let reason = String::from_utf8_lossy(body.get(2..).unwrap_or_default());
                    return Err(format!("the server closed with {code} {reason}").into());
                }
                other => return Err(format!("a frame of kind {other}").into()),
            }
        }
        Ok(used)
    }
}

fn header(bytes: &[u8]) -> Result<Option<Header>, Failure> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if second & 0x80 != 0 || first & 0x70 != 0 {
        return Err("a frame that is masked or compressed".into());
    }
    let (body, length) = match (second, rest) {
        (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            (10, usize::try_from(u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))?)
        }
        (126 | 127, _) => return Ok(None),
        (short, _) => (2, usize::from(*short)),
    };
    if length > MESSAGE_MAX {
        return Err("a frame is too long".into());
    }
    Ok(Some(Header { first: *first, body, end: body + length }))
}

#[cfg(test)]
mod tests {
    use super::super::wire::testing::feed;
    use super::*;

    const OPENED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

    #[test]
    fn messages_are_read_however_they_are_cut() {
        let long = vec![b'l'; 300];
        let mut bytes = OPENED.to_vec();
        bytes.extend_from_slice(b"\x81\x02hi\x89\x01p\x02\x01a\x00\x01b\x80\x01c\x82\x7e\x01\x2c");
        bytes.extend_from_slice(&long);
        bytes.extend_from_slice(b"\x82\x7f\0\0\0\0\0\0\0\x01z\x82\0");
        for piece in 1..bytes.len() {
            let mut wire = WebSocket::new("/fanout".into());
            let (messages, answer) = feed(&mut wire, 0, &bytes, piece);
            assert_eq!(messages, [b"hi".to_vec(), b"abc".to_vec(), long.clone(), b"z".to_vec(), Vec::new()]);
            assert_eq!(answer, [0x8a, 0x81, 0x37, 0xfa, 0x21, 0x3d, b'p' ^ 0x37], "a ping is answered");
            assert!(wire.is_open());
        }
    }

    #[test]
    fn lengths_are_written_in_three_ways() {
        for (length, header) in [(125, vec![0x82, 0x80 | 125]), (126, vec![0x82, 0xfe, 0, 126])] {
            let mut out = Vec::new();
            frame(Kind::Binary, &vec![0; length], &mut out);
            assert_eq!(out[..header.len()], header);
            assert_eq!(out.len(), header.len() + MASK.len() + length);
        }
        let mut out = Vec::new();
        frame(Kind::Text, &vec![0; 65_536], &mut out);
        assert_eq!(out[..10], [0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_refusal_and_a_close_are_errors() {
        let take = |bytes: &[u8]| Codec::default().take(bytes, &mut Vec::new(), |_, _, _| Ok(()));
        assert!(take(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").is_err());
        let closed = [OPENED, b"\x88\x04\x03\xe8ok"].concat();
        assert_eq!(take(&closed).unwrap_err().to_string(), "the server closed with 1000 ok");
    }
}
