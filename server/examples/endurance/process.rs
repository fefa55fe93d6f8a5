//! A server of one's own, in a process of its own.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::Failure;
use crate::link::Place;

/// How long a server has until it listens.
const READY_TIMEOUT: Duration = Duration::from_secs(15);

/// A server. Dropping it kills it.
pub(crate) struct Process {
    pub(crate) place: Place,
    child: Child,
    ends: Arc<Mutex<HashMap<String, End>>>,
    reading: JoinHandle<()>,
    _certificates: TempDir,
}

/// What `echo` of [`crate::application`] says of a session: how many messages came, and how many were sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    Ready { tcp: SocketAddr, quic: SocketAddr },
    Ended { session: String, received: u64, sent: u64 },
}

impl Process {
    /// Starts `endurance serve` on free ports, with these settings beside those that would be in the way of one client that is a thousand.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Result<Self, Failure> {
        let certificates = tempfile::tempdir()?;
        let generous = [
            ("LIMITS__MAX_SESSIONS_PER_IP", "10000"),
            ("LIMITS__OPENS_PER_IP_PER_SECOND", "100000"),
            ("LIMITS__OPENS_PER_IP_BURST", "100000"),
        ];
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("serve")
            .env("THROUGHLINE_TCP__LISTEN", "127.0.0.1:0")
            .env("THROUGHLINE_QUIC__LISTEN", "127.0.0.1:0")
            .env("THROUGHLINE_CERTIFICATE__DIR", certificates.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        for (name, value) in generous.iter().chain(settings) {
            command.env(format!("THROUGHLINE_{name}"), value);
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("a server without standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(READY_TIMEOUT, lines.next_line()).await??;
        let Line::Ready { tcp, quic } = serde_json::from_str(&first.ok_or("the server ended")?)? else {
            return Err("the server is not ready first".into());
        };
        let ends = Arc::new(Mutex::new(HashMap::new()));
        let known = Arc::clone(&ends);
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(Line::Ended { session, received, sent }) = serde_json::from_str(&line) {
                    known.lock().insert(session, End { received, sent });
                }
            }
        });
        let place = Place { tcp, quic, from: Ipv4Addr::LOCALHOST };
        Ok(Self { place, child, ends, reading, _certificates: certificates })
    }

    /// Tells it to stop.
    pub(crate) fn terminate(&self) -> Result<(), Failure> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id as i32)).ok_or("the server has ended")?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Waits until it has stopped; its code, and what it said of its sessions.
    pub(crate) async fn ended(mut self) -> Result<(Option<i32>, HashMap<String, End>), Failure> {
        let status = self.child.wait().await?;
        (&mut self.reading).await?;
        let ends = std::mem::take(&mut *self.ends.lock());
        Ok((status.code(), ends))
    }

    /// What it keeps in memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64, Failure> {
        let id = self.child.id().ok_or("the server has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse::<u64>()? * 1_024)
    }
}
