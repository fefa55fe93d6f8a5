//! G3: what a session costs that does nothing.
//!
//! Over TLS there are fewer of them, since ten thousand handshakes for each subject are what would take most of a run's time, and over QUIC fewer still: the client's
//! end of each takes as much memory again.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::Endpoint;

use super::{Workload, settle};
use crate::Failure;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::load::client::{Client, Target, open_many};
use crate::load::webtransport::Session;
use crate::load::{self, sessions, webtransport};
use crate::results::{Counts, Measured};
use crate::settings::Settings;
use crate::subject::{App, Subject};

/// Opened before the first look: a server sets up what it needs once.
const FIRST: usize = 20;

/// For one repeat in all.
const LIMIT: Duration = Duration::from_secs(180);

struct Idle {
    below: Below,
    sessions: usize,
    /// For memory to settle.
    patience: Duration,
}

/// What is below a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Below {
    Tcp,
    Tls,
    Quic,
}

pub(super) fn workloads(settings: &Settings) -> Vec<Box<dyn Workload>> {
    let patience = settings.pick(Duration::from_secs(3), Duration::ZERO);
    let full = [(Below::Tcp, 10_000), (Below::Tls, 5_000), (Below::Quic, 1_000)];
    full.map(|(below, sessions)| -> Box<dyn Workload> {
        Box::new(Idle { below, sessions: settings.pick(sessions, 100), patience })
    })
    .into()
}

impl Workload for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn goal(&self) -> &'static str {
        "G3"
    }

    fn variant(&self) -> String {
        let below = match self.below {
            Below::Tcp => "",
            Below::Tls => ", TLS",
            Below::Quic => ", QUIC",
        };
        format!("{} sessions{below}", self.sessions)
    }

    fn takes(&self, contender: &Contender) -> bool {
        use Protocol::{Events, Poll, SockJs, SocketIo, Sse, Throughline, WebSocket, WebTransport};
        let below = match contender.protocol {
            WebTransport | Throughline(Transport::WebTransport) => [Below::Quic].as_slice(),
            WebSocket | Sse | Events | Poll | SocketIo | SockJs | Throughline(_) if contender.entry.tls => {
                &[Below::Tcp, Below::Tls]
            }
            WebSocket | Sse | Events | Poll | SocketIo | SockJs | Throughline(_) => &[Below::Tcp],
            Protocol::Tcp | Protocol::Tls | Protocol::Udp | Protocol::Quic => &[],
        };
        below.contains(&self.below) && contender.entry.apps.contains(&App::Idle)
    }

    fn lasts(&self) -> Duration {
        let each = match self.below {
            Below::Tcp => Duration::from_micros(350),
            Below::Tls => Duration::from_micros(1_200),
            Below::Quic => Duration::from_micros(2_500),
        };
        Duration::from_millis(300) + self.patience * 2 / 5 + each * u32::try_from(self.sessions).unwrap_or(u32::MAX)
    }

    fn run(&self, contender: &Contender, settings: &Settings) -> Result<Measured, Failure> {
        let subject = Subject::start(contender, App::Idle, settings)?;
        load::block_on(LIMIT, self.measure(&subject, contender.protocol))
    }
}

impl Idle {
    async fn measure(&self, subject: &Subject, protocol: Protocol) -> Result<Measured, Failure> {
        let mut crowd = match self.below {
            Below::Quic => Crowd::over_quic(subject, protocol)?,
            Below::Tcp | Below::Tls => Crowd::over_tcp(subject, protocol, self.below == Below::Tls)?,
        };
        let sessions = load::clients_at_most(FIRST + self.sessions, protocol) - FIRST;
        crowd.grow_by(FIRST).await?;
        let before = settle::resident_bytes(subject, self.patience).await?;
        crowd.grow_by(sessions).await?;
        let after = settle::resident_bytes(subject, self.patience).await?;
        let expected = (FIRST + sessions) as u64;
        let counts = Counts::new(expected, expected, crowd.alive() as u64);
        let mut measured = Measured { counts, ..Measured::default() };
        let grown = after.saturating_sub(before) as f64;
        measured.set("resident_bytes_per_session", grown / sessions as f64);
        Ok(measured)
    }
}

/// Sessions that are there.
enum Crowd {
    OverTcp { target: Target, protocol: Protocol, clients: Vec<Client> },
    OverQuic { endpoint: Endpoint, to: SocketAddr, protocol: Protocol, sessions: Vec<Session> },
}

impl Crowd {
    fn over_tcp(subject: &Subject, protocol: Protocol, over_tls: bool) -> Result<Self, Failure> {
        load::wire(protocol, App::Idle, 0)?; // before anybody comes: what cannot be spoken is known then
        Ok(Self::OverTcp { target: load::target(subject, over_tls)?, protocol, clients: Vec::new() })
    }

    fn over_quic(subject: &Subject, protocol: Protocol) -> Result<Self, Failure> {
        Ok(Self::OverQuic { endpoint: webtransport::endpoint()?, to: subject.quic()?, protocol, sessions: Vec::new() })
    }

    async fn grow_by(&mut self, count: usize) -> Result<(), Failure> {
        match self {
            Self::OverTcp { target, protocol, clients } => {
                let numbers = clients.len()..clients.len() + count;
                let more = open_many(target, numbers, |number| {
                    let wire = load::wire(*protocol, App::Idle, number).expect("it can be spoken");
                    (wire, Box::new(|_: &[u8]| {}))
                });
                clients.extend(more.await?);
                Ok(())
            }
            Self::OverQuic { endpoint, to, protocol, sessions } => {
                let each = |session| sessions.push(session);
                sessions::open_many(endpoint, *to, *protocol, App::Idle, count, each).await
            }
        }
    }

    fn alive(&self) -> usize {
        match self {
            Self::OverTcp { clients, .. } => clients.iter().filter(|client| client.failure().is_none()).count(),
            Self::OverQuic { sessions, .. } => {
                sessions.iter().filter(|session| session.connection().close_reason().is_none()).count()
            }
        }
    }
}
