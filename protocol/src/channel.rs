//! Channel messages, and how they lie in the bytes of stream 0 (SPEC section 10).

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use crate::close::{Close, Code};
use crate::limits::{MAX_CHANNEL_NAME, MAX_CHANNEL_REASON};
use crate::message::{KIND_BINARY, KIND_CHANNEL, KIND_TEXT, Message};
use crate::varint;

const SUBSCRIBE: u64 = 1;
const UNSUBSCRIBE: u64 = 2;
const PUBLISH: u64 = 3;
const SUBSCRIBED: u64 = 4;
const DONE: u64 = 5;
const FAILED: u64 = 6;
const PUBLICATION: u64 = 7;
const UNSUBSCRIBED: u64 = 8;
const SKIPPED: u64 = 9;

/// A place in a channel: that of the publication with this offset, or of none yet, when it is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Position {
    /// In which count: from 1, and another when the count has begun anew. 0 where there is no position to tell.
    pub epoch: u64,
    /// The publications of the channel, counted from 1.
    pub offset: u64,
}

/// What client and server say to each other about channels. A client says the first three, which are requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelMessage {
    /// The client wants what is published.
    Subscribe {
        /// One above the last.
        request: u64,
        /// Not checked yet: see [`is_name`].
        channel: ByteString,
        /// The last publication that it has had.
        position: Option<Position>,
    },
    /// The client wants no more of it.
    Unsubscribe {
        /// One above the last.
        request: u64,
        /// Not checked yet: see [`is_name`].
        channel: ByteString,
    },
    /// The client publishes.
    Publish {
        /// One above the last.
        request: u64,
        /// Not checked yet: see [`is_name`].
        channel: ByteString,
        /// What.
        data: Message,
    },
    /// An answer to SUBSCRIBE.
    Subscribed {
        /// The client's.
        request: u64,
        /// Stands for the channel from now on.
        number: u64,
        /// Whether everything after the position that was asked for follows.
        recovered: bool,
        /// The next publication is the one after it.
        position: Position,
    },
    /// An answer to UNSUBSCRIBE and PUBLISH.
    Done {
        /// The client's.
        request: u64,
        /// Of what was published; zeros after UNSUBSCRIBE.
        position: Position,
    },
    /// An answer to any request.
    Failed {
        /// The client's.
        request: u64,
        /// A [`ChannelCode`], of this version or another.
        code: u64,
        /// For a person.
        reason: String,
    },
    /// What was published.
    Publication {
        /// The channel's.
        number: u64,
        /// Its place in the channel.
        offset: u64,
        /// What.
        data: Message,
    },
    /// The server has ended a subscription.
    Unsubscribed {
        /// The channel's.
        number: u64,
        /// A [`ChannelCode`], of this version or another.
        code: u64,
        /// For a person.
        reason: String,
    },
    /// Publications are lost to this subscription.
    Skipped {
        /// The channel's.
        number: u64,
        /// Of the last of them.
        offset: u64,
    },
}

impl ChannelMessage {
    /// FAILED. A reason over [`MAX_CHANNEL_REASON`] bytes is cut at a character.
    pub fn failed(request: u64, code: ChannelCode, reason: impl Into<String>) -> Self {
        Self::Failed { request, code: code as u64, reason: cut(reason.into()) }
    }

    /// UNSUBSCRIBED. A reason over [`MAX_CHANNEL_REASON`] bytes is cut at a character.
    pub fn unsubscribed(number: u64, code: ChannelCode, reason: impl Into<String>) -> Self {
        Self::Unsubscribed { number, code: code as u64, reason: cut(reason.into()) }
    }

    /// The number of a request; `None` for what a server says.
    pub fn request(&self) -> Option<u64> {
        match self {
            Self::Subscribe { request, .. } | Self::Unsubscribe { request, .. } | Self::Publish { request, .. } => {
                Some(*request)
            }
            _ => None,
        }
    }

    /// The whole message in one piece: kind, length and body.
    ///
    /// # Panics
    /// When a number is above 2^53 - 1, which none gets to.
    pub fn encode(&self) -> Bytes {
        let mut fields = BytesMut::with_capacity(64);
        let data = self.write_fields(&mut fields).map_or(&[][..], |data| data.as_bytes());
        let len = fields.len() + data.len();
        let mut out = BytesMut::with_capacity(varint::len(KIND_CHANNEL) + varint::len(len as u64) + len);
        varint::encode(KIND_CHANNEL, &mut out);
        varint::encode(len as u64, &mut out);
        out.put_slice(&fields);
        out.put_slice(data);
        out.freeze()
    }

    /// Writes everything but the bytes of `data`, which are the end.
    fn write_fields(&self, out: &mut BytesMut) -> Option<&Message> {
        match self {
            Self::Subscribe { request, channel, position } => {
                numbers(out, [SUBSCRIBE, *request]);
                string(out, channel);
                numbers(out, [u64::from(position.is_some())]);
                position.iter().for_each(|Position { epoch, offset }| numbers(out, [*epoch, *offset]));
            }
            Self::Unsubscribe { request, channel } => {
                numbers(out, [UNSUBSCRIBE, *request]);
                string(out, channel);
            }
            Self::Publish { request, channel, data } => {
                numbers(out, [PUBLISH, *request]);
                string(out, channel);
                numbers(out, [data.kind()]);
                return Some(data);
            }
            Self::Subscribed { request, number, recovered, position: Position { epoch, offset } } => {
                numbers(out, [SUBSCRIBED, *request, *number, u64::from(*recovered), *epoch, *offset]);
            }
            Self::Done { request, position: Position { epoch, offset } } => {
                numbers(out, [DONE, *request, *epoch, *offset]);
            }
            Self::Failed { request, code, reason } => {
                numbers(out, [FAILED, *request, *code]);
                string(out, reason);
            }
            Self::Publication { number, offset, data } => {
                numbers(out, [PUBLICATION, *number, *offset, data.kind()]);
                return Some(data);
            }
            Self::Unsubscribed { number, code, reason } => {
                numbers(out, [UNSUBSCRIBED, *number, *code]);
                string(out, reason);
            }
            Self::Skipped { number, offset } => numbers(out, [SKIPPED, *number, *offset]),
        }
        None
    }
}

/// Reads the body of a channel message. Data is a slice of it; names and reasons are copied, since they are kept for longer.
///
/// # Errors
/// `MALFORMED_MESSAGE`.
pub fn decode(mut body: Bytes) -> Result<ChannelMessage, Close> {
    let malformed = || Close::protocol(Code::MalformedMessage, "a channel message that cannot be read");
    let message = read(&mut body).ok_or_else(malformed)?;
    // Data takes all the rest.
    if body.is_empty() { Ok(message) } else { Err(malformed()) }
}

fn read(body: &mut Bytes) -> Option<ChannelMessage> {
    let op = varint::take(body)?;
    // Whatever the op: a request's number, or a channel's.
    let first = varint::take(body)?;
    Some(match op {
        SUBSCRIBE => {
            let channel = take_string(body)?.into();
            let has_position = varint::take(body)? & 1 == 1;
            let position = if has_position { Some(take_position(body)?) } else { None };
            ChannelMessage::Subscribe { request: first, channel, position }
        }
        UNSUBSCRIBE => ChannelMessage::Unsubscribe { request: first, channel: take_string(body)?.into() },
        PUBLISH => {
            let channel = take_string(body)?.into();
            ChannelMessage::Publish { request: first, channel, data: take_data(body)? }
        }
        SUBSCRIBED => {
            let number = varint::take(body)?;
            let recovered = varint::take(body)? & 1 == 1;
            ChannelMessage::Subscribed { request: first, number, recovered, position: take_position(body)? }
        }
        DONE => ChannelMessage::Done { request: first, position: take_position(body)? },
        FAILED => ChannelMessage::Failed { request: first, code: varint::take(body)?, reason: take_string(body)? },
        PUBLICATION => {
            ChannelMessage::Publication { number: first, offset: varint::take(body)?, data: take_data(body)? }
        }
        UNSUBSCRIBED => {
            ChannelMessage::Unsubscribed { number: first, code: varint::take(body)?, reason: take_string(body)? }
        }
        SKIPPED => ChannelMessage::Skipped { number: first, offset: varint::take(body)? },
        _ => return None,
    })
}

fn take_position(body: &mut Bytes) -> Option<Position> {
    Some(Position { epoch: varint::take(body)?, offset: varint::take(body)? })
}

fn take_string(body: &mut Bytes) -> Option<String> {
    let len = usize::try_from(varint::take(body)?).ok()?;
    if len > body.len() {
        return None;
    }
    String::from_utf8(body.split_to(len).into()).ok()
}

/// Kind and data, to the end.
fn take_data(body: &mut Bytes) -> Option<Message> {
    match varint::take(body)? {
        KIND_BINARY => Some(Message::Binary(std::mem::take(body))),
        KIND_TEXT => Some(Message::Text(ByteString::try_from(std::mem::take(body)).ok()?)),
        _ => None,
    }
}

fn numbers<const N: usize>(out: &mut BytesMut, numbers: [u64; N]) {
    numbers.into_iter().for_each(|number| varint::encode(number, out));
}

fn string(out: &mut BytesMut, text: &str) {
    varint::encode(text.len() as u64, out);
    out.put_slice(text.as_bytes());
}

fn cut(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(MAX_CHANNEL_REASON));
    reason
}

/// Whether a channel may have this name: 1 to 255 bytes, and no control characters.
pub fn is_name(name: &str) -> bool {
    let is_control = |byte: &u8| *byte < 0x20 || *byte == 0x7f;
    (1..=MAX_CHANNEL_NAME).contains(&name.len()) && !name.as_bytes().iter().any(is_control)
}

/// The namespace of a channel of this name: what comes before its first `:`, and without one the namespace without a name.
pub fn namespace(name: &str) -> &str {
    name.split_once(':').map_or("", |(namespace, _)| namespace)
}

/// Why a request failed, or a subscription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum ChannelCode {
    /// The server's application ended the subscription.
    Normal = 0,
    /// This session may not do that with this channel.
    NotAllowed = 1,
    /// Not a name of a channel.
    BadChannel = 2,
    /// More subscriptions than a session may have, or more channels than the server has room for.
    TooMany = 3,
    /// A publication longer than the namespace allows.
    TooLarge = 4,
    /// UNSUBSCRIBE of a channel that the session is not subscribed to.
    NotSubscribed = 5,
    /// The session is subscribed to it.
    AlreadySubscribed = 6,
    /// The server could not reach what keeps the channels.
    Unavailable = 7,
    /// The session did not take what was published in time.
    TooSlow = 8,
}

impl ChannelCode {
    /// Every code, in the order of its number.
    pub const ALL: [Self; 9] = [
        Self::Normal,
        Self::NotAllowed,
        Self::BadChannel,
        Self::TooMany,
        Self::TooLarge,
        Self::NotSubscribed,
        Self::AlreadySubscribed,
        Self::Unavailable,
        Self::TooSlow,
    ];

    /// The code with this number.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u64 == number)
    }

    /// The name that SPEC.md gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::BadChannel => "BAD_CHANNEL",
            Self::TooMany => "TOO_MANY",
            Self::TooLarge => "TOO_LARGE",
            Self::NotSubscribed => "NOT_SUBSCRIBED",
            Self::AlreadySubscribed => "ALREADY_SUBSCRIBED",
            Self::Unavailable => "UNAVAILABLE",
            Self::TooSlow => "TOO_SLOW",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_CHANNEL_OVERHEAD;

    #[test]
    fn names_have_1_to_255_bytes_and_no_control_characters() {
        let longest = "é".repeat(127) + "x";
        assert_eq!(longest.len(), 255);
        for name in ["a", ":", "room:42", "späť 🦀", "\u{80}", &longest] {
            assert!(is_name(name), "{name:?}");
        }
        for name in ["", "a\n", "\u{0}", "\u{1f}a", "a\u{7f}", &(longest + "x")] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn the_namespace_is_what_comes_before_the_first_colon() {
        for (name, expected) in [("room:42", "room"), ("a:b:c", "a"), ("lobby", ""), (":x", ""), ("x:", "x")] {
            assert_eq!(namespace(name), expected);
        }
    }

    #[test]
    fn what_we_write_keeps_to_the_bound_beside_data() {
        let (most, reason) = (varint::MAX, "é".repeat(1_000));
        let channel = ByteString::from("x".repeat(MAX_CHANNEL_NAME));
        let position = Position { epoch: most, offset: most };
        for message in [
            ChannelMessage::failed(most, ChannelCode::TooSlow, reason.clone()),
            ChannelMessage::unsubscribed(most, ChannelCode::TooSlow, reason),
            ChannelMessage::Subscribe { request: most, channel: channel.clone(), position: Some(position) },
            ChannelMessage::Publish { request: most, channel, data: Message::from("") },
        ] {
            assert!(message.encode().len() <= MAX_CHANNEL_OVERHEAD, "{message:?}");
        }
    }

    #[test]
    fn data_is_a_slice_of_the_body() {
        let message = ChannelMessage::Publish { request: 1, channel: "a".into(), data: Message::from(vec![7; 5_000]) };
        let whole = message.encode();
        let Ok(ChannelMessage::Publish { data, .. }) = decode(whole.slice(3..)) else { panic!("it is well-formed") };
        assert_eq!(data.as_bytes().as_ptr_range().end, whole.as_ptr_range().end);
    }
}
