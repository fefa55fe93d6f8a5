//! Socket.IO 4 over Engine.IO 4 over WebSocket.
//!
//! Messages are events called `message` with one text argument: what Socket.IO does best with a hundred bytes. Its in-memory adapter frames a text for all
//! receivers at once, whereas a binary argument costs two WebSocket messages each: the event, with a placeholder, and the bytes.

use super::sockjs::strings;
use super::websocket::{self, Codec, Kind};
use super::wire::{Io, Wire};
use crate::Failure;

/// A client in one namespace. Its messages must not need to be escaped in JSON.
pub(crate) struct SocketIo {
    /// Of the namespace, with its slash.
    namespace: String,
    codec: Codec,
    is_open: bool,
    /// What `connectionStateRecovery` asks for: the private id of the session, and the offset of the last event.
    private_id: Option<String>,
    offset: Option<String>,
    is_resumed: bool,
}

impl SocketIo {
    pub(crate) fn new(namespace: String) -> Self {
        let codec = Codec::default();
        Self { namespace, codec, is_open: false, private_id: None, offset: None, is_resumed: false }
    }

    /// Handles a packet of Engine.IO.
    fn packet(&mut self, packet: &[u8], out: &mut Vec<u8>, message: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        match packet {
            // Engine.IO is open: the namespace is asked for.
            [b'0', ..] => {
                let resume = match (&self.private_id, &self.offset) {
                    (Some(id), Some(offset)) => format!(r#"{{"pid":"{id}","offset":"{offset}"}}"#),
                    _ => String::new(),
                };
                let connect = format!("40{},{resume}", self.namespace);
                websocket::frame(Kind::Text, connect.as_bytes(), out);
            }
            [b'2', rest @ ..] => websocket::frame(Kind::Text, &[b"3", rest].concat(), out),
            [b'4', b'0', rest @ ..] => {
                let private_id = field(rest, "pid");
                self.is_resumed = private_id.is_some() && private_id == self.private_id;
                self.private_id = private_id;
                self.is_open = true;
            }
            [b'4', b'2', rest @ ..] => {
                let array = rest.iter().position(|byte| *byte == b'[').map_or(rest, |at| &rest[at..]);
                let mut words = strings(array).skip(1); // the name of the event
                if let Some(body) = words.next() {
                    message(body);
                }
                // With recovery every event has its offset as a last argument.
                if let Some(offset) = words.next() {
                    self.offset = Some(String::from_utf8_lossy(offset).into_owned());
                }
            }
            // An event with bytes: they are the next message, which is binary.
            [b'4', b'5', ..] => {}
            other => return Err(format!("Socket.IO said {:?}", String::from_utf8_lossy(other)).into()),
        }
        Ok(())
    }
}

/// The value of a field of a flat JSON object of strings.
fn field(object: &[u8], name: &str) -> Option<String> {
    let mut words = strings(object);
    words.find(|word| *word == name.as_bytes())?;
    Some(String::from_utf8_lossy(words.next()?).into_owned())
}

impl Wire for SocketIo {
    fn start(&mut self, io: &mut Io<'_>) {
        (self.codec, self.is_open) = (Codec::default(), false);
        websocket::request("/socket.io/?EIO=4&transport=websocket", None, &mut io.out[0]);
    }

    fn take(&mut self, _: usize, bytes: &[u8], io: &mut Io<'_>) -> Result<(), Failure> {
        let mut codec = std::mem::take(&mut self.codec);
        let Io { out, message } = io;
        let taken = codec.take(bytes, &mut out[0], |kind, body, out| match kind {
            Kind::Text => self.packet(body, out, &mut **message),
            Kind::Binary => {
                message(body);
                Ok(())
            }
        });
        self.codec = codec;
        taken
    }

    fn send(&mut self, message: &[u8], io: &mut Io<'_>) -> Result<(), Failure> {
        let namespace = self.namespace.as_bytes();
        let text = [b"42", namespace, b",[\"message\",\"", message, b"\"]"].concat();
        websocket::frame(Kind::Text, &text, &mut io.out[0]);
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.is_open
    }

    fn is_resumed(&self) -> bool {
        self.is_resumed
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::testing::feed;
    use super::*;

    fn text(body: &str) -> Vec<u8> {
        [&[0x81, u8::try_from(body.len()).unwrap()], body.as_bytes()].concat()
    }

    #[test]
    fn a_namespace_is_joined_and_its_events_are_messages() {
        let mut bytes = b"HTTP/1.1 101 x\r\n\r\n".to_vec();
        bytes.extend(text(r#"0{"sid":"a","upgrades":[]}"#));
        bytes.extend(text(r#"40/fanout,{"sid":"b","pid":"c"}"#));
        bytes.extend(text(r#"42/fanout,["message","one"]"#));
        bytes.extend(text("2"));
        bytes.extend(text(r#"451-/fanout,["message",{"_placeholder":true,"num":0}]"#));
        bytes.extend(b"\x82\x04four");
        bytes.extend(text(r#"42/fanout,["message","two","off"]"#));
        for piece in 1..bytes.len() {
            let mut wire = SocketIo::new("/fanout".into());
            let (messages, answer) = feed(&mut wire, 0, &bytes, piece);
            assert_eq!(messages, [&b"one"[..], b"four", b"two"]);
            let mut expected = Vec::new();
            websocket::frame(Kind::Text, b"40/fanout,", &mut expected);
            websocket::frame(Kind::Text, b"3", &mut expected);
            assert_eq!(answer, expected);
            assert!(wire.is_open() && !wire.is_resumed());
            assert_eq!((wire.private_id.as_deref(), wire.offset.as_deref()), (Some("c"), Some("off")));
        }
    }
}
