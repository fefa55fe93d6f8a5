//! The schedule of an open loop: when each message should be sent is known beforehand, and its latency counts from then. A server that stops for a while
//! is charged for all that should have been sent meanwhile, and not for the one message that was under way (coordinated omission).

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Times that are equally far apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    start: Instant,
    interval: Duration,
    count: u64,
}

impl Schedule {
    pub(crate) fn new(start: Instant, interval: Duration, count: u64) -> Self {
        Self { start, interval, count }
    }

    /// As many as fit into a window.
    pub(crate) fn for_window(start: Instant, interval: Duration, window: Duration) -> Self {
        let count = window.as_nanos() / interval.as_nanos().max(1);
        Self::new(start, interval, u64::try_from(count).unwrap_or(u64::MAX))
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// When number `index` is due.
    pub(crate) fn due(&self, index: u64) -> Instant {
        let nanoseconds = self.interval.as_nanos() * u128::from(index);
        self.start + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Waits for each time and does something at it, with its number and the time that it was due. When one takes too long, the next
    /// follow at once, each with the time that it should have had.
    pub(crate) async fn run(&self, mut each: impl AsyncFnMut(u64, Instant)) {
        for index in 0..self.count {
            let due = self.due(index);
            tokio::time::sleep_until(due.into()).await;
            each(index, due).await;
        }
    }
}

/// Waits until then, to the microsecond, with the whole core: a timer of tokio is late by up to a millisecond, which would be most of an echo's latency.
/// What else there is to do on this thread goes on meanwhile.
pub(crate) async fn precisely(due: Instant) {
    const TIMER: Duration = Duration::from_millis(3);
    if let Some(early) = due.checked_sub(TIMER) {
        tokio::time::sleep_until(early.into()).await;
    }
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

/// Latencies in microseconds, to three digits, up to a minute; longer ones count as a minute.
pub(crate) fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order");
    histogram.auto(false);
    histogram
}

/// Counts one latency.
pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_has_its_time_whatever_happened_before() {
        let start = Instant::now();
        let schedule = Schedule::for_window(start, Duration::from_micros(33_333), Duration::from_secs(2));
        assert_eq!(schedule.count(), 60);
        assert_eq!(schedule.due(0), start);
        assert_eq!(schedule.due(30), start + Duration::from_micros(999_990));
    }

    #[tokio::test]
    async fn who_is_late_does_not_move_those_that_follow() {
        let start = Instant::now();
        let schedule = Schedule::new(start, Duration::from_millis(5), 4);
        let mut seen = Vec::new();
        schedule
            .run(async |index, due| {
                if index == 0 {
                    tokio::time::sleep(Duration::from_millis(12)).await;
                }
                seen.push((index, due, Instant::now()));
            })
            .await;
        assert_eq!(seen.len(), 4);
        assert!(seen.iter().all(|(index, due, _)| *due == schedule.due(*index)));
        assert!(seen[1].2 - seen[1].1 >= Duration::from_millis(7), "the second was 7 ms late, and that is counted");
    }

    #[test]
    fn what_is_out_of_bounds_is_counted_at_the_bound() {
        let mut latencies = histogram();
        record(&mut latencies, Duration::ZERO);
        record(&mut latencies, Duration::from_secs(3_600));
        assert_eq!(latencies.len(), 2);
        assert_eq!(latencies.min(), 1);
        assert!(latencies.max() >= 60_000_000);
    }
}
