//! The notation of `vectors/README.md`, read strictly: a key that is not described there fails.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use throughline_protocol::{Close, Code, Frame, Message, Origin, ResumeKey, SessionId, Token, Welcome};

/// The largest number that JSON readers hold exactly.
const EXACT: u64 = 1 << 53;

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let value: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_exact(&value, path);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assert_exact(value: &serde_json::Value, path: &Path) {
    match value {
        serde_json::Value::Number(number) => {
            assert!(number.as_u64().is_some_and(|number| number < EXACT), "{}: {number}", path.display());
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| assert_exact(value, path)),
        serde_json::Value::Object(object) => object.values().for_each(|value| assert_exact(value, path)),
        _ => {}
    }
}

/// Bytes, in one of their three forms.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Raw {
    Hex(String),
    Repeat(Repeat),
    Parts(Vec<Raw>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Repeat {
    repeat: String,
    count: usize,
}

impl Raw {
    pub(crate) fn bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.write(&mut out);
        out.into()
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hex(text) => {
                assert_eq!(*text, text.to_lowercase(), "hex digits are lower-case");
                out.extend(hex::decode(text).unwrap_or_else(|error| panic!("{text}: {error}")));
            }
            Self::Repeat(Repeat { repeat, count }) => {
                out.extend(hex::decode(repeat).unwrap_or_else(|error| panic!("{repeat}: {error}")).repeat(*count));
            }
            Self::Parts(parts) => parts.iter().for_each(|part| part.write(out)),
        }
    }

    pub(crate) fn sixteen(&self) -> [u8; 16] {
        self.bytes()[..].try_into().expect("an id and a key have 16 bytes")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    Protocol,
    Application,
}

impl From<Side> for Origin {
    fn from(side: Side) -> Self {
        match side {
            Side::Protocol => Self::Protocol,
            Side::Application => Self::Application,
        }
    }
}

/// A frame as an object. A CLOSE without a reason matches every reason.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "UPPERCASE", deny_unknown_fields)]
pub(crate) enum FrameText {
    Welcome {
        version: u64,
        session: Raw,
        key: Raw,
        resumed: bool,
        #[serde(default)]
        marked: bool,
        link: u64,
        time: u64,
        heartbeat: u64,
        idle: u64,
        max_message: u64,
        received: u64,
        limit: u64,
        streams: u64,
        window: u64,
        #[serde(default)]
        expires: u64,
    },
    Close {
        code: u32,
        origin: Side,
        reason: Option<String>,
    },
    Stream {
        stream: u64,
        offset: u64,
        data: Raw,
    },
    Ack {
        stream: u64,
        received: u64,
        limit: u64,
    },
    Datagram {
        data: Raw,
    },
    Ping {
        id: u64,
    },
    Pong {
        id: u64,
        time: u64,
    },
    End {
        stream: u64,
        size: u64,
    },
    Reset {
        stream: u64,
        code: u32,
    },
    Stop {
        stream: u64,
        code: u32,
    },
    Streams {
        limit: u64,
    },
    Taken {
        count: u64,
    },
    #[serde(rename = "GOAWAY")]
    GoAway {
        delay: u64,
    },
    State {
        data: Raw,
    },
    Token {
        token: String,
    },
    Expires {
        #[serde(rename = "in")]
        in_ms: u64,
    },
}

impl FrameText {
    pub(crate) fn frame(&self) -> Frame {
        match self.clone() {
            Self::Welcome {
                version,
                session,
                key,
                resumed,
                marked,
                link,
                time,
                heartbeat,
                idle,
                max_message,
                received,
                limit,
                streams,
                window,
                expires,
            } => Frame::Welcome(Welcome {
                version,
                session: SessionId(session.sixteen()),
                key: ResumeKey(key.sixteen()),
                resumed,
                marked,
                link,
                time_us: time,
                heartbeat_ms: heartbeat,
                idle_ms: idle,
                max_message,
                received,
                limit,
                streams,
                window_ms: window,
                expires_ms: expires,
            }),
            Self::Close { code, origin, reason } => {
                Frame::Close(Close { code, origin: origin.into(), reason: reason.unwrap_or_default() })
            }
            Self::Stream { stream, offset, data } => Frame::Stream { stream, offset, data: data.bytes() },
            Self::Ack { stream, received, limit } => Frame::Ack { stream, received, limit },
            Self::Datagram { data } => Frame::Datagram(data.bytes()),
            Self::Ping { id } => Frame::Ping { id },
            Self::Pong { id, time } => Frame::Pong { id, time_us: time },
            Self::End { stream, size } => Frame::End { stream, size },
            Self::Reset { stream, code } => Frame::Reset { stream, code },
            Self::Stop { stream, code } => Frame::Stop { stream, code },
            Self::Streams { limit } => Frame::Streams { limit },
            Self::Taken { count } => Frame::Taken { count },
            Self::GoAway { delay } => Frame::GoAway { delay_ms: delay },
            Self::State { data } => Frame::State(data.bytes()),
            Self::Token { token } => Frame::Token(Token(token.into())),
            Self::Expires { in_ms } => Frame::Expires { in_ms },
        }
    }

    pub(crate) fn matches(&self, frame: &Frame) -> bool {
        match (self, frame) {
            (Self::Close { code, origin, reason: None }, Frame::Close(close)) => {
                *code == close.code && Origin::from(*origin) == close.origin
            }
            _ => self.frame() == *frame,
        }
    }
}

/// The three forms of a message. A struct, since it stands among other keys in an event.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageText {
    text: Option<String>,
    text_bytes: Option<Raw>,
    binary: Option<Raw>,
}

impl MessageText {
    pub(crate) fn message(&self) -> Message {
        one_of_three(&self.text, &self.text_bytes, &self.binary)
    }
}

pub(crate) fn one_of_three(text: &Option<String>, text_bytes: &Option<Raw>, binary: &Option<Raw>) -> Message {
    match (text, text_bytes, binary) {
        (Some(text), None, None) => Message::from(text.as_str()),
        (None, Some(raw), None) => {
            Message::from(String::from_utf8(raw.bytes().to_vec()).expect("text_bytes are UTF-8"))
        }
        (None, None, Some(raw)) => Message::from(raw.bytes()),
        _ => panic!("a message is one of text, text_bytes and binary"),
    }
}

pub(crate) fn code(name: &str) -> Code {
    *Code::ALL.iter().find(|code| code.name() == name).unwrap_or_else(|| panic!("there is no close code {name}"))
}

pub(crate) fn encoded(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.freeze()
}
