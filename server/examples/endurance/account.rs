//! Numbered messages that follow from a seed, and what became of them.

use serde::{Deserialize, Serialize};
use throughline::Message;

use crate::rng::Rng;

/// The message at `index`: its number, and an end that follows from it. Most are small; every 500th is larger than a frame.
pub(crate) fn numbered(seed: u64, index: u32) -> Message {
    let mut rng = Rng::new(seed, index.into());
    let len = if index % 500 == 499 { 20_000 + rng.below(20_000) } else { rng.below(90) } as usize;
    if rng.below(2) == 0 {
        let mut body = index.to_be_bytes().to_vec();
        body.extend(rng.bytes(len));
        Message::from(body)
    } else {
        let mut body = format!("{index:08x}");
        body.extend(rng.bytes(len).into_iter().map(|byte| char::from(0xc0 + byte % 0x30))); // two bytes each: cut inside, too
        Message::from(body)
    }
}

/// The number that a message bears.
fn number(message: &Message) -> Option<u32> {
    match message.as_text() {
        Some(text) => u32::from_str_radix(text.get(..8)?, 16).ok(),
        None => Some(u32::from_be_bytes(message.as_bytes().get(..4)?.try_into().ok()?)),
    }
}

/// What arrived of the messages of one direction.
#[derive(Debug)]
pub(crate) struct Account {
    seed: u64,
    seen: Vec<bool>,
    next: u32,
    tally: Tally,
}

/// Counts of messages. `lost` is known at the end only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) reordered: u64,
    pub(crate) damaged: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.received += other.received;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.reordered += other.reordered;
        self.damaged += other.damaged;
    }

    /// Whether `count` messages arrived as they should.
    pub(crate) fn is_clean(&self, count: u64) -> bool {
        *self == Self { received: count, ..Self::default() }
    }
}

impl Account {
    pub(crate) fn new(seed: u64, count: u32) -> Self {
        Self { seed, seen: vec![false; count as usize], next: 0, tally: Tally::default() }
    }

    pub(crate) fn take(&mut self, message: &Message) {
        self.tally.received += 1;
        let Some(index) = number(message).filter(|index| (*index as usize) < self.seen.len()) else {
            self.tally.damaged += 1;
            return;
        };
        if *message != numbered(self.seed, index) {
            self.tally.damaged += 1;
        } else if std::mem::replace(&mut self.seen[index as usize], true) {
            self.tally.repeated += 1;
        } else if index < self.next {
            self.tally.reordered += 1;
        } else {
            self.next = index + 1;
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        let lost = self.seen.iter().filter(|seen| !**seen).count() as u64;
        Tally { lost, ..self.tally }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(indices: &[u32], count: u32) -> Tally {
        let mut account = Account::new(7, count);
        indices.iter().for_each(|index| account.take(&numbered(7, *index)));
        account.tally()
    }

    #[test]
    fn what_goes_wrong_is_told_by_its_name() {
        let clean = Tally { received: 3, ..Tally::default() };
        assert_eq!(account(&[0, 1, 2], 3), clean);
        assert!(clean.is_clean(3) && !clean.is_clean(4));
        assert_eq!(account(&[0, 2], 3), Tally { received: 2, lost: 1, ..Tally::default() });
        assert_eq!(account(&[0, 1, 1, 2], 3), Tally { received: 4, repeated: 1, ..Tally::default() });
        assert_eq!(account(&[0, 2, 1], 3), Tally { received: 3, reordered: 1, ..Tally::default() });
        let mut damaged = Account::new(7, 1);
        damaged.take(&numbered(8, 0));
        damaged.take(&Message::from("no number"));
        assert_eq!(damaged.tally(), Tally { received: 2, lost: 1, damaged: 2, ..Tally::default() });
    }
}
