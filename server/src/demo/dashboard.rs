//! The live numbers of the game and its process, as values of a channel of state: whoever looks gets the newest of each, whatever he missed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use super::CHAT;
use crate::{Channel, Hub, Transport};

/// Where the numbers are.
const CHANNEL: &str = "dashboard:live";
/// Quick enough for a person, and next to nothing beside a game.
const EVERY: Duration = Duration::from_millis(500);
/// What Linux counts the time of a process in.
const CPU_TICKS_PER_SECOND: f64 = 100.0;

/// Who plays, over what, and how many states were sent since the game began.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) webtransport: u32,
    pub(super) websocket: u32,
    pub(super) sse: u32,
    pub(super) poll: u32,
    /// Those without a link.
    pub(super) away: u32,
    pub(super) states_sent: u64,
}

impl Census {
    pub(super) fn add(&mut self, transport: Option<Transport>) {
        let count = match transport {
            Some(Transport::WebTransport) => &mut self.webtransport,
            Some(Transport::WebSocket) => &mut self.websocket,
            Some(Transport::Sse) => &mut self.sse,
            Some(Transport::Poll) => &mut self.poll,
            None => &mut self.away,
        };
        *count += 1;
    }

    fn players(&self) -> u32 {
        self.webtransport + self.websocket + self.sse + self.poll
    }
}

/// What the game's loop leaves for the dashboard.
#[derive(Debug, Default)]
pub(super) struct Counters {
    census: Mutex<Census>,
    /// Of the ticks since it was read last, microseconds.
    slowest_tick_us: AtomicU64,
}

impl Counters {
    pub(super) fn ticked(&self, took: Duration) {
        self.slowest_tick_us.fetch_max(took.as_micros() as u64, Ordering::Relaxed);
    }

    pub(super) fn count(&self, census: Census) {
        *self.census.lock() = census;
    }
}

/// The channel of the numbers, and the one that they are about.
#[derive(Debug)]
pub(super) struct Channels {
    numbers: Channel,
    chat: Channel,
}

impl Channels {
    pub(super) fn new(hub: &Hub) -> Self {
        Self { numbers: hub.channel(CHANNEL), chat: hub.channel(CHAT) }
    }
}

/// Sets the values twice per second, those that have changed.
pub(super) async fn report(channels: &Channels, counters: &Counters) {
    let mut timer = interval(EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut before = Sample::take(counters);
    let mut told = Vec::new();
    loop {
        timer.tick().await;
        let now = Sample::take(counters);
        let values = values(&before, &now, channels.chat.subscribers());
        for (index, (key, text)) in values.iter().enumerate() {
            if told.get(index) != Some(&(*key, text.clone())) {
                // The channel is the server's own and its values are short: what could fail is an engine that is away, and the next value is due soon.
                let _ = channels.numbers.set(key, text.clone()).await;
            }
        }
        told = values;
        before = now;
    }
}

/// What rates are made of.
struct Sample {
    at: Instant,
    census: Census,
    slowest_tick: Duration,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
}

impl Sample {
    fn take(counters: &Counters) -> Self {
        Self {
            at: Instant::now(),
            census: *counters.census.lock(),
            slowest_tick: Duration::from_micros(counters.slowest_tick_us.swap(0, Ordering::Relaxed)),
            cpu_seconds: cpu_seconds(),
            memory_bytes: memory_bytes(),
        }
    }
}

/// The keys, and numbers as texts. What this system does not tell is left out.
fn values(before: &Sample, now: &Sample, chatting: usize) -> Vec<(&'static str, String)> {
    let seconds = (now.at - before.at).as_secs_f64().max(0.001);
    let Census { webtransport, websocket, sse, poll, away, states_sent } = now.census;
    let states = states_sent.saturating_sub(before.census.states_sent) as f64 / seconds;
    let mut values = vec![
        ("players", now.census.players().to_string()),
        ("webtransport", webtransport.to_string()),
        ("websocket", websocket.to_string()),
        ("sse", sse.to_string()),
        ("poll", poll.to_string()),
        ("away", away.to_string()),
        ("states", format!("{states:.0}")),
        ("tick", format!("{:.2}", now.slowest_tick.as_secs_f64() * 1_000.0)),
        ("chatting", chatting.to_string()),
    ];
    if let (Some(from), Some(to)) = (before.cpu_seconds, now.cpu_seconds) {
        values.push(("cpu", format!("{:.0}", (to - from) / seconds * 100.0)));
    }
    if let Some(bytes) = now.memory_bytes {
        values.push(("memory", format!("{:.1}", bytes as f64 / 1e6)));
    }
    values
}

/// What this process has used, of all its cores together.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name, which may hold anything; `utime` and `stime` are the 14th and the 15th.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / CPU_TICKS_PER_SECOND)
}

/// What this process has in memory.
fn memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, states_sent: u64) -> Sample {
        let mut census = Census { states_sent, ..Census::default() };
        for transport in [Some(Transport::WebTransport), Some(Transport::Sse), Some(Transport::Sse), None] {
            census.add(transport);
        }
        Sample {
            at,
            census,
            slowest_tick: Duration::from_micros(1_250),
            cpu_seconds: Some(states_sent as f64 / 100.0),
            memory_bytes: None,
        }
    }

    #[test]
    fn rates_are_those_between_two_samples() {
        let start = Instant::now();
        let values = values(&sample(start, 0), &sample(start + EVERY, 45), 2);
        let value = |key| values.iter().find(|(known, _)| *known == key).map(|(_, text)| text.as_str());
        assert_eq!(value("players"), Some("3"));
        assert_eq!((value("webtransport"), value("sse"), value("away")), (Some("1"), Some("2"), Some("1")));
        assert_eq!(value("states"), Some("90"));
        assert_eq!(value("tick"), Some("1.25"));
        assert_eq!(value("cpu"), Some("90"));
        assert_eq!(value("chatting"), Some("2"));
        assert_eq!(value("memory"), None, "what is not known is left out");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_knows_what_it_takes() {
        assert!(cpu_seconds().is_some());
        assert!(memory_bytes().is_some_and(|bytes| bytes > 100_000));
    }
}
