//! What one subscriber is given by its own task: keys, each with the value that it has when its turn comes.

use std::collections::VecDeque;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use throughline_protocol::ChannelMessage;

use super::Reach;
use super::entries::{Entries, Entry};
use crate::hub::stats::Counters;

/// So many keys, and no end to it: while values change faster than a subscriber takes them, each key has its turn.
pub(super) struct Pass {
    keys: VecDeque<ByteString>,
    /// What the subscriber has when it is through.
    pub(super) until: Reach,
    snapshot: Option<Snapshot>,
}

/// Around all values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Snapshot {
    /// SNAPSHOT is to be sent.
    Begins,
    Goes,
    /// SETTLED was sent.
    IsOver,
}

impl Pass {
    /// All values, between SNAPSHOT and SETTLED.
    pub(super) fn snapshot(entries: &Entries, newest: u64) -> Self {
        let until = Reach { small: newest, large: newest };
        Self { keys: entries.keys().into(), until, snapshot: Some(Snapshot::Begins) }
    }

    /// What is missing; `None` when nothing is.
    pub(super) fn missing(entries: &Entries, has: Reach, until: Reach) -> Option<Self> {
        let small = entries.small.range((Excluded(has.small), Included(until.small.max(has.small))));
        let large = entries.large.range((Excluded(has.large), Included(until.large.max(has.large))));
        let key = |(_, entry): (&u64, &Arc<Entry>)| entry.key.clone();
        let keys: VecDeque<_> = small.map(key).chain(large.map(key)).collect();
        (!keys.is_empty()).then_some(Self { keys, until, snapshot: None })
    }

    pub(super) fn is_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// What is to be sent next, until [`Pass::sent`].
    pub(super) fn next(&mut self, number: u64, entries: &Entries, counters: &Counters) -> Option<Bytes> {
        if self.snapshot == Some(Snapshot::Begins) {
            return Some(ChannelMessage::Snapshot { number }.encode());
        }
        let is_snapshot = self.is_snapshot();
        while let Some(key) = self.keys.front() {
            // What has been removed since is told by the end of the snapshot.
            let entry = entries.get(key).filter(|entry| !is_snapshot || !entry.is_removal());
            match entry {
                Some(entry) => return Some(entry.message(counters)),
                None => drop(self.keys.pop_front()),
            }
        }
        let is_due = self.snapshot == Some(Snapshot::Goes);
        is_due.then(|| ChannelMessage::Settled { number, offset: self.until.small }.encode())
    }

    /// What came from [`Pass::next`] last is on its way.
    pub(super) fn sent(&mut self) {
        match self.snapshot {
            Some(Snapshot::Begins) => self.snapshot = Some(Snapshot::Goes),
            Some(Snapshot::Goes) if self.keys.is_empty() => self.snapshot = Some(Snapshot::IsOver),
            _ => drop(self.keys.pop_front()),
        }
    }
}
