//! G4: there and back, beside bare QUIC: a datagram, a message, and as much as goes through a stream; and a message over TCP, beside a bare socket.

mod bulk;
mod datagrams;
mod messages;
mod over_tcp;

use std::time::Duration;

use quinn::Connection;

use super::Workload;
use crate::Failure;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::load::driven::Driven;
use crate::load::webtransport::{self, Session};
use crate::load::{self, quic};
use crate::results::Measured;
use crate::settings::Settings;
use crate::subject::{App, Subject};

/// Of a datagram or a message.
const BYTES: usize = 100;

/// Far below what any subject can do: this is about latency, and not about queues.
const PER_SECOND: u32 = 500;

/// How long each is measured.
const WINDOW: Duration = Duration::from_secs(4);
const QUICK_WINDOW: Duration = Duration::from_millis(300);

/// Before it: congestion windows grow, and code is loaded.
const WARM_UP: Duration = Duration::from_millis(300);

/// After it: what is still on its way counts as received.
const STRAGGLERS: Duration = Duration::from_millis(200);

/// For one repeat in all.
const LIMIT: Duration = Duration::from_secs(40);

pub(super) fn workloads(settings: &Settings) -> Vec<Box<dyn Workload>> {
    let window = settings.pick(WINDOW, QUICK_WINDOW);
    [What::Datagrams, What::Messages, What::Bulk, What::OverTcp]
        .map(|what| -> Box<dyn Workload> { Box::new(Echo { what, window }) })
        .into()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Datagrams,
    Messages,
    Bulk,
    OverTcp,
}

struct Echo {
    what: What,
    window: Duration,
}

impl Workload for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn goal(&self) -> &'static str {
        "G4"
    }

    fn variant(&self) -> String {
        match self.what {
            What::Datagrams => format!("datagrams of {BYTES} B, {PER_SECOND} per second"),
            What::Messages => format!("messages of {BYTES} B on a stream, {PER_SECOND} per second"),
            What::Bulk => "one stream, as much as goes through".to_owned(),
            What::OverTcp => format!("over TCP, {BYTES} B, {PER_SECOND} per second"),
        }
    }

    fn takes(&self, contender: &Contender) -> bool {
        use Protocol::{Quic, SocketIo, Tcp, Throughline, WebSocket, WebTransport};
        let speaks = match self.what {
            What::OverTcp => {
                matches!(contender.protocol, Tcp | WebSocket | SocketIo | Throughline(Transport::WebSocket))
            }
            _ => matches!(contender.protocol, WebTransport | Throughline(Transport::WebTransport) | Quic),
        };
        speaks && contender.entry.apps.contains(&App::Echo)
    }

    fn may_lose(&self) -> bool {
        true
    }

    fn lasts(&self) -> Duration {
        WARM_UP + self.window + STRAGGLERS + Duration::from_millis(300)
    }

    fn run(&self, contender: &Contender, settings: &Settings) -> Result<Measured, Failure> {
        let subject = Subject::start(contender, App::Echo, settings)?;
        load::block_on(LIMIT, async {
            match self.what {
                What::Datagrams => datagrams::measure(&subject, contender.protocol, self.window).await,
                What::Messages => messages::measure(&subject, contender.protocol, self.window).await,
                What::Bulk => bulk::measure(&subject, contender.protocol, self.window).await,
                What::OverTcp => over_tcp::measure(&subject, contender.protocol, self.window).await,
            }
        })
    }
}

/// A connection to a subject that echoes, with as much around it as its protocol has.
enum Conduit {
    Quic(Connection),
    WebTransport(Session),
    Throughline(Box<Driven>),
}

impl Conduit {
    async fn open(subject: &Subject, protocol: Protocol) -> Result<Self, Failure> {
        let to = subject.quic()?;
        match protocol {
            Protocol::Quic => Ok(Self::Quic(quic::connect(&quic::endpoint(quic::ALPN)?, to).await?)),
            Protocol::Throughline(_) => {
                Ok(Self::Throughline(Box::new(Driven::open(&webtransport::endpoint()?, to, "/echo").await?)))
            }
            _ => Ok(Self::WebTransport(Session::open(&webtransport::endpoint()?, to, "/echo").await?)),
        }
    }
}
