//! What an application sends, and what it must get: everything is made from its place, so that it can be checked without being kept.

use std::collections::BTreeMap;

use bytes::Bytes;
use throughline_protocol::Message;

use super::random::mix;

/// The longest message.
pub(crate) const MAX_MESSAGE: u64 = 60_000;

/// Message `index` of `side`.
pub(crate) fn message(seed: u64, side: usize, index: u64) -> Message {
    let number = mix(seed ^ mix(index * 2 + side as u64));
    let length = match number % 64 {
        0 => number / 64 % (MAX_MESSAGE + 1),
        1..=8 => number / 64 % 6_000,
        _ => number / 64 % 40,
    };
    let is_text = number.is_multiple_of(3);
    let byte = |at: u64| if is_text { b'0' + ((at + index) % 10) as u8 } else { (at * 7 + index) as u8 };
    let body: Vec<u8> = (0..length).map(byte).collect();
    if is_text { Message::from(String::from_utf8(body).expect("digits")) } else { Message::from(body) }
}

/// Byte `at` of what `side` writes to `stream`.
pub(crate) fn byte(side: usize, stream: u64, at: u64) -> u8 {
    (at ^ ((at >> 8) * 157) ^ (stream * 37 + side as u64 * 101)) as u8
}

pub(crate) fn bytes(side: usize, stream: u64, from: u64, len: u64) -> Bytes {
    (from..from + len).map(|at| byte(side, stream, at)).collect::<Vec<_>>().into()
}

/// Datagram `index`, of `len` bytes beside its index.
pub(crate) fn datagram(index: u64, len: usize) -> Bytes {
    let mut bytes = index.to_be_bytes().to_vec();
    bytes.resize(8 + len, index as u8);
    bytes.into()
}

/// How reading from a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    End,
    Reset(u32),
}

/// What one side knows of a stream.
#[derive(Debug, Default)]
pub(crate) struct Handle {
    pub(crate) written: u64,
    pub(crate) finished: bool,
    pub(crate) reset: Option<u32>,
    /// The peer reads no more, as the application was told.
    pub(crate) told_stopped: bool,
    pub(crate) read: u64,
    pub(crate) ended: Option<Ended>,
    pub(crate) stopped: Option<u32>,
    pub(crate) released: bool,
}

impl Handle {
    pub(crate) fn writes(&self) -> bool {
        !(self.finished || self.reset.is_some() || self.told_stopped || self.released)
    }

    pub(crate) fn reads(&self) -> bool {
        !(self.ended.is_some() || self.stopped.is_some() || self.released)
    }
}

/// One side's application.
#[derive(Debug, Default)]
pub(crate) struct Application {
    pub(crate) sent: u64,
    pub(crate) taken: u64,
    /// Bytes of stream 0 in what was taken.
    pub(crate) taken_bytes: u64,
    pub(crate) datagrams_sent: u64,
    pub(crate) newest_datagram: Option<u64>,
    pub(crate) streams: BTreeMap<u64, Handle>,
    pub(crate) opened_streams: u64,
    pub(crate) opened: bool,
    pub(crate) closed: Option<throughline_protocol::Close>,
    /// How many more it wants.
    pub(crate) messages_left: u64,
    pub(crate) streams_left: u64,
    /// Microseconds between what it does, about; and how many it takes then.
    pub(crate) pace: u64,
    pub(crate) appetite: u64,
}
