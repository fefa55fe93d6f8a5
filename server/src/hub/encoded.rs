//! Publications as they go over the wire, for those who are behind: after a break of the network many are missing the same ones, and share their bytes.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;
use throughline_protocol::ChannelMessage;
use throughline_protocol::channel::Position;

use super::stats::Counters;
use crate::engine::Publication;

/// What is kept here at most, in bytes: what a few thousand subscribers miss in some seconds, and nothing beside what their sessions would hold without it.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What an entry costs beside its bytes: its place here, twice, and the allocation.
const ENTRY_OVERHEAD: usize = 192;

/// By the number of the channel and the position. The oldest go.
#[derive(Default)]
pub(super) struct Encoded(Mutex<State>);

#[derive(Default)]
struct State {
    entries: HashMap<Key, Bytes>,
    order: VecDeque<Key>,
    bytes: usize,
}

type Key = (u64, Position);

impl Encoded {
    /// The PUBLICATION of a channel's number.
    pub(super) fn publication(&self, number: u64, epoch: u64, publication: &Publication, counters: &Counters) -> Bytes {
        let key = (number, Position { epoch, offset: publication.offset });
        let mut state = self.0.lock();
        if let Some(bytes) = state.entries.get(&key) {
            return bytes.clone();
        }
        let bytes = encode(number, publication, counters);
        state.bytes += bytes.len() + ENTRY_OVERHEAD;
        state.entries.insert(key, bytes.clone());
        state.order.push_back(key);
        while state.bytes > MAX_BYTES {
            let Some(oldest) = state.order.pop_front() else { break };
            let gone = state.entries.remove(&oldest).map_or(0, |bytes| bytes.len() + ENTRY_OVERHEAD);
            state.bytes -= gone;
        }
        bytes
    }
}

/// For all who are at the head, or for the cache.
pub(super) fn encode(number: u64, publication: &Publication, counters: &Counters) -> Bytes {
    counters.encoded.add(1);
    let Publication { offset, message } = publication;
    ChannelMessage::Publication { number, offset: *offset, data: message.clone() }.encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(offset: u64, len: usize) -> Publication {
        Publication { offset, message: vec![offset as u8; len].into() }
    }

    #[test]
    fn the_same_publication_is_encoded_once_and_no_other_is_taken_for_it() {
        let (encoded, counters) = (Encoded::default(), Counters::default());
        let [one, two] = [1, 2].map(|offset| publication(offset, 10));
        let first = encoded.publication(3, 5, &one, &counters);
        assert_eq!(first, encode(3, &one, &counters));
        assert_eq!(encoded.publication(3, 5, &one, &counters).as_ptr(), first.as_ptr());
        for (number, epoch, other) in [(3, 5, &two), (4, 5, &one), (3, 6, &one)] {
            let other_bytes = encoded.publication(number, epoch, other, &counters);
            assert_eq!(other_bytes, encode(number, other, &counters));
            assert_ne!(other_bytes.as_ptr(), first.as_ptr());
        }
    }

    #[test]
    fn it_keeps_no_more_than_it_may() {
        let encoded = Encoded::default();
        for len in [0, 100_000] {
            for offset in 0..100_000 / (1 + len as u64 / 100) {
                encoded.publication(1, 1 + len as u64, &publication(offset, len), &Counters::default());
            }
            let state = encoded.0.lock();
            let held: usize = state.entries.values().map(|bytes| bytes.len() + ENTRY_OVERHEAD).sum();
            assert_eq!((state.bytes, state.entries.len()), (held, state.order.len()));
            assert!(held <= MAX_BYTES && held > MAX_BYTES - 200_000, "{held} bytes");
        }
    }
}
