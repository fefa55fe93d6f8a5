//! What a channel of state has, by key and by offset.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use bytestring::ByteString;
use throughline_protocol::limits::MAX_DATAGRAM;
use throughline_protocol::{ChannelMessage, Message, StateDatagram, varint};
use tokio::time::Instant;

use crate::hub::stats::Counters;

/// The newest change of each key: its value, or that it was removed.
pub(super) struct Entries {
    number: u64,
    /// Removals that are remembered: as many as there may be keys, so that they never outweigh what they are beside.
    max_removals: usize,
    by_key: HashMap<ByteString, Arc<Entry>>,
    /// What fits into a datagram, by offset. What was removed is here.
    pub(super) small: BTreeMap<u64, Arc<Entry>>,
    /// What does not.
    pub(super) large: BTreeMap<u64, Arc<Entry>>,
    removals: usize,
    /// Removals up to this offset may have been forgotten before everybody had heard of them.
    pub(super) forgotten: u64,
    last_id: u64,
}

/// A change, as it is sent.
pub(super) struct Entry {
    number: u64,
    /// The same for all changes of a key, as long as it is remembered.
    pub(super) id: u64,
    pub(super) key: ByteString,
    pub(super) offset: u64,
    /// `None`: it was removed.
    value: Option<Message>,
    pub(super) changed: Instant,
    /// Whether it is too long for a datagram.
    pub(super) is_large: bool,
    /// VALUE, once somebody needs it.
    message: OnceLock<Bytes>,
}

impl Entries {
    pub(super) fn new(number: u64, max_removals: usize) -> Self {
        Self {
            number,
            max_removals,
            by_key: HashMap::new(),
            small: BTreeMap::new(),
            large: BTreeMap::new(),
            removals: 0,
            forgotten: 0,
            last_id: 0,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.by_key.get(key)
    }

    /// The keys that have a value, in the order of their changes.
    pub(super) fn keys(&self) -> Vec<ByteString> {
        let mut entries: Vec<_> = self.by_key.values().filter(|entry| !entry.is_removal()).collect();
        entries.sort_unstable_by_key(|entry| entry.offset);
        entries.into_iter().map(|entry| entry.key.clone()).collect()
    }

    /// Notes a change, unless a newer one of its key is known.
    pub(super) fn put(&mut self, key: &str, offset: u64, value: Option<Message>, now: Instant) -> Option<Arc<Entry>> {
        let old = self.by_key.get(key);
        if old.is_some_and(|old| old.offset >= offset) {
            return None;
        }
        let (key, id) = match old {
            Some(old) => (old.key.clone(), old.id),
            None => {
                self.last_id += 1;
                (ByteString::from(key), self.last_id)
            }
        };
        let len = varint::len(self.number) + varint::len(offset) + varint::len(key.len() as u64) + key.len() + 1;
        let is_large = len + value.as_ref().map_or(0, Message::len) > MAX_DATAGRAM;
        let entry = Arc::new(Entry {
            number: self.number,
            id,
            key: key.clone(),
            offset,
            value,
            changed: now,
            is_large,
            message: OnceLock::new(),
        });
        if let Some(old) = self.by_key.insert(key, Arc::clone(&entry)) {
            self.take_out(&old);
        }
        self.removals += usize::from(entry.is_removal());
        let order = if is_large { &mut self.large } else { &mut self.small };
        order.insert(offset, Arc::clone(&entry));
        if self.removals > self.max_removals {
            // Half of them, so that this is rare.
            let removals = self.small.values().filter(|entry| entry.is_removal()).nth(self.max_removals / 2);
            let until = removals.map_or(offset, |entry| entry.offset);
            self.forget_removals(until);
            self.forgotten = until;
        }
        Some(entry)
    }

    /// Drops what the engine, which was at this offset, does not have any more. Says whether there was something.
    pub(super) fn keep_only<'a>(&mut self, at: u64, keys: impl Iterator<Item = &'a str>) -> bool {
        let keys: HashSet<_> = keys.collect();
        let is_gone = |entry: &&Arc<Entry>| !entry.is_removal() && entry.offset <= at && !keys.contains(&*entry.key);
        let gone: Vec<_> = self.by_key.values().filter(is_gone).cloned().collect();
        for entry in &gone {
            self.by_key.remove(&entry.key);
            self.take_out(entry);
        }
        !gone.is_empty()
    }

    /// Forgets removals up to an offset.
    pub(super) fn forget_removals(&mut self, until: u64) {
        if self.removals == 0 {
            return;
        }
        let removals = self.small.range(..=until).map(|(_, entry)| entry).filter(|entry| entry.is_removal());
        for entry in removals.cloned().collect::<Vec<_>>() {
            self.by_key.remove(&entry.key);
            self.take_out(&entry);
        }
    }

    pub(super) fn clear(&mut self) {
        let Self { number, max_removals, last_id, .. } = *self;
        *self = Self { last_id, ..Self::new(number, max_removals) };
    }

    /// The newest offset whose value, like all before it, has not changed since then.
    pub(super) fn unchanged_since(&self, then: Instant) -> Option<u64> {
        self.small.iter().rev().find(|(_, entry)| entry.changed <= then).map(|(offset, _)| *offset)
    }

    fn take_out(&mut self, entry: &Entry) {
        let order = if entry.is_large { &mut self.large } else { &mut self.small };
        order.remove(&entry.offset);
        self.removals -= usize::from(entry.is_removal());
    }
}

impl Entry {
    pub(super) fn is_removal(&self) -> bool {
        self.value.is_none()
    }

    /// VALUE, encoded when it is asked for first.
    pub(super) fn message(&self, counters: &Counters) -> Bytes {
        let encode = || {
            counters.encoded.add(1);
            self.as_value().encode()
        };
        self.message.get_or_init(encode).clone()
    }

    /// The same for a datagram, if it fits.
    pub(super) fn datagram(&self, counters: &Counters) -> Option<StateDatagram> {
        counters.encoded.add(1);
        StateDatagram::new(&self.as_value().encode_state()?)
    }

    fn as_value(&self) -> ChannelMessage {
        let Self { number, offset, key, value, .. } = self;
        ChannelMessage::Value { number: *number, offset: *offset, key: key.clone(), data: value.clone() }
    }
}
