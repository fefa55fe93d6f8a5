//! Who may open a session now: so many in all, so many per address, so many openings per second.

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::keyed::DashMapStateStore,
};
use parking_lot::Mutex;

use crate::{client_ip::limit_key, config::Limits};

/// Addresses that have not opened anything lately are forgotten after this many openings. An address is remembered for
/// `burst / rate` seconds anyway (4 s by default), so what is kept between two sweeps is this many at most, and those of the last seconds.
const SWEEP_EVERY: u32 = 1_024;

/// What a client that met a full server is told to wait. Sessions last minutes: asking every second would only add load.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(5);

/// Counts sessions and openings. A cheap handle; clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Admission<C: Clock = DefaultClock> {
    shared: Arc<Shared<C>>,
}

/// The place of one session; dropping it gives the place back.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub(crate) struct Place {
    counts: Arc<Counts>,
    key: Option<IpAddr>,
}

/// Why a session may not be opened now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// `limits.max_sessions`: HTTP 503.
    #[error("the server is full")]
    Full,
    /// `limits.max_sessions_per_ip`: HTTP 429.
    #[error("there are too many sessions from this address")]
    TooManySessions,
    /// `limits.opens_per_ip_per_second`: HTTP 429.
    #[error("there are too many openings from this address")]
    TooManyOpenings {
        /// When one would be allowed.
        retry_after: Duration,
    },
}

impl Refusal {
    /// How long the client should wait, for `Retry-After`; never below a second, which is that header's unit.
    #[must_use]
    pub(crate) fn retry_after(self) -> Duration {
        match self {
            Self::Full | Self::TooManySessions => RETRY_WHEN_FULL,
            Self::TooManyOpenings { retry_after } => {
                Duration::from_secs(retry_after.as_millis().div_ceil(1_000).max(1) as u64)
            }
        }
    }
}

impl Admission {
    /// Counts against `limits`.
    #[must_use]
    pub(crate) fn new(limits: &Limits) -> Self {
        Self::with_clock(limits, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Admission<C> {
    fn with_clock(limits: &Limits, clock: C) -> Self {
        // Zero is refused by `Config::validate`.
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(limits.opens_per_ip_per_second))
            .allow_burst(at_least_one(limits.opens_per_ip_burst));
        Self {
            shared: Arc::new(Shared {
                counts: Arc::new(Counts {
                    max: limits.max_sessions,
                    max_per_key: limits.max_sessions_per_ip,
                    taken: Mutex::default(),
                }),
                openings: RateLimiter::new(quota, DashMapStateStore::default(), clock.clone()),
                clock,
                since_sweep: AtomicU32::new(0),
            }),
        }
    }

    /// Counts an attempt to open a link from `address`, of a new session or of an old one, before anything is done for it.
    ///
    /// # Errors
    /// [`Refusal::TooManyOpenings`].
    pub(crate) fn opening(&self, address: Option<IpAddr>) -> Result<(), Refusal> {
        let Some(address) = address else { return Ok(()) };
        let shared = &self.shared;
        if shared.since_sweep.fetch_add(1, Ordering::Relaxed) + 1 >= SWEEP_EVERY {
            shared.since_sweep.store(0, Ordering::Relaxed);
            shared.openings.retain_recent();
            shared.openings.shrink_to_fit();
        }
        shared
            .openings
            .check_key(&limit_key(address))
            .map_err(|not_until| Refusal::TooManyOpenings { retry_after: not_until.wait_time_from(shared.clock.now()) })
    }

    /// Takes a place for a new session from `address`; where that is not known, only the count in all applies.
    ///
    /// # Errors
    /// [`Refusal::Full`] or [`Refusal::TooManySessions`].
    pub(crate) fn admit(&self, address: Option<IpAddr>) -> Result<Place, Refusal> {
        let (counts, key) = (&self.shared.counts, address.map(limit_key));
        let mut taken = counts.taken.lock();
        if taken.all >= counts.max {
            return Err(Refusal::Full);
        }
        if let Some(key) = key {
            let of_key = taken.by_key.entry(key).or_insert(0);
            // An entry that was just made is 0, and the maximum at least 1, so that no empty entry stays behind here.
            if *of_key >= counts.max_per_key.max(1) {
                return Err(Refusal::TooManySessions);
            }
            *of_key += 1;
        }
        taken.all += 1;
        Ok(Place { counts: counts.clone(), key })
    }

    /// Places taken now.
    #[cfg(test)]
    pub(crate) fn sessions(&self) -> usize {
        self.shared.counts.taken.lock().all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.counts.taken.lock();
        taken.all -= 1;
        if let Some(key) = self.key
            && let Some(of_key) = taken.by_key.get_mut(&key)
        {
            *of_key -= 1;
            if *of_key == 0 {
                taken.by_key.remove(&key);
            }
        }
    }
}

#[derive(Debug)]
struct Shared<C: Clock> {
    counts: Arc<Counts>,
    openings: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    since_sweep: AtomicU32,
}

#[derive(Debug)]
struct Counts {
    max: usize,
    max_per_key: usize,
    /// Locked for a few instructions per session; a session lasts minutes.
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_key: HashMap<IpAddr, usize>,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use governor::clock::FakeRelativeClock;

    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const C: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));

    fn limits() -> Limits {
        Limits {
            max_sessions: 3,
            max_sessions_per_ip: 2,
            opens_per_ip_per_second: 2,
            opens_per_ip_burst: 3,
            ..Limits::default()
        }
    }

    #[test]
    fn places_per_address_and_in_all_come_back_when_dropped() {
        let admission = Admission::new(&limits());
        let (a1, _a2) = (admission.admit(Some(A)).unwrap(), admission.admit(Some(A)).unwrap());
        assert_eq!(admission.admit(Some(A)).unwrap_err(), Refusal::TooManySessions);
        let b1 = admission.admit(Some(B)).unwrap();
        assert_eq!(admission.admit(Some(C)).unwrap_err(), Refusal::Full);
        drop(b1);
        let _c1 = admission.admit(Some(C)).unwrap();
        drop(a1);
        let _a3 = admission.admit(Some(A)).unwrap();
        assert_eq!(admission.sessions(), 3);
    }

    #[test]
    fn nothing_is_remembered_of_addresses_without_sessions() {
        let admission = Admission::new(&limits());
        let places: Vec<_> = [A, B].map(|address| admission.admit(Some(address)).unwrap()).into();
        drop(places);
        assert!(admission.shared.counts.taken.lock().by_key.is_empty());
        assert_eq!(admission.sessions(), 0);
    }

    #[test]
    fn addresses_of_one_64_count_together() {
        let admission = Admission::new(&limits());
        let places: Vec<_> =
            ["2001:db8::1", "2001:db8::2"].map(|text| admission.admit(Some(text.parse().unwrap())).unwrap()).into();
        assert_eq!(admission.admit(Some("2001:db8::3".parse().unwrap())).unwrap_err(), Refusal::TooManySessions);
        assert_eq!(places.len(), 2);
    }

    #[test]
    fn openings_have_a_burst_and_a_rate() {
        let clock = FakeRelativeClock::default();
        let admission = Admission::with_clock(&limits(), clock.clone());
        for _ in 0..3 {
            admission.opening(Some(A)).unwrap();
        }
        let refusal = admission.opening(Some(A)).unwrap_err();
        assert_eq!(refusal, Refusal::TooManyOpenings { retry_after: Duration::from_millis(500) });
        assert_eq!(refusal.retry_after(), Duration::from_secs(1));
        admission.opening(Some(B)).unwrap();
        clock.advance(Duration::from_millis(499));
        assert!(admission.opening(Some(A)).is_err());
        clock.advance(Duration::from_millis(1));
        admission.opening(Some(A)).unwrap();
        assert!(admission.opening(Some(A)).is_err());
    }

    #[test]
    fn addresses_that_went_away_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let admission = Admission::with_clock(&limits(), clock.clone());
        for number in 0..SWEEP_EVERY - 1 {
            admission.opening(Some(Ipv4Addr::from_bits(number).into())).unwrap();
        }
        assert_eq!(admission.shared.openings.len(), SWEEP_EVERY as usize - 1);
        clock.advance(Duration::from_secs(2));
        admission.opening(Some(A)).unwrap();
        assert_eq!(admission.shared.openings.len(), 1);
    }

    #[test]
    fn retry_after_is_in_whole_seconds_rounded_up() {
        let after = |millis| Refusal::TooManyOpenings { retry_after: Duration::from_millis(millis) }.retry_after();
        assert_eq!(after(0), Duration::from_secs(1));
        assert_eq!(after(1_000), Duration::from_secs(1));
        assert_eq!(after(1_001), Duration::from_secs(2));
    }
}
