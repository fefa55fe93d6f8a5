//! PING and PONG: when they are due, and what the answers say of the path and of the peer's clock (SPEC section 6).

use std::collections::VecDeque;

use super::Micros;
use crate::limits::MAX_OPEN_PINGS;

/// The heartbeat of a session. Its numbers and what it has learnt outlive the links.
#[derive(Debug, Default)]
pub(super) struct Heartbeat {
    /// When the next PING is due.
    next_at: Micros,
    ping_due: bool,
    /// The id of the last PING.
    last_id: u64,
    /// PINGs that have no answer yet, and when they were sent.
    open: VecDeque<(u64, Micros)>,
    /// The newest PING of the peer, while it has no answer.
    pong_due: Option<u64>,
    /// The highest id of the peer's PINGs, on any link.
    peer_id: u64,
    rtt_us: u64,
    min_rtt_us: u64,
    /// The peer's clock minus ours, in microseconds.
    clock_offset: i64,
}

impl Heartbeat {
    /// Another link carries the session: on this one nothing was asked yet, by either side.
    pub(super) fn link_changed(&mut self) {
        self.open.clear();
        self.pong_due = None;
        self.ping_due = false;
        (self.rtt_us, self.min_rtt_us) = (0, 0); // another path
    }

    /// A PING is due now, and the next `interval_ms` later.
    pub(super) fn beat(&mut self, now: Micros, interval_ms: u64) {
        self.ping_due = true;
        self.next_at = now + interval_ms * 1_000;
    }

    /// When [`Heartbeat::beat`] should be called.
    pub(super) fn next_at(&self) -> Micros {
        self.next_at
    }

    /// The id of the PING to send, when one is due.
    pub(super) fn take_ping(&mut self, now: Micros) -> Option<u64> {
        if !std::mem::take(&mut self.ping_due) {
            return None;
        }
        self.last_id += 1;
        if self.open.len() == MAX_OPEN_PINGS {
            self.open.pop_front();
        }
        self.open.push_back((self.last_id, now));
        Some(self.last_id)
    }

    /// The id of the PONG to send, when one is due.
    pub(super) fn take_pong(&mut self) -> Option<u64> {
        self.pong_due.take()
    }

    pub(super) fn ping_arrived(&mut self, id: u64) {
        self.pong_due = Some(id);
        self.peer_id = self.peer_id.max(id);
    }

    /// The highest id of the peer's PINGs: one above it is newer than everything that was said on other links.
    pub(super) fn peer_id(&self) -> u64 {
        self.peer_id
    }

    /// Learns from an answer. One to a PING that was never sent, or is answered already, says nothing.
    pub(super) fn pong_arrived(&mut self, now: Micros, id: u64, time_us: u64) {
        let Some(index) = self.open.iter().position(|(sent, _)| *sent == id) else { return };
        let (_, sent_at) = self.open[index];
        self.open.drain(..=index);
        if self.open.is_empty() {
            self.open = VecDeque::new(); // an idle session holds no buffer
        }
        let rtt = now.saturating_sub(sent_at).max(1);
        self.rtt_us = if self.rtt_us == 0 { rtt } else { (7 * self.rtt_us + rtt) / 8 };
        self.min_rtt_us = if self.min_rtt_us == 0 { rtt } else { self.min_rtt_us.min(rtt) };
        if rtt <= self.rtt_us {
            // A slow answer says little about the clock.
            self.set_peer_clock(now, time_us + rtt / 2);
        }
    }

    /// The peer's clock shows `time_us` now.
    pub(super) fn set_peer_clock(&mut self, now: Micros, time_us: u64) {
        self.clock_offset = time_us as i64 - now as i64;
    }

    /// The peer's clock, in microseconds since the Unix epoch.
    pub(super) fn peer_time(&self, now: Micros) -> Micros {
        now.saturating_add_signed(self.clock_offset)
    }

    /// The round-trip time in microseconds, smoothed, and the least; 0 before the first PONG.
    pub(super) fn rtt_us(&self) -> (u64, u64) {
        (self.rtt_us, self.min_rtt_us)
    }
}
