//! A channel of state on this node: the newest value of each key, and its subscribers (SPEC section 10.1).
//!
//! The entries lie in the order of their offsets, and a newer value takes the older one's place: so what a subscriber lacks is what comes after its cursor, each key once, and nothing
//! is queued for it. A change goes to everybody as a datagram, which may be lost; what has not changed for a while goes once more as a message, and moves the cursor. Values that
//! are too long for a datagram go as messages only, and have an order and a cursor of their own.

mod entries;
mod pass;

use std::collections::HashMap;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use throughline_protocol::channel::Position;
use throughline_protocol::{SessionId, StateSlot};
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::Inner;
use super::reader::{Arrived, Readers};
use super::stats::Counters;
use super::subscriber::Subscriber;
use super::topic::{End, Opening, Topic, Unsent, began_anew};
use crate::engine::{Change, State as Kept, Value};
use entries::{Entries, Entry};
use pass::Pass;

/// How long a value has not changed when it is sent once more, reliably: above that no game's or pointer's value stands still by chance, and a viewer does not miss for long what was lost.
const SETTLE_AFTER: Duration = Duration::from_millis(200);

/// How far apart the looks at what has settled are, so that many keys that change now and then make few of them.
const SETTLE_STEP: Duration = Duration::from_millis(50);

/// A channel of state with its subscribers.
pub(super) struct State {
    /// What stands for the channel on the wire.
    number: u64,
    counters: Arc<Counters>,
    table: Mutex<Table>,
}

struct Table {
    /// Of the newest change that has come here.
    newest: Position,
    /// Whether what the engine keeps has been read, and nothing was missed since.
    is_whole: bool,
    entries: Entries,
    /// Up to where the values have not changed for [`SETTLE_AFTER`].
    settled: u64,
    /// Whether a task looks after what has not settled yet.
    is_settling: bool,
    cursors: HashMap<SessionId, Cursor>,
    readers: Readers<Change>,
}

/// One subscriber.
struct Cursor {
    subscriber: Arc<Subscriber>,
    /// Up to where it has everything, for sure: of what fits into a datagram, and of what does not.
    has: Reach,
    /// It is given no messages as they come: its own task does that, when there is room.
    is_behind: bool,
    /// It is to get everything from the beginning.
    needs_snapshot: bool,
    /// What its own task is giving it.
    pass: Option<Pass>,
    /// The server ends the subscription, as soon as there is room to say so.
    end: Option<End>,
}

/// Two offsets: of entries that fit into a datagram, and of those that do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    small: u64,
    large: u64,
}

/// What follows from a change.
#[derive(Default)]
pub(super) struct Delivered {
    /// Subscribers that have to be given something by their own tasks.
    pub(super) fallen: Vec<Arc<Subscriber>>,
    /// A task has to [settle](State::settle) what was changed.
    pub(super) settle: bool,
    /// Something was missed: what the engine keeps has to be read, and [installed](State::install).
    pub(super) read: bool,
}

/// How far a subscriber was served.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// It has everything, or is not subscribed.
    All,
    /// There was no room for the rest.
    Full,
    /// Its subscription was ended just now.
    Ended,
}

impl State {
    pub(super) fn new(number: u64, max_keys: usize, counters: Arc<Counters>) -> Self {
        let table = Table {
            newest: Position::default(),
            is_whole: false,
            entries: Entries::new(number, max_keys),
            settled: 0,
            is_settling: false,
            cursors: HashMap::new(),
            readers: Readers::default(),
        };
        Self { number, counters, table: Mutex::new(table) }
    }

    pub(super) fn subscribers(&self) -> usize {
        self.table.lock().cursors.len()
    }

    /// What changes from now on.
    pub(super) fn read(&self) -> broadcast::Receiver<Arrived<Change>> {
        self.table.lock().readers.add()
    }

    /// Whether nothing has to be read before somebody subscribes.
    pub(super) fn is_whole(&self) -> bool {
        self.table.lock().is_whole
    }

    /// Takes what the engine keeps. Changes that came meanwhile are newer, and stay.
    pub(super) fn install(&self, kept: Kept) -> Delivered {
        let mut table = self.table.lock();
        let Kept { position, values } = kept;
        let mut delivered = Delivered::default();
        if table.newest.epoch != position.epoch {
            delivered.fallen = table.begin_anew(position);
        }
        table.newest.offset = table.newest.offset.max(position.offset);
        let now = Instant::now();
        let mut was_missed = table.entries.keep_only(position.offset, values.iter().map(|value| &*value.key));
        for Value { key, offset, message } in values {
            was_missed |= table.entries.put(&key, offset, Some(message), now).is_some();
        }
        table.is_whole = true;
        if was_missed {
            // It may lie before what a subscriber was given already: whoever is there gets everything once more.
            delivered.fallen.extend(table.repeat(|_| true));
        }
        delivered.settle = table.must_settle();
        delivered
    }

    /// What the engine keeps could not be read: nobody knows what he is missing.
    pub(super) fn fail(&self, end: &End) -> Vec<Arc<Subscriber>> {
        self.table.lock().end_all(end)
    }

    /// Gives a change to everybody who has had the snapshot.
    pub(super) fn deliver(&self, epoch: u64, change: &Change) -> Delivered {
        let mut table = self.table.lock();
        let mut delivered = Delivered::default();
        let offset = change.offset;
        if table.newest.epoch != epoch {
            delivered.fallen = table.begin_anew(Position { epoch, offset: 0 });
            delivered.read = !table.cursors.is_empty();
        } else if offset <= table.newest.offset {
            return delivered; // it has come before
        } else if table.is_whole && offset != table.newest.offset + 1 {
            table.is_whole = false;
            delivered.read = true;
        }
        table.newest.offset = offset;
        table.readers.deliver(Position { epoch, offset }, change);
        self.counters.publications.add(1);
        let entry = table.entries.put(&change.key, offset, change.message.clone(), Instant::now());
        let Some(entry) = entry else { return delivered };
        self.send(&mut table, &entry, &mut delivered);
        let forgotten = table.entries.forgotten;
        delivered.fallen.extend(table.repeat(|cursor| cursor.is_certain_of() < forgotten));
        delivered.settle = table.must_settle();
        delivered
    }

    fn send(&self, table: &mut Table, entry: &Entry, delivered: &mut Delivered) {
        let mut datagram = None; // once for all
        for cursor in table.cursors.values_mut().filter(|cursor| cursor.is_live()) {
            let session = &cursor.subscriber.session;
            if !entry.is_large {
                let datagram = datagram.get_or_insert_with(|| entry.datagram(&self.counters));
                let slot = StateSlot(self.number, entry.id);
                // A session that has ended is taken out by whoever hears of its end.
                datagram.iter().for_each(|datagram| drop(session.try_send_state(slot, datagram)));
            } else if !cursor.is_behind {
                match cursor.send(entry.message(&self.counters)) {
                    Ok(()) => cursor.has.large = entry.offset,
                    Err(Unsent::Full) => {
                        cursor.is_behind = true;
                        delivered.fallen.push(Arc::clone(&cursor.subscriber));
                    }
                    Err(Unsent::Gone) => {}
                }
            }
        }
    }

    /// Sends what has not changed for a while to everybody who is not behind. Returns who has no room for it, and when to look again: not until something else changes.
    pub(super) fn settle(&self) -> (Vec<Arc<Subscriber>>, Option<Instant>) {
        let mut table = self.table.lock();
        let now = Instant::now();
        let Table { entries, settled, cursors, .. } = &mut *table;
        *settled = entries.unchanged_since(now - SETTLE_AFTER).map_or(*settled, |offset| offset.max(*settled));
        let mut fallen = Vec::new();
        for cursor in cursors.values_mut().filter(|cursor| cursor.is_live() && !cursor.is_behind) {
            for (offset, entry) in
                entries.small.range((Excluded(cursor.has.small), Included((*settled).max(cursor.has.small))))
            {
                match cursor.send(entry.message(&self.counters)) {
                    Ok(()) => cursor.has.small = *offset,
                    Err(Unsent::Full) => {
                        cursor.is_behind = true;
                        fallen.push(Arc::clone(&cursor.subscriber));
                        break;
                    }
                    Err(Unsent::Gone) => break,
                }
            }
            if !cursor.is_behind {
                cursor.has.small = cursor.has.small.max(*settled);
            }
        }
        table.forget_removals();
        let next = table.entries.small.range((Excluded(table.settled), Included(u64::MAX))).next();
        let next = next.map(|(_, entry)| (entry.changed + SETTLE_AFTER).max(now + SETTLE_STEP));
        table.is_settling = next.is_some();
        (fallen, next)
    }

    /// Subscribes, and says so. The subscriber is behind from the beginning: it lacks everything.
    pub(super) fn admit(
        &self,
        hub: &Arc<Inner>,
        topic: &Arc<Topic>,
        subscriber: &Arc<Subscriber>,
        opening: &Opening,
    ) -> Result<bool, Unsent> {
        let mut table = self.table.lock();
        if !subscriber.begin(hub, topic, opening, false, table.newest)? {
            return Ok(false);
        }
        let offset = table.newest.offset;
        let cursor = Cursor {
            subscriber: Arc::clone(subscriber),
            has: Reach { small: offset, large: offset },
            is_behind: true,
            needs_snapshot: true,
            pass: None,
            end: None,
        };
        table.cursors.insert(subscriber.session.id(), cursor);
        drop(table);
        Ok(true)
    }

    pub(super) fn remove(&self, id: SessionId) {
        let mut table = self.table.lock();
        table.cursors.remove(&id);
        if table.cursors.is_empty() {
            table.cursors = HashMap::new(); // the memory of many is given back
        }
    }

    pub(super) fn end(&self, id: SessionId, end: End) {
        if let Some(cursor) = self.table.lock().cursors.get_mut(&id) {
            cursor.end = Some(end);
            cursor.is_behind = true;
        }
    }

    /// Gives a subscriber that is behind what it lacks, as far as there is room.
    pub(super) fn serve(&self, hub: &Arc<Inner>, topic: &Topic, id: SessionId) -> Served {
        let mut table = self.table.lock();
        let Table { newest, entries, settled, cursors, .. } = &mut *table;
        let Some(cursor) = cursors.get_mut(&id).filter(|cursor| cursor.is_behind) else { return Served::All };
        if let Some((code, reason)) = cursor.end.clone() {
            if cursor.subscriber.dismiss(hub, topic, code, reason).is_err() {
                return Served::Full;
            }
            cursors.remove(&id);
            return Served::Ended;
        }
        loop {
            if std::mem::take(&mut cursor.needs_snapshot) {
                cursor.pass = Some(Pass::snapshot(entries, newest.offset));
            } else if cursor.pass.is_none() {
                let until = Reach { small: (*settled).max(cursor.has.small), large: newest.offset };
                cursor.pass = Pass::missing(entries, cursor.has, until);
            }
            let Some(pass) = &mut cursor.pass else {
                cursor.is_behind = false;
                return Served::All;
            };
            let session = &cursor.subscriber.session;
            let mut sent = Ok(());
            while let Some(message) = pass.next(self.number, entries, &self.counters) {
                sent = session.try_send_fresh(message).map_err(Unsent::from);
                if sent.is_err() {
                    break;
                }
                pass.sent();
            }
            match sent {
                Ok(()) => cursor.has = pass.until,
                Err(Unsent::Full) => return Served::Full,
                Err(Unsent::Gone) => return Served::All, // whoever hears of its end takes it out
            }
            cursor.pass = None;
        }
    }
}

impl Table {
    /// The count has begun anew: what the subscribers have cannot be compared with what comes.
    fn begin_anew(&mut self, position: Position) -> Vec<Arc<Subscriber>> {
        self.newest = position;
        self.entries.clear();
        (self.settled, self.is_whole) = (0, false);
        self.end_all(&began_anew())
    }

    fn end_all(&mut self, end: &End) -> Vec<Arc<Subscriber>> {
        let fallen = self.cursors.values_mut().map(|cursor| {
            cursor.end = Some(end.clone());
            cursor.is_behind = true;
            Arc::clone(&cursor.subscriber)
        });
        fallen.collect()
    }

    /// Gives everything once more to those who lack what cannot be told otherwise.
    fn repeat(&mut self, lacks: impl Fn(&Cursor) -> bool) -> Vec<Arc<Subscriber>> {
        let lacking = self.cursors.values_mut().filter(|cursor| lacks(cursor));
        let fallen = lacking.map(|cursor| {
            (cursor.needs_snapshot, cursor.is_behind, cursor.pass) = (true, true, None);
            Arc::clone(&cursor.subscriber)
        });
        fallen.collect()
    }

    /// What everybody has heard of is of no use any more.
    fn forget_removals(&mut self) {
        let heard = self.cursors.values().map(Cursor::is_certain_of).min().unwrap_or(u64::MAX);
        self.entries.forget_removals(heard.min(self.settled));
    }

    /// Whether a task has to look after what has changed, and none does.
    fn must_settle(&mut self) -> bool {
        let has_unsettled = self.entries.small.last_key_value().is_some_and(|(offset, _)| *offset > self.settled);
        has_unsettled && !std::mem::replace(&mut self.is_settling, true)
    }
}

impl Cursor {
    /// Whether it is given changes as they come.
    fn is_live(&self) -> bool {
        let is_in_snapshot = self.needs_snapshot || self.pass.as_ref().is_some_and(Pass::is_snapshot);
        !is_in_snapshot && self.end.is_none()
    }

    /// Up to where it has heard of every removal, or will by the snapshot that it is to get.
    fn is_certain_of(&self) -> u64 {
        match &self.pass {
            _ if self.needs_snapshot || self.end.is_some() => u64::MAX,
            Some(pass) if pass.is_snapshot() => pass.until.small,
            _ => self.has.small,
        }
    }

    fn send(&self, message: Bytes) -> Result<(), Unsent> {
        Ok(self.subscriber.session.try_send_fresh(message)?)
    }
}
