//! Connections that are sent something by the clock: one loop for all that want the same. A late tick is sent late, and none is left out, so that an
//! overload shows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

/// What `/state` and `/tokens` send, unless their query says otherwise.
const STATE: (u32, usize) = (30, 150);
const TOKENS: (u32, usize) = (50, 20);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    State,
    Token,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Wanted {
    kind: Kind,
    hz: u32,
    bytes: usize,
}

type Send = Box<dyn Fn(&Bytes) + std::marker::Send>;

#[derive(Default)]
struct Group {
    last: u64,
    members: HashMap<u64, Send>,
}

/// Who is sent what.
#[derive(Default)]
pub struct Clock {
    groups: Mutex<HashMap<Wanted, Arc<Mutex<Group>>>>,
}

/// A place in a group. Dropped, nothing is sent any more.
pub struct Seat {
    group: Arc<Mutex<Group>>,
    number: u64,
}

impl Clock {
    /// Calls `send` with each state that falls due.
    pub fn states(&self, query: &str, send: impl Fn(&Bytes) + std::marker::Send + 'static) -> Seat {
        self.seat(Wanted::asked(Kind::State, query, STATE), Box::new(send))
    }

    /// Calls `send` with each token that falls due.
    pub fn tokens(&self, query: &str, send: impl Fn(&Bytes) + std::marker::Send + 'static) -> Seat {
        self.seat(Wanted::asked(Kind::Token, query, TOKENS), Box::new(send))
    }

    fn seat(&self, wanted: Wanted, send: Send) -> Seat {
        let mut groups = lock(&self.groups);
        let group = groups.entry(wanted).or_insert_with(|| {
            let group = Arc::default();
            tokio::spawn(run(wanted, Arc::clone(&group)));
            group
        });
        let mut inner = lock(group);
        inner.last += 1;
        let number = inner.last;
        inner.members.insert(number, send);
        Seat { group: Arc::clone(group), number }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.group).members.remove(&self.number);
    }
}

impl Wanted {
    fn asked(kind: Kind, query: &str, (hz, bytes): (u32, usize)) -> Self {
        let value = |name: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == name).and_then(|(_, value)| value.parse::<u32>().ok())
        };
        Self { kind, hz: value("hz").unwrap_or(hz).max(1), bytes: value("bytes").map_or(bytes, |bytes| bytes as usize) }
    }

    fn payload(&self, due: u64, number: u64) -> Bytes {
        let mut payload = match self.kind {
            Kind::State => [due.to_be_bytes(), number.to_be_bytes()].concat(),
            Kind::Token => format!("{due:016x}").into_bytes(),
        };
        payload.resize(self.bytes.max(payload.len()), b'.');
        payload.into()
    }
}

async fn run(wanted: Wanted, group: Arc<Mutex<Group>>) {
    let interval = Duration::from_secs(1) / wanted.hz;
    let began = Instant::now();
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut number = 1;
    loop {
        let due = interval * number;
        sleep_until(began + due).await;
        let payload = wanted.payload((epoch + due).as_micros() as u64, number.into());
        lock(&group).members.values().for_each(|send| send(&payload));
        number += 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
