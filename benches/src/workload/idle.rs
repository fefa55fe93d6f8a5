//! G3: what a session costs that does nothing.

use std::time::Duration;

use super::{Workload, settle};
use crate::Failure;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::load::client::{Client, open_many};
use crate::load::{self, client::Target};
use crate::results::{Counts, Measured};
use crate::settings::Settings;
use crate::subject::{App, Subject};

struct Idle {
    sessions: usize,
    /// They come in so many steps, and memory is looked at after each.
    steps: usize,
    /// For memory to settle after a step.
    patience: Duration,
    over_tls: bool,
}

pub(super) fn workloads(settings: &Settings) -> Vec<Box<dyn Workload>> {
    let (sessions, steps) = settings.pick((10_000, 5), (100, 2));
    let patience = settings.pick(Duration::from_secs(3), Duration::ZERO);
    [false, true].map(|over_tls| Box::new(Idle { sessions, steps, patience, over_tls }) as Box<dyn Workload>).into()
}

impl Workload for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn goal(&self) -> &'static str {
        "G3"
    }

    fn variant(&self) -> String {
        format!("{} sessions{}", self.sessions, if self.over_tls { ", TLS" } else { "" })
    }

    fn takes(&self, contender: &Contender) -> bool {
        let stands_on_tcp = matches!(
            contender.protocol,
            Protocol::WebSocket
                | Protocol::Sse
                | Protocol::Events
                | Protocol::Poll
                | Protocol::SocketIo
                | Protocol::SockJs
                | Protocol::Throughline(Transport::WebSocket | Transport::Sse | Transport::Poll)
        );
        stands_on_tcp && contender.entry.apps.contains(&App::Idle) && (contender.entry.tls || !self.over_tls)
    }

    fn run(&self, contender: &Contender, settings: &Settings) -> Result<Measured, Failure> {
        let subject = Subject::start(contender, App::Idle, settings)?;
        let target = load::target(&subject, self.over_tls)?;
        load::wire(contender.protocol, App::Idle, 0)?;
        load::block_on(Duration::from_secs(180), self.measure(&subject, &target, contender.protocol))
    }
}

impl Idle {
    async fn measure(&self, subject: &Subject, target: &Target, protocol: Protocol) -> Result<Measured, Failure> {
        let step = self.sessions / self.steps;
        let mut clients: Vec<Client> = Vec::with_capacity(self.sessions);
        let mut resident = vec![settle::resident_bytes(subject, self.patience).await?];
        for number in 0..self.steps {
            clients.extend(
                open_many(target, number * step..(number + 1) * step, |number| {
                    let wire = load::wire(protocol, App::Idle, number).expect("it can be spoken");
                    (wire, Box::new(|_: &[u8]| {}))
                })
                .await?,
            );
            resident.push(settle::resident_bytes(subject, self.patience).await?);
        }
        let alive = clients.iter().filter(|client| client.failure().is_none()).count();
        let per_session = |from: usize| {
            let grown = resident[self.steps].saturating_sub(resident[from]);
            grown as f64 / (step * (self.steps - from)) as f64
        };
        let sessions = self.sessions as u64;
        let mut measured = Measured { counts: Counts::new(sessions, sessions, alive as u64), ..Measured::default() };
        // From nobody to all, and without the first step, in which a server may set up what it needs once.
        measured.set("resident_bytes_per_session", per_session(0));
        measured.set("resident_bytes_per_further_session", per_session(1));
        Ok(measured)
    }
}
