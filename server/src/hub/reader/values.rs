//! Reading a channel of state inside the server, without a session.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use throughline_protocol::channel::{self, Position};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Arrived, Joined, ReadError};
use crate::engine::{Change, State, Value};
use crate::hub::Hub;
use crate::hub::topic::Body;

/// Reads the values of a channel: all of them, and then what changes, the newest of each key. Whoever falls out of the queue that all readers share begins with all of them again.
pub(crate) struct ValueReader {
    joined: Joined,
    arrivals: broadcast::Receiver<Arrived<Change>>,
    cursor: Position,
    needs_snapshot: bool,
    /// What was read and not yet taken. The messages are those that the engine keeps.
    pending: VecDeque<ValueItem>,
}

/// What a reader of values gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ValueItem {
    /// What the reader holds from before counts no more: all values follow.
    Snapshot(Position),
    /// The value of a key, or that it was removed, of this epoch.
    Change(u64, Arc<Change>),
    /// These were all.
    Settled(Position),
}

impl Hub {
    /// Begins to read the values of a channel.
    pub(crate) async fn value_reader(&self, channel: &str) -> Result<ValueReader, ReadError> {
        if !channel::is_name(channel) {
            return Err(ReadError::BadChannel);
        }
        let joined = Joined { topic: self.0.join(channel), hub: Arc::clone(&self.0) };
        let Body::State(state) = &joined.topic.body else { return Err(ReadError::WrongKind) };
        self.0.start(&joined.topic).await?;
        let arrivals = state.read();
        let (cursor, pending) = (Position::default(), VecDeque::new());
        Ok(ValueReader { joined, arrivals, cursor, needs_snapshot: true, pending })
    }
}

impl ValueReader {
    /// The next item. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<ValueItem, ReadError> {
        loop {
            if let Some(item) = self.pending.pop_front() {
                return Ok(item);
            }
            if self.needs_snapshot {
                self.snapshot().await?;
                continue;
            }
            match self.arrivals.recv().await {
                Ok(arrived) => self.take(arrived),
                // Never: the topic is there as long as its readers.
                Err(RecvError::Closed) => return Err(ReadError::Unavailable),
                Err(RecvError::Lagged(_)) => self.needs_snapshot = true,
            }
        }
    }

    async fn snapshot(&mut self) -> Result<(), ReadError> {
        let Joined { hub, topic } = &self.joined;
        let State { position, values } = hub.engine.values(&topic.name).await?;
        self.pending.push_back(ValueItem::Snapshot(position));
        self.pending.extend(values.into_iter().map(|Value { key, offset, message }| {
            ValueItem::Change(position.epoch, Arc::new(Change { key, offset, message: Some(message) }))
        }));
        self.pending.push_back(ValueItem::Settled(position));
        (self.cursor, self.needs_snapshot) = (position, false);
        Ok(())
    }

    /// Looks at all that has arrived: of each key the newest is enough.
    fn take(&mut self, first: Arrived<Change>) {
        let mut arrived = vec![first];
        while let Ok(next) = self.arrivals.try_recv() {
            arrived.push(next);
        }
        let mut changes = Vec::with_capacity(arrived.len());
        for (position, change) in arrived {
            if position.epoch == self.cursor.epoch && position.offset <= self.cursor.offset {
                continue; // it was in the snapshot
            }
            if position.epoch != self.cursor.epoch || position.offset != self.cursor.offset + 1 {
                self.needs_snapshot = true;
                return;
            }
            self.cursor = position;
            changes.push(change);
        }
        let mut keys = HashSet::new();
        changes.reverse();
        changes.retain(|change| keys.insert(Arc::clone(&change.key)));
        let epoch = self.cursor.epoch;
        self.pending.extend(changes.into_iter().rev().map(|change| ValueItem::Change(epoch, change)));
    }
}
