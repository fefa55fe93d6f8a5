//! The credit of DATAGRAM frames (SPEC section 5): how many may be on their way, so that none grows old in a queue that nobody can reach into.

use super::Micros;
use super::rare::{Blank, Rare};
use crate::limits::{MAX_DATAGRAMS_UNDER_WAY, MIN_DATAGRAMS_UNDER_WAY};

/// How long datagrams are counted before their rates are known anew, in microseconds.
const MEASURE_US: Micros = 250_000;

/// How much longer than the path itself a datagram and its TAKEN may be on their way, in microseconds: what readers, POSTs and held polls take. That many
/// are let go as the peer takes in this time, so that who takes them slowly does not get old ones.
const PATIENCE_US: u64 = 50_000;

/// Both directions of one link; the rate outlives the links.
#[derive(Debug, Default)]
pub(super) struct Credit {
    counts: Rare<Counts>,
    /// TAKEN may wait for a round trip of another request.
    waits: bool,
}

#[derive(Debug, Default)]
struct Counts {
    /// DATAGRAM frames that we sent on this link, and that the peer says it has taken.
    sent: u64,
    taken: u64,
    /// DATAGRAM frames of the peer that were taken here, and what we have said of it.
    ours: u64,
    said: u64,
    /// Datagrams per second that the application sends, and that the peer takes.
    offered_rate: f64,
    taken_rate: f64,
    /// Those that the application has sent since `since`, and what `taken` was then.
    offered: u64,
    taken_then: u64,
    since: Micros,
}

impl Blank for Counts {
    const BLANK: &'static Self = &Self {
        sent: 0,
        taken: 0,
        ours: 0,
        said: 0,
        offered_rate: 0.0,
        taken_rate: 0.0,
        offered: 0,
        taken_then: 0,
        since: 0,
    };
}

impl Credit {
    pub(super) fn link_changed(&mut self, peer_sends_requests: bool) {
        self.waits = peer_sends_requests;
        if let Some(counts) = self.counts.get_mut() {
            (counts.sent, counts.taken, counts.ours, counts.said) = (0, 0, 0, 0);
            (counts.taken_then, counts.taken_rate) = (0, 0.0);
        }
    }

    /// The application has given a datagram to send.
    pub(super) fn offered(&mut self) {
        self.counts.make().offered += 1;
    }

    /// Whether another frame may go now, on a path of this least round-trip time.
    pub(super) fn allows(&mut self, now: Micros, min_rtt_us: u64) -> bool {
        let counts = self.counts.make();
        let elapsed = now.saturating_sub(counts.since);
        if elapsed >= MEASURE_US {
            let measured = |count: u64, before: f64| {
                let newest = count as f64 * 1e6 / elapsed as f64;
                // A pause is no rate; a new one counts at once when it is higher.
                if elapsed > 8 * MEASURE_US { newest } else { newest.max((before + newest) / 2.0) }
            };
            counts.offered_rate = measured(counts.offered, counts.offered_rate);
            counts.taken_rate = measured(counts.taken - counts.taken_then, counts.taken_rate);
            (counts.since, counts.offered, counts.taken_then) = (now, 0, counts.taken);
        }
        let path = counts.offered_rate * min_rtt_us as f64 / 1e6;
        // What is offered says little about what can be taken. So it counts until the path has been filled twice, and what came back tells.
        let on_the_path = if counts.taken as f64 <= 2.0 * path {
            path.ceil()
        } else {
            let loop_us = if self.waits { 2 * min_rtt_us } else { min_rtt_us };
            (counts.taken_rate * (loop_us + PATIENCE_US) as f64 / 1e6).round()
        };
        counts.sent - counts.taken < (on_the_path as u64 + MIN_DATAGRAMS_UNDER_WAY).min(MAX_DATAGRAMS_UNDER_WAY)
    }

    pub(super) fn sent(&mut self) {
        self.counts.make().sent += 1;
    }

    /// TAKEN arrived. More than was sent is all of it: a POST that came twice was counted twice.
    pub(super) fn peer_took(&mut self, count: u64) {
        if let Some(counts) = self.counts.get_mut() {
            counts.taken = counts.taken.max(count.min(counts.sent));
        }
    }

    /// The application has taken a datagram of this link, or one was dropped.
    pub(super) fn took(&mut self) {
        self.counts.make().ours += 1;
    }

    /// Whether TAKEN is due.
    pub(super) fn owes(&self) -> bool {
        self.counts.ours > self.counts.said
    }

    /// The count for TAKEN, when that is due.
    pub(super) fn take_due(&mut self) -> Option<u64> {
        let counts = self.counts.get_mut().filter(|counts| counts.ours > counts.said)?;
        counts.said = counts.ours;
        Some(counts.said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends what is allowed, in steps of 33 ms, to a peer that takes each `loop_us` later. How many went out per second.
    fn rate_over(rtt_us: u64, loop_us: u64) -> f64 {
        rate_of(Credit::default(), rtt_us, loop_us)
    }

    fn rate_of(mut credit: Credit, rtt_us: u64, loop_us: u64) -> f64 {
        let (mut sent, mut under_way) = (0u64, std::collections::VecDeque::new());
        for tick in 0..300u64 {
            let now = tick * 33_333;
            credit.offered();
            while under_way.front().is_some_and(|at| at + loop_us <= now) {
                under_way.pop_front();
                sent += 1;
                credit.peer_took(sent);
            }
            if credit.allows(now, rtt_us) {
                credit.sent();
                under_way.push_back(now);
            }
        }
        (sent + under_way.len() as u64) as f64 / 10.0
    }

    #[test]
    fn a_long_path_keeps_its_rate() {
        for rtt_ms in [1, 50, 200, 600] {
            let rate = rate_over(rtt_ms * 1_000, rtt_ms * 1_000);
            assert!(rate > 28.0, "{rate} per second at {rtt_ms} ms");
        }
    }

    #[test]
    fn a_reader_with_a_delay_of_its_own_keeps_its_rate() {
        // A POST for each TAKEN, one at a time, takes longer than the path: its reader got a part of the datagrams of every tick.
        let rate = rate_over(5_000, 80_000);
        assert!(rate > 28.0, "{rate} per second");
    }

    #[test]
    fn requests_that_wait_for_each_other_keep_the_rate() {
        // Over SSE, 200 ms away, a TAKEN waited for the POST before it: 22 of 30 per second arrived.
        let mut credit = Credit::default();
        credit.link_changed(true);
        let rate = rate_of(credit, 200_000, 400_000);
        assert!(rate > 28.0, "{rate} per second");
    }

    #[test]
    fn a_slow_reader_gets_fresh_ones() {
        // Ten per second are taken, thirty offered, on a path whose least round trip was measured behind other things.
        let mut credit = Credit::default();
        let (mut under_way, mut taken, mut ages) = (std::collections::VecDeque::new(), 0, Vec::new());
        for tick in 0..300u64 {
            let now = tick * 33_333;
            credit.offered();
            if tick % 3 == 0
                && let Some(sent_at) = under_way.pop_front()
            {
                ages.push(now - sent_at);
                taken += 1;
                credit.peer_took(taken);
            }
            while credit.allows(now, 70_000) {
                credit.sent();
                under_way.push_back(now);
            }
        }
        ages.sort_unstable();
        assert!(ages[ages.len() / 2] < 350_000, "{} µs", ages[ages.len() / 2]);
    }

    #[test]
    fn who_takes_nothing_gets_two() {
        let mut credit = Credit::default();
        let mut sent = 0;
        for tick in 0..100 {
            credit.offered();
            if credit.allows(tick * 33_333, 0) {
                credit.sent();
                sent += 1;
            }
        }
        assert_eq!(sent, MIN_DATAGRAMS_UNDER_WAY);
        credit.peer_took(1);
        assert!(credit.allows(4_000_000, 0));
        credit.peer_took(9);
        assert_eq!(credit.counts.taken, 2, "no more than were sent");
    }
}
