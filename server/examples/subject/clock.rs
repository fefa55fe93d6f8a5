//! Sessions that are sent something by the clock: one loop for all that want the same. A late tick is sent late, and none is left out, so that an
//! overload shows.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use throughline::{Datagram, Message, Session, SessionId};
use tokio::time::Instant;

/// The key under which a state takes the place of the one before.
const STATE_KEY: u64 = 0;

/// How often something is sent, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Rate {
    hz: u32,
    bytes: usize,
}

type Sessions = Arc<Mutex<HashMap<SessionId, Session>>>;

/// The sessions, by what they want.
#[derive(Default)]
pub(crate) struct Clock {
    groups: Mutex<HashMap<Wanted, Sessions>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Wanted {
    States(Rate),
    Tokens(Rate),
    Nothing,
}

/// A session's place in a group. Dropped, it is not sent to any more.
pub(crate) struct Seat {
    group: Sessions,
    session: SessionId,
}

impl Rate {
    pub(crate) const STATE: Self = Self { hz: 30, bytes: 150 };
    pub(crate) const TOKENS: Self = Self { hz: 50, bytes: 20 };

    /// `hz=` and `bytes=` of a query, if both are there.
    pub(crate) fn asked(query: &str) -> Option<Self> {
        let value = |name: &str| form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
        let number = |name: &str| value(name)?.1.parse().ok();
        let (hz, bytes): (u32, u32) = (number("hz")?, number("bytes")?);
        (1..=10_000).contains(&hz).then_some(Self { hz, bytes: bytes as usize })
    }
}

impl Clock {
    /// Sends states to the session, until the seat is dropped.
    pub(crate) fn states(&self, rate: Rate, session: &Session) -> Seat {
        self.seat(Wanted::States(rate), session, |group| {
            tokio::spawn(async move {
                let mut ticks = Ticks::new(rate);
                loop {
                    let state = Datagram::from(ticks.next().await.state());
                    lock(&group).values().for_each(|session| drop(session.send_datagram(state.clone(), STATE_KEY)));
                }
            });
        })
    }

    /// Sends tokens to the session, until the seat is dropped.
    pub(crate) fn tokens(&self, rate: Rate, session: &Session) -> Seat {
        self.seat(Wanted::Tokens(rate), session, |group| {
            tokio::spawn(async move {
                let mut ticks = Ticks::new(rate);
                loop {
                    let token = Message::from(ticks.next().await.token());
                    lock(&group).values().for_each(|session| drop(session.try_send(token.clone())));
                }
            });
        })
    }

    /// Sends nothing by the clock.
    pub(crate) fn sit(&self, session: &Session) -> Seat {
        self.seat(Wanted::Nothing, session, drop)
    }

    /// Sends a message to all who sit, but for who has sent it.
    pub(crate) fn send(&self, message: &Message, from: &Session) {
        let Some(group) = lock(&self.groups).get(&Wanted::Nothing).map(Arc::clone) else { return };
        let group = lock(&group);
        let others = group.values().filter(|session| session.id() != from.id());
        others.for_each(|session| drop(session.try_send(message.clone())));
    }

    fn seat(&self, wanted: Wanted, session: &Session, begin: impl FnOnce(Sessions)) -> Seat {
        let mut groups = lock(&self.groups);
        let group = groups.entry(wanted).or_insert_with(|| {
            let group = Sessions::default();
            begin(Arc::clone(&group));
            group
        });
        lock(group).insert(session.id(), session.clone());
        Seat { group: Arc::clone(group), session: session.id() }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.group).remove(&self.session);
    }
}

/// The moments at which something is due.
pub(crate) struct Ticks {
    rate: Rate,
    began: Instant,
    /// The same moment, since the Unix epoch.
    epoch: Duration,
    number: u32,
}

pub(crate) struct Tick {
    /// Microseconds since the Unix epoch.
    due: u128,
    number: u64,
    bytes: usize,
}

impl Ticks {
    pub(crate) fn new(rate: Rate) -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { rate, began: Instant::now(), epoch, number: 0 }
    }

    /// Waits for the next one. It comes at once when it is overdue, but never before others had their turn: on a server that is too slow for the rate nothing
    /// would leave any more, and nobody could come in.
    pub(crate) async fn next(&mut self) -> Tick {
        self.number += 1;
        let due = Duration::from_secs(1) / self.rate.hz * self.number;
        tokio::task::yield_now().await;
        tokio::time::sleep_until(self.began + due).await;
        Tick { due: (self.epoch + due).as_micros(), number: self.number.into(), bytes: self.rate.bytes }
    }
}

impl Tick {
    /// When it was due, its number, filler.
    fn state(&self) -> Vec<u8> {
        let mut state = [(self.due as u64).to_be_bytes(), self.number.to_be_bytes()].concat();
        state.resize(self.bytes.max(state.len()), b'.');
        state
    }

    /// When it was due, as 16 hexadecimal digits, and filler.
    pub(crate) fn token(&self) -> String {
        format!("{:016x}{:.<2$}", self.due, "", self.bytes.saturating_sub(16))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
