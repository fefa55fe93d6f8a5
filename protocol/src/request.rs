//! Request messages, and how they lie in the bytes of stream 0 (SPEC section 11).

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use crate::close::{Close, Code};
use crate::limits::{MAX_METHOD, MAX_REQUEST_REASON};
use crate::message::{COPY_BELOW, KIND_BINARY, KIND_REQUEST, KIND_TEXT, Message};
use crate::varint;

const REQUEST: u64 = 1;
const CHUNK: u64 = 2;
const ANSWER: u64 = 3;
const ERROR: u64 = 4;
const CANCEL: u64 = 5;
const MORE: u64 = 6;

/// The kind of data that is not there.
const KIND_NOTHING: u64 = 2;

/// What two sides say to each other about requests. Who asks says REQUEST, CANCEL and MORE, and who is asked the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestMessage {
    /// Asks for something.
    Request {
        /// One above the last of this side.
        id: u64,
        /// 1 to [`MAX_METHOD`] bytes.
        method: ByteString,
        /// What the method is to work with.
        data: Option<Message>,
    },
    /// A part of the answer, before its end.
    Chunk {
        /// The request's.
        id: u64,
        /// What.
        data: Message,
    },
    /// The end of the answer.
    Answer {
        /// The request's.
        id: u64,
        /// What.
        data: Option<Message>,
    },
    /// The end of an answer that there is not.
    Error {
        /// The request's.
        id: u64,
        /// A [`RequestCode`], of this version or another, or the application's own.
        code: u32,
        /// For a person.
        reason: ByteString,
    },
    /// The answer is of no use any more.
    Cancel {
        /// The request's.
        id: u64,
    },
    /// Further chunks may be sent.
    More {
        /// The request's.
        id: u64,
        /// A chunk may begin below so many bytes of chunks.
        limit: u64,
    },
}

impl RequestMessage {
    /// ERROR. A reason over [`MAX_REQUEST_REASON`] bytes is cut at a character.
    pub fn error(id: u64, code: u32, reason: &str) -> Self {
        Self::Error { id, code, reason: reason[..reason.floor_char_boundary(MAX_REQUEST_REASON)].into() }
    }

    /// The request that it is about.
    pub fn id(&self) -> u64 {
        match self {
            Self::Request { id, .. }
            | Self::Chunk { id, .. }
            | Self::Answer { id, .. }
            | Self::Error { id, .. }
            | Self::Cancel { id }
            | Self::More { id, .. } => *id,
        }
    }

    /// The message that it carries, if it does.
    pub fn data(&self) -> Option<&Message> {
        match self {
            Self::Request { data, .. } | Self::Answer { data, .. } => data.as_ref(),
            Self::Chunk { data, .. } => Some(data),
            Self::Error { .. } | Self::Cancel { .. } | Self::More { .. } => None,
        }
    }

    /// The chunks that stand for it in the message stream, as those of [`Message`]: long data stays shared, and is not copied.
    ///
    /// # Panics
    /// When a number is above 2^53 - 1, which none gets to.
    pub fn encode(&self) -> [Option<Bytes>; 2] {
        let mut fields = BytesMut::with_capacity(64);
        self.write_fields(&mut fields);
        let data = self.data().map(Message::as_bytes);
        let len = fields.len() + data.map_or(0, Bytes::len);
        let inline = data.filter(|data| data.len() <= COPY_BELOW);
        let mut head = BytesMut::with_capacity(10 + fields.len() + inline.map_or(0, Bytes::len));
        numbers(&mut head, [KIND_REQUEST, len as u64]);
        head.put_slice(&fields);
        inline.into_iter().for_each(|data| head.put_slice(data));
        [Some(head.freeze()), data.filter(|_| inline.is_none()).cloned()]
    }

    /// Writes everything but the bytes of the data, which are the end.
    fn write_fields(&self, out: &mut BytesMut) {
        match self {
            Self::Request { id, method, data } => {
                numbers(out, [REQUEST, *id]);
                string(out, method);
                numbers(out, [kind(data.as_ref())]);
            }
            Self::Chunk { id, data } => numbers(out, [CHUNK, *id, data.kind()]),
            Self::Answer { id, data } => numbers(out, [ANSWER, *id, kind(data.as_ref())]),
            Self::Error { id, code, reason } => {
                numbers(out, [ERROR, *id, u64::from(*code)]);
                string(out, reason);
            }
            Self::Cancel { id } => numbers(out, [CANCEL, *id]),
            Self::More { id, limit } => numbers(out, [MORE, *id, *limit]),
        }
    }
}

/// Reads the body of a request message. Data is a slice of it.
///
/// # Errors
/// `MALFORMED_MESSAGE`.
pub fn decode(mut body: Bytes) -> Result<RequestMessage, Close> {
    let message = read(&mut body).filter(|_| body.is_empty());
    message.ok_or_else(|| Close::protocol(Code::MalformedMessage, "a request message that cannot be read"))
}

fn read(body: &mut Bytes) -> Option<RequestMessage> {
    let (op, id) = (varint::take(body)?, varint::take(body)?);
    Some(match op {
        REQUEST => {
            let method = take_string(body).filter(|method| is_method(method))?;
            RequestMessage::Request { id, method, data: take_data(body)? }
        }
        CHUNK => RequestMessage::Chunk { id, data: take_data(body)?? },
        ANSWER => RequestMessage::Answer { id, data: take_data(body)? },
        ERROR => {
            let code = u32::try_from(varint::take(body)?).ok()?;
            RequestMessage::Error { id, code, reason: take_string(body)? }
        }
        CANCEL => RequestMessage::Cancel { id },
        MORE => RequestMessage::More { id, limit: varint::take(body)? },
        _ => return None,
    })
}

/// Whether a method may have this name: 1 to [`MAX_METHOD`] bytes.
pub fn is_method(name: &str) -> bool {
    (1..=MAX_METHOD).contains(&name.len())
}

/// A copy: the method is kept for longer than the data that it lies beside.
fn take_string(body: &mut Bytes) -> Option<ByteString> {
    let len = usize::try_from(varint::take(body)?).ok().filter(|len| *len <= body.len())?;
    std::str::from_utf8(&body.split_to(len)).ok().map(ByteString::from)
}

/// Kind and data, to the end; `Some(None)` when there is nothing.
#[expect(clippy::option_option, reason = "the outer one is that it cannot be read")]
fn take_data(body: &mut Bytes) -> Option<Option<Message>> {
    match varint::take(body)? {
        KIND_BINARY => Some(Some(Message::Binary(std::mem::take(body)))),
        KIND_TEXT => Some(Some(Message::Text(ByteString::try_from(std::mem::take(body)).ok()?))),
        KIND_NOTHING => Some(None),
        _ => None,
    }
}

fn kind(data: Option<&Message>) -> u64 {
    data.map_or(KIND_NOTHING, Message::kind)
}

fn numbers<const N: usize>(out: &mut BytesMut, numbers: [u64; N]) {
    numbers.into_iter().for_each(|number| varint::encode(number, out));
}

fn string(out: &mut BytesMut, text: &str) {
    varint::encode(text.len() as u64, out);
    out.put_slice(text.as_bytes());
}

/// Why a request failed. Numbers from [`RequestCode::APPLICATION`] on are the application's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum RequestCode {
    /// Who was asked could not do it.
    Failed = 0,
    /// It was cancelled.
    Cancelled = 1,
    /// Nobody there answers such a request.
    UnknownMethod = 2,
    /// Too many requests are under way.
    TooMany = 3,
    /// This session may not ask that.
    NotAllowed = 4,
}

impl RequestCode {
    /// Every code, in the order of its number.
    pub const ALL: [Self; 5] = [Self::Failed, Self::Cancelled, Self::UnknownMethod, Self::TooMany, Self::NotAllowed];

    /// The least of the application's own.
    pub const APPLICATION: u32 = 100;

    /// The code with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u32 == number)
    }

    /// The name that SPEC.md gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::UnknownMethod => "UNKNOWN_METHOD",
            Self::TooMany => "TOO_MANY",
            Self::NotAllowed => "NOT_ALLOWED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_REQUEST_OVERHEAD;

    #[test]
    fn what_we_write_keeps_to_the_bound_beside_data() {
        let most = varint::MAX;
        for message in [
            RequestMessage::error(most, u32::MAX, &"é".repeat(1_000)),
            RequestMessage::Request { id: most, method: "x".repeat(MAX_METHOD).into(), data: Some(Message::from("")) },
        ] {
            let [head, body] = message.encode();
            assert!(head.is_some_and(|head| head.len() <= MAX_REQUEST_OVERHEAD) && body.is_none(), "{message:?}");
        }
    }

    #[test]
    fn long_data_is_shared() {
        let data = Bytes::from(vec![7; COPY_BELOW + 1]);
        let message = RequestMessage::Answer { id: 1, data: Some(Message::from(data.clone())) };
        let [Some(head), Some(body)] = message.encode() else { panic!("the data is a chunk of its own") };
        assert_eq!(body.as_ptr(), data.as_ptr());
        // Behind kind and length.
        let whole = Bytes::from([&head[..], &body[..]].concat());
        assert_eq!(decode(whole.slice(1 + varint::len(whole.len() as u64)..)), Ok(message));
    }
}
