//! G3, over QUIC: what a session of WebTransport costs that does nothing. A thousand of them: the client's end of each takes as much memory again.

use std::time::Duration;

use super::{Workload, settle};
use crate::Failure;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::load::{self, sessions, webtransport};
use crate::results::{Counts, Measured};
use crate::settings::Settings;
use crate::subject::{App, Subject};

/// Opened before the first look: a server sets up what it needs once.
const FIRST: usize = 20;

/// For memory to settle.
const PATIENCE: Duration = Duration::from_secs(3);

/// For one repeat in all.
const LIMIT: Duration = Duration::from_secs(120);

struct Idle {
    sessions: usize,
}

pub(super) fn workloads(settings: &Settings) -> Vec<Box<dyn Workload>> {
    vec![Box::new(Idle { sessions: settings.pick(1_000, 100) })]
}

impl Workload for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn goal(&self) -> &'static str {
        "G3"
    }

    fn variant(&self) -> String {
        format!("{} sessions, QUIC", self.sessions)
    }

    fn takes(&self, contender: &Contender) -> bool {
        let is_over_quic =
            matches!(contender.protocol, Protocol::WebTransport | Protocol::Throughline(Transport::WebTransport));
        is_over_quic && contender.entry.apps.contains(&App::Idle)
    }

    fn run(&self, contender: &Contender, settings: &Settings) -> Result<Measured, Failure> {
        let subject = Subject::start(contender, App::Idle, settings)?;
        load::block_on(LIMIT, self.measure(&subject, contender.protocol))
    }
}

impl Idle {
    async fn measure(&self, subject: &Subject, protocol: Protocol) -> Result<Measured, Failure> {
        let (endpoint, to) = (webtransport::endpoint()?, subject.quic()?);
        let mut held = Vec::new();
        sessions::open_many(&endpoint, to, protocol, App::Idle, FIRST, |session| held.push(session)).await?;
        let before = settle::resident_bytes(subject, PATIENCE).await?;
        sessions::open_many(&endpoint, to, protocol, App::Idle, self.sessions, |session| held.push(session)).await?;
        let after = settle::resident_bytes(subject, PATIENCE).await?;
        let alive = held.iter().filter(|session| session.connection().close_reason().is_none()).count();
        let expected = (FIRST + self.sessions) as u64;
        let mut measured = Measured { counts: Counts::new(expected, expected, alive as u64), ..Measured::default() };
        let per_session = after.saturating_sub(before) as f64 / self.sessions as f64;
        measured.set("resident_bytes_per_session", per_session);
        Ok(measured)
    }
}
