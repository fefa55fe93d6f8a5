//! A log on this node: its subscribers are cursors.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use throughline_protocol::channel::Position;
use throughline_protocol::{ChannelCode, ChannelMessage, SessionId};
use tokio::sync::broadcast;

use super::Inner;
use super::encoded::{Encoded, encode};
use super::reader::{Arrived, Readers};
use super::stats::Counters;
use super::subscriber::Subscriber;
use super::topic::{End, Opening, Topic, Unsent, began_anew};
use crate::config::Slow;
use crate::engine::{History, Publication};

/// The subscribers of a log.
pub(super) struct Log {
    /// What stands for the channel on the wire.
    number: u64,
    slow: Slow,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the newest publication that has come here.
    newest: Position,
    cursors: HashMap<SessionId, Cursor>,
    readers: Readers,
}

/// One subscriber.
struct Cursor {
    subscriber: Arc<Subscriber>,
    /// The offset of what it was given last.
    sent: u64,
    /// It is given nothing as it comes: it reads the history first.
    is_behind: bool,
    /// The server ends the subscription, as soon as there is room to say so.
    end: Option<End>,
}

/// A piece of history for one subscriber.
pub(super) struct Piece {
    after: Position,
    newest: Position,
    complete: bool,
    publications: VecDeque<Arc<Publication>>,
}

/// What a subscriber that was behind needs.
pub(super) enum Need {
    /// To read the history after this position.
    History(Position),
    /// Room in its session.
    Room,
    /// Nothing: it has caught up, or is not subscribed.
    Nothing,
    /// Nothing any more: its subscription was ended just now.
    Ended,
}

impl Log {
    pub(super) fn new(number: u64, slow: Slow, counters: Arc<Counters>) -> Self {
        Self { number, slow, counters, state: Mutex::default() }
    }

    pub(super) fn subscribers(&self) -> usize {
        self.state.lock().cursors.len()
    }

    /// The position of the newest publication, and what comes after it.
    pub(super) fn read(&self) -> (Position, broadcast::Receiver<Arrived>) {
        let mut state = self.state.lock();
        (state.newest, state.readers.add())
    }

    /// The engine hands over what comes after this position. Some of that may have come before this was known.
    pub(super) fn started_at(&self, position: Position) {
        let mut state = self.state.lock();
        if state.newest.epoch != position.epoch || state.newest.offset < position.offset {
            state.newest = position;
        }
    }

    /// Gives a publication to everybody who is at the head. Returns those who have fallen behind by it.
    pub(super) fn deliver(&self, epoch: u64, publication: &Publication) -> Vec<Arc<Subscriber>> {
        let mut state = self.state.lock();
        let State { newest, cursors, readers } = &mut *state;
        let offset = publication.offset;
        let begins_anew = newest.epoch != epoch;
        if !begins_anew && offset <= newest.offset {
            return Vec::new(); // it has come before
        }
        *newest = Position { epoch, offset };
        readers.deliver(*newest, publication);
        self.counters.publications.add(1);
        let mut fallen = Vec::new();
        if begins_anew {
            // What was missed has no offset in the new count.
            for cursor in cursors.values_mut() {
                cursor.end = Some(began_anew());
                cursor.is_behind = true;
                fallen.push(Arc::clone(&cursor.subscriber));
            }
            return fallen;
        }
        let mut encoded = None; // once for all
        cursors.retain(|_, cursor| {
            if cursor.is_behind || offset <= cursor.sent {
                return true;
            }
            // After a hole everybody reads what is missing.
            let sent = if offset == cursor.sent + 1 {
                let bytes = encoded.get_or_insert_with(|| encode(self.number, publication, &self.counters));
                cursor.send(bytes.clone())
            } else {
                Err(Unsent::Full)
            };
            match sent {
                Ok(()) => cursor.sent = offset,
                Err(Unsent::Full) => {
                    cursor.is_behind = true;
                    fallen.push(Arc::clone(&cursor.subscriber));
                }
                Err(Unsent::Gone) => return false,
            }
            true
        });
        fallen
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
        let mut state = self.state.lock();
        let newest = state.newest;
        let recovered = since.filter(|(position, history)| history.complete && position.epoch == newest.epoch);
        let position = recovered.as_ref().map_or(newest, |(position, _)| *position);
        if !subscriber.begin(hub, topic, opening, recovered.is_some(), position)? {
            return Ok(false);
        }
        let subscriber = Arc::clone(subscriber);
        // The history may know of more than has come here.
        let has_missed = recovered.as_ref().is_some_and(|(_, history)| !history.publications.is_empty());
        let is_behind = has_missed || position.offset < newest.offset;
        let id = subscriber.session.id();
        state.cursors.insert(id, Cursor { subscriber, sent: position.offset, is_behind, end: None });
        drop(state);
        if let Some((position, history)) = recovered {
            // What was read already need not be read again.
            self.give(id, &mut Piece::new(position, history), &hub.encoded);
        }
        Ok(self.is_behind(id))
    }

    pub(super) fn remove(&self, id: SessionId) {
        let mut state = self.state.lock();
        state.cursors.remove(&id);
        if state.cursors.is_empty() {
            state.cursors = HashMap::new(); // the memory of many is given back
        }
    }

    pub(super) fn is_behind(&self, id: SessionId) -> bool {
        self.state.lock().cursors.get(&id).is_some_and(|cursor| cursor.is_behind)
    }

    /// What a subscriber that was behind needs now. Ends its subscription, if that is due.
    pub(super) fn need(&self, hub: &Arc<Inner>, topic: &Topic, id: SessionId) -> Need {
        let mut state = self.state.lock();
        let epoch = state.newest.epoch;
        let Some(cursor) = state.cursors.get(&id).filter(|cursor| cursor.is_behind) else { return Need::Nothing };
        let Some((code, reason)) = cursor.end.clone() else {
            return Need::History(Position { epoch, offset: cursor.sent });
        };
        if cursor.subscriber.dismiss(hub, topic, code, reason).is_err() {
            return Need::Room;
        }
        state.cursors.remove(&id);
        Need::Ended
    }

    /// Ends a subscription, as soon as there is room to say so.
    pub(super) fn end(&self, id: SessionId, end: End) {
        if let Some(cursor) = self.state.lock().cursors.get_mut(&id) {
            cursor.end = Some(end);
            cursor.is_behind = true;
        }
    }

    /// Gives a subscriber that is behind what comes next of a piece of history. True when there was no room for all of it.
    pub(super) fn give(&self, id: SessionId, piece: &mut Piece, encoded: &Encoded) -> bool {
        let mut state = self.state.lock();
        let State { newest, cursors, .. } = &mut *state;
        let Some(cursor) = cursors.get_mut(&id).filter(|cursor| cursor.is_behind && cursor.end.is_none()) else {
            return false;
        };
        if piece.after.epoch != newest.epoch {
            return false; // it was read for a subscription that this session has ended since
        }
        if piece.newest.epoch != newest.epoch {
            cursor.end = Some(began_anew());
            return false;
        }
        let mut given = Ok(());
        if !piece.complete && cursor.sent == piece.after.offset {
            if self.slow == Slow::Disconnect {
                let reason = "the history does not reach back to what is missing";
                cursor.end = Some((ChannelCode::TooSlow, reason.into()));
                self.counters.too_slow.add(1);
                return false;
            }
            let before = cursor.sent;
            given = cursor.skip(self.number, piece);
            self.counters.skipped.add(cursor.sent - before);
        }
        match given.and_then(|()| cursor.give(self.number, piece, encoded, &self.counters)) {
            Ok(()) => {
                cursor.is_behind = cursor.sent < newest.offset;
                false
            }
            Err(Unsent::Full) => true,
            Err(Unsent::Gone) => {
                cursors.remove(&id);
                false
            }
        }
    }
}

impl Cursor {
    fn send(&self, message: Bytes) -> Result<(), Unsent> {
        Ok(self.subscriber.session.try_send_channel(message)?)
    }

    /// Sends what comes next of a piece.
    fn give(&mut self, number: u64, piece: &mut Piece, encoded: &Encoded, counters: &Counters) -> Result<(), Unsent> {
        while let Some(publication) = piece.publications.front() {
            if publication.offset > self.sent + 1 {
                break; // it was read for a subscription that this session has ended since
            }
            if publication.offset == self.sent + 1 {
                self.send(encoded.publication(number, piece.after.epoch, publication, counters))?;
                self.sent = publication.offset;
            }
            piece.publications.pop_front();
        }
        Ok(())
    }

    /// Goes on with what the history still has.
    fn skip(&mut self, number: u64, piece: &Piece) -> Result<(), Unsent> {
        let offset = piece.publications.front().map_or(piece.newest.offset, |oldest| oldest.offset - 1);
        self.send(ChannelMessage::Skipped { number, offset }.encode())?;
        self.sent = offset;
        Ok(())
    }
}

impl Piece {
    pub(super) fn new(after: Position, history: History) -> Self {
        let History { newest, complete, publications } = history;
        Self { after, newest, complete, publications: publications.into() }
    }
}
