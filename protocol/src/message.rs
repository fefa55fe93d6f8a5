//! Messages, and how they lie in the bytes of stream 0 (SPEC section 4.1).

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use crate::close::{Close, Code};
use crate::limits::{MAX_CHANNEL_OVERHEAD, MAX_REQUEST_OVERHEAD};
use crate::varint::{self, Decoded};

pub(crate) const KIND_BINARY: u64 = 0;
pub(crate) const KIND_TEXT: u64 = 1;
pub(crate) const KIND_CHANNEL: u64 = 2;
pub(crate) const KIND_REQUEST: u64 = 3;

/// Bodies up to this many bytes are copied behind their header; a longer one stays shared, as a chunk of its own.
pub(crate) const COPY_BELOW: usize = 1_024;

/// One ordered, reliable unit of the message stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// UTF-8 text.
    Text(ByteString),
    /// Bytes.
    Binary(Bytes),
}

impl Message {
    /// The body, in bytes.
    pub fn as_bytes(&self) -> &Bytes {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// Length of the body, in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the body is empty, which is allowed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The number of its kind on the wire.
    pub(crate) fn kind(&self) -> u64 {
        match self {
            Self::Binary(_) => KIND_BINARY,
            Self::Text(_) => KIND_TEXT,
        }
    }

    /// The chunks that stand for this message in the message stream: its header, and its body.
    pub(crate) fn encode(self) -> [Option<Bytes>; 2] {
        let kind = self.kind();
        let body = self.into_bytes();
        let inline = body.len() <= COPY_BELOW;
        let mut head = BytesMut::with_capacity(9 + if inline { body.len() } else { 0 });
        varint::encode(kind, &mut head);
        varint::encode(body.len() as u64, &mut head);
        if inline {
            head.put_slice(&body);
            return [Some(head.freeze()), None];
        }
        [Some(head.freeze()), Some(body)]
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}
impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}
impl From<ByteString> for Message {
    fn from(text: ByteString) -> Self {
        Self::Text(text)
    }
}
impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}
impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}
impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Self::Binary(Bytes::copy_from_slice(bytes))
    }
}

/// Puts messages together from the bytes of stream 0, which arrive in pieces of any size.
#[derive(Debug)]
pub(crate) struct Assembler {
    max_message: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// In the header: two varints, 16 bytes at most.
    Header { bytes: [u8; 16], len: usize },
    /// In the body.
    Body { kind: u64, header: usize, length: usize, body: Vec<u8> },
}

impl State {
    const START: Self = Self::Header { bytes: [0; 16], len: 0 };
}

/// What was put together.
#[derive(Debug)]
pub(crate) enum Whole {
    /// For the application.
    Message(Assembled),
    /// The body of a channel message, as a binary message.
    Channel(Assembled),
    /// The body of a request message, as a binary message.
    Request(Assembled),
}

/// A message, and what it cost of the stream's credit: header and body.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) message: Message,
    pub(crate) cost: u64,
}

impl Assembler {
    pub(crate) fn new(max_message: usize) -> Self {
        Self { max_message, state: State::START }
    }

    /// What counts from the next header on.
    pub(crate) fn set_max_message(&mut self, max_message: usize) {
        self.max_message = max_message;
    }

    /// Takes from `data` what belongs to the next message, and returns it when it is whole.
    pub(crate) fn next(&mut self, data: &mut Bytes) -> Result<Option<Whole>, Close> {
        loop {
            match &mut self.state {
                State::Header { bytes, len } => {
                    let Some((kind, length)) = header(&bytes[..*len])? else {
                        if data.is_empty() {
                            return Ok(None);
                        }
                        bytes[*len] = data.split_to(1)[0];
                        *len += 1;
                        continue;
                    };
                    let max = match kind {
                        KIND_BINARY | KIND_TEXT => self.max_message,
                        KIND_CHANNEL => self.max_message.saturating_add(MAX_CHANNEL_OVERHEAD),
                        KIND_REQUEST => self.max_message.saturating_add(MAX_REQUEST_OVERHEAD),
                        _ => {
                            let reason = format!("unknown kind of message {kind}");
                            return Err(Close::protocol(Code::MalformedMessage, reason));
                        }
                    };
                    if matches!(kind, KIND_CHANNEL | KIND_REQUEST) && length == 0 {
                        let reason = "an empty channel or request message";
                        return Err(Close::protocol(Code::MalformedMessage, reason));
                    }
                    if length > max as u64 {
                        return Err(Close::protocol(
                            Code::MessageTooLarge,
                            format!("a message of {length} bytes; at most {max} are allowed"),
                        ));
                    }
                    // The buffer grows with what arrives, not with what a header claims.
                    self.state = State::Body { kind, header: *len, length: length as usize, body: Vec::new() };
                }
                State::Body { kind, header, length, body } => {
                    let missing = *length - body.len();
                    if data.len() < missing {
                        if body.capacity() - body.len() < data.len() {
                            // Doubles, so that all the copying is linear, and never goes beyond the end.
                            body.reserve_exact(body.len().max(data.len()).min(missing));
                        }
                        body.extend_from_slice(&std::mem::take(data));
                        return Ok(None);
                    }
                    // Copied, also when it lies in one piece: a slice would keep the whole packet in memory for as
                    // long as the message lives, and the credit would bound nothing.
                    body.reserve_exact(missing);
                    body.extend_from_slice(&data.split_to(missing));
                    let whole = Bytes::from(std::mem::take(body));
                    let cost = (*header + *length) as u64;
                    let kind = *kind;
                    self.state = State::START;
                    let message = match kind {
                        KIND_TEXT => Message::Text(ByteString::try_from(whole).map_err(|_| {
                            Close::protocol(Code::MalformedMessage, "a text message that is not UTF-8")
                        })?),
                        _ => Message::Binary(whole),
                    };
                    let assembled = Assembled { message, cost };
                    return Ok(Some(match kind {
                        KIND_CHANNEL => Whole::Channel(assembled),
                        KIND_REQUEST => Whole::Request(assembled),
                        _ => Whole::Message(assembled),
                    }));
                }
            }
        }
    }
}

fn header(bytes: &[u8]) -> Result<Option<(u64, u64)>, Close> {
    let too_large = || Close::protocol(Code::MalformedMessage, "a message header that is no varint of this protocol");
    let (kind, rest) = match varint::decode(bytes) {
        Decoded::Value(kind, len) => (kind, &bytes[len..]),
        Decoded::Incomplete => return Ok(None),
        Decoded::TooLarge => return Err(too_large()),
    };
    match varint::decode(rest) {
        Decoded::Value(length, _) => Ok(Some((kind, length))),
        Decoded::Incomplete => Ok(None),
        Decoded::TooLarge => Err(too_large()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message of the application's that these bytes complete.
    fn whole(assembler: &mut Assembler, mut bytes: Bytes) -> Assembled {
        match assembler.next(&mut bytes) {
            Ok(Some(Whole::Message(assembled))) => assembled,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_does_not_keep_its_packet_in_memory() {
        // The body was a slice: one byte of credit cost the receiver a packet of any size.
        let mut bytes = vec![0, 1, 7];
        bytes.resize(65_536, 0);
        let packet = Bytes::from(bytes);
        let assembled = whole(&mut Assembler::new(10), packet.slice(..3));
        assert_eq!(assembled.message.as_bytes()[..], [7]);
        assert!(packet.is_unique(), "the message holds the packet");
    }

    #[test]
    fn a_long_message_takes_no_more_memory_than_its_length() {
        let mut assembler = Assembler::new(1 << 20);
        let mut head = BytesMut::new();
        varint::encode(KIND_BINARY, &mut head);
        varint::encode(1_000_000, &mut head);
        assert!(assembler.next(&mut head.freeze()).expect("is well-formed").is_none());
        for _ in 0..999 {
            assert!(assembler.next(&mut Bytes::from(vec![1; 1_000])).expect("is well-formed").is_none());
            let State::Body { body, .. } = &assembler.state else { panic!("is in the body") };
            assert!(body.capacity() <= 1_000_000 && body.capacity() <= 2 * body.len());
        }
        let assembled = whole(&mut assembler, Bytes::from(vec![1; 1_000]));
        assert_eq!(assembled.message.len(), 1_000_000);
    }
}
