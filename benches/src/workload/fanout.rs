//! G1: one publisher, many subscribers.
//!
//! A hundred bytes, fifty times a second, to a thousand WebSockets; and sixteen of them at once, as often in all, which a server may join. One at a time also with TLS.

use std::time::Duration;

use super::Workload;
use super::broadcast::Broadcast;
use crate::Failure;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::results::Measured;
use crate::settings::Settings;
use crate::subject::App;

/// 50 publications a second: 50,000 deliveries, which no server here needs its whole core for, and of which the time is not that of heartbeats and timers.
const INTERVAL: Duration = Duration::from_millis(20);

/// Publications that wait at the same time.
const WAITING: u32 = 16;

struct Fanout(Broadcast);

pub(super) fn workloads(settings: &Settings) -> Vec<Box<dyn Workload>> {
    let one = Broadcast {
        subscribers: settings.pick(1_000, 100),
        bytes: 100,
        interval: INTERVAL,
        burst: 1,
        warm_up: settings.pick(Duration::from_millis(1_500), Duration::from_millis(100)),
        window: settings.pick(Duration::from_secs(6), Duration::from_millis(500)),
        over_tls: false,
    };
    let between = settings.pick(INTERVAL * WAITING, INTERVAL * 2);
    let waiting = Broadcast { interval: between, burst: u64::from(WAITING), ..one };
    [one, Broadcast { over_tls: true, ..one }, waiting]
        .map(|broadcast| Box::new(Fanout(broadcast)) as Box<dyn Workload>)
        .into()
}

impl Workload for Fanout {
    fn name(&self) -> &'static str {
        "fanout"
    }

    fn goal(&self) -> &'static str {
        "G1"
    }

    fn variant(&self) -> String {
        let Broadcast { subscribers, bytes, burst, over_tls, .. } = self.0;
        let waiting = if burst > 1 { format!(", {burst} waiting") } else { String::new() };
        format!("{bytes} B x {subscribers}{waiting}{}", if over_tls { ", TLS" } else { "" })
    }

    fn takes(&self, contender: &Contender) -> bool {
        let is_web_socket = matches!(
            contender.protocol,
            Protocol::WebSocket | Protocol::SocketIo | Protocol::SockJs | Protocol::Throughline(Transport::WebSocket)
        );
        is_web_socket && contender.entry.apps.contains(&App::Fanout) && (contender.entry.tls || !self.0.over_tls)
    }

    fn lasts(&self) -> Duration {
        self.0.lasts()
    }

    fn run(&self, contender: &Contender, settings: &Settings) -> Result<Measured, Failure> {
        self.0.run(contender, settings)
    }
}
