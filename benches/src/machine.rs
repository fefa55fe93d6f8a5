//! This machine: what the results say of it, and what the load generator asks of it.

use std::fs;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Failure;
use crate::results::Machine;

/// Connections at one end, and some for files: 10,000 sessions of two connections each.
const OPEN_FILES: u64 = 65_536;

/// What a process opens besides sockets to its peers.
const OTHER_FILES: u64 = 500;

/// What the results say of it.
pub(crate) fn describe() -> Machine {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str, separator: char| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(separator)?.1.trim().trim_matches('"').to_owned())
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal", ':').unwrap_or_default();
    let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    Machine {
        cpu: field(&read("/proc/cpuinfo"), "model name", ':').unwrap_or_default(),
        cores: read("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count(),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        memory_bytes: memory_kib * 1_024,
        os: field(&read("/etc/os-release"), "PRETTY_NAME", '=').unwrap_or_default(),
    }
}

/// The repository's commit; with `+` when files differ from it.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|files| !files.is_empty());
    if is_changed { commit + "+" } else { commit }
}

/// Keeps this thread, and those that it starts from now on, on one core. With a single core there is nothing to choose.
pub(crate) fn pin(core: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).map_err(|error| format!("core {core}: {error}").into())
}

/// How many sockets a process may have here, with some files left for everything else.
pub(crate) fn sockets() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    usize::try_from(limit.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX)
}

/// Lets this process, and those that it starts, have as many sockets as the workloads want.
pub(crate) fn raise_open_files() -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= OPEN_FILES);
    if enough(limit.current) {
        return Ok(());
    }
    let maximum = if enough(limit.maximum) { limit.maximum } else { Some(OPEN_FILES) };
    let raised = Rlimit { current: Some(OPEN_FILES), maximum };
    setrlimit(Resource::Nofile, raised)
        .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }))
        .map_err(|error| format!("the limit of open files cannot be raised: {error}").into())
}
