//! The Throughline wire protocol, version 1, as `SPEC.md` beside this crate defines it.
//!
//! No IO, no clock, no randomness: bytes and the time go in, bytes and events come out. The server and
//! native clients drive the same [`Machine`]; the browser client mirrors it, and both pass the vectors and
//! scenarios in `vectors/`.
//!
//! - [`frame`]: what the frames are, and their bytes. [`codec`]: frames out of a stream of bytes.
//! - [`machine`]: one session: the message stream, credit, datagrams, heartbeat, close.
//! - [`channel`] and [`request`]: what is said about channels, and about requests, inside messages.
//! - [`limits`] and [`close`]: every bound, and every reason to end.

pub mod channel;
pub mod close;
pub mod codec;
pub mod datagram;
pub mod frame;
pub mod id;
pub mod limits;
pub mod machine;
pub mod message;
pub mod packet;
pub mod request;
pub mod stream;
pub mod varint;

pub use channel::{ChannelCode, ChannelMessage, Position};
pub use close::{Close, Code, Origin};
pub use codec::Decoder;
pub use datagram::{Datagram, Mark, StateDatagram, StateSlot, TooLarge};
pub use frame::{Frame, FrameError, Token, Welcome};
pub use id::{ResumeKey, SessionId};
pub use machine::{
    ArrivedRequest, Candidate, Config, Event, HeldByStreams, LinkTraits, Machine, Micros, OpenStreamError, Refused,
    Role, SendDatagramError, Stats, StreamError, StreamRead, TrySendError,
};
pub use message::Message;
pub use packet::Packet;
pub use request::{RequestCode, RequestMessage};

/// The version of the protocol that this crate speaks.
pub const VERSION: u64 = 1;
