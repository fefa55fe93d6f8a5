//! G10: the first message in a network that swallows UDP, in a real browser with the browser client (`benches/browser/blackhole.mjs`).

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Workload;
use crate::Failure;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::results::{Counts, Kind, Measured, Spread};
use crate::settings::Settings;

const SCRIPT: &str = "benches/browser/blackhole.mjs";

/// What the client waits for WebTransport before it tries WebSocket, too, unless it knows better.
const HEDGE_MS: f64 = 200.0;

/// Two browsers each.
const ROUNDS: u32 = 3;

/// For one repeat in all: a browser takes a few seconds to start.
const LIMIT: Duration = Duration::from_secs(150);

/// How often it is looked at whether the script has ended.
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn workloads(settings: &Settings) -> Vec<Box<dyn Workload>> {
    let delays: &[&str] = settings.pick(&["0ms", "25ms"], &["0ms"]);
    let rounds = settings.pick(ROUNDS, 1);
    delays.iter().map(|delay| -> Box<dyn Workload> { Box::new(BlackHole { delay, rounds }) }).collect()
}

struct BlackHole {
    /// Of each direction.
    delay: &'static str,
    rounds: u32,
}

/// What the script prints.
#[derive(Deserialize)]
struct Report {
    rounds: Vec<Round>,
}

#[derive(Deserialize)]
struct Round {
    direct_ms: f64,
    raced_ms: f64,
    transport: Option<String>,
}

impl Workload for BlackHole {
    fn name(&self) -> &'static str {
        "blackhole"
    }

    fn goal(&self) -> &'static str {
        "G10"
    }

    fn variant(&self) -> String {
        let path = if self.delay == "0ms" { "loopback" } else { "RTT 50 ms" };
        format!("UDP dropped, {path}, Chromium")
    }

    fn takes(&self, contender: &Contender) -> bool {
        contender.entry.kind == Kind::Ours
            && matches!(contender.protocol, Protocol::Throughline(Transport::WebTransport))
    }

    fn lasts(&self) -> Duration {
        Duration::from_secs(3) + self.rounds * Duration::from_secs(4)
    }

    fn run(&self, _: &Contender, _: &Settings) -> Result<Measured, Failure> {
        let Report { rounds } = serde_json::from_str(&browsers(self.rounds, self.delay)?)?;
        if let Some(round) = rounds.iter().find(|round| round.transport.as_deref() != Some("websocket")) {
            return Err(format!("the session was over {:?}, and not over WebSocket", round.transport).into());
        }
        let middle = |of: fn(&Round) -> f64| {
            let values: Vec<_> = rounds.iter().map(of).collect();
            Spread::of(&values).map(|spread| spread.median).ok_or("the script measured nothing")
        };
        let (raced, direct) = (middle(|round| round.raced_ms)?, middle(|round| round.direct_ms)?);
        let count = rounds.len() as u64;
        let mut measured = Measured { counts: Counts::new(count, count, count), ..Measured::default() };
        measured.set("first_message_ms", raced);
        measured.set("direct_websocket_ms", direct);
        measured.set("ratio_to_direct_and_hedge", raced / (direct + HEDGE_MS));
        Ok(measured)
    }
}

/// Runs the script to its end, on all cores: there is one browser at a time, and what it costs is not counted.
fn browsers(rounds: u32, delay: &str) -> Result<String, Failure> {
    if !Path::new(SCRIPT).exists() {
        return Err(format!("there is no {SCRIPT} here: it is started in the folder of the repository").into());
    }
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "TERM", "taskset", "-c", "0-1023", "node", SCRIPT, &rounds.to_string(), delay])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let deadline = Instant::now() + LIMIT;
    // The standard library waits for a child without a limit only.
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < deadline => std::thread::sleep(LOOK),
            None => {
                child.kill()?;
                child.wait()?;
                return Err(format!("{SCRIPT} did not end in time").into());
            }
        }
    };
    let mut output = String::new();
    child.stdout.take().ok_or("no standard output")?.read_to_string(&mut output)?;
    if status.success() { Ok(output) } else { Err(format!("{SCRIPT} failed: what it needs is in tests/").into()) }
}
