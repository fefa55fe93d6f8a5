//! What a run has found, as `results.json` has it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Results {
    /// When it began, RFC 3339.
    pub(crate) when: String,
    /// Of the repository; with `+` at its end when files differ from it.
    pub(crate) commit: String,
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    /// What the subjects say of themselves: name of a program or library, and its version.
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) rows: Vec<Row>,
}

/// What it ran on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) memory_bytes: u64,
    pub(crate) os: String,
}

/// One subject under one workload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) workload: String,
    /// The goal of the project that it stands for, such as `G1`.
    pub(crate) goal: String,
    /// Rows with the same workload and variant can be compared.
    pub(crate) variant: String,
    pub(crate) subject: String,
    pub(crate) kind: Kind,
    /// How often it was measured.
    pub(crate) repeats: u32,
    /// By name. Units last: `messages_per_cpu_second`, `p99_us`, `resident_bytes_per_session`.
    pub(crate) measures: BTreeMap<String, Spread>,
    /// Of all repeats together.
    pub(crate) counts: Counts,
    /// How the subject is set up, for readers.
    pub(crate) settings: String,
    /// Why there are no measures.
    pub(crate) skipped: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Ours,
    Peer,
    /// What the machine can do at all.
    Limit,
}

/// A measure over its repeats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// What is not told apart, as a part of the median: runs of the same program on the same machine differ by so much, however near to each other the repeats of one are.
const LEAST_SPREAD: f64 = 0.05;

impl Spread {
    /// What is stated: the figure is the median, give or take so much. It is the whole distance from the lowest to the highest repeat, in both directions, and 5% at
    /// least. The ranges of three repeats themselves are too narrow: in one case of ten those of two runs of the same thing do not even touch, and with this it is one in a hundred.
    pub(crate) fn stated(&self) -> f64 {
        (self.high - self.low).max(self.median.abs() * LEAST_SPREAD)
    }

    /// Whether the repeats were so near to each other that the least spread is stated.
    pub(crate) fn is_least(&self) -> bool {
        self.high - self.low <= self.median.abs() * LEAST_SPREAD
    }

    /// Whether another run says the same: what both state has something in common.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        (self.median - other.median).abs() <= self.stated() + other.stated()
    }

    /// Of at least one value; none of none.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Some(Self { median, low, high })
    }
}

/// What must add up: a server that is fast because it loses something is not fast.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// By the load generator.
    pub(crate) sent: u64,
    /// What should have arrived in all.
    pub(crate) expected: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
}

impl Counts {
    /// Of what was sent, what should have come of it, and what has.
    pub(crate) fn new(sent: u64, expected: u64, received: u64) -> Self {
        Self { sent, expected, received, lost: expected.saturating_sub(received) }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.expected += other.expected;
        self.received += other.received;
        self.lost += other.lost;
    }
}

/// One measurement: what a workload found with one subject, once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    pub(crate) measures: BTreeMap<&'static str, f64>,
    pub(crate) counts: Counts,
}

impl Measured {
    pub(crate) fn set(&mut self, name: &'static str, value: f64) {
        self.measures.insert(name, value);
    }

    /// The four percentiles of latencies in microseconds: `p50_us`, `p90_us`, `p99_us`, `p999_us`.
    pub(crate) fn set_latencies(&mut self, latencies: &hdrhistogram::Histogram<u64>) {
        if latencies.is_empty() {
            return;
        }
        for (name, quantile) in [("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999)] {
            self.set(name, latencies.value_at_quantile(quantile) as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_both_ends() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0]), Some(Spread { median: 3.0, low: 3.0, high: 3.0 }));
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, low: 1.0, high: 4.0 }));
    }

    #[test]
    fn a_spread_is_stated_wider_than_the_repeats_went() {
        let spread = |median, low, high| Spread { median, low, high };
        assert_eq!(spread(10.0, 9.0, 12.0).stated(), 3.0);
        assert_eq!(spread(100.0, 100.0, 100.0).stated(), 5.0);
        assert!(spread(10.0, 9.0, 12.0).agrees(&spread(13.5, 13.5, 13.5)));
        assert!(!spread(10.0, 9.0, 12.0).agrees(&spread(14.0, 14.0, 14.0)));
        assert!(spread(0.0, 0.0, 0.0).agrees(&spread(0.0, 0.0, 0.0)));
        assert!(!spread(0.0, 0.0, 0.0).agrees(&spread(1.0, 1.0, 1.0)));
    }

    #[test]
    fn what_did_not_arrive_is_lost() {
        let mut counts = Counts::new(2, 20, 18);
        counts += Counts::new(1, 10, 10);
        assert_eq!(counts, Counts { sent: 3, expected: 30, received: 28, lost: 2 });
    }
}
