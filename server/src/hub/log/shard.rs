//! A part of the subscribers of a log: each is a cursor.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;
use parking_lot::Mutex;
use throughline_protocol::channel::Position;
use throughline_protocol::{ChannelCode, ChannelMessage, SessionId};
use tokio::sync::broadcast;

use super::super::Inner;
use super::super::encoded::Encoded;
use super::super::reader::{Arrived, Readers};
use super::super::stats::Counters;
use super::super::subscriber::Subscriber;
use super::super::topic::{End, Opening, Topic, Unsent, began_anew};
use super::run::{Lack, Run, Wire};
use crate::config::Slow;
use crate::engine::{History, Publication};
use crate::session::Session;
use crate::session::flusher::Turn;

/// Publications that wait for those at the head, and their bytes. Whoever publishes more before those are written, writes them himself: so publishers are not faster than that.
const MAX_WAITING: usize = 64;
const MAX_WAITING_BYTES: usize = 64 * 1_024;

/// Subscribers of a log that are written to by one task.
pub(super) struct Shard {
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
    cursors: IndexMap<SessionId, Cursor>,
    readers: Readers,
    /// What is to be given to everybody who is at the head.
    waiting: VecDeque<Wire>,
    /// Of all of them.
    waiting_bytes: usize,
    /// What is being given to them.
    pass: Option<Pass>,
    /// Somebody has been asked to do it.
    is_due: bool,
}

/// A way through all cursors, from the last to the first: whoever comes meanwhile comes behind it, and lacks nothing; and whoever takes the place of one that has left, comes from there.
struct Pass {
    run: Run,
    /// Cursors before it.
    left: usize,
}

/// What follows when a publication has come.
pub(in crate::hub) enum Delivery {
    /// Nothing.
    None,
    /// It has to be written to those at the head.
    Soon,
    /// The same, at once: enough is waiting.
    Now,
    /// These have fallen behind by it.
    Fallen(Vec<Arc<Subscriber>>),
}

/// One subscriber.
struct Cursor {
    /// That of the subscriber.
    session: Session,
    subscriber: Arc<Subscriber>,
    /// The offset of what it was given last.
    sent: u64,
    /// It is given nothing as it comes: it reads the history first.
    is_behind: bool,
    /// The server ends the subscription, as soon as there is room to say so.
    end: Option<End>,
}

/// A piece of history for one subscriber.
pub(in crate::hub) struct Piece {
    after: Position,
    newest: Position,
    complete: bool,
    publications: VecDeque<Arc<Publication>>,
}

/// What a subscriber that was behind needs.
pub(in crate::hub) enum Need {
    /// To read the history after this position.
    History(Position),
    /// Room in its session.
    Room,
    /// Nothing: it has caught up, or is not subscribed.
    Nothing,
    /// Nothing any more: its subscription was ended just now.
    Ended,
}

impl Shard {
    /// Without subscribers. Of publications it has had those up to `newest`.
    pub(super) fn new(number: u64, slow: Slow, counters: Arc<Counters>, newest: Position) -> Self {
        Self { number, slow, counters, state: Mutex::new(State { newest, ..State::default() }) }
    }

    /// As many others of the same log, for those who come from now on.
    pub(super) fn others(&self, count: usize) -> Box<[Self]> {
        // Nothing can come between: whoever delivers holds this lock, and looks for others afterwards.
        let state = self.state.lock();
        (0..count).map(|_| Self::new(self.number, self.slow, Arc::clone(&self.counters), state.newest)).collect()
    }

    pub(super) fn subscribers(&self) -> usize {
        self.state.lock().cursors.len()
    }

    pub(super) fn has(&self, id: SessionId) -> bool {
        self.state.lock().cursors.contains_key(&id)
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

    /// Whether a publication has not come before.
    pub(super) fn is_news(&self, epoch: u64, publication: &Publication) -> bool {
        let newest = self.state.lock().newest;
        newest.epoch != epoch || newest.offset < publication.offset
    }

    /// A publication has come, for everybody who is at the head.
    pub(super) fn deliver(&self, epoch: u64, publication: &Publication, encoded: impl FnOnce() -> Bytes) -> Delivery {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let offset = publication.offset;
        let begins_anew = state.newest.epoch != epoch;
        if !begins_anew && offset <= state.newest.offset {
            return Delivery::None; // it has come before
        }
        state.newest = Position { epoch, offset };
        state.readers.deliver(state.newest, publication);
        if begins_anew {
            let (mut turn, mut fallen) = (Turn::default(), Vec::new());
            while !self.write_on(state, &mut turn, &mut fallen) {
                turn.begin();
            }
            // What was missed has no offset in the new count.
            for cursor in state.cursors.values_mut() {
                cursor.end = Some(began_anew());
                cursor.is_behind = true;
                fallen.push(Arc::clone(&cursor.subscriber));
            }
            return Delivery::Fallen(fallen);
        }
        if state.cursors.is_empty() {
            return Delivery::None;
        }
        let bytes = encoded();
        state.waiting_bytes += bytes.len();
        state.waiting.push_back((offset, bytes));
        let is_due = std::mem::replace(&mut state.is_due, true);
        if state.waiting.len() >= MAX_WAITING || state.waiting_bytes >= MAX_WAITING_BYTES {
            Delivery::Now
        } else if is_due {
            Delivery::None
        } else {
            Delivery::Soon
        }
    }

    /// Writes what is waiting to those at the head, as far as `turn` allows. Returns those who have fallen behind, and whether nothing is left to write.
    pub(super) fn write(&self, turn: &mut Turn) -> (Vec<Arc<Subscriber>>, bool) {
        let mut fallen = Vec::new();
        let is_done = self.write_on(&mut self.state.lock(), turn, &mut fallen);
        (fallen, is_done)
    }

    fn write_on(&self, state: &mut State, turn: &mut Turn, fallen: &mut Vec<Arc<Subscriber>>) -> bool {
        let State { cursors, waiting, waiting_bytes, pass, is_due, .. } = state;
        loop {
            if pass.is_none() {
                let left = cursors.len();
                *pass = Run::take(waiting).map(|run| Pass { run, left });
                *waiting_bytes = waiting.iter().map(|(_, bytes)| bytes.len()).sum();
            }
            let Some(Pass { run, left }) = pass else {
                (*is_due, *waiting) = (false, VecDeque::new());
                return true;
            };
            while *left > 0 {
                if turn.left == 0 {
                    return false;
                }
                *left -= 1;
                let Some((_, cursor)) = cursors.get_index_mut(*left) else { continue };
                match cursor.write(run, turn) {
                    Ok(()) => {}
                    Err(Unsent::Full) => fallen.push(Arc::clone(&cursor.subscriber)),
                    Err(Unsent::Gone) => drop(cursors.swap_remove_index(*left)),
                }
            }
            *pass = None;
        }
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
        let session = subscriber.session.clone();
        state.cursors.insert(id, Cursor { session, subscriber, sent: position.offset, is_behind, end: None });
        drop(state);
        if let Some((position, history)) = recovered {
            // What was read already need not be read again.
            self.give(id, &mut Piece::new(position, history), &hub.encoded);
        }
        Ok(self.is_behind(id))
    }

    pub(super) fn remove(&self, id: SessionId) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if let Some(mut cursor) = state.cursors.swap_remove(&id) {
            cursor.finish(state.pass.as_ref(), state.waiting.clone());
        }
        if state.cursors.is_empty() {
            *state = State { newest: state.newest, readers: std::mem::take(&mut state.readers), ..State::default() }; // the memory of many is given back
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
        state.cursors.swap_remove(&id);
        Need::Ended
    }

    /// Ends a subscription, as soon as there is room to say so.
    pub(super) fn end(&self, id: SessionId, end: End) {
        let mut guard = self.state.lock();
        let State { cursors, pass, waiting, .. } = &mut *guard;
        if let Some(cursor) = cursors.get_mut(&id) {
            cursor.finish(pass.as_ref(), waiting.clone());
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
                cursors.swap_remove(&id);
                false
            }
        }
    }
}

impl Cursor {
    /// Writes what it lacks of a run, if it is at the head; otherwise it is behind from now on.
    fn write(&mut self, run: &Run, turn: &mut Turn) -> Result<(), Unsent> {
        if self.is_behind {
            return Ok(());
        }
        let written = match run.after(self.sent) {
            (Lack::Nothing, _) => return Ok(()),
            (Lack::Messages(messages, count), last) => {
                self.session.try_write_channels(messages, count, turn).map(|()| self.sent = last).map_err(Unsent::from)
            }
            // After a hole everybody reads what is missing.
            (Lack::More, _) => Err(Unsent::Full),
        };
        self.is_behind = matches!(written, Err(Unsent::Full));
        written
    }

    /// Is given what was published until now, without waiting for its turn: it leaves.
    fn finish(&mut self, pass: Option<&Pass>, mut waiting: VecDeque<Wire>) {
        let mut turn = Turn::default();
        let mut written = pass.map_or(Ok(()), |pass| self.write(&pass.run, &mut turn));
        while written.is_ok()
            && let Some(run) = Run::take(&mut waiting)
        {
            written = self.write(&run, &mut turn);
        }
    }

    fn send(&self, message: Bytes) -> Result<(), Unsent> {
        Ok(self.session.try_send_channel(message)?)
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
    pub(in crate::hub) fn new(after: Position, history: History) -> Self {
        let History { newest, complete, publications } = history;
        Self { after, newest, complete, publications: publications.into() }
    }
}
