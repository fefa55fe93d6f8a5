//! G8: how many sessions can be opened per second of the server's processor, beside the handshake that each of them stands on.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::Endpoint;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::Workload;
use crate::Failure;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::load::{self, open_loop, quic, sessions, tls, webtransport};
use crate::results::{Counts, Measured};
use crate::settings::Settings;
use crate::subject::{App, Subject};

/// Opened and closed again, one after the other.
const SESSIONS: u64 = 1_500;
const QUICK_SESSIONS: u64 = 100;

/// Not counted: first of all, code and tables are loaded.
const WARM_UP: u64 = 20;

/// At the same time, so that the server always has one to work on.
const AT_ONCE: u64 = 8;

/// What closing costs is part of it. The server has done it when it has used less than [`QUIET`] in [`LOOK`].
const LOOK: Duration = Duration::from_millis(20);
const QUIET: Duration = Duration::from_micros(300);

/// For one repeat in all.
const LIMIT: Duration = Duration::from_secs(60);

/// Longest head of an answer, and WELCOME after it.
const ANSWER_MAX: usize = 4_096;

pub(super) fn workloads(settings: &Settings) -> Vec<Box<dyn Workload>> {
    let sessions = settings.pick(SESSIONS, QUICK_SESSIONS);
    [Below::Quic, Below::Tls].map(|below| -> Box<dyn Workload> { Box::new(Handshakes { below, sessions }) }).into()
}

/// What is below a session.
#[derive(Clone, Copy)]
enum Below {
    Quic,
    Tls,
}

struct Handshakes {
    below: Below,
    sessions: u64,
}

impl Workload for Handshakes {
    fn name(&self) -> &'static str {
        "handshakes"
    }

    fn goal(&self) -> &'static str {
        "G8"
    }

    fn variant(&self) -> String {
        match self.below {
            Below::Quic => "over QUIC".to_owned(),
            Below::Tls => "over TLS 1.3 and TCP".to_owned(),
        }
    }

    fn takes(&self, contender: &Contender) -> bool {
        let speaks = match self.below {
            Below::Quic => matches!(
                contender.protocol,
                Protocol::WebTransport | Protocol::Throughline(Transport::WebTransport) | Protocol::Quic
            ),
            Below::Tls => {
                contender.entry.tls
                    && matches!(
                        contender.protocol,
                        Protocol::WebSocket | Protocol::Throughline(Transport::WebSocket) | Protocol::Tls
                    )
            }
        };
        speaks && contender.entry.apps.contains(&App::Idle)
    }

    fn lasts(&self) -> Duration {
        Duration::from_millis(400 + self.sessions * 2)
    }

    fn run(&self, contender: &Contender, settings: &Settings) -> Result<Measured, Failure> {
        let subject = Subject::start(contender, App::Idle, settings)?;
        load::block_on(LIMIT, async {
            let opener = Rc::new(Opener::new(&subject, contender.protocol)?);
            many(&opener, WARM_UP).await?;
            let cpu = settled(&subject).await?;
            let latencies = many(&opener, self.sessions).await?;
            let cpu = settled(&subject).await? - cpu;
            let counts = Counts::new(self.sessions, self.sessions, latencies.len());
            let mut measured = Measured { counts, ..Measured::default() };
            measured.set("sessions_per_cpu_second", self.sessions as f64 / cpu.as_secs_f64());
            measured.set("cpu_us_per_session", cpu.as_secs_f64() * 1e6 / self.sessions as f64);
            measured.set_latencies(&latencies);
            Ok(measured)
        })
    }
}

/// Opens so many, a few at a time, and returns how long each took.
async fn many(opener: &Rc<Opener>, sessions: u64) -> Result<hdrhistogram::Histogram<u64>, Failure> {
    let mut latencies = open_loop::histogram();
    let mut opening = JoinSet::new();
    for started in 0..sessions {
        if started >= AT_ONCE
            && let Some(took) = opening.join_next().await
        {
            open_loop::record(&mut latencies, took??);
        }
        let opener = Rc::clone(opener);
        opening.spawn_local(async move { opener.open_and_close().await });
    }
    while let Some(took) = opening.join_next().await {
        open_loop::record(&mut latencies, took??);
    }
    Ok(latencies)
}

/// What the server has used when it has nothing to do any more.
async fn settled(subject: &Subject) -> Result<Duration, Failure> {
    let mut before = subject.cpu_time()?;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = subject.cpu_time()?;
        if now - before < QUIET {
            return Ok(now);
        }
        before = now;
    }
}

struct Opener {
    to: SocketAddr,
    protocol: Protocol,
    way: Way,
}

enum Way {
    Quic(Endpoint),
    Tls(TlsConnector),
}

impl Opener {
    fn new(subject: &Subject, protocol: Protocol) -> Result<Self, Failure> {
        let (to, way) = match protocol {
            Protocol::Quic => (subject.quic()?, Way::Quic(quic::endpoint(quic::ALPN)?)),
            Protocol::WebTransport | Protocol::Throughline(Transport::WebTransport) => {
                (subject.quic()?, Way::Quic(webtransport::endpoint()?))
            }
            _ => (subject.tls()?, Way::Tls(TlsConnector::from(Arc::new(tls::client_config(&[]))))),
        };
        Ok(Self { to, protocol, way })
    }

    /// How long it took until it was open.
    async fn open_and_close(&self) -> Result<Duration, Failure> {
        let start = Instant::now();
        match &self.way {
            Way::Quic(endpoint) => self.over_quic(endpoint, start).await,
            Way::Tls(connector) => self.over_tls(connector, start).await,
        }
    }

    async fn over_quic(&self, endpoint: &Endpoint, start: Instant) -> Result<Duration, Failure> {
        match self.protocol {
            Protocol::Quic => {
                let connection = quic::connect(endpoint, self.to).await?;
                let took = start.elapsed();
                connection.close(0_u32.into(), b"");
                Ok(took)
            }
            _ => {
                let _session = sessions::open(endpoint, self.to, self.protocol, App::Idle).await?;
                Ok(start.elapsed())
            }
        }
    }

    async fn over_tls(&self, connector: &TlsConnector, start: Instant) -> Result<Duration, Failure> {
        let stream = TcpStream::connect(self.to).await?;
        stream.set_nodelay(true)?;
        let mut stream = connector.connect(ServerName::from(self.to.ip()), stream).await?;
        let (path, offer) = match self.protocol {
            Protocol::Throughline(_) => ("/idle/websocket", "Sec-WebSocket-Protocol: throughline.v1\r\n"),
            Protocol::WebSocket => ("/idle", ""),
            _ => return Ok(start.elapsed()),
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}\r\n",
            self.to
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::with_capacity(ANSWER_MAX);
        while !is_open(&answer, !offer.is_empty()) {
            if stream.read_buf(&mut answer).await? == 0 || answer.len() >= ANSWER_MAX {
                return Err(format!("no WebSocket: {}", String::from_utf8_lossy(&answer)).into());
            }
        }
        Ok(start.elapsed())
    }
}

/// Whether the answer has its head, and the first frame if there is to be one: WELCOME is written at once, and in one piece.
fn is_open(answer: &[u8], has_welcome: bool) -> bool {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    answer.starts_with(b"HTTP/1.1 101") && end.is_some_and(|end| !has_welcome || answer.len() > end + 4)
}
