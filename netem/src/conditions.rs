//! What a path does to packets.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// About what a home router holds: a second at 512 kbit/s. Without a `rate` there is no queue.
pub const DEFAULT_QUEUE_BYTES: usize = 65_536;

/// Longer than any timeout that is worth testing; it keeps the packets under way bounded in time.
pub const MAX_DELAY: Duration = Duration::from_secs(60);

/// How one direction of the network is. The default is a perfect wire.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conditions {
    /// How long every packet takes.
    #[serde(serialize_with = "human")]
    pub delay: Duration,
    /// `delay` varies by up to this much, evenly, either way. Order is kept, as in a queue: who is early waits for who is before it.
    #[serde(serialize_with = "human")]
    pub jitter: Duration,
    /// Share of packets that vanish, 0 to 1.
    pub loss: f64,
    /// Share of packets that come twice, 0 to 1.
    pub duplicate: f64,
    /// Share of packets that come `reorder_by` late, while those behind them pass.
    pub reorder: f64,
    /// How late.
    #[serde(serialize_with = "human")]
    pub reorder_by: Duration,
    /// What the bottleneck lets through, in bits of IP packets per second.
    pub rate: Option<NonZeroU64>,
    /// How many bytes may wait at the bottleneck; what comes on top is dropped.
    pub queue: usize,
    /// Nothing arrives, and nobody is told.
    pub blackhole: bool,
}

/// One condition, and what it shall be from now on.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the field of Conditions of the same name")]
pub enum Change {
    Delay(Duration),
    Jitter(Duration),
    Loss(f64),
    Duplicate(f64),
    Reorder(f64, Duration),
    Rate(Option<NonZeroU64>),
    Queue(usize),
    Blackhole(bool),
}

impl Default for Conditions {
    fn default() -> Self {
        Conditions {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::ZERO,
            rate: None,
            queue: DEFAULT_QUEUE_BYTES,
            blackhole: false,
        }
    }
}

impl Conditions {
    /// Takes one change over.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Delay(delay) => self.delay = delay,
            Change::Jitter(jitter) => self.jitter = jitter,
            Change::Loss(share) => self.loss = share,
            Change::Duplicate(share) => self.duplicate = share,
            Change::Reorder(share, by) => (self.reorder, self.reorder_by) = (share, by),
            Change::Rate(rate) => self.rate = rate,
            Change::Queue(bytes) => self.queue = bytes,
            Change::Blackhole(on) => self.blackhole = on,
        }
    }
}

fn human<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}
