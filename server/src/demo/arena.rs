//! The running game: its task, and the handler that seats a session in it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use super::dashboard::{self, Counters};
use super::ledger::Ledger;
use super::messages::{Said, SayError, error_text};
use super::stage::{Audience, Refusal, Seat, Stage};
use super::upload::{self, UPLOADS_MAX};
use super::wire::Input;
use super::world::{Setup, TICK_RATE};
use crate::{Event, Hub, Message, Session, Transport, TrySendError};

/// Close code of a session that found every seat taken. The page says so, and does not try again by itself.
const CLOSE_ARENA_FULL: u32 = 1;
/// Close code of the sessions of an arena that has ended.
const CLOSE_ARENA_ENDED: u32 = 2;

/// A running game. Clones are the same game; its task ends when the last is dropped.
///
/// ```no_run
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// let arena = throughline::demo::Arena::start();
/// let server = throughline::Server::builder()
///     .on_session(move |session| arena.clone().play(session))
///     .start()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Arena(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    arrivals: Arc<Arrivals>,
    counters: Arc<Counters>,
    /// Its sender lives in the task: when that is gone, so is the game.
    ended: watch::Receiver<()>,
    task: JoinHandle<()>,
}

/// Most seats of one arena. Each has a ship, whether it flies or not.
const SEATS_MAX: u16 = 10_000;

/// As often as the dashboard reads it.
const CENSUS_EVERY_TICKS: u32 = TICK_RATE / 2;

/// Who waits to be seated at the next tick. The server's limit on sessions bounds it.
type Arrivals = Mutex<Vec<Arc<Seat<Session>>>>;

impl Arena {
    /// Starts the game with its usual 300 bots, and seats for 256 people.
    ///
    /// # Panics
    /// Outside a tokio runtime, which the task needs.
    #[must_use]
    pub fn start() -> Self {
        Self::begin(Setup::default())
    }

    /// The same with seats for `people`, of whom there may be up to 10,000: more than one arena has room for, and enough to find out how many a
    /// server bears.
    ///
    /// # Panics
    /// Outside a tokio runtime, as [`Arena::start`].
    #[must_use]
    pub fn with_seats(people: u16) -> Self {
        Self::begin(Setup { players_max: people.min(SEATS_MAX), ..Setup::default() })
    }

    fn begin(setup: Setup) -> Self {
        let arrivals = Arc::<Arrivals>::default();
        let (alive, ended) = watch::channel(());
        let counters = Arc::<Counters>::default();
        let stage = Stage::new(setup);
        let task = tokio::spawn(run(stage, arrivals.clone(), counters.clone(), alive));
        Self(Arc::new(Shared { arrivals, counters, ended, task }))
    }

    /// Keeps the channel `dashboard:live`, one of state, at the numbers of the game and its process, for as long as the game runs.
    ///
    /// # Panics
    /// Outside a tokio runtime, as [`Arena::start`].
    pub fn report(&self, hub: &Hub) {
        let (counters, mut ended) = (self.0.counters.clone(), self.0.ended.clone());
        let channels = dashboard::Channels::new(hub);
        tokio::spawn(async move {
            tokio::select! {
                () = dashboard::report(&channels, &counters) => {}
                _ = ended.changed() => {}
            }
        });
    }

    /// Plays one session to its end: from the next tick on it has a ship, and gets one state per tick. While it has no link the ship
    /// stays, and after a moment flies by itself.
    pub async fn play(self, session: Session) {
        let seat = Arc::new(Seat::new(session.clone()));
        self.0.arrivals.lock().push(seat.clone());
        let _leaving = Leaving(&seat);
        let mut ended = self.0.ended.clone();
        let ledger = Ledger::default();
        tokio::select! {
            () = listen(&session, &seat, &ledger) => {}
            () = ledger.tell(&session) => {}
            // Nothing is ever sent: this resolves when the task is gone.
            _ = ended.changed() => session.close(CLOSE_ARENA_ENDED, "the game has ended"),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Clears the seat however `play` ends: returned, panicked, or dropped.
struct Leaving<'a>(&'a Seat<Session>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Audience for Session {
    fn tell(&self, message: Message) -> Result<(), Refusal> {
        match self.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full) => Err(Refusal::Full),
            // Closed: `play` is about to notice. Too large cannot be: every notice is bounded far below the limit.
            Err(_) => Err(Refusal::Gone),
        }
    }

    fn show(&self, datagram: Bytes, key: u64) {
        // The only errors are a closed session, which `play` notices, and a size that the wire format excludes.
        let _ = self.send_datagram(datagram, Some(key));
    }

    fn transport(&self) -> Option<Transport> {
        Self::transport(self)
    }

    fn turn_away(&self) {
        self.close(CLOSE_ARENA_FULL, "the arena is full; try again later");
    }
}

async fn run(mut stage: Stage<Session>, arrivals: Arc<Arrivals>, counters: Arc<Counters>, _alive: watch::Sender<()>) {
    let mut timer = interval(Duration::from_secs(1) / TICK_RATE);
    // After a pause of the machine the game goes on from where it was, instead of rushing through what was missed.
    timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut seats = Vec::new();
    let mut ticks = 0u32;
    loop {
        timer.tick().await;
        seats.append(&mut arrivals.lock());
        let began = Instant::now();
        stage.tick(&mut seats, unix_time_us());
        counters.ticked(began.elapsed());
        if ticks.is_multiple_of(CENSUS_EVERY_TICKS) {
            counters.count(stage.census());
        }
        ticks = ticks.wrapping_add(1);
    }
}

/// Takes what the page sends, until the session has ended.
async fn listen(session: &Session, seat: &Seat<Session>, ledger: &Ledger) {
    // They end with the session: what they read and write fails then, and here they are dropped.
    let mut uploads = JoinSet::new();
    while let Some(event) = session.recv().await {
        let taken = match event {
            // A datagram that is not an input is ignored: it may be one of a newer page.
            Event::Datagram(bytes) => {
                if let Some(input) = Input::decode(&bytes) {
                    seat.steer(input);
                }
                Ok(())
            }
            Event::Message(Message::Text(text)) => Said::parse(&text).and_then(|said| match said {
                Said::Name(name) => seat.rename(name),
                Said::Count { run, number } => {
                    ledger.take(run, number);
                    Ok(())
                }
            }),
            Event::Message(Message::Binary(_)) => Err(SayError::Binary),
            Event::Stream(stream) => {
                while uploads.try_join_next().is_some() {}
                // Dropped, it is stopped, and the page says so.
                if uploads.len() < UPLOADS_MAX {
                    uploads.spawn(upload::receive(stream));
                }
                Ok(())
            }
            #[allow(unreachable_patterns, reason = "events may grow")]
            _ => Ok(()),
        };
        if let Err(error) = taken {
            // Whoever sends nonsense faster than he reads the answers gets fewer answers.
            let _ = session.try_send(error_text(&error));
        }
    }
}

fn unix_time_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 shows as an age on the page, and harms nothing.
    since.map_or(0, |since| since.as_micros() as u64)
}
