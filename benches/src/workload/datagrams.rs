//! G2: datagrams to many WebTransport sessions, at the rate of a game.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use quinn::Endpoint;
use throughline_protocol::Decoder;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Workload;
use crate::Failure;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::load::webtransport::{self, Link, Session};
use crate::load::{self, open_loop, payload};
use crate::results::{Counts, Measured};
use crate::settings::Settings;
use crate::subject::{App, Subject};

const SESSIONS: usize = 1_000;
const QUICK_SESSIONS: usize = 50;

/// For subjects that need a whole core for a few thousand datagrams per second: with a thousand sessions they would only show how they fail.
const FEW_SESSIONS: usize = 40;
const SLOW_SUBJECTS: [&str; 1] = ["aioquic"];

/// How long datagrams are counted.
const WINDOW: Duration = Duration::from_secs(6);
const QUICK_WINDOW: Duration = Duration::from_millis(1_500);

/// After the last session is open: whatever was late because of the handshakes has caught up.
const WARM_UP: Duration = Duration::from_millis(700);

/// After the window: what was due in it still counts as received.
const STRAGGLERS: Duration = Duration::from_millis(300);

/// Handshakes at the same time: more would only wait for each other.
const HANDSHAKES: usize = 16;

/// A handshake that goes wrong among a thousand is tried again: what is measured comes afterwards.
const ATTEMPTS: usize = 4;
const ATTEMPT: Duration = Duration::from_secs(5);

/// For one repeat in all.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn workloads(settings: &Settings) -> Vec<Box<dyn Workload>> {
    vec![Box::new(Datagrams {
        sessions: settings.pick(SESSIONS, QUICK_SESSIONS),
        window: settings.pick(WINDOW, QUICK_WINDOW),
    })]
}

struct Datagrams {
    sessions: usize,
    window: Duration,
}

impl Workload for Datagrams {
    fn name(&self) -> &'static str {
        "datagrams"
    }

    fn goal(&self) -> &'static str {
        "G2"
    }

    fn variant(&self) -> String {
        format!("{} sessions, 150 B at 30 per second", self.sessions)
    }

    fn takes(&self, contender: &Contender) -> bool {
        use Protocol::{Throughline, Udp, WebTransport};
        contender.entry.apps.contains(&App::State)
            && matches!(contender.protocol, WebTransport | Throughline(Transport::WebTransport) | Udp)
    }

    fn run(&self, contender: &Contender, settings: &Settings) -> Result<Measured, Failure> {
        let subject = Subject::start(contender, App::State, settings)?;
        let is_slow = SLOW_SUBJECTS.iter().any(|name| contender.entry.name.contains(name));
        let sessions = if is_slow { self.sessions.min(FEW_SESSIONS) } else { self.sessions };
        load::block_on(LIMIT, receive(&subject, contender.protocol, sessions, self.window))
    }
}

/// What has come, of all sessions.
struct Tally {
    /// What is due within it counts.
    window: Option<(u64, u64)>,
    ages: Histogram<u64>,
    /// The first and the last tick that was due within the window.
    ticks: Option<(u64, u64)>,
    due: u64,
    /// All that has ever arrived.
    arrived: u64,
}

impl Tally {
    fn count(&mut self, datagram: &[u8]) {
        self.arrived += 1;
        let Some((due, tick)) = payload::read(datagram) else { return };
        if !self.window.is_some_and(|(from, to)| (from..to).contains(&due)) {
            return;
        }
        self.due += 1;
        let (first, last) = self.ticks.unwrap_or((tick, tick));
        self.ticks = Some((first.min(tick), last.max(tick)));
        open_loop::record(&mut self.ages, payload::age(due));
    }
}

async fn receive(
    subject: &Subject,
    protocol: Protocol,
    sessions: usize,
    window: Duration,
) -> Result<Measured, Failure> {
    let tally = Tally { window: None, ages: open_loop::histogram(), ticks: None, due: 0, arrived: 0 };
    let tally = Rc::new(RefCell::new(tally));
    let to = subject.quic()?;
    let endpoint = webtransport::endpoint()?;
    let handshakes = Rc::new(Semaphore::new(HANDSHAKES));
    let (mut opening, mut following) = (JoinSet::new(), JoinSet::new());
    for _ in 0..sessions {
        let (endpoint, handshakes) = (endpoint.clone(), Rc::clone(&handshakes));
        opening.spawn_local(async move {
            let _one_of_few = handshakes.acquire().await?;
            let mut failure = None;
            for _ in 0..ATTEMPTS {
                match tokio::time::timeout(ATTEMPT, Source::open(&endpoint, to, protocol)).await {
                    Ok(Ok(source)) => return Ok(source),
                    Ok(Err(error)) => failure = Some(error),
                    Err(late) => failure = Some(late.into()),
                }
            }
            Err(failure.unwrap_or_else(|| "nothing was tried".into()))
        });
    }
    while let Some(opened) = opening.join_next().await {
        following.spawn_local(follow(opened??, Rc::clone(&tally)));
    }
    let measuring = async {
        tokio::time::sleep(WARM_UP).await;
        let from = Instant::now();
        tally.borrow_mut().window = Some((payload::micros(from), payload::micros(from + window)));
        let (cpu, arrived) = (subject.cpu_time()?, tally.borrow().arrived);
        tokio::time::sleep_until((from + window).into()).await;
        let (cpu, arrived) = (subject.cpu_time()? - cpu, tally.borrow().arrived - arrived);
        tokio::time::sleep(STRAGGLERS).await;
        Ok::<_, Failure>((cpu, arrived))
    };
    let (cpu, arrived) = tokio::select! {
        measured = measuring => measured?,
        Some(ended) = following.join_next() => return Err(format!("a session ended: {:?}", ended?.err()).into()),
    };
    let tally = tally.borrow();
    let ticks = tally.ticks.map_or(0, |(first, last)| last - first + 1);
    let expected = ticks * sessions as u64;
    let mut measured = Measured { counts: Counts::new(expected, expected, tally.due), ..Measured::default() };
    measured.set("datagrams_per_cpu_second", arrived as f64 / cpu.as_secs_f64());
    measured.set("cpu_share", cpu.as_secs_f64() / window.as_secs_f64());
    measured.set("sessions", sessions as f64);
    measured.set_latencies(&tally.ages);
    Ok(measured)
}

async fn follow(source: Source, tally: Rc<RefCell<Tally>>) -> Result<(), Failure> {
    let mut buffer = [0; 2_048];
    loop {
        match &source {
            Source::Session(session) => {
                let datagram = session.recv_datagram().await?;
                tally.borrow_mut().count(&datagram);
            }
            Source::Socket(socket) => {
                let length = socket.recv(&mut buffer).await?;
                tally.borrow_mut().count(&buffer[..length]);
            }
        }
    }
}

/// Where datagrams come from.
enum Source {
    Session(Session),
    Socket(UdpSocket),
}

impl Source {
    async fn open(endpoint: &Endpoint, to: SocketAddr, protocol: Protocol) -> Result<Self, Failure> {
        match protocol {
            Protocol::Udp => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                socket.connect(to).await?;
                socket.send(b"here").await?;
                Ok(Self::Socket(socket))
            }
            Protocol::Throughline(_) => {
                let mut link = Link::open(endpoint, to, "/state").await?;
                let mut decoder = Decoder::new();
                link.begin(&mut decoder).await?;
                let Link { session, send, recv } = link;
                tokio::task::spawn_local(webtransport::keep(send, recv, decoder));
                Ok(Self::Session(session))
            }
            _ => Ok(Self::Session(Session::open(endpoint, to, "/state").await?)),
        }
    }
}
