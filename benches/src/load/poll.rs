//! Long-polling as nchan does it: each answer is one message, and its `Last-Modified` and `Etag` say where the next request goes on.

use super::http::{Answers, Head, Part};
use super::wire::{Io, Wire};
use crate::Failure;

/// A client that always has one request under way.
pub(crate) struct Poll {
    path: String,
    answers: Answers,
    /// Where the next request goes on: header fields.
    position: String,
    body: Vec<u8>,
}

impl Poll {
    pub(crate) fn new(path: String) -> Self {
        Self { path, answers: Answers::default(), position: String::new(), body: Vec::new() }
    }

    fn ask(path: &str, position: &str, out: &mut Vec<u8>) {
        for piece in ["GET ", path, " HTTP/1.1\r\nHost: 127.0.0.1\r\n", position, "\r\n"] {
            out.extend_from_slice(piece.as_bytes());
        }
    }
}

impl Wire for Poll {
    fn start(&mut self, io: &mut Io<'_>) {
        self.answers = Answers::default();
        self.body.clear();
        Self::ask(&self.path, &self.position, &mut io.out[0]);
    }

    fn take(&mut self, _: usize, bytes: &[u8], io: &mut Io<'_>) -> Result<(), Failure> {
        let Self { path, answers, position, body } = self;
        answers.take(bytes, |part| {
            match part {
                Part::Head(head) if head.status == 200 => *position = after(&head),
                Part::Head(head) => return Err(format!("a poll was answered {}", head.status).into()),
                Part::Body(bytes) => body.extend_from_slice(bytes),
                Part::End => {
                    (io.message)(body);
                    body.clear();
                    Self::ask(path, position, &mut io.out[0]);
                }
            }
            Ok(())
        })
    }

    fn send(&mut self, _: &[u8], _: &mut Io<'_>) -> Result<(), Failure> {
        Err("a poll has one direction".into())
    }

    /// A poll that waits looks like one that has not been read yet: nothing says that the server has it.
    fn is_open(&self) -> bool {
        true
    }
}

/// What the next request says, so that it gets what comes after this answer.
fn after(head: &Head<'_>) -> String {
    let field = |name, of| head.field(of).map(|value| format!("{name}: {value}\r\n")).unwrap_or_default();
    field("If-Modified-Since", "last-modified") + &field("If-None-Match", "etag")
}

/// A client that publishes: each message is a POST to the path.
pub(crate) struct Post {
    path: String,
    answers: Answers,
}

impl Post {
    pub(crate) fn new(path: String) -> Self {
        Self { path, answers: Answers::default() }
    }
}

impl Wire for Post {
    fn start(&mut self, _: &mut Io<'_>) {
        self.answers = Answers::default();
    }

    fn take(&mut self, _: usize, bytes: &[u8], _: &mut Io<'_>) -> Result<(), Failure> {
        self.answers.take(bytes, |part| match part {
            Part::Head(head) if !(200..300).contains(&head.status) => {
                Err(format!("a POST was answered {}", head.status).into())
            }
            _ => Ok(()),
        })
    }

    fn send(&mut self, message: &[u8], io: &mut Io<'_>) -> Result<(), Failure> {
        // Without a wait for the answer before: the server reads one after the other.
        let head =
            format!("POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n", self.path, message.len());
        io.out[0].extend_from_slice(head.as_bytes());
        io.out[0].extend_from_slice(message);
        Ok(())
    }

    fn is_open(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::testing::feed;
    use super::*;

    #[test]
    fn each_answer_is_a_message_and_says_where_to_go_on() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nLast-Modified: then\r\nEtag: 7\r\n\r\none\
            HTTP/1.1 200 OK\r\nContent-Length: 3\r\nLast-Modified: now\r\nEtag: 0\r\n\r\ntwo";
        for piece in 1..bytes.len() {
            let (messages, asked) = feed(&mut Poll::new("/fanout".into()), 0, bytes, piece);
            assert_eq!(messages, [b"one", b"two"]);
            let asked = String::from_utf8(asked).unwrap();
            assert_eq!(asked.matches("GET /fanout HTTP/1.1\r\n").count(), 2);
            assert!(asked.ends_with("If-Modified-Since: now\r\nIf-None-Match: 0\r\n\r\n"));
        }
    }
}
