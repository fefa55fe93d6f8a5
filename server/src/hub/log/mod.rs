//! A log on this node: its subscribers are cursors, in one shard, or in as many as there are threads when there are many.

mod run;
mod shard;

use std::cell::OnceCell;
use std::iter;
use std::sync::{Arc, OnceLock};

use throughline_protocol::SessionId;
use throughline_protocol::channel::Position;
use tokio::sync::broadcast;

use super::Inner;
use super::encoded::{Encoded, encode};
use super::reader::Arrived;
use super::stats::Counters;
use super::subscriber::Subscriber;
use super::topic::{End, Opening, Topic, Unsent};
use crate::config::Slow;
use crate::engine::{History, Publication};
use crate::session::flusher::Turn;
use shard::Shard;
pub(super) use shard::{Delivery, Need, Piece};

/// Subscribers of the first shard, from which on there are others: to write to so many takes milliseconds, and one thread.
const FIRST: usize = if cfg!(test) { 4 } else { 512 };

/// The subscribers of a log.
pub(super) struct Log {
    /// What stands for the channel on the wire.
    number: u64,
    first: Shard,
    /// For those who come when that one is full.
    others: OnceLock<Box<[Shard]>>,
    /// How many there are then, all in all.
    most: usize,
    counters: Arc<Counters>,
}

impl Log {
    /// Of a channel with this number on the wire, for a server with so many threads.
    pub(super) fn new(number: u64, slow: Slow, threads: usize, counters: &Arc<Counters>) -> Self {
        let first = Shard::new(number, slow, Arc::clone(counters), Position::default());
        Self { number, first, others: OnceLock::new(), most: threads, counters: Arc::clone(counters) }
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        iter::once(&self.first).chain(self.others.get().into_iter().flatten())
    }

    /// The shard of a session, whether it is subscribed or about to be.
    fn shard(&self, id: SessionId) -> &Shard {
        let Some(others) = self.others.get().filter(|_| !self.first.has(id)) else { return &self.first };
        // Of an id every byte is random.
        let index = usize::from(id.0[1]) % (others.len() + 1);
        if index == 0 { &self.first } else { &others[index - 1] }
    }

    pub(super) fn subscribers(&self) -> usize {
        self.sizes().sum()
    }

    /// The subscribers of each shard.
    pub(super) fn sizes(&self) -> impl Iterator<Item = usize> {
        self.shards().map(Shard::subscribers)
    }

    /// The position of the newest publication, and what comes after it.
    pub(super) fn read(&self) -> (Position, broadcast::Receiver<Arrived>) {
        self.first.read()
    }

    /// The engine hands over what comes after this position. Some of that may have come before this was known.
    pub(super) fn started_at(&self, position: Position) {
        self.shards().for_each(|shard| shard.started_at(position));
    }

    /// A publication has come, for everybody who is at the head. Calls `follow` with what follows, for each shard by its number.
    pub(super) fn deliver(&self, epoch: u64, publication: &Publication, mut follow: impl FnMut(usize, Delivery)) {
        if self.first.is_news(epoch, publication) {
            self.counters.publications.add(1);
        }
        let encoded = OnceCell::new(); // once for all
        for (number, shard) in self.shards().enumerate() {
            let encoded = || encoded.get_or_init(|| encode(self.number, publication, &self.counters)).clone();
            follow(number, shard.deliver(epoch, publication, encoded));
        }
    }

    /// Writes what is waiting to those at the head of a shard, as far as `turn` allows. Returns those who have fallen behind, and whether nothing is left to write.
    pub(super) fn write(&self, shard: usize, turn: &mut Turn) -> (Vec<Arc<Subscriber>>, bool) {
        self.shards().nth(shard).map_or((Vec::new(), true), |shard| shard.write(turn))
    }

    /// Subscribes, and says so. `since` is the position that was asked for, with the history after it. Returns whether the subscriber has more to read.
    pub(super) fn admit(
        &self,
        hub: &Arc<Inner>,
        topic: &Arc<Topic>,
        subscriber: &Arc<Subscriber>,
        opening: &Opening,
        since: Option<(Position, History)>,
    ) -> Result<bool, Unsent> {
        if self.most > 1 && self.others.get().is_none() && self.first.subscribers() >= FIRST {
            self.others.get_or_init(|| self.first.others(self.most - 1));
        }
        self.shard(subscriber.session.id()).admit(hub, topic, subscriber, opening, since)
    }

    pub(super) fn remove(&self, id: SessionId) {
        self.shard(id).remove(id);
    }

    pub(super) fn is_behind(&self, id: SessionId) -> bool {
        self.shard(id).is_behind(id)
    }

    /// What a subscriber that was behind needs now. Ends its subscription, if that is due.
    pub(super) fn need(&self, hub: &Arc<Inner>, topic: &Topic, id: SessionId) -> Need {
        self.shard(id).need(hub, topic, id)
    }

    /// Ends a subscription, as soon as there is room to say so.
    pub(super) fn end(&self, id: SessionId, end: End) {
        self.shard(id).end(id, end);
    }

    /// Gives a subscriber that is behind what comes next of a piece of history. True when there was no room for all of it.
    pub(super) fn give(&self, id: SessionId, piece: &mut Piece, encoded: &Encoded) -> bool {
        self.shard(id).give(id, piece, encoded)
    }
}
