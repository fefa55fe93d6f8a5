//! G9: all sessions lose their links at once.
//!
//! The connections are cut without a word, and every client comes back at once, with what names its session. The time runs from the cut until the last one goes on.
//! A session of Throughline goes on when the server has answered over the new link; a connection of Socket.IO, with its connection state recovery, when the server has confirmed its namespace.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::Workload;
use crate::Failure;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::load::client::{Cut, Target, open_many};
use crate::load::{self, open_loop};
use crate::results::{Counts, Measured};
use crate::settings::Settings;
use crate::subject::{App, Subject};

/// Clients that are on their way back at the same time: more than any server here takes at once, and fewer than the shortest backlog.
const COMING: usize = 256;

struct Resume {
    sessions: usize,
    over_tls: bool,
}

pub(super) fn workloads(settings: &Settings) -> Vec<Box<dyn Workload>> {
    // Handshakes of TLS take longer than all else in a run, so they are fewer.
    let of = |over_tls, full| Box::new(Resume { sessions: settings.pick(full, 100), over_tls }) as Box<dyn Workload>;
    vec![of(false, 10_000), of(true, 5_000)]
}

impl Workload for Resume {
    fn name(&self) -> &'static str {
        "resume"
    }

    fn goal(&self) -> &'static str {
        "G9"
    }

    fn variant(&self) -> String {
        format!("{} sessions{}", self.sessions, if self.over_tls { ", TLS" } else { "" })
    }

    fn takes(&self, contender: &Contender) -> bool {
        let can_resume = match contender.protocol {
            Protocol::Throughline(transport) => transport != Transport::WebTransport,
            Protocol::SocketIo => contender.entry.command.contains(&"--recovery"),
            _ => false,
        };
        can_resume && (contender.entry.tls || !self.over_tls)
    }

    fn lasts(&self) -> Duration {
        let each = Duration::from_micros(if self.over_tls { 1_600 } else { 1_000 });
        Duration::from_millis(500) + each * u32::try_from(self.sessions).unwrap_or(u32::MAX)
    }

    fn run(&self, contender: &Contender, settings: &Settings) -> Result<Measured, Failure> {
        let subject = Subject::start(contender, App::Idle, settings)?;
        let target = load::target(&subject, self.over_tls)?;
        load::wire(contender.protocol, App::Idle, 0)?;
        load::block_on(Duration::from_secs(180), self.measure(&subject, &target, contender.protocol))
    }
}

impl Resume {
    async fn measure(&self, subject: &Subject, target: &Target, protocol: Protocol) -> Result<Measured, Failure> {
        let sessions = load::clients_at_most(self.sessions, protocol);
        let clients = open_many(target, 0..sessions, |number| {
            let wire = load::wire(protocol, App::Idle, number).expect("it can be spoken");
            (wire, Box::new(|_: &[u8]| {}))
        })
        .await?;
        let cpu = subject.cpu_time()?;
        let start = Instant::now();
        let mut cut: Vec<Cut> = Vec::with_capacity(clients.len());
        for client in clients {
            cut.push(client.cut().await?);
        }
        let mut latencies = open_loop::histogram();
        let mut resumed = 0;
        let coming = cut.into_iter().map(|cut| async move { Ok::<_, Failure>((cut.back().await?, start.elapsed())) });
        let mut coming = stream::iter(coming).buffer_unordered(COMING);
        let mut back = Vec::with_capacity(sessions);
        while let Some(((client, is_resumed), took)) = coming.try_next().await? {
            back.push(client);
            resumed += u64::from(is_resumed);
            open_loop::record(&mut latencies, took);
        }
        let took = start.elapsed().as_secs_f64();
        let cpu = (subject.cpu_time()? - cpu).as_secs_f64();
        let expected = sessions as u64;
        let mut measured = Measured { counts: Counts::new(expected, expected, resumed), ..Measured::default() };
        measured.set("seconds", took);
        measured.set("sessions_per_second", sessions as f64 / took);
        measured.set("sessions_per_cpu_second", sessions as f64 / cpu);
        measured.set_latencies(&latencies);
        Ok(measured)
    }
}
