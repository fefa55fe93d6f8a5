//! What sessions endure, measured by a native client that speaks all four transports: the protocol crate's machine over links that it opens,
//! moves between and cuts at random bytes.
//!
//! ```text
//! cargo run --release --example endurance -- messages    1,000,000 messages each way over 1,000 cuts and moves
//! cargo run --release --example endurance -- streams     100 streams at once, 1 MiB each way, over cuts and moves
//! cargo run --release --example endurance -- drain       SIGTERM with 2,000 busy sessions
//! cargo run --release --example endurance -- forged      10,000 forged resumes per second beside a session that works
//! cargo run --release --example endurance -- rebind      a QUIC client whose address changes
//! cargo run --release --example endurance -- channels    1,000 subscribers, 10,000 publications, 30% of them cut
//! cargo run --release --example endurance -- stalled     1,000 subscribers, one of which on each transport stops reading
//! ```
//!
//! Each starts a server of its own (`endurance serve`, see `application.rs`), prints one line of JSON, and fails when a promise was broken.
//! `--seed` repeats what a run did, as far as two processes can. `--help` shows the rest.

#![allow(unreachable_pub, reason = "an example has no public items")]

mod account;
mod application;
mod bulk;
mod client;
mod fault;
mod link;
mod process;
mod rng;
mod scenario;
mod subscriber;
mod trouble;
#[path = "../common/trust.rs"]
mod trust;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use serde_json::Value;

use scenario::{
    ChannelsArguments, DrainArguments, ForgedArguments, MessagesArguments, RebindArguments, StalledArguments,
    StreamsArguments,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a scenario has measured, and whether it is as it should be.
struct Outcome {
    passed: bool,
    figures: Value,
}

#[derive(Parser)]
#[command(about = "What sessions endure: each scenario prints its figures as one line of JSON")]
enum Scenario {
    /// Messages both ways over cuts and moves among all transports.
    Messages(MessagesArguments),
    /// Streams at once, both ways, over cuts and moves.
    Streams(StreamsArguments),
    /// SIGTERM while many sessions are busy; they come back to a second server.
    Drain(DrainArguments),
    /// Resumes with forged keys, beside sessions that work.
    Forged(ForgedArguments),
    /// A QUIC client whose address changes.
    Rebind(RebindArguments),
    /// Subscribers on all transports, some of which are cut again and again.
    Channels(ChannelsArguments),
    /// Subscribers on all transports, one of which on each stops reading.
    Stalled(StalledArguments),
    /// The server that the others start.
    Serve,
}

#[tokio::main]
async fn main() -> ExitCode {
    let scenario = Scenario::parse();
    raise_open_files();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("ENDURANCE_LOG"))
        .init();
    let outcome = match scenario {
        Scenario::Messages(arguments) => scenario::messages(arguments).await,
        Scenario::Streams(arguments) => scenario::streams(arguments).await,
        Scenario::Drain(arguments) => scenario::drain(arguments).await,
        Scenario::Forged(arguments) => scenario::forged(arguments).await,
        Scenario::Rebind(arguments) => scenario::rebind(arguments).await,
        Scenario::Channels(arguments) => scenario::channels(arguments).await,
        Scenario::Stalled(arguments) => scenario::stalled(arguments).await,
        Scenario::Serve => match application::serve().await {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => Err(error),
        },
    };
    match outcome {
        Ok(Outcome { passed, mut figures }) => {
            figures["passed"] = passed.into();
            say(&figures);
            if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            drop(writeln!(std::io::stderr(), "{error}")); // there is nowhere else to say it
            ExitCode::FAILURE
        }
    }
}

/// One line on standard output.
fn say(line: &Value) {
    drop(writeln!(std::io::stdout(), "{line}")); // who started this has gone, and will not miss it
}

/// Thousands of connections need as many files: takes what the system allows.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }); // what is there may be enough
}
