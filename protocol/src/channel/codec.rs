//! How channel messages lie in the bytes of stream 0, and values in those of a STATE frame.

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use super::{ChannelMessage, Position};
use crate::close::{Close, Code};
use crate::limits::{MAX_ABOUT, MAX_KEY};
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
const SNAPSHOT: u64 = 10;
const VALUE: u64 = 11;
const SETTLED: u64 = 12;
const SET: u64 = 13;
const HISTORY: u64 = 14;
const PAGE: u64 = 15;
const ADDED: u64 = 16;

/// Beside the kinds of messages: that a value was removed.
const KIND_REMOVED: u64 = 2;

impl ChannelMessage {
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

    /// VALUE as the payload of a STATE frame; `None` for anything else.
    ///
    /// # Panics
    /// When a number is above 2^53 - 1, which none gets to.
    pub fn encode_state(&self) -> Option<Bytes> {
        let Self::Value { number, offset, key, data } = self else { return None };
        let len = data.as_ref().map_or(0, Message::len);
        let mut out = BytesMut::with_capacity(32 + key.len() + len);
        value(&mut out, *number, *offset, key, data.as_ref());
        data.iter().for_each(|data| out.put_slice(data.as_bytes()));
        Some(out.freeze())
    }

    /// Writes everything but the bytes of `data`, which are the end.
    fn write_fields(&self, out: &mut BytesMut) -> Option<&Message> {
        match self {
            Self::Subscribe { request, channel, position, about } => {
                numbers(out, [SUBSCRIBE, *request]);
                string(out, channel);
                numbers(out, [bits([position.is_some(), about.is_some()])]);
                position.iter().for_each(|Position { epoch, offset }| numbers(out, [*epoch, *offset]));
                about.iter().for_each(|about| string(out, about));
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
            Self::Subscribed { request, number, recovered, state, position: Position { epoch, offset } } => {
                numbers(out, [SUBSCRIBED, *request, *number, bits([*recovered, *state]), *epoch, *offset]);
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
            Self::Snapshot { number } => numbers(out, [SNAPSHOT, *number]),
            Self::Value { number, offset, key, data } => {
                numbers(out, [VALUE]);
                value(out, *number, *offset, key, data.as_ref());
                return data.as_ref();
            }
            Self::Settled { number, offset } => numbers(out, [SETTLED, *number, *offset]),
            Self::Set { request, channel, key, data } => {
                numbers(out, [SET, *request]);
                string(out, channel);
                string(out, key);
                numbers(out, [data.as_ref().map_or(KIND_REMOVED, Message::kind)]);
                return data.as_ref();
            }
            Self::History { request, channel, after, newest, limit } => {
                numbers(out, [HISTORY, *request]);
                string(out, channel);
                numbers(out, [bits([after.is_some(), *newest])]);
                after.iter().for_each(|Position { epoch, offset }| numbers(out, [*epoch, *offset]));
                numbers(out, [*limit]);
            }
            Self::Page { request, complete, more, position: Position { epoch, offset }, publications } => {
                let count = publications.len() as u64;
                numbers(out, [PAGE, *request, bits([*complete, *more]), *epoch, *offset, count]);
                for (offset, data) in publications {
                    numbers(out, [*offset, data.kind(), data.len() as u64]);
                    out.put_slice(data.as_bytes());
                }
            }
            Self::Added { number, channel, state, position: Position { epoch, offset } } => {
                numbers(out, [ADDED, *number]);
                string(out, channel);
                numbers(out, [bits([false, *state]), *epoch, *offset]);
            }
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

/// Reads the payload of a STATE frame: a VALUE. Its data is a slice of it.
///
/// # Errors
/// `MALFORMED_FRAME`.
pub fn decode_state(mut payload: Bytes) -> Result<ChannelMessage, Close> {
    let malformed = || Close::protocol(Code::MalformedFrame, "a value that cannot be read");
    let message = varint::take(&mut payload).and_then(|number| take_value(&mut payload, number));
    message.filter(|_| payload.is_empty()).ok_or_else(malformed)
}

fn read(body: &mut Bytes) -> Option<ChannelMessage> {
    let op = varint::take(body)?;
    // Whatever the op: a request's number, or a channel's.
    let first = varint::take(body)?;
    Some(match op {
        SUBSCRIBE => {
            let channel = take_string(body)?.into();
            let [has_position, has_about] = take_bits(body)?;
            let position = if has_position { Some(take_position(body)?) } else { None };
            let about = if has_about { Some(take_bounded(body, MAX_ABOUT)?) } else { None };
            ChannelMessage::Subscribe { request: first, channel, position, about }
        }
        UNSUBSCRIBE => ChannelMessage::Unsubscribe { request: first, channel: take_string(body)?.into() },
        PUBLISH => {
            let channel = take_string(body)?.into();
            ChannelMessage::Publish { request: first, channel, data: take_data(body)?? }
        }
        SUBSCRIBED => {
            let number = varint::take(body)?;
            let [recovered, state] = take_bits(body)?;
            ChannelMessage::Subscribed { request: first, number, recovered, state, position: take_position(body)? }
        }
        DONE => ChannelMessage::Done { request: first, position: take_position(body)? },
        FAILED => ChannelMessage::Failed { request: first, code: varint::take(body)?, reason: take_string(body)? },
        PUBLICATION => {
            ChannelMessage::Publication { number: first, offset: varint::take(body)?, data: take_data(body)?? }
        }
        UNSUBSCRIBED => {
            ChannelMessage::Unsubscribed { number: first, code: varint::take(body)?, reason: take_string(body)? }
        }
        SKIPPED => ChannelMessage::Skipped { number: first, offset: varint::take(body)? },
        SNAPSHOT => ChannelMessage::Snapshot { number: first },
        VALUE => take_value(body, first)?,
        SETTLED => ChannelMessage::Settled { number: first, offset: varint::take(body)? },
        SET => {
            let channel = take_string(body)?.into();
            let key = take_bounded(body, MAX_KEY)?;
            ChannelMessage::Set { request: first, channel, key, data: take_data(body)? }
        }
        HISTORY => {
            let channel = take_string(body)?.into();
            let [has_position, newest] = take_bits(body)?;
            let after = if has_position { Some(take_position(body)?) } else { None };
            let limit = varint::take(body).filter(|limit| *limit > 0)?;
            ChannelMessage::History { request: first, channel, after, newest, limit }
        }
        PAGE => {
            let [complete, more] = take_bits(body)?;
            let position = take_position(body)?;
            let count = varint::take(body)?;
            // What is claimed reserves nothing.
            let mut publications = Vec::new();
            for _ in 0..count {
                let (offset, kind) = (varint::take(body)?, varint::take(body)?);
                publications.push((offset, message(kind, take_bytes(body)?)?));
            }
            ChannelMessage::Page { request: first, complete, more, position, publications }
        }
        ADDED => {
            let channel = take_string(body)?.into();
            let [_, state] = take_bits(body)?;
            ChannelMessage::Added { number: first, channel, state, position: take_position(body)? }
        }
        _ => return None,
    })
}

/// The fields of VALUE after its number.
fn take_value(body: &mut Bytes, number: u64) -> Option<ChannelMessage> {
    let offset = varint::take(body)?;
    let key = take_bounded(body, MAX_KEY)?;
    Some(ChannelMessage::Value { number, offset, key, data: take_data(body)? })
}

fn take_position(body: &mut Bytes) -> Option<Position> {
    Some(Position { epoch: varint::take(body)?, offset: varint::take(body)? })
}

/// The two lowest bits of flags.
fn take_bits(body: &mut Bytes) -> Option<[bool; 2]> {
    let flags = varint::take(body)?;
    Some([flags & 1 != 0, flags & 2 != 0])
}

fn take_bytes(body: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(varint::take(body)?).ok()?;
    (len <= body.len()).then(|| body.split_to(len))
}

fn take_string(body: &mut Bytes) -> Option<String> {
    String::from_utf8(take_bytes(body)?.into()).ok()
}

fn take_bounded(body: &mut Bytes, max: usize) -> Option<ByteString> {
    take_string(body).filter(|text| text.len() <= max).map(ByteString::from)
}

/// Kind and data, to the end. The inner `None`: that something was removed.
fn take_data(body: &mut Bytes) -> Option<Option<Message>> {
    match varint::take(body)? {
        KIND_REMOVED => Some(None),
        kind => Some(Some(message(kind, std::mem::take(body))?)),
    }
}

fn message(kind: u64, data: Bytes) -> Option<Message> {
    match kind {
        KIND_BINARY => Some(Message::Binary(data)),
        KIND_TEXT => Some(Message::Text(ByteString::try_from(data).ok()?)),
        _ => None,
    }
}

/// The fields of VALUE, but for the bytes of its data.
fn value(out: &mut BytesMut, number: u64, offset: u64, key: &str, data: Option<&Message>) {
    numbers(out, [number, offset]);
    string(out, key);
    numbers(out, [data.map_or(KIND_REMOVED, Message::kind)]);
}

fn bits(bits: [bool; 2]) -> u64 {
    u64::from(bits[0]) | u64::from(bits[1]) << 1
}

fn numbers<const N: usize>(out: &mut BytesMut, numbers: [u64; N]) {
    numbers.into_iter().for_each(|number| varint::encode(number, out));
}

fn string(out: &mut BytesMut, text: &str) {
    varint::encode(text.len() as u64, out);
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::ChannelCode;
    use crate::limits::{MAX_CHANNEL_NAME, MAX_CHANNEL_OVERHEAD};

    #[test]
    fn what_we_write_keeps_to_the_bound_beside_data() {
        let (most, reason) = (varint::MAX, "é".repeat(1_000));
        let channel = ByteString::from("x".repeat(MAX_CHANNEL_NAME));
        let (about, key) = ("x".repeat(MAX_ABOUT).into(), ByteString::from("x".repeat(MAX_KEY)));
        let position = Position { epoch: most, offset: most };
        for message in [
            ChannelMessage::failed(most, ChannelCode::TooSlow, reason.clone()),
            ChannelMessage::unsubscribed(most, ChannelCode::TooSlow, reason),
            ChannelMessage::Subscribe {
                request: most,
                channel: channel.clone(),
                position: Some(position),
                about: Some(about),
            },
            ChannelMessage::Publish { request: most, channel: channel.clone(), data: Message::from("") },
            ChannelMessage::Set { request: most, channel: channel.clone(), key: key.clone(), data: Some("".into()) },
            ChannelMessage::Value { number: most, offset: most, key, data: None },
            ChannelMessage::Added { number: most, channel, state: true, position },
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

    #[test]
    fn a_value_has_the_same_fields_in_a_state_frame() {
        let value = |data| ChannelMessage::Value { number: 3, offset: 70, key: "é".into(), data };
        for message in [value(None), value(Some("x".into())), value(Some(vec![7; 900].into()))] {
            let (whole, payload) = (message.encode(), message.encode_state().expect("it is a value"));
            assert_eq!(whole[whole.len() - payload.len()..], payload);
            assert_eq!(decode_state(payload), Ok(message));
        }
        assert_eq!(ChannelMessage::Snapshot { number: 3 }.encode_state(), None);
    }

    #[test]
    fn a_state_frame_that_is_no_value_is_malformed() {
        for payload in [&[][..], &[3], &[3, 1, 1], &[3, 1, 0], &[3, 1, 0, 3], &[3, 1, 0, 2, 0], &[3, 1, 1, 0xff, 0]] {
            let close = decode_state(Bytes::copy_from_slice(payload)).expect_err("it is malformed");
            assert_eq!(close.code, Code::MalformedFrame as u32, "{payload:?}");
        }
    }
}
