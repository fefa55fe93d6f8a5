//! Two machines and a hostile network, in simulated time, from a seed. What fails says how it is run again.
//!
//! `THROUGHLINE_SEEDS=n` says how many seeds (10,000 when it is not there), `THROUGHLINE_SEED=s` runs one and tells everything that happens.

#[path = "simulation/application.rs"]
mod application;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/peer.rs"]
mod peer;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/random.rs"]
mod random;
#[path = "simulation/typescript.rs"]
mod typescript;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use peer::Peer;
use throughline_protocol::{Config, Machine};
use typescript::{Process, TypeScript};
use world::{Fault, Outcome, World};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// What the client's machine is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Rust,
    TypeScript,
}

impl Client {
    /// Makes the machines of one thread.
    fn maker(self) -> Box<dyn Fn(Config) -> Box<dyn Peer>> {
        match self {
            Self::Rust => Box::new(|config| Box::new(Machine::client(config))),
            Self::TypeScript => {
                let process = Process::start();
                Box::new(move |config| Box::new(TypeScript::new(&process, &config)))
            }
        }
    }
}

/// Threads of this name fail on purpose, and say nothing of it.
const EXPECTED: &str = "expected to fail";

fn silence_what_is_expected() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() != Some(EXPECTED) {
                before(info);
            }
        }));
    });
}

/// Runs the seeds on all cores. Returns what came of them, and the first that fails, if one does.
fn run_all(client: Client, seeds: u64, fault: Fault) -> (Vec<Outcome>, Option<u64>) {
    let next = AtomicU64::new(0);
    let outcomes = Mutex::new(Vec::new());
    let failed = Mutex::new(None::<u64>);
    let work = || {
        let make = client.maker();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| World::new(seed, fault, false, &make).run())) {
                Ok(outcome) => outcomes.lock().expect("nobody panics with it").push(outcome),
                Err(_) => {
                    let mut failed = failed.lock().expect("nobody panics with it");
                    *failed = Some(failed.map_or(seed, |before| before.min(seed)));
                    next.store(seeds, Ordering::Relaxed);
                    return;
                }
            }
        }
    };
    let name = if fault == Fault::None { "simulation" } else { EXPECTED };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work).expect("a thread starts");
        }
    });
    (outcomes.into_inner().expect("nobody panics with it"), failed.into_inner().expect("nobody panics with it"))
}

/// Runs the seeds that the environment asks for, or so many.
fn simulate(client: Client, test: &str, seeds: u64) {
    if let Some(seed) = number("THROUGHLINE_SEED") {
        eprintln!("{:?}", World::new(seed, Fault::None, true, client.maker()).run());
        return;
    }
    let seeds = number("THROUGHLINE_SEEDS").unwrap_or(seeds);
    let (outcomes, failed) = run_all(client, seeds, Fault::None);
    if let Some(seed) = failed {
        let ignored = if client == Client::TypeScript { " -- --ignored" } else { "" };
        panic!(
            "seed {seed} fails: THROUGHLINE_SEED={seed} cargo test -p throughline-protocol --test simulation {test}{ignored}"
        );
    }
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    eprintln!(
        "{seeds} seeds: {} events, {} links, {} chosen again, {} too late, {} messages, {} streams, {} gaps, {} went away",
        sum(|o| o.events),
        sum(|o| o.links),
        sum(|o| o.adopted),
        sum(|o| o.late),
        sum(|o| o.messages),
        sum(|o| o.streams),
        sum(|o| o.gaps),
        sum(|o| o.went_away),
    );
}

#[test]
fn nothing_is_lost_repeated_or_reordered() {
    simulate(Client::Rust, "nothing_is", 10_000);
}

#[test]
#[ignore = "needs node and the packages of client-js: scripts/test client runs it"]
fn nor_with_the_client_in_typescript() {
    simulate(Client::TypeScript, "nor_with", 1_000);
}

#[test]
fn a_replay_that_begins_one_byte_too_late_is_found() {
    silence_what_is_expected();
    let (_, failed) = run_all(Client::Rust, 300, Fault::LateReplay);
    assert!(failed.is_some(), "300 seeds did not find it");
}
