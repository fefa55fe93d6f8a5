//! G5: how old the state of a game is that arrives over a bad network.

mod path;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use quinn::Endpoint;

use self::path::{Path, SERVER};
use super::Workload;
use crate::Failure;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::load::client::{Client, OnMessage};
use crate::load::{self, open_loop, payload, sessions, webtransport};
use crate::results::{Counts, Measured};
use crate::settings::Settings;
use crate::subject::{App, Subject};

/// In percent, in each direction.
const LOSSES: [u32; 2] = [1, 5];

/// Half of the round trip of 50 ms.
const DELAY: &str = "delay 25ms";

/// Each has a connection of its own, so that more packets are lost in the same time.
const SESSIONS: usize = 30;

const WINDOW: Duration = Duration::from_secs(10);
const QUICK_WINDOW: Duration = Duration::from_millis(800);

/// Before it: what was lost during the handshakes has been sent again.
const WARM_UP: Duration = Duration::from_millis(500);

/// After it: what was due in it may still come.
const STRAGGLERS: Duration = Duration::from_millis(500);

/// How often somebody looks at what has come: frames of a screen.
const FRAME: Duration = Duration::from_micros(16_667);

/// A handshake in which a packet is lost takes a second or two longer.
const OPEN: Duration = Duration::from_secs(15);
const LIMIT: Duration = Duration::from_secs(90);

pub(super) fn workloads(settings: &Settings) -> Vec<Box<dyn Workload>> {
    let window = settings.pick(WINDOW, QUICK_WINDOW);
    let losses: &[u32] = settings.pick(&LOSSES, &LOSSES[1..]);
    losses.iter().map(|loss| -> Box<dyn Workload> { Box::new(Freshness { loss: *loss, window }) }).collect()
}

struct Freshness {
    loss: u32,
    window: Duration,
}

impl Workload for Freshness {
    fn name(&self) -> &'static str {
        "freshness"
    }

    fn goal(&self) -> &'static str {
        "G5"
    }

    fn variant(&self) -> String {
        format!("RTT 50 ms, {}% loss", self.loss)
    }

    fn takes(&self, contender: &Contender) -> bool {
        use Protocol::{SocketIo, Throughline};
        let can = matches!(contender.protocol, Throughline(_) | SocketIo) && contender.entry.apps.contains(&App::State);
        can && !matches!(contender.protocol, Throughline(Transport::Poll))
    }

    fn may_lose(&self) -> bool {
        true
    }

    fn lasts(&self) -> Duration {
        WARM_UP + self.window + STRAGGLERS + Duration::from_secs(1)
    }

    fn run(&self, contender: &Contender, settings: &Settings) -> Result<Measured, Failure> {
        let path = Path::make(&[DELAY.to_owned(), format!("loss {}%", self.loss)])?;
        let subject = Subject::start_with(&path.at_server(), SERVER, contender, App::State, settings)?;
        // A thread of its own, which stays at its end of the path until it ends.
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                path.enter()?;
                load::block_on(LIMIT, watch(&subject, contender.protocol, self.window))
            });
            watching.join().map_err(|_| "the watching thread panicked")?
        })
    }
}

/// What one session has seen.
struct Seen {
    /// What is due within it counts.
    window: Option<(u64, u64)>,
    ages: Histogram<u64>,
    /// The first and the last tick that was due within the window.
    ticks: Option<(u64, u64)>,
    arrived: u64,
    /// When the newest state that has arrived was due.
    newest: u64,
}

impl Seen {
    fn new() -> Self {
        Self { window: None, ages: open_loop::histogram(), ticks: None, arrived: 0, newest: 0 }
    }

    fn state(&mut self, bytes: &[u8]) {
        let Some((due, tick)) = payload::read(bytes) else { return };
        self.newest = self.newest.max(due);
        if !self.window.is_some_and(|(from, to)| (from..to).contains(&due)) {
            return;
        }
        let (first, last) = self.ticks.unwrap_or((tick, tick));
        self.ticks = Some((first.min(tick), last.max(tick)));
        self.arrived += 1;
        open_loop::record(&mut self.ages, payload::age(due));
    }
}

type Shared = Rc<RefCell<Seen>>;

async fn watch(subject: &Subject, protocol: Protocol, window: Duration) -> Result<Measured, Failure> {
    let all: Vec<Shared> = (0..SESSIONS).map(|_| Rc::new(RefCell::new(Seen::new()))).collect();
    let endpoint = webtransport::endpoint()?;
    let opening = all.iter().enumerate().map(|(number, seen)| {
        let opening = Watcher::open(subject, protocol, number, &endpoint, Rc::clone(seen));
        async { tokio::time::timeout(OPEN, opening).await? }
    });
    let kept = try_join_all(opening).await?;
    tokio::time::sleep(WARM_UP).await;
    let from = Instant::now();
    for seen in &all {
        seen.borrow_mut().window = Some((payload::micros(from), payload::micros(from + window)));
    }
    let cpu = subject.cpu_time()?;
    // Somebody looks at the screen.
    let mut on_screen = open_loop::histogram();
    let mut latest = Duration::ZERO;
    let frames = open_loop::Schedule::for_window(from, FRAME, window);
    frames
        .run(async |_, due| {
            latest = latest.max(due.elapsed());
            for seen in &all {
                open_loop::record(&mut on_screen, payload::age(seen.borrow().newest));
            }
        })
        .await;
    let cpu = subject.cpu_time()? - cpu;
    tokio::time::sleep(STRAGGLERS).await;
    if let Some(reason) = kept.iter().find_map(Watcher::failure) {
        return Err(format!("a session ended: {reason}").into());
    }
    let mut ages = open_loop::histogram();
    let (mut expected, mut arrived) = (0, 0);
    for seen in &all {
        let seen = seen.borrow();
        ages.add(&seen.ages)?;
        expected += seen.ticks.map_or(0, |(first, last)| last - first + 1);
        arrived += seen.arrived;
    }
    // What did not arrive was lost, or was replaced by something newer: `on_screen` says what that is worth.
    let mut measured = Measured { counts: Counts::new(expected, expected, arrived), ..Measured::default() };
    measured.set_latencies(&ages);
    measured.set("states_per_second", arrived as f64 / SESSIONS as f64 / window.as_secs_f64());
    measured.set("on_screen_p50_us", on_screen.value_at_quantile(0.5) as f64);
    measured.set("on_screen_p99_us", on_screen.value_at_quantile(0.99) as f64);
    // How late whoever looks was at worst: when that is much, the machine was busy with something else, and the ages say so.
    measured.set("load_late_us", latest.as_micros() as f64);
    measured.set("cpu_share", cpu.as_secs_f64() / window.as_secs_f64());
    Ok(measured)
}

/// A client that sees state.
enum Watcher {
    OverTcp(Client),
    OverQuic(tokio::task::JoinHandle<Result<(), Failure>>),
}

impl Watcher {
    async fn open(
        subject: &Subject,
        protocol: Protocol,
        number: usize,
        endpoint: &Endpoint,
        seen: Shared,
    ) -> Result<Self, Failure> {
        if !matches!(protocol, Protocol::WebTransport | Protocol::Throughline(Transport::WebTransport)) {
            let wire = load::wire(protocol, App::State, number)?;
            let on_message: OnMessage = Box::new(move |bytes| seen.borrow_mut().state(bytes));
            return Ok(Self::OverTcp(Client::open(&load::target(subject, false)?, number, wire, on_message).await?));
        }
        let session = sessions::open(endpoint, subject.quic()?, protocol, App::State).await?;
        Ok(Self::OverQuic(tokio::task::spawn_local(async move {
            loop {
                let datagram = session.recv_datagram().await?;
                seen.borrow_mut().state(&datagram);
            }
        })))
    }

    fn failure(&self) -> Option<String> {
        match self {
            Self::OverTcp(client) => client.failure(),
            Self::OverQuic(task) => task.is_finished().then(|| "its connection is gone".to_owned()),
        }
    }
}
