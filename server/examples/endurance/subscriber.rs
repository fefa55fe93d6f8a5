//! A subscriber that accounts for what it hears, while its links are cut.

use std::collections::{HashMap, HashSet, VecDeque};

use serde::Serialize;
use throughline::{Message, Position, Transport};
use throughline_protocol::{ChannelMessage, channel};

use crate::Failure;
use crate::client::{Client, Gap};
use crate::fault::{Fault, How};
use crate::link::{Place, TRANSPORTS};
use crate::rng::Rng;

/// What is published in.
pub(crate) const LOG: &str = "log:all";

/// The channel of state: each publication changes one of its values, too.
pub(crate) const STATE: &str = "state:all";

/// The key of a value that is removed at the end.
pub(crate) const REMOVED: &str = "removed";

/// Keys of the channel of state, but for the one that is removed.
const KEYS: u64 = 8;

/// Requests of a session.
const OF_LOG: u64 = 1;
const OF_STATE: u64 = 2;

/// Where the publications say when they were made.
pub(crate) const TIMED: &str = "timed:all";

/// Bytes within which a cut comes after it was decided on: in the middle of something.
const CUT_WITHIN: u64 = 4_000;

/// Openings in a row that may fail: a thousand clients are busy, and so is the server.
const MAX_FAILED_OPENINGS: u32 = 20;

/// When a subscriber is cut: at these offsets.
pub(crate) struct Cuts(VecDeque<u64>);

impl Cuts {
    pub(crate) fn none() -> Self {
        Self(VecDeque::new())
    }

    /// So many, anywhere in a run of so many publications.
    pub(crate) fn plan(rng: &mut Rng, publications: u64, count: u32) -> Self {
        let mut at: Vec<u64> = (0..count).map(|_| 1 + rng.below(publications)).collect();
        at.sort_unstable();
        Self(at.into())
    }
}

/// What subscribers have had of the log, and what they were told that they would not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Heard {
    pub(crate) received: u64,
    /// Publications that SKIPPED named, or that lie before a subscription that was not recovered.
    pub(crate) told_lost: u64,
    /// Holes that nobody told of.
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) damaged: u64,
}

/// What subscribers have had of the channel of state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seen {
    /// Values that were newer than what was there. Fewer than were set: newer ones took their places.
    pub(crate) values: u64,
    /// What had been sent as a datagram, and came once more as a message; or came late.
    pub(crate) not_newer: u64,
    /// Snapshots, the first one of each subscription among them.
    pub(crate) snapshots: u64,
    pub(crate) damaged: u64,
    /// Subscribers that ended on the last value of each key, and without the one that was removed.
    pub(crate) ended_on_the_last: u64,
}

/// What was done to the links of subscribers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Links {
    pub(crate) cut: u64,
    pub(crate) silenced: u64,
    /// The session went on.
    pub(crate) resumed: u64,
    /// The session was forgotten, and its successor subscribed with a position.
    pub(crate) forgotten: u64,
    /// Links that were lost without having been cut. There should be none.
    pub(crate) unexpected: u64,
}

/// The sums of all subscribers.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) log: Heard,
    pub(crate) state: Seen,
    pub(crate) links: Links,
}

impl Ledger {
    pub(crate) fn add(&mut self, other: Self) {
        let (log, state, links) = (&mut self.log, &mut self.state, &mut self.links);
        log.received += other.log.received;
        log.told_lost += other.log.told_lost;
        log.lost += other.log.lost;
        log.repeated += other.log.repeated;
        log.damaged += other.log.damaged;
        state.values += other.state.values;
        state.not_newer += other.state.not_newer;
        state.snapshots += other.state.snapshots;
        state.damaged += other.state.damaged;
        state.ended_on_the_last += other.state.ended_on_the_last;
        links.cut += other.links.cut;
        links.silenced += other.links.silenced;
        links.resumed += other.links.resumed;
        links.forgotten += other.links.forgotten;
        links.unexpected += other.links.unexpected;
    }

    /// Whether so many subscribers had so many publications each, or know what they did not have; and ended on the last values.
    pub(crate) fn is_whole(&self, subscribers: u64, publications: u64) -> bool {
        let Heard { received, told_lost, lost, repeated, damaged } = self.log;
        received + told_lost == subscribers * publications
            && (lost, repeated, damaged, self.links.unexpected) == (0, 0, 0, 0)
            && (self.state.ended_on_the_last, self.state.damaged) == (subscribers, 0)
    }
}

pub(crate) struct Subscriber {
    place: Place,
    transport: Transport,
    client: Client,
    rng: Rng,
    cuts: Cuts,
    /// Of the last publication that was heard, or that is known to be lost.
    position: Position,
    values: Values,
    ledger: Ledger,
}

/// What is known of the channel of state.
#[derive(Default)]
struct Values {
    /// By its key: with the offset of its change, and none when it was removed.
    held: HashMap<String, (u64, Option<Message>)>,
    /// Those that were there before the snapshot that is being taken.
    doubtful: HashSet<String>,
}

impl Values {
    fn take(&mut self, message: ChannelMessage, seen: &mut Seen) {
        match message {
            ChannelMessage::Snapshot { .. } => {
                seen.snapshots += 1;
                self.doubtful = self.held.keys().cloned().collect();
            }
            ChannelMessage::Value { offset, key, data, .. } => {
                if self.held.get(&*key).is_some_and(|(held, _)| *held >= offset) {
                    seen.not_newer += 1;
                    self.doubtful.remove(&*key);
                    return;
                }
                let is_right = *key == *REMOVED || data == Some(published(offset_of(&data)));
                seen.damaged += u64::from(!is_right);
                seen.values += 1;
                self.doubtful.remove(&*key);
                self.held.insert(key.to_string(), (offset, data));
            }
            ChannelMessage::Settled { .. } => self.doubtful.drain().for_each(|key| drop(self.held.remove(&key))),
            _ => {}
        }
    }

    /// Whether these are the values after so many publications.
    fn are_the_last(&self, publications: u64) -> bool {
        let last = |key: u64| (1..=publications).rev().find(|offset| offset % KEYS == key);
        let is_last = |key: u64| {
            let held = self.held.get(&key.to_string()).and_then(|(_, data)| data.clone());
            held == last(key).map(published)
        };
        (0..KEYS).all(is_last) && self.held.get(REMOVED).is_none_or(|(_, data)| data.is_none())
    }
}

impl Subscriber {
    /// Opens a session, and subscribes from the next publication on.
    pub(crate) async fn open(place: Place, transport: Transport, rng: Rng, cuts: Cuts) -> Result<Self, Failure> {
        let client = Client::open(&place, transport, &Fault::never()).await?;
        let ledger = Ledger::default();
        let mut subscriber = Self {
            place,
            transport,
            client,
            rng,
            cuts,
            position: Position::default(),
            values: Values::default(),
            ledger,
        };
        subscriber.subscribe(None);
        while subscriber.position.epoch == 0 {
            let message = subscriber.next().await?;
            subscriber.take(message)?;
        }
        Ok(subscriber)
    }

    /// Listens until the log has come to its end, and the values are those that stay.
    pub(crate) async fn follow(mut self, publications: u64) -> Result<Ledger, Failure> {
        while self.position.offset < publications || !self.values.are_the_last(publications) {
            if self.cuts.0.front().is_some_and(|at| *at <= self.position.offset) {
                self.cuts.0.pop_front();
                self.break_link().await?;
            }
            let heard = tokio::select! {
                biased;
                message = self.next() => Some(message?),
                () = self.client.link_gone() => None,
            };
            match heard {
                Some(message) => self.take(message)?,
                None => self.go_on().await?,
            }
        }
        self.ledger.links.unexpected += self.client.unexpected().len() as u64;
        self.ledger.state.ended_on_the_last = 1;
        self.client.close().await;
        Ok(self.ledger)
    }

    fn subscribe(&self, position: Option<Position>) {
        let subscribe = |request, channel: &str, position| {
            let message = ChannelMessage::Subscribe { request, channel: channel.into(), position, about: None };
            drop(self.client.change(|machine| machine.send_channel(message.encode()))); // a session that has ended says so
        };
        subscribe(OF_LOG, LOG, position);
        subscribe(OF_STATE, STATE, None);
    }

    async fn next(&self) -> Result<ChannelMessage, Failure> {
        let message = self.client.until(|machine| {
            let message = machine.poll_channel().map(channel::decode);
            let value = || machine.poll_state().map(channel::decode_state);
            message.or_else(value).or_else(|| machine.closed().cloned().map(Err))
        });
        Ok(message.await.map_err(|close| close.to_string())?)
    }

    fn take(&mut self, message: ChannelMessage) -> Result<(), Failure> {
        let log = &mut self.ledger.log;
        match message {
            ChannelMessage::Subscribed { request: OF_STATE, .. } => {}
            ChannelMessage::Subscribed { recovered, position, .. } => {
                if self.position.epoch != 0 && !recovered {
                    log.told_lost += position.offset.saturating_sub(self.position.offset);
                }
                self.position = position;
            }
            ChannelMessage::Publication { offset, data, .. } => {
                let next = self.position.offset + 1;
                if offset < next {
                    log.repeated += 1;
                    return Ok(());
                }
                log.lost += offset - next;
                log.received += 1;
                log.damaged += u64::from(data != published(offset));
                self.position.offset = offset;
            }
            ChannelMessage::Skipped { offset, .. } => {
                log.told_lost += offset - self.position.offset;
                self.position.offset = offset;
            }
            ChannelMessage::Snapshot { .. } | ChannelMessage::Value { .. } | ChannelMessage::Settled { .. } => {
                self.values.take(message, &mut self.ledger.state);
            }
            other => return Err(format!("the server says {other:?}").into()),
        }
        Ok(())
    }

    /// Breaks the link behind one of its next bytes.
    async fn break_link(&mut self) -> Result<(), Failure> {
        let how = if self.rng.below(4) == 0 { How::Silence } else { How::Reset };
        match how {
            How::Reset => self.ledger.links.cut += 1,
            How::Silence => self.ledger.links.silenced += 1,
        }
        self.client.link().1.arm(1 + self.rng.below(CUT_WITHIN), how);
        Ok(())
    }

    /// The link is gone: resumes over another transport, or begins anew where it was, as a page does that is reloaded.
    async fn go_on(&mut self) -> Result<(), Failure> {
        if self.rng.below(5) == 0 {
            self.ledger.links.forgotten += 1;
            return self.begin_anew().await;
        }
        self.ledger.links.resumed += 1;
        let mut failed = 0;
        loop {
            let transport = self.rng.pick(&TRANSPORTS);
            match self.client.further(&self.place, transport, &Fault::never()).await {
                Ok(link) => {
                    self.client.take(link).await;
                    return Ok(());
                }
                Err(error) if error.is::<Gap>() || failed == MAX_FAILED_OPENINGS => return Err(error),
                Err(_) => failed += 1,
            }
        }
    }

    async fn begin_anew(&mut self) -> Result<(), Failure> {
        // What has arrived has been handed on: a page has shown it.
        while let Some(body) = self.client.change(|machine| machine.poll_channel()) {
            let message = channel::decode(body).map_err(|close| close.to_string())?;
            self.take(message)?;
        }
        self.ledger.links.unexpected += self.client.unexpected().len() as u64;
        self.client = Client::open(&self.place, self.transport, &Fault::never()).await?;
        self.values = Values::default(); // offsets of another subscription
        self.subscribe(Some(self.position));
        Ok(())
    }
}

/// What is published with this offset: a hundred bytes that follow from it.
pub(crate) fn published(offset: u64) -> throughline::Message {
    let mut body = format!("{offset:012} ");
    body.extend(Rng::new(offset, 0).bytes(87).into_iter().map(|byte| char::from(b'a' + byte % 26)));
    body.into()
}

/// Which key a publication changes the value of.
pub(crate) fn key(offset: u64) -> String {
    (offset % KEYS).to_string()
}

/// What a value says of itself.
fn offset_of(data: &Option<Message>) -> u64 {
    let text = data.as_ref().and_then(Message::as_text).and_then(|text| text.get(..12));
    text.and_then(|number| number.parse().ok()).unwrap_or(0)
}
