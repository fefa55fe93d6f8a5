//! What a server costs, read from outside: CPU time, resident memory, bytes on the wire.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::Failure;

/// A process and all that descend from it.
pub(crate) fn family(of: u32) -> Vec<u32> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default(); // it may have ended
        parents.extend(parent(&stat).map(|parent| (pid, parent)));
    }
    let mut found = vec![of];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| **parent == pid).map(|(child, _)| *child));
        next += 1;
    }
    found
}

/// The parent in a line of `/proc/PID/stat`: the second field after the name, which may have blanks and brackets.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// CPU time of all threads that live, to the nanosecond: the first number of each `/proc/PID/task/*/schedstat`. Threads that have
/// ended are not in it, so a subject must keep its threads. What the kernel does for a loopback packet, up to the
/// receiver's socket, happens within the sender's `write`, and is in the sender's time.
pub(crate) fn cpu_time(pids: &[u32]) -> Result<Duration, Failure> {
    let mut nanoseconds = 0;
    for pid in pids {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_err(|error| format!("process {pid}: {error}"))?;
        for task in tasks.flatten() {
            let schedstat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default(); // it may have ended
            nanoseconds += schedstat.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Memory that is resident in user space, in bytes: `Pss_Anon` and `Pss_Shmem` of `/proc/PID/smaps_rollup`, that is heap, stacks, and memory that processes share (nchan
/// keeps its channels there). Program text and mapped files are not in it, because they do not grow with sessions; neither is what the kernel keeps for a socket, which is the same for all.
pub(crate) fn resident_bytes(pids: &[u32]) -> Result<u64, Failure> {
    let mut bytes = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let rollup = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        for field in ["Pss_Anon:", "Pss_Shmem:"] {
            bytes += size(&rollup, field).ok_or_else(|| format!("{path} has no {field}"))?;
        }
    }
    Ok(bytes)
}

fn size(rollup: &str, field: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1_024)
}

/// Bytes that have passed an interface of this network namespace, IP headers included. On `lo` each one is sent and received: it counts once.
pub(crate) fn wire_bytes(interface: &str) -> Result<u64, Failure> {
    let table = fs::read_to_string("/proc/net/dev")?;
    received(&table, interface).ok_or_else(|| format!("there is no interface {interface}").into())
}

fn received(table: &str, interface: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_hide_the_parent() {
        assert_eq!(parent("42 (a) b (c) S 7 42 42 0"), Some(7));
        assert_eq!(parent(""), None);
    }

    #[test]
    fn this_process_has_used_cpu_time_and_memory() {
        let own = [process::id()];
        let before = cpu_time(&own).unwrap();
        let (start, mut number) = (Instant::now(), 0_u64);
        while cpu_time(&own).unwrap() < before + Duration::from_millis(5) {
            assert!(start.elapsed() < Duration::from_secs(30), "it does not grow");
            for _ in 0..1_000 {
                number = std::hint::black_box(number + 1);
            }
        }
        assert!(resident_bytes(&own).unwrap() > 10_000);
        assert!(family(process::id()).contains(&process::id()));
    }

    #[test]
    fn memory_and_wire_bytes_are_read() {
        assert_eq!(size("Rss:  9 kB\nPss_Anon:             116 kB\n", "Pss_Anon:"), Some(116 * 1_024));
        let table = " face |bytes\n    lo: 123456  78 0 0\n  eth0: 5 1 0 0\n";
        assert_eq!(received(table, "lo"), Some(123_456));
        assert_eq!(received(table, "wlan0"), None);
    }
}
