//! Server-Sent Events: what one stream carries, and the lines of which Throughline makes packets.

use super::http::{Answers, Part};
use super::wire::{Io, Wire};
use crate::Failure;

/// Longest line, in bytes: a packet of 256 KiB in base64.
const LINE_MAX: usize = 512 * 1_024;

/// A client whose messages are the data of events.
pub(crate) struct Sse {
    path: String,
    answers: Answers,
    lines: Lines,
    data: Vec<u8>,
    is_open: bool,
}

impl Sse {
    pub(crate) fn new(path: String) -> Self {
        Self { path, answers: Answers::default(), lines: Lines::default(), data: Vec::new(), is_open: false }
    }
}

impl Wire for Sse {
    fn start(&mut self, io: &mut Io<'_>) {
        *self = Self::new(std::mem::take(&mut self.path));
        let head = format!("GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n", self.path);
        io.out[0].extend_from_slice(head.as_bytes());
    }

    fn take(&mut self, _: usize, bytes: &[u8], io: &mut Io<'_>) -> Result<(), Failure> {
        let Self { answers, lines, data, is_open, .. } = self;
        answers.take(bytes, |part| match part {
            Part::Head(head) if head.status == 200 => {
                *is_open = true;
                Ok(())
            }
            Part::Head(head) => Err(format!("an event stream was answered {}", head.status).into()),
            Part::Body(bytes) => lines.take(bytes, |line| {
                match line {
                    Line::Data(line) => {
                        if !data.is_empty() {
                            data.push(b'\n');
                        }
                        data.extend_from_slice(line);
                    }
                    Line::End if data.is_empty() => {}
                    Line::End => {
                        (io.message)(data);
                        data.clear();
                    }
                }
                Ok(())
            }),
            Part::End => Err("the event stream ended".into()),
        })
    }

    fn send(&mut self, _: &[u8], _: &mut Io<'_>) -> Result<(), Failure> {
        Err("an event stream has one direction".into())
    }

    fn is_open(&self) -> bool {
        self.is_open
    }
}

/// What matters in an event stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A line of data of the event.
    Data(&'a [u8]),
    /// The event is whole.
    End,
}

/// Lines out of pieces of any size. Comments and other fields are left out.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// A line that is not whole yet.
    rest: Vec<u8>,
}

impl Lines {
    pub(crate) fn take(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Line<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, after) = (&bytes[..end], &bytes[end + 1..]);
            bytes = after;
            if self.rest.is_empty() {
                said(line).map_or(Ok(()), &mut each)?;
            } else {
                self.rest.extend_from_slice(line);
                said(&self.rest).map_or(Ok(()), &mut each)?;
                self.rest.clear();
            }
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > LINE_MAX { Err("a line of an event stream is too long".into()) } else { Ok(()) }
    }
}

fn said(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Some(Line::End);
    }
    let data = line.strip_prefix(b"data:")?;
    Some(Line::Data(data.strip_prefix(b" ").unwrap_or(data)))
}

#[cfg(test)]
mod tests {
    use super::super::wire::testing::feed;
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\
            : hi\n\nid: 1\ndata: one\n\nevent: x\r\ndata:two\r\ndata: lines\r\n\r\ndata: \xc3\xa9\n\n";
        for piece in 1..bytes.len() {
            let mut wire = Sse::new("/tokens".into());
            let (messages, _) = feed(&mut wire, 0, bytes, piece);
            assert_eq!(messages, [&b"one"[..], b"two\nlines", "é".as_bytes()]);
            assert!(wire.is_open());
        }
    }
}
