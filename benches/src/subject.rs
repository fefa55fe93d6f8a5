//! A server under test: a process of its own, on a core of its own.
//!
//! Every subject takes `--tcp ADDR --quic ADDR --cert FILE --key FILE`, says on its first line of standard output where it listens, and ends on SIGTERM.
//! What it does with a connection is chosen by the path that the connection asks for ([`App`]).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use crate::Failure;
use crate::catalogue::Contender;
use crate::measure;
use crate::settings::{SERVER_CORE, Settings};

/// From its start until it accepts. Python is the slowest, on a machine that builds beside it.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// From SIGTERM to SIGKILL: 10,000 connections take a while to close.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a subject does with those who connect, by the path that they ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum App {
    /// What one sends goes to all others.
    Fanout,
    /// What one sends comes back.
    Echo,
    /// Nothing.
    Idle,
    /// 150 bytes, 30 times a second.
    State,
    /// 20 bytes, 50 times a second.
    Tokens,
    /// The demo's arena.
    Game,
}

impl App {
    /// The path below the root, without a slash.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Echo => "echo",
            Self::Idle => "idle",
            Self::State => "state",
            Self::Tokens => "tokens",
            Self::Game => "game",
        }
    }
}

/// A subject that accepts connections. Dropping it stops it, and waits until it has ended.
#[derive(Debug)]
pub(crate) struct Subject {
    child: Child,
    host: Ipv4Addr,
    ready: Ready,
}

/// The first line of standard output.
#[derive(Debug, Clone, Deserialize)]
struct Ready {
    tcp: Option<u16>,
    tls: Option<u16>,
    quic: Option<u16>,
    /// What it says of itself and its libraries.
    #[serde(default)]
    versions: BTreeMap<String, String>,
}

impl Subject {
    /// Starts it on the server's core, for this application, and waits until it accepts.
    pub(crate) fn start(contender: &Contender, app: App, settings: &Settings) -> Result<Self, Failure> {
        let core = SERVER_CORE.to_string();
        // setpriv: it ends with us, however we end. It keeps its process number through both of these.
        let words = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", &core];
        Self::start_with(&words.map(str::to_owned), Ipv4Addr::LOCALHOST, contender, app, settings)
    }

    /// The same at another address, with the words that stand before the subject's own command: what runs it in a network namespace, for example.
    pub(crate) fn start_with(
        prefix: &[String],
        host: Ipv4Addr,
        contender: &Contender,
        app: App,
        settings: &Settings,
    ) -> Result<Self, Failure> {
        let name = contender.name();
        let own = contender.entry.command(app, settings)?;
        let words: Vec<&str> = prefix.iter().chain(&own).map(String::as_str).collect();
        let (program, arguments) = words.split_first().ok_or("an empty command")?;
        let mut child = Command::new(program)
            .args(arguments)
            .args(["--tcp", &format!("{host}:0"), "--quic", &format!("{host}:0")])
            .arg("--cert")
            .arg(&settings.certificate.certificate)
            .arg("--key")
            .arg(&settings.certificate.key)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0) // so that its children can be ended with it
            .spawn()
            .map_err(|error| format!("{name}: {program}: {error}"))?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let mut subject =
            Self { child, host, ready: Ready { tcp: None, tls: None, quic: None, versions: BTreeMap::new() } };
        let (first, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            if let Some(line) = lines.next() {
                drop(first.send(line)); // nobody may wait for it any more
            }
            lines.for_each(drop); // a full pipe would stop it
        });
        let line = line.recv_timeout(READY_TIMEOUT).map_err(|_| format!("{name} did not say that it is ready"))?;
        subject.ready = serde_json::from_str(&line).map_err(|error| format!("{name} said {line:?}: {error}"))?;
        settings.versions.borrow_mut().append(&mut subject.ready.versions);
        Ok(subject)
    }

    /// Plain TCP.
    pub(crate) fn tcp(&self) -> Result<SocketAddr, Failure> {
        self.address(self.ready.tcp, "TCP")
    }

    /// TLS over TCP.
    pub(crate) fn tls(&self) -> Result<SocketAddr, Failure> {
        self.address(self.ready.tls, "TLS")
    }

    /// UDP.
    pub(crate) fn quic(&self) -> Result<SocketAddr, Failure> {
        self.address(self.ready.quic, "QUIC")
    }

    fn address(&self, port: Option<u16>, what: &str) -> Result<SocketAddr, Failure> {
        let port = port.ok_or_else(|| format!("the subject does not listen for {what}"))?;
        Ok((self.host, port).into())
    }

    /// Its processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        measure::family(self.child.id())
    }

    /// CPU time that it has used so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration, Failure> {
        measure::cpu_time(&self.processes())
    }

    /// See [`measure::resident_bytes`].
    pub(crate) fn resident_bytes(&self) -> Result<u64, Failure> {
        measure::resident_bytes(&self.processes())
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, signal); // it may have ended
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        // The standard library waits for a child without a limit only.
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            eprintln!("  a subject did not end on SIGTERM");
        }
        self.signal(Signal::KILL); // also what it may have left behind
        drop(self.child.wait());
    }
}
