//! G2: datagrams to many WebTransport sessions, at the rate of a game.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::Workload;
use crate::Failure;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::load::webtransport::{self, Session};
use crate::load::{self, open_loop, payload, sessions};
use crate::measure;
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
const QUICK_WINDOW: Duration = Duration::from_millis(600);

/// After the last session is open: whatever was late because of the handshakes has caught up.
const WARM_UP: Duration = Duration::from_millis(500);

/// After the window: what was due in it still counts as received.
const STRAGGLERS: Duration = Duration::from_millis(300);

/// For one repeat in all.
const LIMIT: Duration = Duration::from_secs(100);

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

    fn may_lose(&self) -> bool {
        true
    }

    fn lasts(&self) -> Duration {
        WARM_UP + self.window + STRAGGLERS + Duration::from_millis(self.sessions as u64 * 3)
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

async fn receive(subject: &Subject, protocol: Protocol, count: usize, window: Duration) -> Result<Measured, Failure> {
    let tally = Tally { window: None, ages: open_loop::histogram(), ticks: None, due: 0, arrived: 0 };
    let tally = Rc::new(RefCell::new(tally));
    let to = subject.quic()?;
    let endpoint = webtransport::endpoint()?;
    let mut following = JoinSet::new();
    let mut follow_it = |source| drop(following.spawn_local(follow(source, Rc::clone(&tally))));
    if protocol == Protocol::Udp {
        for _ in 0..count {
            follow_it(Source::Socket(greet(to).await?));
        }
    } else {
        let each = |session| follow_it(Source::Session(session));
        sessions::open_many(&endpoint, to, protocol, App::State, count, each).await?;
    }
    let measuring = async {
        tokio::time::sleep(WARM_UP).await;
        let from = Instant::now();
        tally.borrow_mut().window = Some((payload::micros(from), payload::micros(from + window)));
        let (cpu, arrived) = (subject.cpu_time()?, tally.borrow().arrived);
        let own_cpu = measure::cpu_time(&[std::process::id()])?;
        tokio::time::sleep_until((from + window).into()).await;
        let (cpu, arrived) = (subject.cpu_time()? - cpu, tally.borrow().arrived - arrived);
        let own_cpu = measure::cpu_time(&[std::process::id()])? - own_cpu;
        tokio::time::sleep(STRAGGLERS).await;
        Ok::<_, Failure>((cpu, own_cpu, arrived))
    };
    let (cpu, own_cpu, arrived) = tokio::select! {
        measured = measuring => measured?,
        Some(ended) = following.join_next() => return Err(format!("a session ended: {:?}", ended?.err()).into()),
    };
    let tally = tally.borrow();
    let ticks = tally.ticks.map_or(0, |(first, last)| last - first + 1);
    let expected = ticks * count as u64;
    let mut measured = Measured { counts: Counts::new(expected, expected, tally.due), ..Measured::default() };
    measured.set("datagrams_per_cpu_second", arrived as f64 / cpu.as_secs_f64());
    measured.set("cpu_share", cpu.as_secs_f64() / window.as_secs_f64());
    measured.set("load_cpu_share", own_cpu.as_secs_f64() / window.as_secs_f64());
    measured.set("sessions", count as f64);
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

/// A socket that the server knows of.
async fn greet(to: SocketAddr) -> Result<UdpSocket, Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(to).await?;
    socket.send(b"here").await?;
    Ok(socket)
}
