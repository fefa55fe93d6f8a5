//! How fast one session may publish.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::config::ChannelsConfig;

/// A bucket of one session: it fills at `channels.publishes_per_second`, and holds `channels.publish_burst`.
pub(super) struct Rate(DefaultDirectRateLimiter);

impl Rate {
    pub(super) fn new(config: &ChannelsConfig) -> Self {
        // Zero is refused by `Config::validate`.
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(config.publishes_per_second))
            .allow_burst(at_least_one(config.publish_burst));
        Self(RateLimiter::direct(quota))
    }

    /// Whether one more may be published now; it counts then.
    pub(super) fn allows(&self) -> bool {
        self.0.check().is_ok()
    }
}
