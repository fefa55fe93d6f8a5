//! What the hub counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of a server's channels, from its start; but for the subscriptions, of which there are so many now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HubStats {
    /// Subscriptions that there are now.
    pub subscriptions: u64,
    /// Publications, and changes of values, that came to a channel with subscribers on this server.
    pub publications: u64,
    /// How often a publication or a value was written in the form of the wire: once for each, however many are subscribed, and once more for a value that goes out both as a
    /// datagram and as a message.
    pub encoded: u64,
    /// Publications that were lost to a subscription, because it was too slow and the history did not reach back: one for each subscription.
    pub skipped: u64,
    /// Subscriptions that ended with TOO_SLOW.
    pub too_slow: u64,
    /// Publications and changes of clients that were refused with TOO_FAST.
    pub too_fast: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) subscriptions: Count,
    pub(super) publications: Count,
    pub(super) encoded: Count,
    pub(super) skipped: Count,
    pub(super) too_slow: Count,
    pub(super) too_fast: Count,
}

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(super) fn stats(&self) -> HubStats {
        HubStats {
            subscriptions: self.subscriptions.now(),
            publications: self.publications.now(),
            encoded: self.encoded.now(),
            skipped: self.skipped.now(),
            too_slow: self.too_slow.now(),
            too_fast: self.too_fast.now(),
        }
    }
}
