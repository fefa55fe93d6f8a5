//! `vectors/frames.json`, `invalid.json`, `messages.json`, `channels.json` and `requests.json`.

mod common;

use bytes::Bytes;
use common::{FrameText, MessageText, Raw, code, encoded, folder, read};
use serde::Deserialize;
use throughline_protocol::{
    ChannelMessage, Close, Code, Config, Decoder, Event, Frame, FrameError, LinkTraits, Machine, Message, Position,
    RequestMessage, ResumeKey, SessionId, channel, request, varint,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Frames {
    #[serde(rename = "about")]
    _about: String,
    frames: Vec<One>,
    sequences: Vec<Sequence>,
    incomplete: Vec<Incomplete>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    why: String,
    bytes: Raw,
    frame: FrameText,
    #[serde(default = "yes")]
    canonical: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sequence {
    why: String,
    bytes: Raw,
    frames: Vec<FrameText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Incomplete {
    why: String,
    bytes: Raw,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InvalidFile {
    #[serde(rename = "about")]
    _about: String,
    invalid: Vec<Invalid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invalid {
    why: String,
    bytes: Raw,
    code: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessagesFile {
    #[serde(rename = "about")]
    _about: String,
    valid: Vec<ValidMessages>,
    invalid: Vec<InvalidMessages>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValidMessages {
    why: String,
    pieces: Vec<Raw>,
    messages: Vec<MessageText>,
    #[serde(default = "yes")]
    canonical: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InvalidMessages {
    why: String,
    pieces: Vec<Raw>,
    #[serde(default)]
    messages: Vec<MessageText>,
    max_message: Option<usize>,
    code: String,
}

fn yes() -> bool {
    true
}

/// Everything that comes out when `bytes` go in, cut after every `step` bytes.
fn decode(bytes: &Bytes, step: usize) -> (Vec<Frame>, Result<bool, FrameError>) {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    let mut rest = bytes.clone();
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) if rest.is_empty() => return (frames, Ok(decoder.is_empty())),
            Ok(None) => decoder.push(rest.split_to(step.min(rest.len()))),
            Err(error) => return (frames, Err(error)),
        }
    }
}

/// Ways to cut `len` bytes: whole, and in pieces of some sizes; long ones not byte by byte.
fn steps(len: usize) -> impl Iterator<Item = usize> {
    [1, 2, 3, 7, 1_000, len.max(1)].into_iter().filter(move |step| len / step <= 4_096)
}

#[test]
fn frames_are_read_and_written_as_the_vectors_say() {
    let file: Frames = read(&folder().join("frames.json"));
    for One { why, bytes, frame, canonical } in file.frames {
        let bytes = bytes.bytes();
        for step in steps(bytes.len()) {
            assert_eq!(decode(&bytes, step), (vec![frame.frame()], Ok(true)), "{why}, in pieces of {step}");
        }
        assert_eq!(encoded(&frame.frame()) == bytes, canonical, "{why}");
    }
    for Sequence { why, bytes, frames } in file.sequences {
        let (bytes, frames) = (bytes.bytes(), frames.iter().map(FrameText::frame).collect::<Vec<_>>());
        for step in steps(bytes.len()) {
            assert_eq!(decode(&bytes, step), (frames.clone(), Ok(true)), "{why}, in pieces of {step}");
        }
    }
    for Incomplete { why, bytes } in file.incomplete {
        let bytes = bytes.bytes();
        for step in steps(bytes.len()) {
            assert_eq!(decode(&bytes, step), (vec![], Ok(bytes.is_empty())), "{why}, in pieces of {step}");
        }
    }
}

#[test]
fn what_is_no_frame_is_refused_with_the_code_that_the_vectors_say() {
    let file: InvalidFile = read(&folder().join("invalid.json"));
    for Invalid { why, bytes, code: name } in file.invalid {
        let bytes = bytes.bytes();
        for step in steps(bytes.len()) {
            let (_, result) = decode(&bytes, step);
            assert_eq!(result.map_err(FrameError::code), Err(code(&name)), "{why}, in pieces of {step}");
        }
    }
}

/// What a server makes of these pieces of stream 0.
fn receive(pieces: &[Bytes], max_message_bytes: usize) -> (Vec<Message>, Option<Close>) {
    let config = Config { max_message_bytes, receive_window_bytes: 1 << 30, ..Config::default() };
    let mut machine = Machine::server(config, SessionId([1; 16]), ResumeKey([2; 16]));
    machine.link_opened(0, LinkTraits::default());
    while machine.poll_transmit(0, 65_536).is_some() {}
    let mut offset = 0;
    for piece in pieces {
        machine.handle_frame(0, Frame::Stream { stream: 0, offset, data: piece.clone() });
        offset += piece.len() as u64;
    }
    let close = machine.closing().cloned();
    while machine.poll_transmit(0, 65_536).is_some() {}
    let messages = std::iter::from_fn(|| machine.poll_event())
        .filter_map(|event| if let Event::Message(message) = event { Some(message) } else { None });
    (messages.collect(), close)
}

/// The bytes of stream 0 that sending these messages writes.
fn send(messages: &[Message]) -> Bytes {
    let config = Config { send_buffer_bytes: 1 << 30, ..Config::default() };
    let mut machine = Machine::server(config, SessionId([1; 16]), ResumeKey([2; 16]));
    machine.link_opened(0, LinkTraits::default());
    machine.handle_frame(0, Frame::Ack { stream: 0, received: 0, limit: 1 << 30 });
    for message in messages {
        machine.send(message.clone()).expect("there is room");
    }
    let mut decoder = Decoder::new();
    let mut bytes = Vec::new();
    while let Some(packet) = machine.poll_transmit(0, 65_536) {
        decoder.push(packet.into_bytes());
        while let Some(frame) = decoder.next_frame().expect("a machine writes frames") {
            if let Frame::Stream { data, .. } = frame {
                bytes.extend_from_slice(&data);
            }
        }
    }
    bytes.into()
}

/// The pieces as they are, all in one, and cut once at every place (of a long one at some places).
fn cuts(pieces: &[Raw]) -> Vec<Vec<Bytes>> {
    let pieces: Vec<Bytes> = pieces.iter().map(Raw::bytes).collect();
    let whole = Bytes::from(pieces.concat());
    let mut all = vec![pieces, vec![whole.clone()]];
    for at in (0..=whole.len()).step_by((whole.len() / 500).max(1)) {
        all.push(vec![whole.slice(..at), whole.slice(at..)]);
    }
    all.push(whole.chunks(if whole.len() > 5_000 { 999 } else { 1 }).map(Bytes::copy_from_slice).collect());
    all
}

#[test]
fn messages_lie_in_the_stream_as_the_vectors_say() {
    let file: MessagesFile = read(&folder().join("messages.json"));
    for ValidMessages { why, pieces, messages, canonical } in file.valid {
        let messages: Vec<Message> = messages.iter().map(MessageText::message).collect();
        for cut in cuts(&pieces) {
            assert_eq!(receive(&cut, 4_194_304), (messages.clone(), None), "{why}");
        }
        let bytes: Vec<Bytes> = pieces.iter().map(Raw::bytes).collect();
        assert_eq!(send(&messages) == bytes.concat(), canonical, "{why}");
    }
    for InvalidMessages { why, pieces, messages, max_message, code: name } in file.invalid {
        let messages: Vec<Message> = messages.iter().map(MessageText::message).collect();
        for cut in cuts(&pieces) {
            let (received, close) = receive(&cut, max_message.unwrap_or(4_194_304));
            assert_eq!(received, messages, "{why}");
            assert_eq!(close.map(|close| close.code), Some(code(&name) as u32), "{why}");
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelsFile {
    #[serde(rename = "about")]
    _about: String,
    valid: Vec<ValidChannel>,
    invalid: Vec<InvalidChannel>,
    states: Vec<ValidChannel>,
    invalid_states: Vec<InvalidChannel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValidChannel {
    why: String,
    bytes: Raw,
    message: ChannelText,
    #[serde(default = "yes")]
    canonical: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InvalidChannel {
    why: String,
    bytes: Raw,
}

/// A channel message as an object.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "UPPERCASE", deny_unknown_fields)]
enum ChannelText {
    Subscribe { request: u64, channel: String, epoch: Option<u64>, offset: Option<u64>, about: Option<String> },
    Unsubscribe { request: u64, channel: String },
    Publish { request: u64, channel: String, data: MessageText },
    Subscribed { request: u64, number: u64, recovered: bool, state: bool, epoch: u64, offset: u64 },
    Done { request: u64, epoch: u64, offset: u64 },
    Failed { request: u64, code: u64, reason: String },
    Publication { number: u64, offset: u64, data: MessageText },
    Unsubscribed { number: u64, code: u64, reason: String },
    Skipped { number: u64, offset: u64 },
    Snapshot { number: u64 },
    Value { number: u64, offset: u64, key: String, data: Option<MessageText> },
    Settled { number: u64, offset: u64 },
    Set { request: u64, channel: String, key: String, data: Option<MessageText> },
    History { request: u64, channel: String, epoch: Option<u64>, offset: Option<u64>, newest: bool, limit: u64 },
    Page { request: u64, complete: bool, more: bool, epoch: u64, offset: u64, publications: Vec<PublicationText> },
    Added { number: u64, channel: String, state: bool, epoch: u64, offset: u64 },
}

/// One of a PAGE.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicationText {
    offset: u64,
    data: MessageText,
}

impl ChannelText {
    fn message(self) -> ChannelMessage {
        match self {
            Self::Subscribe { request, channel, epoch, offset, about } => {
                let position = position(epoch, offset);
                ChannelMessage::Subscribe { request, channel: channel.into(), position, about: about.map(Into::into) }
            }
            Self::Unsubscribe { request, channel } => ChannelMessage::Unsubscribe { request, channel: channel.into() },
            Self::Publish { request, channel, data } => {
                ChannelMessage::Publish { request, channel: channel.into(), data: data.message() }
            }
            Self::Subscribed { request, number, recovered, state, epoch, offset } => {
                ChannelMessage::Subscribed { request, number, recovered, state, position: Position { epoch, offset } }
            }
            Self::Done { request, epoch, offset } => {
                ChannelMessage::Done { request, position: Position { epoch, offset } }
            }
            Self::Failed { request, code, reason } => ChannelMessage::Failed { request, code, reason },
            Self::Publication { number, offset, data } => {
                ChannelMessage::Publication { number, offset, data: data.message() }
            }
            Self::Unsubscribed { number, code, reason } => ChannelMessage::Unsubscribed { number, code, reason },
            Self::Skipped { number, offset } => ChannelMessage::Skipped { number, offset },
            Self::Snapshot { number } => ChannelMessage::Snapshot { number },
            Self::Value { number, offset, key, data } => {
                ChannelMessage::Value { number, offset, key: key.into(), data: data.as_ref().map(MessageText::message) }
            }
            Self::Settled { number, offset } => ChannelMessage::Settled { number, offset },
            Self::Set { request, channel, key, data } => {
                let data = data.as_ref().map(MessageText::message);
                ChannelMessage::Set { request, channel: channel.into(), key: key.into(), data }
            }
            Self::History { request, channel, epoch, offset, newest, limit } => {
                let after = position(epoch, offset);
                ChannelMessage::History { request, channel: channel.into(), after, newest, limit }
            }
            Self::Page { request, complete, more, epoch, offset, publications } => {
                let publications =
                    publications.into_iter().map(|PublicationText { offset, data }| (offset, data.message()));
                let position = Position { epoch, offset };
                ChannelMessage::Page { request, complete, more, position, publications: publications.collect() }
            }
            Self::Added { number, channel, state, epoch, offset } => {
                ChannelMessage::Added { number, channel: channel.into(), state, position: Position { epoch, offset } }
            }
        }
    }
}

fn position(epoch: Option<u64>, offset: Option<u64>) -> Option<Position> {
    assert_eq!(epoch.is_some(), offset.is_some());
    epoch.zip(offset).map(|(epoch, offset)| Position { epoch, offset })
}

#[test]
fn channel_messages_are_read_and_written_as_the_vectors_say() {
    let file: ChannelsFile = read(&folder().join("channels.json"));
    for ValidChannel { why, bytes, message, canonical } in file.valid {
        let (body, message) = (bytes.bytes(), message.message());
        assert_eq!(channel::decode(body.clone()).as_ref(), Ok(&message), "{why}");
        // Around it there are the kind and the length of a message.
        let mut whole = vec![2];
        varint::encode(body.len() as u64, &mut whole);
        whole.extend_from_slice(&body);
        assert_eq!(message.encode() == whole, canonical, "{why}");
    }
    for InvalidChannel { why, bytes } in file.invalid {
        let close = channel::decode(bytes.bytes()).expect_err(&why);
        assert_eq!(close, Close::protocol(Code::MalformedMessage, close.reason.clone()), "{why}");
    }
    for ValidChannel { why, bytes, message, canonical } in file.states {
        let (payload, message) = (bytes.bytes(), message.message());
        assert_eq!(channel::decode_state(payload.clone()).as_ref(), Ok(&message), "{why}");
        assert_eq!(message.encode_state() == Some(payload), canonical, "{why}");
    }
    for InvalidChannel { why, bytes } in file.invalid_states {
        let close = channel::decode_state(bytes.bytes()).expect_err(&why);
        assert_eq!(close, Close::protocol(Code::MalformedFrame, close.reason.clone()), "{why}");
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestsFile {
    #[serde(rename = "about")]
    _about: String,
    valid: Vec<ValidRequest>,
    invalid: Vec<InvalidChannel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValidRequest {
    why: String,
    bytes: Raw,
    message: RequestText,
    #[serde(default = "yes")]
    canonical: bool,
}

/// A request message as an object.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "UPPERCASE", deny_unknown_fields)]
enum RequestText {
    Request { id: u64, method: String, data: Option<MessageText> },
    Chunk { id: u64, data: MessageText },
    Answer { id: u64, data: Option<MessageText> },
    Error { id: u64, code: u32, reason: String },
    Cancel { id: u64 },
    More { id: u64, limit: u64 },
}

impl RequestText {
    fn message(self) -> RequestMessage {
        let message = |data: Option<MessageText>| data.map(|data| data.message());
        match self {
            Self::Request { id, method, data } => {
                RequestMessage::Request { id, method: method.into(), data: message(data) }
            }
            Self::Chunk { id, data } => RequestMessage::Chunk { id, data: data.message() },
            Self::Answer { id, data } => RequestMessage::Answer { id, data: message(data) },
            Self::Error { id, code, reason } => RequestMessage::Error { id, code, reason: reason.into() },
            Self::Cancel { id } => RequestMessage::Cancel { id },
            Self::More { id, limit } => RequestMessage::More { id, limit },
        }
    }
}

#[test]
fn request_messages_are_read_and_written_as_the_vectors_say() {
    let file: RequestsFile = read(&folder().join("requests.json"));
    for ValidRequest { why, bytes, message, canonical } in file.valid {
        let (body, message) = (bytes.bytes(), message.message());
        assert_eq!(request::decode(body.clone()).as_ref(), Ok(&message), "{why}");
        // Around it there are the kind and the length of a message.
        let mut whole = vec![3];
        varint::encode(body.len() as u64, &mut whole);
        whole.extend_from_slice(&body);
        assert_eq!(message.encode().into_iter().flatten().collect::<Vec<_>>().concat() == whole, canonical, "{why}");
    }
    for InvalidChannel { why, bytes } in file.invalid {
        let close = request::decode(bytes.bytes()).expect_err(&why);
        assert_eq!(close, Close::protocol(Code::MalformedMessage, close.reason.clone()), "{why}");
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpeningFile {
    #[serde(rename = "about")]
    _about: String,
    valid: Vec<ValidOpening>,
    invalid: Vec<InvalidOpening>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValidOpening {
    why: String,
    fields: OpeningFields,
    query: Option<String>,
    protocols: Option<Vec<String>>,
    headers: Option<Vec<(String, String)>>,
    #[serde(rename = "canonical", default = "yes")]
    _canonical: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpeningFields {
    version: u64,
    session: Option<String>,
    key: Option<String>,
    received: Option<Vec<(u64, u64)>>,
    token: Option<String>,
    #[serde(default)]
    marks: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InvalidOpening {
    why: String,
    query: Option<String>,
    protocols: Option<Vec<String>>,
    headers: Option<Vec<(String, String)>>,
    status: u16,
    code: String,
}

#[test]
fn openings_are_complete() {
    // Reading openings is the server's business: its tests read this file as well.
    let file: OpeningFile = read(&folder().join("opening.json"));
    for ValidOpening { why, fields, query, protocols, headers, .. } in file.valid {
        assert_eq!(fields.version, throughline_protocol::VERSION, "{why}");
        assert_eq!(fields.session.is_some(), fields.key.is_some(), "{why}");
        assert_eq!(fields.session.is_some(), fields.received.is_some(), "{why}");
        assert!(fields.session.is_none_or(|id| id.parse::<SessionId>().is_ok()), "{why}");
        assert!(fields.key.is_none_or(|key| key.parse::<ResumeKey>().is_ok()), "{why}");
        assert!(fields.token.is_none_or(|token| token.len() <= throughline_protocol::limits::MAX_TOKEN), "{why}");
        assert!(query.is_some() || protocols.is_some() || headers.is_some(), "{why}");
        assert!(!fields.marks || (protocols.is_none() && headers.is_none()), "{why}");
    }
    for InvalidOpening { why, query, protocols, headers, status, code: name } in file.invalid {
        let carriers = [query.is_some(), protocols.is_some(), headers.is_some()];
        assert_eq!(carriers.iter().filter(|there| **there).count(), 1, "{why}");
        assert_eq!(status, 400, "{why}");
        code(&name);
    }
}
