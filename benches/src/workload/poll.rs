//! G7: messages by long-polling.
//!
//! A hundred bytes, twenty times a second, to a thousand clients that always ask again. In a full run the three repeats are a million deliveries, each client's without a gap.

use std::time::Duration;

use super::Workload;
use super::broadcast::Broadcast;
use crate::Failure;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::results::Measured;
use crate::settings::Settings;
use crate::subject::App;

struct Poll(Broadcast);

pub(super) fn workloads(settings: &Settings) -> Vec<Box<dyn Workload>> {
    vec![Box::new(Poll(Broadcast {
        subscribers: settings.pick(1_000, 100),
        bytes: 100,
        interval: Duration::from_millis(50),
        burst: 1,
        warm_up: settings.pick(Duration::from_millis(1_500), Duration::from_millis(100)),
        window: settings.pick(Duration::from_secs(17), Duration::from_millis(500)),
        over_tls: false,
    }))]
}

impl Workload for Poll {
    fn name(&self) -> &'static str {
        "poll"
    }

    fn goal(&self) -> &'static str {
        "G7"
    }

    fn variant(&self) -> String {
        format!("{} B x {}", self.0.bytes, self.0.subscribers)
    }

    fn takes(&self, contender: &Contender) -> bool {
        matches!(contender.protocol, Protocol::Poll | Protocol::Throughline(Transport::Poll))
            && contender.entry.apps.contains(&App::Fanout)
    }

    fn lasts(&self) -> Duration {
        self.0.lasts()
    }

    fn run(&self, contender: &Contender, settings: &Settings) -> Result<Measured, Failure> {
        self.0.run(contender, settings)
    }
}
