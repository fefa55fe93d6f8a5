//! Frames and their bytes (SPEC section 3).

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use crate::close::{Close, Code, Origin};
use crate::id::{ResumeKey, SessionId};
use crate::limits::{MAX_DATAGRAM, MAX_FRAME_PAYLOAD, MAX_REASON, MAX_TOKEN};
use crate::varint;

/// The numbers of the frame types.
pub mod kind {
    /// WELCOME.
    pub const WELCOME: u64 = 0x01;
    /// CLOSE.
    pub const CLOSE: u64 = 0x02;
    /// STREAM.
    pub const STREAM: u64 = 0x03;
    /// ACK.
    pub const ACK: u64 = 0x04;
    /// DATAGRAM.
    pub const DATAGRAM: u64 = 0x05;
    /// PING.
    pub const PING: u64 = 0x06;
    /// PONG.
    pub const PONG: u64 = 0x07;
    /// END.
    pub const END: u64 = 0x08;
    /// RESET.
    pub const RESET: u64 = 0x09;
    /// STOP.
    pub const STOP: u64 = 0x0a;
    /// STREAMS.
    pub const STREAMS: u64 = 0x0b;
    /// TAKEN.
    pub const TAKEN: u64 = 0x0c;
    /// GOAWAY.
    pub const GOAWAY: u64 = 0x0d;
    /// STATE.
    pub const STATE: u64 = 0x0e;
    /// TOKEN.
    pub const TOKEN: u64 = 0x0f;
    /// EXPIRES.
    pub const EXPIRES: u64 = 0x10;
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The first frame on every link, from the server.
    Welcome(Welcome),
    /// The end of the session.
    Close(Close),
    /// Bytes of a stream.
    Stream {
        /// The stream's id.
        stream: u64,
        /// Where `data` begins in the stream, in bytes.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// What was received of a stream, and how far its sender may go.
    Ack {
        /// The stream's id.
        stream: u64,
        /// Bytes received in order.
        received: u64,
        /// The sender may send bytes below this offset.
        limit: u64,
    },
    /// An unreliable unit.
    Datagram(Bytes),
    /// A question that asks for PONG.
    Ping {
        /// One above the last.
        id: u64,
    },
    /// The answer to PING.
    Pong {
        /// The PING's.
        id: u64,
        /// The answerer's clock, in microseconds since the Unix epoch.
        time_us: u64,
    },
    /// The sender's half of a stream is complete.
    End {
        /// The stream's id.
        stream: u64,
        /// Its length, in bytes.
        size: u64,
    },
    /// The sender gives its half of a stream up.
    Reset {
        /// The stream's id.
        stream: u64,
        /// The application's code.
        code: u32,
    },
    /// The receiver of a stream reads no more.
    Stop {
        /// The stream's id.
        stream: u64,
        /// The application's code.
        code: u32,
    },
    /// How many streams the receiver of this frame may open in all.
    Streams {
        /// Counted from the session's beginning.
        limit: u64,
    },
    /// How many DATAGRAM frames of this link were taken.
    Taken {
        /// Counted from the link's beginning.
        count: u64,
    },
    /// From a server: it is going away. From a client: it is ready for that.
    GoAway {
        /// When the client should leave, in milliseconds from now.
        delay_ms: u64,
    },
    /// A value of a channel of state, from a server: the fields of VALUE from `number` on (SPEC section 10.1).
    State(Bytes),
    /// What a client authenticates with from now on. A secret.
    Token(Token),
    /// How long the client's credentials are good for, from a server.
    Expires {
        /// In milliseconds from now; 0: for ever.
        in_ms: u64,
    },
}

/// What a client authenticates with: 1 to [`MAX_TOKEN`] bytes. Not shown when it is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub ByteString);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// `received` of an ACK that says: all of this stream has arrived, or nothing more of it is wanted.
pub const DONE: u64 = varint::MAX;

/// The content of WELCOME (SPEC section 3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version spoken on this link.
    pub version: u64,
    /// The session's id.
    pub session: SessionId,
    /// The secret that lets its holder resume the session.
    pub key: ResumeKey,
    /// Whether the session that the client asked for goes on.
    pub resumed: bool,
    /// Whether native datagrams to the client begin with a mark on this link.
    pub marked: bool,
    /// The number of this link within the session, from 1.
    pub link: u64,
    /// The server's clock, in microseconds since the Unix epoch.
    pub time_us: u64,
    /// Milliseconds between PINGs.
    pub heartbeat_ms: u64,
    /// Milliseconds of silence after which the link counts as dead.
    pub idle_ms: u64,
    /// The longest message body, in bytes.
    pub max_message: u64,
    /// What the server has received of stream 0, in bytes.
    pub received: u64,
    /// The client may send bytes of stream 0 below this offset.
    pub limit: u64,
    /// Streams that the client may open in all.
    pub streams: u64,
    /// Milliseconds that the server keeps a session without a link; 0: not at all.
    pub window_ms: u64,
    /// Milliseconds until what the client has authenticated with ends; 0: never.
    pub expires_ms: u64,
}

/// A frame that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The fields do not fill the payload, or are not what they should be.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// No frame has this type.
    #[error("unknown frame type {0:#x}")]
    Unknown(u64),
    /// The payload is over [`MAX_FRAME_PAYLOAD`].
    #[error("a frame of {0} bytes; at most {MAX_FRAME_PAYLOAD} are allowed")]
    TooLarge(u64),
    /// The datagram is over [`MAX_DATAGRAM`].
    #[error("a datagram of {0} bytes; at most {MAX_DATAGRAM} are allowed")]
    DatagramTooLarge(usize),
}

impl FrameError {
    /// The close code that answers it.
    pub fn code(self) -> Code {
        match self {
            Self::Malformed(_) => Code::MalformedFrame,
            Self::Unknown(_) => Code::UnknownFrame,
            Self::TooLarge(_) => Code::FrameTooLarge,
            Self::DatagramTooLarge(_) => Code::DatagramTooLarge,
        }
    }
}

impl Frame {
    /// Writes the whole frame: type, length, payload.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Welcome(welcome) => with_length(out, kind::WELCOME, |out| welcome.encode(out)),
            Self::Close(close) => with_length(out, kind::CLOSE, |out| {
                varint::encode(u64::from(close.code), out);
                out.put_u8(match close.origin {
                    Origin::Protocol => 0,
                    Origin::Application => 1,
                });
                out.put_slice(close.reason.as_bytes());
            }),
            Self::Stream { stream, offset, data } => {
                encode_stream_header(*stream, *offset, data.len(), out);
                out.put_slice(data);
            }
            Self::Ack { stream, received, limit } => numbers(out, kind::ACK, [*stream, *received, *limit]),
            Self::Datagram(data) => encode_bytes(kind::DATAGRAM, data, out),
            Self::Ping { id } => numbers(out, kind::PING, [*id]),
            Self::Pong { id, time_us } => numbers(out, kind::PONG, [*id, *time_us]),
            Self::End { stream, size } => numbers(out, kind::END, [*stream, *size]),
            Self::Reset { stream, code } => numbers(out, kind::RESET, [*stream, u64::from(*code)]),
            Self::Stop { stream, code } => numbers(out, kind::STOP, [*stream, u64::from(*code)]),
            Self::Streams { limit } => numbers(out, kind::STREAMS, [*limit]),
            Self::Taken { count } => numbers(out, kind::TAKEN, [*count]),
            Self::GoAway { delay_ms } => numbers(out, kind::GOAWAY, [*delay_ms]),
            Self::State(value) => encode_bytes(kind::STATE, value, out),
            Self::Token(Token(token)) => encode_bytes(kind::TOKEN, token.as_bytes(), out),
            Self::Expires { in_ms } => numbers(out, kind::EXPIRES, [*in_ms]),
        }
    }

    /// Reads the payload of a frame of type `kind`.
    ///
    /// # Errors
    /// [`FrameError`] says what is wrong with it.
    pub fn decode(kind: u64, mut payload: Bytes) -> Result<Self, FrameError> {
        let frame = match kind {
            kind::WELCOME => {
                return Welcome::decode(payload).map(Self::Welcome).ok_or(FrameError::Malformed("WELCOME"));
            }
            kind::CLOSE => return decode_close(payload).map(Self::Close).ok_or(FrameError::Malformed("CLOSE")),
            kind::STREAM => {
                let malformed = FrameError::Malformed("STREAM");
                let stream = varint::take(&mut payload).ok_or(malformed)?;
                let offset = varint::take(&mut payload).ok_or(malformed)?;
                if offset + payload.len() as u64 > varint::MAX {
                    return Err(malformed);
                }
                return Ok(Self::Stream { stream, offset, data: payload });
            }
            kind::DATAGRAM | kind::STATE if payload.len() > MAX_DATAGRAM => {
                return Err(FrameError::DatagramTooLarge(payload.len()));
            }
            kind::DATAGRAM => return Ok(Self::Datagram(payload)),
            kind::STATE => return Ok(Self::State(payload)),
            kind::TOKEN => return decode_token(payload).map(Self::Token).ok_or(FrameError::Malformed("TOKEN")),
            kind::ACK => take(&mut payload)
                .map(|[stream, received, limit]| Self::Ack { stream, received, limit })
                .ok_or(FrameError::Malformed("ACK")),
            kind::PING => take(&mut payload).map(|[id]| Self::Ping { id }).ok_or(FrameError::Malformed("PING")),
            kind::PONG => {
                take(&mut payload).map(|[id, time_us]| Self::Pong { id, time_us }).ok_or(FrameError::Malformed("PONG"))
            }
            kind::END => {
                take(&mut payload).map(|[stream, size]| Self::End { stream, size }).ok_or(FrameError::Malformed("END"))
            }
            kind::RESET => take_code(&mut payload)
                .map(|(stream, code)| Self::Reset { stream, code })
                .ok_or(FrameError::Malformed("RESET")),
            kind::STOP => take_code(&mut payload)
                .map(|(stream, code)| Self::Stop { stream, code })
                .ok_or(FrameError::Malformed("STOP")),
            kind::STREAMS => {
                take(&mut payload).map(|[limit]| Self::Streams { limit }).ok_or(FrameError::Malformed("STREAMS"))
            }
            kind::TAKEN => {
                take(&mut payload).map(|[count]| Self::Taken { count }).ok_or(FrameError::Malformed("TAKEN"))
            }
            kind::GOAWAY => take(&mut payload)
                .filter(|[delay_ms]| *delay_ms <= u64::from(u32::MAX))
                .map(|[delay_ms]| Self::GoAway { delay_ms })
                .ok_or(FrameError::Malformed("GOAWAY")),
            kind::EXPIRES => {
                take(&mut payload).map(|[in_ms]| Self::Expires { in_ms }).ok_or(FrameError::Malformed("EXPIRES"))
            }
            unknown => return Err(FrameError::Unknown(unknown)),
        }?;
        if payload.has_remaining() {
            Err(FrameError::Malformed("frame: bytes after its last field"))
        } else {
            Ok(frame)
        }
    }
}

/// Writes type, length, stream and offset of a STREAM frame whose `len` bytes of data follow: the only
/// bytes of a broadcast that differ from session to session.
pub fn encode_stream_header(stream: u64, offset: u64, len: usize, out: &mut BytesMut) {
    varint::encode(kind::STREAM, out);
    varint::encode((varint::len(stream) + varint::len(offset) + len) as u64, out);
    varint::encode(stream, out);
    varint::encode(offset, out);
}

/// Writes a frame whose payload is these bytes.
pub(crate) fn encode_bytes(kind: u64, payload: &[u8], out: &mut BytesMut) {
    varint::encode(kind, out);
    varint::encode(payload.len() as u64, out);
    out.put_slice(payload);
}

/// Bytes that a STREAM frame needs beside its data, at most: one of type, four of length, eight each of
/// stream and offset.
pub const MAX_STREAM_HEADER: usize = 21;

impl Welcome {
    fn encode(&self, out: &mut BytesMut) {
        varint::encode(self.version, out);
        out.put_slice(&self.session.0);
        out.put_slice(&self.key.0);
        let flags = u64::from(self.resumed) | u64::from(self.marked) << 1;
        for number in [
            flags,
            self.link,
            self.time_us,
            self.heartbeat_ms,
            self.idle_ms,
            self.max_message,
            self.received,
            self.limit,
            self.streams,
            self.window_ms,
            self.expires_ms,
        ] {
            varint::encode(number, out);
        }
    }

    fn decode(mut payload: Bytes) -> Option<Self> {
        let version = varint::take(&mut payload)?;
        let session = SessionId(sixteen(&mut payload)?);
        let key = ResumeKey(sixteen(&mut payload)?);
        let mut next = || varint::take(&mut payload);
        let flags = next()?;
        let mut welcome = Self {
            version,
            session,
            key,
            resumed: flags & 1 == 1,
            marked: flags >> 1 & 1 == 1,
            link: next()?,
            time_us: next()?,
            heartbeat_ms: next()?,
            idle_ms: next()?,
            max_message: next()?,
            received: next()?,
            limit: next()?,
            streams: next()?,
            window_ms: next()?,
            expires_ms: 0,
        };
        // Servers that know no end of credentials do not say it.
        if payload.has_remaining() {
            welcome.expires_ms = varint::take(&mut payload)?;
        }
        (welcome.heartbeat_ms > 0 && welcome.idle_ms > 0).then_some(welcome)
    }
}

fn with_length(out: &mut BytesMut, kind: u64, payload: impl FnOnce(&mut BytesMut)) {
    let mut bytes = BytesMut::with_capacity(64);
    payload(&mut bytes);
    varint::encode(kind, out);
    varint::encode(bytes.len() as u64, out);
    out.put_slice(&bytes);
}

fn decode_close(mut payload: Bytes) -> Option<Close> {
    let code = u32::try_from(varint::take(&mut payload)?).ok()?;
    let origin = match payload.try_get_u8().ok()? {
        0 => Origin::Protocol,
        1 => Origin::Application,
        _ => return None,
    };
    if payload.len() > MAX_REASON {
        return None;
    }
    let reason = std::str::from_utf8(&payload).ok()?.to_owned();
    Some(Close { code, origin, reason })
}

fn decode_token(payload: Bytes) -> Option<Token> {
    // Copied: a slice would keep its packet in memory for as long as somebody looks at the token.
    let token = std::str::from_utf8(&payload).ok().filter(|token| (1..=MAX_TOKEN).contains(&token.len()))?;
    Some(Token(token.into()))
}

fn numbers<const N: usize>(out: &mut BytesMut, kind: u64, numbers: [u64; N]) {
    with_length(out, kind, |out| numbers.iter().for_each(|number| varint::encode(*number, out)));
}

fn take<const N: usize>(payload: &mut Bytes) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = varint::take(payload)?;
    }
    Some(numbers)
}

fn take_code(payload: &mut Bytes) -> Option<(u64, u32)> {
    let [stream, code] = take(payload)?;
    Some((stream, u32::try_from(code).ok()?))
}

fn sixteen(payload: &mut Bytes) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    payload.try_copy_to_slice(&mut bytes).ok()?;
    Some(bytes)
}
