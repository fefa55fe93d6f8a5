//! One direction of the network, without IO and without a clock: packets in, packets out when they are due.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use serde::Serialize;

use crate::conditions::{Change, Conditions};

/// What may be under way at once. More than a second at 100 Mbit/s; what comes on top is dropped, and counted as `overflowed`.
pub const MAX_FLYING_BYTES: usize = 16 * 1_048_576;

/// A queue that delays, loses, repeats and reorders.
///
/// `now` is the time since any fixed moment, and never goes back. Each packet takes its four random numbers from the seed, whether they are
/// needed or not: so what happens to the hundredth packet depends on the seed, on its place and on the conditions, and not on what was
/// changed before.
pub struct Path {
    conditions: Conditions,
    random: Pcg64Mcg,
    /// Before the bottleneck, in order.
    waiting: VecDeque<(Vec<u8>, Lot)>,
    waiting_bytes: usize,
    /// When the first of `waiting` has passed the bottleneck.
    departs: Duration,
    /// Behind it.
    flying: BinaryHeap<Reverse<Flying>>,
    flying_bytes: usize,
    /// Who keeps the order arrives no sooner than this.
    last_due: Duration,
    /// How many have flown: orders those that are due at the same moment.
    flown: u64,
    stats: Stats,
}

/// What happened to packets so far. All that entered are in one of the others, except for those under way; a duplicate counts as
/// `delivered`, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Came in.
    pub entered: u64,
    /// Went out.
    pub delivered: u64,
    /// Bytes that went out.
    pub delivered_bytes: u64,
    /// Taken by `loss`.
    pub lost: u64,
    /// Taken by `blackhole`.
    pub swallowed: u64,
    /// Found the queue full.
    pub overflowed: u64,
    /// Second copies that were made.
    pub duplicated: u64,
    /// Made late on purpose.
    pub reordered: u64,
}

/// What chance has given a packet: numbers from 0 to 1.
#[derive(Clone, Copy)]
struct Lot {
    loss: f64,
    duplicate: f64,
    reorder: f64,
    jitter: f64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    due: Duration,
    order: u64,
    packet: Vec<u8>,
}

impl Path {
    /// A perfect wire, whose chances follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Path {
            conditions: Conditions::default(),
            random: Pcg64Mcg::seed_from_u64(seed),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            departs: Duration::ZERO,
            flying: BinaryHeap::new(),
            flying_bytes: 0,
            last_due: Duration::ZERO,
            flown: 0,
            stats: Stats::default(),
        }
    }

    /// A packet comes in.
    pub fn push(&mut self, now: Duration, packet: Vec<u8>) {
        self.advance(now);
        self.stats.entered += 1;
        let lot = Lot::draw(&mut self.random);
        if self.conditions.blackhole {
            self.stats.swallowed += 1;
            return;
        }
        if lot.loss < self.conditions.loss {
            self.stats.lost += 1;
            return;
        }
        if lot.duplicate < self.conditions.duplicate {
            self.stats.duplicated += 1;
            self.enqueue(now, packet.clone(), lot);
        }
        self.enqueue(now, packet, lot);
    }

    /// A packet that has arrived by `now`. Call it until there is none.
    pub fn pop(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.advance(now);
        while self.flying.peek().is_some_and(|Reverse(next)| next.due <= now) {
            let Reverse(Flying { packet, .. }) = self.flying.pop()?;
            self.flying_bytes -= packet.len();
            // A cut wire delivers nothing that was on it.
            if self.conditions.blackhole {
                self.stats.swallowed += 1;
                continue;
            }
            self.stats.delivered += 1;
            self.stats.delivered_bytes += packet.len() as u64;
            return Some(packet);
        }
        None
    }

    /// When to call [`Path::pop`] next, unless something is pushed or changed before.
    pub fn next_due(&self) -> Option<Duration> {
        let departs = (!self.waiting.is_empty()).then_some(self.departs);
        let due = self.flying.peek().map(|Reverse(next)| next.due);
        departs.into_iter().chain(due).min()
    }

    /// Changes a condition, for all packets that have not passed the bottleneck yet; a black hole is for all.
    pub fn change(&mut self, now: Duration, change: Change) {
        self.advance(now);
        self.conditions.apply(change);
        // The one at the bottleneck begins anew, at the new rate.
        if let (Change::Rate(_), Some((packet, _))) = (change, self.waiting.front()) {
            self.departs = now + self.passing(packet.len());
            self.advance(now);
        }
    }

    /// Makes it a perfect wire.
    pub fn reset(&mut self, now: Duration) {
        self.change(now, Change::Rate(None));
        self.conditions = Conditions::default();
    }

    /// How it is.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// What it has done.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn enqueue(&mut self, now: Duration, packet: Vec<u8>, lot: Lot) {
        if self.conditions.rate.is_none() {
            self.fly(now, packet, lot);
            return;
        }
        if self.waiting_bytes + packet.len() > self.conditions.queue {
            self.stats.overflowed += 1;
            return;
        }
        if self.waiting.is_empty() {
            self.departs = now + self.passing(packet.len());
        }
        self.waiting_bytes += packet.len();
        self.waiting.push_back((packet, lot));
    }

    /// Lets those pass the bottleneck whose time has come, each at its moment.
    fn advance(&mut self, now: Duration) {
        while self.departs <= now {
            let Some((packet, lot)) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= packet.len();
            let departed = self.departs;
            if let Some((next, _)) = self.waiting.front() {
                self.departs = departed + self.passing(next.len());
            }
            self.fly(departed, packet, lot);
        }
    }

    fn passing(&self, bytes: usize) -> Duration {
        match self.conditions.rate {
            Some(rate) => Duration::from_secs_f64(bytes as f64 * 8.0 / rate.get() as f64),
            None => Duration::ZERO,
        }
    }

    fn fly(&mut self, from: Duration, packet: Vec<u8>, lot: Lot) {
        if self.flying_bytes + packet.len() > MAX_FLYING_BYTES {
            self.stats.overflowed += 1;
            return;
        }
        let Conditions { delay, jitter, reorder, reorder_by, .. } = self.conditions;
        let due = from + (delay + jitter.mul_f64(2.0 * lot.jitter)).saturating_sub(jitter);
        // In order by what is before it, so that only who is reordered on purpose is passed.
        let mut due = due.max(self.last_due);
        self.last_due = due;
        if lot.reorder < reorder {
            self.stats.reordered += 1;
            due += reorder_by;
        }
        self.flying_bytes += packet.len();
        self.flown += 1;
        self.flying.push(Reverse(Flying { due, order: self.flown, packet }));
    }
}

impl Lot {
    fn draw(random: &mut Pcg64Mcg) -> Lot {
        // 53 bits: all that a f64 below 1 can tell apart.
        let mut next = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        Lot { loss: next(), duplicate: next(), reorder: next(), jitter: next() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU64;

    const SEED: u64 = 7;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn path(changes: &[Change]) -> Path {
        let mut path = Path::new(SEED);
        for &change in changes {
            path.change(Duration::ZERO, change);
        }
        path
    }

    /// A packet of `length` bytes that says which one it is.
    fn packet(index: u16, length: usize) -> Vec<u8> {
        let mut packet = vec![0; length];
        packet[..2].copy_from_slice(&index.to_be_bytes());
        packet
    }

    /// Lets time pass until nothing is under way: who came when.
    fn run(path: &mut Path) -> Vec<(Duration, u16)> {
        let mut came = Vec::new();
        while let Some(now) = path.next_due() {
            while let Some(packet) = path.pop(now) {
                came.push((now, u16::from_be_bytes([packet[0], packet[1]])));
            }
        }
        came
    }

    /// One packet of 100 bytes per millisecond.
    fn stream(path: &mut Path, count: u16) -> Vec<(Duration, u16)> {
        let mut came = Vec::new();
        for index in 0..count {
            let now = ms(u64::from(index));
            path.push(now, packet(index, 100));
            while let Some(packet) = path.pop(now) {
                came.push((now, u16::from_be_bytes([packet[0], packet[1]])));
            }
        }
        came.extend(run(path));
        came
    }

    #[test]
    fn a_perfect_wire_delivers_at_once() {
        let mut path = path(&[]);
        path.push(ms(5), packet(1, 40));
        assert_eq!(path.next_due(), Some(ms(5)));
        assert_eq!(path.pop(ms(5)), Some(packet(1, 40)));
        assert_eq!((path.pop(ms(5)), path.next_due()), (None, None));
    }

    #[test]
    fn delay_is_exact_and_keeps_the_order() {
        let mut path = path(&[Change::Delay(ms(25))]);
        path.push(ms(0), packet(0, 40));
        assert_eq!(path.pop(ms(24)), None);
        assert_eq!(path.next_due(), Some(ms(25)));
        path.push(ms(24), packet(1, 40));
        path.push(ms(24), packet(2, 40));
        assert_eq!(run(&mut path), [(ms(25), 0), (ms(49), 1), (ms(49), 2)]);
    }

    #[test]
    fn a_shorter_delay_lets_nobody_overtake() {
        let mut path = path(&[Change::Delay(ms(100))]);
        path.push(ms(0), packet(0, 40));
        path.change(ms(1), Change::Delay(ms(1)));
        path.push(ms(1), packet(1, 40));
        assert_eq!(run(&mut path), [(ms(100), 0), (ms(100), 1)]);
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_keeps_the_order() {
        let mut path = path(&[Change::Delay(ms(25)), Change::Jitter(ms(10))]);
        let mut varied = std::collections::BTreeSet::new();
        for (index, (came, which)) in stream(&mut path, 2_000).into_iter().enumerate() {
            assert_eq!(usize::from(which), index);
            let took = came - ms(index as u64);
            assert!((ms(15)..=ms(35)).contains(&took), "packet {index} took {took:?}");
            varied.insert(took.as_millis());
        }
        assert!(varied.len() > 10, "{varied:?}");
    }

    #[test]
    fn shares_are_what_was_asked_for() {
        let share = 0.02;
        let mut path = path(&[
            Change::Delay(ms(20)),
            Change::Loss(share),
            Change::Duplicate(share),
            Change::Reorder(share, ms(5)),
        ]);
        let came = stream(&mut path, 50_000);
        let stats = path.stats();
        assert_eq!(stats.entered, 50_000);
        assert_eq!(stats.delivered, stats.entered - stats.lost + stats.duplicated);
        assert_eq!(came.len() as u64, stats.delivered);
        for (what, count) in [("lost", stats.lost), ("duplicated", stats.duplicated), ("reordered", stats.reordered)] {
            assert!((850..=1_150).contains(&count), "{what}: {count} of 50,000");
        }
        let overtaken = came.windows(2).filter(|pair| pair[0].1 > pair[1].1).count() as u64;
        assert!(overtaken > 850, "{overtaken} came after one that was behind them");
    }

    #[test]
    fn the_same_seed_and_packets_meet_the_same_fate() {
        let changes = [
            Change::Delay(ms(25)),
            Change::Jitter(ms(10)),
            Change::Loss(0.1),
            Change::Duplicate(0.1),
            Change::Reorder(0.1, ms(3)),
        ];
        let once = stream(&mut path(&changes), 1_000);
        assert_eq!(once, stream(&mut path(&changes), 1_000));
        let mut other = Path::new(SEED + 1);
        changes.iter().for_each(|&change| other.change(Duration::ZERO, change));
        assert_ne!(once, stream(&mut other, 1_000));
    }

    #[test]
    fn one_condition_does_not_change_what_another_decides() {
        let lost = |changes: &[Change]| {
            let came: std::collections::BTreeSet<_> =
                stream(&mut path(changes), 1_000).into_iter().map(|(_, which)| which).collect();
            (0..1_000).filter(|index| !came.contains(index)).collect::<Vec<_>>()
        };
        let alone = lost(&[Change::Loss(0.05)]);
        assert!(!alone.is_empty());
        assert_eq!(alone, lost(&[Change::Loss(0.05), Change::Jitter(ms(9)), Change::Duplicate(0.5)]));
    }

    #[test]
    fn the_rate_is_kept_and_the_queue_is_bounded() {
        // 80 kbit/s are 10 bytes per millisecond.
        let mut path = path(&[Change::Delay(ms(5)), Change::Rate(NonZeroU64::new(80_000)), Change::Queue(300)]);
        for index in 0..5 {
            path.push(ms(0), packet(index, 100));
        }
        assert_eq!(run(&mut path), [(ms(15), 0), (ms(25), 1), (ms(35), 2)]);
        assert_eq!(path.stats().overflowed, 2);
        path.push(ms(100), packet(9, 50));
        assert_eq!(run(&mut path), [(ms(110), 9)], "an idle bottleneck owes nothing");
    }

    #[test]
    fn a_new_rate_is_for_what_waits() {
        let mut path = path(&[Change::Rate(NonZeroU64::new(80_000))]);
        for index in 0..3 {
            path.push(ms(0), packet(index, 100));
        }
        path.change(ms(10), Change::Rate(NonZeroU64::new(8_000)));
        assert_eq!(path.pop(ms(10)), Some(packet(0, 100)));
        assert_eq!(path.next_due(), Some(ms(110)));
        path.change(ms(50), Change::Rate(None));
        assert_eq!(run(&mut path), [(ms(50), 1), (ms(50), 2)]);
    }

    #[test]
    fn a_black_hole_takes_what_enters_and_what_is_under_way() {
        let mut path = path(&[Change::Delay(ms(25))]);
        path.push(ms(0), packet(0, 40));
        path.push(ms(20), packet(1, 40));
        path.change(ms(21), Change::Blackhole(true));
        path.push(ms(22), packet(2, 40));
        assert_eq!(path.pop(ms(30)), None);
        path.change(ms(40), Change::Blackhole(false));
        path.push(ms(40), packet(3, 40));
        assert_eq!(run(&mut path), [(ms(45), 1), (ms(65), 3)]);
        assert_eq!(path.stats().swallowed, 2);
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let mut path = path(&[Change::Delay(Duration::from_secs(60))]);
        let fits = MAX_FLYING_BYTES / 65_536;
        for index in 0..fits as u16 + 10 {
            path.push(ms(0), packet(index, 65_536));
        }
        assert_eq!(path.stats().overflowed, 10);
        assert_eq!(run(&mut path).len(), fits);
    }

    #[test]
    fn a_reset_lets_everything_go() {
        let mut path = path(&[
            Change::Delay(ms(30)),
            Change::Loss(1.0),
            Change::Rate(NonZeroU64::new(1)),
            Change::Blackhole(true),
        ]);
        path.change(ms(0), Change::Loss(0.0));
        path.change(ms(0), Change::Blackhole(false));
        path.push(ms(0), packet(0, 100));
        path.reset(ms(10));
        path.push(ms(10), packet(1, 100));
        assert_eq!(path.conditions(), &Conditions::default());
        assert_eq!(run(&mut path), [(ms(40), 0), (ms(40), 1)]);
    }
}
