//! A path with delay and loss between the load generator and a subject: two network namespaces of our own, and the project's relay (`netem/`) between them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Failure;
use crate::settings::SERVER_CORE;

/// The two ends.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// The relay's devices.
const CLIENT_DEVICE: &str = "tl-client";
const SERVER_DEVICE: &str = "tl-server";

/// The same bad luck for all.
const SEED: &str = "20";

/// What namespaces of ours are called, before the number of their process.
const NAME: &str = "throughline-bench-";

/// A namespace, which goes with this.
struct Namespace(String);

impl Namespace {
    fn make(end: &str) -> Result<Self, Failure> {
        let name = format!("{NAME}{}-{end}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self(name);
        ip(&["-n", &namespace.0, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.0]) {
            eprintln!("  {error}");
        }
    }
}

/// Both ends, and what is between them. Dropping it takes all of it away.
pub(super) struct Path {
    relay: Child,
    client: Namespace,
    server: Namespace,
}

impl Path {
    /// With these conditions, in the relay's words.
    pub(super) fn make(conditions: &[String]) -> Result<Self, Failure> {
        sweep()?;
        let (client, server) = (Namespace::make("client")?, Namespace::make("server")?);
        let program = std::env::current_exe()?.with_file_name("throughline-netem");
        let relay = Command::new("ip")
            .args(["netns", "exec", &client.0])
            .arg(&program)
            .args(["--seed", SEED])
            .args(conditions)
            .stdin(Stdio::piped()) // it ends with it
            .stdout(Stdio::piped())
            .spawn()?;
        let mut path = Self { relay, client, server };
        let mut line = String::new();
        BufReader::new(path.relay.stdout.take().ok_or("no standard output")?).read_line(&mut line)?;
        if !line.contains("\"ready\"") {
            return Err(format!("{} is not ready: {line:?}", program.display()).into());
        }
        path.connect()?;
        Ok(path)
    }

    fn connect(&self) -> Result<(), Failure> {
        let (client, server) = (self.client.0.as_str(), self.server.0.as_str());
        ip(&["-n", client, "link", "set", "dev", SERVER_DEVICE, "netns", server])?;
        for (namespace, device, own, peer) in
            [(client, CLIENT_DEVICE, CLIENT, SERVER), (server, SERVER_DEVICE, SERVER, CLIENT)]
        {
            ip(&["-n", namespace, "addr", "add", &own.to_string(), "peer", &peer.to_string(), "dev", device])?;
            ip(&["-n", namespace, "link", "set", "dev", device, "up"])?;
        }
        Ok(())
    }

    /// What stands before the command of a subject at the server's end.
    pub(super) fn at_server(&self) -> Vec<String> {
        let core = SERVER_CORE.to_string();
        let words = ["setpriv", "--pdeathsig", "TERM", "ip", "netns", "exec", &self.server.0, "taskset", "-c", &core];
        words.map(str::to_owned).into()
    }

    /// Moves this thread to the client's end, for as long as it lives.
    pub(super) fn enter(&self) -> Result<(), Failure> {
        let namespace = File::open(format!("/run/netns/{}", self.client.0))?;
        Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        drop(self.relay.stdin.take()); // the end of its commands is its own
        drop(self.relay.wait());
    }
}

/// Takes away what runs of ours have left behind that were killed.
fn sweep() -> Result<(), Failure> {
    let Ok(all) = fs::read_dir("/run/netns") else { return Ok(()) }; // there was never one
    for name in all.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let process = name.strip_prefix(NAME).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !fs::exists(format!("/proc/{process}")).unwrap_or(true)) {
            ip(&["netns", "del", &name])?;
        }
    }
    Ok(())
}

fn ip(words: &[&str]) -> Result<(), Failure> {
    let output = Command::new("ip").args(words).output()?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {} (network namespaces need root)", words.join(" "), reason.trim()).into())
}
