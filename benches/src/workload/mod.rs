//! What is asked of the servers: one file for each, named after what it is, with the goal that it stands for.

mod blackhole;
mod broadcast;
mod datagrams;
mod echo;
mod fanout;
mod freshness;
mod game;
mod handshakes;
mod idle;
mod poll;
mod resume;
mod settle;
mod tokens;

use std::time::Duration;

use crate::Failure;
use crate::catalogue::Contender;
use crate::results::Measured;
use crate::settings::Settings;

/// One workload in one variant.
pub(crate) trait Workload {
    /// Of the file: what `--only` chooses by.
    fn name(&self) -> &'static str;

    /// Such as `G1`.
    fn goal(&self) -> &'static str;

    /// What distinguishes it from the others of the same name: `100 B x 1000, TLS`. Rows with the same one can be compared.
    fn variant(&self) -> String;

    /// Whether this subject can do it, over this protocol. What cannot has no row.
    fn takes(&self, contender: &Contender) -> bool;

    /// Whether some may be missing without a mistake of the server's: datagrams, and what is waited for no longer than a moment.
    fn may_lose(&self) -> bool {
        false
    }

    /// How long one measurement takes, about, with the start of the subject and the end: so that a run can say beforehand how long it will be.
    fn lasts(&self) -> Duration;

    /// Starts the subject, does it once, and returns what it has cost. Runs on the load generator's core; every wait in it is bounded.
    fn run(&self, contender: &Contender, settings: &Settings) -> Result<Measured, Failure>;
}

/// All of them, in the order of their goals.
pub(crate) fn all(settings: &Settings) -> Vec<Box<dyn Workload>> {
    [
        fanout::workloads(settings),
        datagrams::workloads(settings),
        idle::workloads(settings),
        echo::workloads(settings),
        freshness::workloads(settings),
        tokens::workloads(settings),
        poll::workloads(settings),
        handshakes::workloads(settings),
        resume::workloads(settings),
        blackhole::workloads(settings),
        game::workloads(settings),
    ]
    .into_iter()
    .flatten()
    .collect()
}
