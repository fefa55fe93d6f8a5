//! Counts numbered messages, so that it can be seen whether any was lost, came twice, or came in another order.

use std::ops::Range;

use serde::Serialize;

/// Stretches of missing numbers that are remembered. One is one too many, so this is for a sender who counts wrongly on purpose:
/// of what he left out before, latecomers then count as repeats.
const HOLES_MAX: usize = 32;
/// The largest whole number that JSON carries safely.
pub(super) const NUMBER_MAX: u64 = (1 << 53) - 1;

/// What became of the numbers 1, 2, 3, … of one sender.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tally {
    /// Different numbers that came.
    pub(super) received: u64,
    /// Numbers below the highest that have not come.
    pub(super) missing: u64,
    /// What came again.
    pub(super) repeated: u64,
    /// What came after a higher one. Missing until then.
    pub(super) out_of_order: u64,
    #[serde(skip)]
    highest: u64,
    #[serde(skip)]
    holes: Vec<Range<u64>>,
}

impl Tally {
    /// Takes the number of the next message, from 1 to [`NUMBER_MAX`].
    pub(super) fn take(&mut self, number: u64) {
        if number > self.highest {
            let hole = self.highest + 1..number;
            self.highest = number;
            self.received += 1;
            if !hole.is_empty() {
                self.missing += hole.end - hole.start;
                self.remember(hole);
            }
        } else if let Some(at) = self.holes.iter().position(|hole| hole.contains(&number)) {
            let hole = self.holes.remove(at);
            for part in [hole.start..number, number + 1..hole.end] {
                self.remember(part);
            }
            self.missing -= 1;
            self.out_of_order += 1;
            self.received += 1;
        } else {
            self.repeated += 1;
        }
    }

    fn remember(&mut self, hole: Range<u64>) {
        if !hole.is_empty() {
            if self.holes.len() == HOLES_MAX {
                self.holes.remove(0);
            }
            self.holes.push(hole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(numbers: impl IntoIterator<Item = u64>) -> [u64; 4] {
        let mut tally = Tally::default();
        for number in numbers {
            tally.take(number);
        }
        [tally.received, tally.missing, tally.repeated, tally.out_of_order]
    }

    #[test]
    fn each_mistake_is_counted_as_what_it_is() {
        assert_eq!(tally(1..=1_000), [1_000, 0, 0, 0]);
        assert_eq!(tally([2, 3]), [2, 1, 0, 0], "the first is missing");
        assert_eq!(tally([1, 2, 2, 1, 3]), [3, 0, 2, 0]);
        assert_eq!(tally([1, 5]), [2, 3, 0, 0]);
        assert_eq!(tally([1, 5, 3, 3]), [3, 2, 1, 1]);
        assert_eq!(tally([1, 5, 3, 2, 4, 6]), [6, 0, 0, 3]);
    }

    #[test]
    fn whoever_counts_wrongly_on_purpose_costs_no_memory() {
        let mut tally = Tally::default();
        (1..5_000).for_each(|n| tally.take(2 * n));
        (1..5_000).for_each(|n| tally.take(NUMBER_MAX - 10_000 + 3 * (n % 3_000)));
        for n in (1..5_000).rev() {
            tally.take(n * 7 + 1);
        }
        assert!(tally.holes.len() <= HOLES_MAX, "{}", tally.holes.len());
        tally.take(NUMBER_MAX);
        assert!(tally.missing > 1 << 52);
    }
}
