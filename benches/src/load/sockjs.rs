//! SockJS over its WebSocket transport: `PREFIX/000/SESSION/websocket`, the framed one that its own client uses, and not the raw `PREFIX/websocket`. Messages are text.

use super::websocket::{self, Codec, Kind};
use super::wire::{Io, Wire};
use crate::Failure;

/// A client. Its messages must not need to be escaped in JSON.
pub(crate) struct SockJs {
    path: String,
    codec: Codec,
    is_open: bool,
}

impl SockJs {
    /// `number` distinguishes it from the others.
    pub(crate) fn new(prefix: &str, number: usize) -> Self {
        Self { path: format!("{prefix}/000/s{number:07}/websocket"), codec: Codec::default(), is_open: false }
    }
}

impl Wire for SockJs {
    fn start(&mut self, io: &mut Io<'_>) {
        (self.codec, self.is_open) = (Codec::default(), false);
        websocket::request(&self.path, None, &mut io.out[0]);
    }

    fn take(&mut self, _: usize, bytes: &[u8], io: &mut Io<'_>) -> Result<(), Failure> {
        let Self { codec, is_open, .. } = self;
        let Io { out, message } = io;
        codec.take(bytes, &mut out[0], |_, body, _| {
            match body {
                b"o" => *is_open = true,
                b"h" => {}
                [b'a', array @ ..] => strings(array).for_each(&mut *message),
                other => return Err(format!("SockJS said {:?}", String::from_utf8_lossy(other)).into()),
            }
            Ok(())
        })
    }

    fn send(&mut self, message: &[u8], io: &mut Io<'_>) -> Result<(), Failure> {
        let text = [b"[\"", message, b"\"]"].concat();
        websocket::frame(Kind::Text, &text, &mut io.out[0]);
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.is_open
    }
}

/// The strings of a JSON array of strings in which nothing is escaped.
pub(super) fn strings(array: &[u8]) -> impl Iterator<Item = &[u8]> {
    array.split(|byte| *byte == b'"').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::super::wire::testing::feed;
    use super::*;

    #[test]
    fn arrays_are_messages() {
        let bytes = b"HTTP/1.1 101 x\r\n\r\n\x81\x01o\x81\x01h\x81\x0ba[\"one\",\"\"]";
        let mut wire = SockJs::new("/fanout", 3);
        assert_eq!(wire.path, "/fanout/000/s0000003/websocket");
        assert_eq!(feed(&mut wire, 0, bytes, 5).0, [&b"one"[..], b""]);
        assert!(wire.is_open());
    }
}
