//! G11: how many players a game can have.
//!
//! The demo's arena, over Throughline, and the same game on Node over `ws` and over Socket.IO. Players come in steps, each steers 30 times a second and is sent what it
//! sees 30 times a second, until a tick is late: the time from the beginning of a tick until the last player has its state is then more than a tick.

use std::cell::RefCell;
use std::ops::Range;
use std::process;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::task::spawn_local;

use super::Workload;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::load::client::{Client, OnMessage, open_many};
use crate::load::open_loop::{self, Schedule};
use crate::load::webtransport::{self, Session};
use crate::load::{self, payload, sessions, throughline};
use crate::results::{Counts, Measured};
use crate::settings::Settings;
use crate::subject::{App, Subject};
use crate::{Failure, measure};

/// Ticks, and inputs of each player, per second.
const HZ: usize = 30;

/// A tick that takes longer than this has eaten up the next one's time.
const LATE: Duration = Duration::from_millis(33);

/// Players in the first step. The last steps have a quarter more each: that is how exact the result is.
const FIRST: usize = 40;
const MOST: usize = 3_000;

/// Steps until a tick is late, about.
const STEPS: u32 = 9;

/// After players have come: what their coming has cost is over.
const SETTLE: Duration = Duration::from_millis(800);

/// As little between two players' inputs as the clock can tell.
const GRAIN: Duration = Duration::from_millis(1);

/// Ticks that the load generator remembers.
const TICKS: usize = 4_096;

/// For one subject in all.
const LIMIT: Duration = Duration::from_secs(240);

struct Game {
    most: usize,
    window: Duration,
}

pub(super) fn workloads(settings: &Settings) -> Vec<Box<dyn Workload>> {
    let window = settings.pick(Duration::from_millis(3_400), Duration::from_millis(700));
    vec![Box::new(Game { most: settings.pick(MOST, FIRST), window })]
}

impl Workload for Game {
    fn name(&self) -> &'static str {
        "game"
    }

    fn goal(&self) -> &'static str {
        "G11"
    }

    fn variant(&self) -> String {
        format!("300 bots, up to {} players at {HZ} per second", self.most)
    }

    fn takes(&self, contender: &Contender) -> bool {
        use Protocol::{SocketIo, Throughline, WebSocket};
        contender.entry.apps.contains(&App::Game)
            && matches!(
                contender.protocol,
                WebSocket | SocketIo | Throughline(Transport::WebTransport | Transport::WebSocket)
            )
    }

    fn lasts(&self) -> Duration {
        let steps = if self.most > FIRST { STEPS } else { 1 };
        (SETTLE + self.window + 3 * LATE + Duration::from_millis(300)) * steps
    }

    fn run(&self, contender: &Contender, settings: &Settings) -> Result<Measured, Failure> {
        let subject = Subject::start(contender, App::Game, settings)?;
        load::block_on(LIMIT, self.play(&subject, contender.protocol))
    }
}

impl Game {
    async fn play(&self, subject: &Subject, protocol: Protocol) -> Result<Measured, Failure> {
        let seen = Rc::new(RefCell::new(Seen::default()));
        let players = Rc::new(RefCell::new(Vec::new()));
        let endpoint = webtransport::endpoint()?;
        spawn_local(steer(Rc::clone(&players), LIMIT));

        let mut best: Option<(usize, Step)> = None;
        let mut wanted = FIRST;
        loop {
            let there = players.borrow().len();
            for player in come(subject, protocol, &endpoint, there..wanted, &seen).await? {
                players.borrow_mut().push(player);
            }
            tokio::time::sleep(SETTLE).await;
            let step = self.step(subject, &seen).await?;
            if let Some(failure) = players.borrow().iter().find_map(Player::failure) {
                return Err(failure.into());
            }
            let p99 = Duration::from_micros(step.tick.value_at_quantile(0.99));
            let is_late = p99 > LATE;
            if !is_late {
                best = Some((wanted, step));
            }
            if is_late || wanted >= self.most {
                break;
            }
            wanted = next(wanted, p99).min(self.most);
        }
        let Some((count, step)) = best else {
            return Err(format!("a tick was late with {FIRST} players already").into());
        };
        let expected = step.ticks * count as u64;
        let mut measured = Measured { counts: Counts::new(expected, expected, step.states), ..Measured::default() };
        measured.set("players", count as f64);
        measured.set("cpu_share", step.cpu);
        measured.set("load_cpu_share", step.own_cpu);
        measured.set("players_per_cpu_second", count as f64 / step.cpu);
        measured.set("bytes_per_state", step.bytes as f64 / step.states.max(1) as f64);
        measured.set_latencies(&step.tick);
        Ok(measured)
    }

    /// Looks on for a while.
    async fn step(&self, subject: &Subject, seen: &RefCell<Seen>) -> Result<Step, Failure> {
        let from = Instant::now();
        let until = from + self.window;
        seen.borrow_mut().begin(payload::micros(from)..payload::micros(until));
        let (cpu, own_cpu) = (subject.cpu_time()?, measure::cpu_time(&[process::id()])?);
        tokio::time::sleep_until(until.into()).await;
        let elapsed = from.elapsed().as_secs_f64();
        let cpu = (subject.cpu_time()? - cpu).as_secs_f64() / elapsed;
        let own_cpu = (measure::cpu_time(&[process::id()])? - own_cpu).as_secs_f64() / elapsed;
        // States of the last tick in the window are on their way.
        tokio::time::sleep(3 * LATE).await;
        Ok(seen.borrow().end(cpu, own_cpu))
    }
}

/// How many to try after so many. A tick takes longer with more players, and at most with their square: as far as that allows, but a quarter more at least, and
/// no more than twice as many.
fn next(players: usize, tick: Duration) -> usize {
    let factor = (LATE.as_secs_f64() / tick.as_secs_f64().max(1e-6)).sqrt().clamp(1.25, 2.0);
    (players as f64 * factor) as usize
}

/// What a number of players has shown.
struct Step {
    /// From the beginning of a tick until the last player had its state.
    tick: Histogram<u64>,
    ticks: u64,
    states: u64,
    bytes: u64,
    cpu: f64,
    own_cpu: f64,
}

/// What all players together have seen.
#[derive(Default)]
struct Seen {
    /// Ticks that began within it count.
    window: Range<u64>,
    /// By tick: when it began, and how long it took until its last state had arrived, in microseconds.
    ticks: Vec<(u64, u64)>,
    states: u64,
    bytes: u64,
}

impl Seen {
    fn begin(&mut self, window: Range<u64>) {
        self.window = window;
        self.ticks.clear();
        self.ticks.resize(TICKS, (0, 0));
        (self.states, self.bytes) = (0, 0);
    }

    /// Takes whatever a player was sent; what is no state of this window does not count.
    fn take(&mut self, message: &[u8], now: u64) {
        let Some(State { tick, began }) = State::read(message) else { return };
        if !self.window.contains(&began) {
            return;
        }
        self.states += 1;
        self.bytes += message.len() as u64;
        let slot = tick as usize % TICKS;
        if let Some(slot) = self.ticks.get_mut(slot) {
            *slot = (began, now.saturating_sub(began).max(slot.1));
        }
    }

    fn end(&self, cpu: f64, own_cpu: f64) -> Step {
        let mut tick = open_loop::histogram();
        let seen = self.ticks.iter().filter(|(began, _)| *began > 0);
        seen.for_each(|(_, took)| open_loop::record(&mut tick, Duration::from_micros(*took)));
        Step { ticks: tick.len(), tick, states: self.states, bytes: self.bytes, cpu, own_cpu }
    }
}

/// The beginning of a state (`server/src/demo/wire.rs`).
#[derive(Debug, PartialEq, Eq)]
struct State {
    tick: u32,
    /// Microseconds since the Unix epoch.
    began: u64,
}

impl State {
    fn read(message: &[u8]) -> Option<Self> {
        let [1, 1, rest @ ..] = message else { return None };
        let (tick, rest) = rest.split_first_chunk()?;
        let began = rest.first_chunk()?;
        Some(Self { tick: u32::from_le_bytes(*tick), began: u64::from_le_bytes(*began) })
    }
}

/// Somebody who plays.
enum Player {
    Tcp(Client, Protocol),
    Quic(Rc<Session>),
}

impl Player {
    fn steer(&self, sequence: u16, angle: u8) {
        let [low, high] = sequence.to_le_bytes();
        let input = [1, 3, low, high, angle, 255, 0];
        match self {
            // Its messages are text.
            Self::Tcp(client, Protocol::SocketIo) => client.send(hex(&input)),
            Self::Tcp(client, _) => client.send(Bytes::copy_from_slice(&input)),
            Self::Quic(session) => session.send_datagram(&input),
        }
    }

    fn failure(&self) -> Option<String> {
        match self {
            Self::Tcp(client, _) => client.failure(),
            Self::Quic(_) => None, // what it is not sent is missing when it is counted
        }
    }
}

fn hex(bytes: &[u8]) -> Bytes {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// Lets players with these numbers join.
async fn come(
    subject: &Subject,
    protocol: Protocol,
    endpoint: &quinn::Endpoint,
    numbers: Range<usize>,
    seen: &Rc<RefCell<Seen>>,
) -> Result<Vec<Player>, Failure> {
    if let Protocol::Throughline(Transport::WebTransport) = protocol {
        let mut players = Vec::new();
        sessions::open_many(endpoint, subject.quic()?, protocol, App::Game, numbers.len(), |session| {
            let session = Rc::new(session);
            spawn_local(watch(Rc::clone(&session), Rc::clone(seen)));
            players.push(Player::Quic(session));
        })
        .await?;
        return Ok(players);
    }
    let target = load::target(subject, false)?;
    load::wire(protocol, App::Game, 0)?;
    let clients = open_many(&target, numbers, |number| match protocol {
        Protocol::Throughline(transport) => {
            let path = format!("/{}", App::Game.name());
            (Box::new(throughline::Session::new(path, transport).with_datagrams()), ear(seen))
        }
        _ => (load::wire(protocol, App::Game, number).expect("it can be spoken"), ear(seen)),
    })
    .await?;
    Ok(clients.into_iter().map(|client| Player::Tcp(client, protocol)).collect())
}

/// Reads what a session is sent, until it ends.
async fn watch(session: Rc<Session>, seen: Rc<RefCell<Seen>>) {
    while let Ok(datagram) = session.recv_datagram().await {
        seen.borrow_mut().take(&datagram, payload::micros(Instant::now()));
    }
}

fn ear(seen: &Rc<RefCell<Seen>>) -> OnMessage {
    let seen = Rc::clone(seen);
    Box::new(move |message| seen.borrow_mut().take(message, payload::micros(Instant::now())))
}

/// Steers for all of them, each 30 times a second, spread over the time as people are.
async fn steer(players: Rc<RefCell<Vec<Player>>>, duration: Duration) {
    let turns = 1_000 / HZ as u64;
    let schedule = Schedule::for_window(Instant::now(), GRAIN, duration);
    schedule
        .run(async |index, _| {
            let (turn, round) = (index % turns, index / turns);
            let players = players.borrow();
            for (number, player) in players.iter().enumerate().skip(turn as usize).step_by(turns as usize) {
                // In wide curves, each in one of its own.
                player.steer(round as u16 + 1, (round as usize * (1 + number % 3) + number * 37) as u8);
            }
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(tick: u32, began: u64) -> Vec<u8> {
        [&[1, 1][..], &tick.to_le_bytes(), &began.to_le_bytes(), &[0; 11]].concat()
    }

    #[test]
    fn a_state_is_told_from_all_else() {
        assert_eq!(State::read(&state(7, 99)), Some(State { tick: 7, began: 99 }));
        assert_eq!(State::read(&[1, 2, 3]), None, "a map");
        assert_eq!(State::read(br#"{"type":"left"}"#), None);
        assert_eq!(State::read(&[1, 1, 0]), None);
    }

    #[test]
    fn far_from_the_limit_steps_are_long() {
        assert_eq!(next(40, Duration::from_millis(1)), 80);
        assert_eq!(next(400, Duration::from_micros(16_500)), 565);
        assert_eq!(next(400, Duration::from_millis(33)), 500);
    }

    #[test]
    fn a_tick_takes_until_its_last_state() {
        let mut seen = Seen::default();
        seen.begin(1_000..2_000);
        for (tick, began, now) in
            [(1, 1_000, 1_010), (1, 1_000, 1_500), (1, 1_000, 1_400), (2, 1_900, 2_000), (3, 2_000, 9_000)]
        {
            seen.take(&state(tick, began), now);
        }
        let step = seen.end(0.5, 0.1);
        assert_eq!((step.ticks, step.states, step.bytes), (2, 4, 100));
        assert_eq!((step.tick.min(), step.tick.max()), (100, 500));
    }
}
