//! From bytes, cut anywhere, to messages and what stands between them.

use bytes::{Bytes, BytesMut};
use throughline_protocol::limits::MAX_PACKET;

use super::frame::{BINARY, CLOSE, CONTINUATION, Header, PING, PONG, TEXT};

/// Puts together what a client sends. Without a half frame or message it holds no memory.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// What has arrived and is no whole frame yet.
    buffer: BytesMut,
    /// The fragments of a message so far.
    message: Option<BytesMut>,
}

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incoming {
    Message(Bytes),
    Ping(Bytes),
    Pong,
    /// With code and reason, if there are any.
    Close(Option<(u16, String)>),
}

/// What no client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// A message of more than [`MAX_PACKET`] bytes.
    TooLarge,
    Violation(&'static str),
}

impl Reader {
    /// Takes what has arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// What comes next; `None` while it is not whole. Nothing comes after an error.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Broken> {
        while let Some((header, mut payload)) = self.frame()? {
            header.unmask(&mut payload);
            match header.opcode {
                PING => return Ok(Some(Incoming::Ping(payload.freeze()))),
                PONG => return Ok(Some(Incoming::Pong)),
                CLOSE => return close(&payload).map(Some),
                _ => match (self.message.take(), header.is_final) {
                    (None, true) => return Ok(Some(Incoming::Message(payload.freeze()))),
                    (None, false) => self.message = Some(payload),
                    (Some(mut message), is_final) => {
                        message.unsplit(payload);
                        if is_final {
                            return Ok(Some(Incoming::Message(message.freeze())));
                        }
                        self.message = Some(message);
                    }
                },
            }
        }
        Ok(None)
    }

    /// The next whole frame. What is wrong with one is said as soon as its header is there.
    fn frame(&mut self) -> Result<Option<(Header, BytesMut)>, Broken> {
        let Some((header, of_header)) = Header::read(&self.buffer).map_err(Broken::Violation)? else {
            return Ok(None);
        };
        match (header.opcode, &self.message) {
            (TEXT, _) => return Err(Broken::Violation("a text message: packets are binary messages")),
            (CONTINUATION, None) => {
                return Err(Broken::Violation("a WebSocket frame goes on with a message that has not begun"));
            }
            (BINARY, Some(_)) => return Err(Broken::Violation("a WebSocket message begins inside another one")),
            _ => {}
        }
        let is_data = matches!(header.opcode, BINARY | CONTINUATION);
        let before = self.message.as_ref().filter(|_| is_data).map_or(0, BytesMut::len);
        if header.len > (MAX_PACKET - before) as u64 {
            return Err(Broken::TooLarge);
        }
        let len = header.len as usize; // at most MAX_PACKET
        if self.buffer.len() < of_header + len {
            return Ok(None);
        }
        drop(self.buffer.split_to(of_header));
        let payload = self.buffer.split_to(len);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(Some((header, payload)))
    }
}

/// What a close frame says (RFC 6455, section 5.5.1).
fn close(payload: &[u8]) -> Result<Incoming, Broken> {
    match payload {
        [] => Ok(Incoming::Close(None)),
        [_] => Err(Broken::Violation("a WebSocket close frame with half a code")),
        [high, low, reason @ ..] => match std::str::from_utf8(reason) {
            Ok(reason) => Ok(Incoming::Close(Some((u16::from_be_bytes([*high, *low]), reason.to_owned())))),
            Err(_) => Err(Broken::Violation("the reason of a WebSocket close frame is no UTF-8")),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..126 => frame.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((len as u16).to_be_bytes());
            }
            len => {
                frame.push(0x80 | 127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        let mask = [0x11, 0xa2, 0x33, 0xc4];
        frame.extend(mask);
        frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        frame
    }

    /// Everything up to the first error.
    fn read(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> (Vec<Incoming>, Option<Broken>, Reader) {
        let (mut reader, mut seen) = (Reader::default(), Vec::new());
        for piece in pieces {
            reader.push(piece.as_ref());
            loop {
                match reader.next() {
                    Ok(Some(incoming)) => seen.push(incoming),
                    Ok(None) => break,
                    Err(broken) => return (seen, Some(broken), reader),
                }
            }
        }
        (seen, None, reader)
    }

    fn message(bytes: &[u8]) -> Incoming {
        Incoming::Message(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn frames_may_be_cut_at_every_byte_and_nothing_is_held_after_them() {
        let long = vec![7; 200];
        let mut bytes = frame(0x82, b"hello");
        bytes.extend(frame(0x02, b"one "));
        bytes.extend(frame(0x89, b"there?"));
        bytes.extend(frame(0x00, &long));
        bytes.extend(frame(0x80, b""));
        bytes.extend(frame(0x8a, b""));
        bytes.extend(frame(0x82, b""));
        bytes.extend(frame(0x88, &[&1000u16.to_be_bytes()[..], "bye ✓".as_bytes()].concat()));
        let expected = vec![
            message(b"hello"),
            Incoming::Ping(Bytes::from_static(b"there?")),
            message(&[b"one ", &long[..]].concat()),
            Incoming::Pong,
            message(b""),
            Incoming::Close(Some((1000, "bye ✓".into()))),
        ];
        for at in 0..=bytes.len() {
            let (seen, broken, reader) = read([&bytes[..at], &bytes[at..]]);
            assert_eq!((seen, broken), (expected.clone(), None), "cut at {at}");
            assert_eq!((reader.buffer.capacity(), reader.message), (0, None));
        }
        assert_eq!(read(bytes.chunks(1)).0, expected);
    }

    #[test]
    fn what_no_client_may_send_is_told_by_its_header() {
        let violation = |bytes: &[u8], says: &str| match read([bytes]) {
            (_, Some(Broken::Violation(reason)), _) => assert!(reason.contains(says), "{reason}"),
            other => panic!("{bytes:?}: {other:?}"),
        };
        violation(&[0x82, 0x05], "without a mask");
        violation(&[0xc2, 0x80], "reserved bits");
        violation(&[0x83, 0x80], "reserved opcode");
        violation(&[0x8b, 0x80], "reserved opcode");
        violation(&[0x89, 0xfe], "more than 125");
        violation(&[0x09, 0x80, 0, 0, 0, 0], "in fragments");
        violation(&frame(0x80, b"x"), "has not begun");
        violation(&frame(0x81, b"x"), "binary messages");
        violation(&[frame(0x02, b"x"), frame(0x82, b"y")].concat(), "inside another");
        violation(&frame(0x88, b"x"), "half a code");
        violation(&frame(0x88, b"\x03\xe8\xff\xff"), "no UTF-8");
    }

    #[test]
    fn a_message_has_its_limit_in_one_frame_and_in_many() {
        let whole = vec![1; MAX_PACKET];
        assert_eq!(read([frame(0x82, &whole)]).0, [message(&whole)]);
        let header = &frame(0x82, &vec![1; MAX_PACKET + 1])[..14];
        assert_eq!(read([header]).1, Some(Broken::TooLarge));
        let parts = [frame(0x02, &whole[1..]), frame(0x00, b"x"), frame(0x00, b"")].concat();
        assert_eq!(read([parts.clone()]).1, None);
        assert_eq!(read([[parts, frame(0x80, b"y")].concat()]).1, Some(Broken::TooLarge));
        assert_eq!(read([[0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0]]).1, Some(Broken::TooLarge));
        // A ping is no part of the message around it.
        let ping = [frame(0x02, &whole), frame(0x89, b"x")].concat();
        assert_eq!(read([ping]).0, [Incoming::Ping(Bytes::from_static(b"x"))]);
    }

    proptest! {
        /// tungstenite as the reference: what it makes of frames, we make of them.
        #[test]
        fn as_tungstenite_reads_it(
            frames in prop::collection::vec((prop::sample::select(vec![0x82u8, 0x02, 0x00, 0x80, 0x89, 0x8a]), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            cut in 1usize..100,
        ) {
            use tokio_tungstenite::tungstenite::{Message, protocol::{Role, WebSocket}};
            let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, if *first > 0x88 { &payload[..payload.len().min(125)] } else { payload })).collect();
            let (seen, broken, _) = read(bytes.chunks(cut));
            struct Io<'a>(&'a [u8]);
            impl std::io::Read for Io<'_> {
                fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                    if self.0.is_empty() { Err(std::io::ErrorKind::WouldBlock.into()) } else { self.0.read(buf) }
                }
            }
            impl std::io::Write for Io<'_> {
                fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> { Ok(buf.len()) }
                fn flush(&mut self) -> std::io::Result<()> { Ok(()) }
            }
            let mut reference = WebSocket::from_raw_socket(Io(&bytes), Role::Server, None);
            let (mut expected, mut is_broken) = (Vec::new(), false);
            loop {
                match reference.read() {
                    Ok(Message::Binary(bytes)) => expected.push(Incoming::Message(bytes)),
                    Ok(Message::Ping(bytes)) => expected.push(Incoming::Ping(bytes)),
                    Ok(Message::Pong(_)) => expected.push(Incoming::Pong),
                    Ok(other) => panic!("{other:?}"),
                    Err(tokio_tungstenite::tungstenite::Error::Io(_)) => break,
                    Err(_) => { is_broken = true; break }
                }
            }
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(broken.is_some(), is_broken);
        }
    }
}
