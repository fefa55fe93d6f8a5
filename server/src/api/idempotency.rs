//! What was done already: a back end that does not know whether it was heard asks again with the same key, and gets the first answer.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// What the answers take at most, in bytes: those of a broadcast are long, and the oldest go sooner then.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Whose key it is, by the number of the API key, and the key: two back ends do not meet.
pub(super) type Name = (usize, String);

/// What was asked for, in short.
pub(super) type Fingerprint = [u8; 32];

/// Where the first answer is, or will be.
pub(super) type Slot = Arc<OnceCell<Bytes>>;

/// The keys of the last while.
pub(super) struct Remembered {
    age: Duration,
    max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<Name, Entry>,
    /// As they came, with their time.
    order: VecDeque<(Instant, Name)>,
    bytes: usize,
}

struct Entry {
    fingerprint: Fingerprint,
    slot: Slot,
    /// Of its answer, once it is there.
    bytes: usize,
}

/// The key was used with something else.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mismatch;

impl Remembered {
    /// Keys are forgotten after this age, and the oldest when there are more than `max`.
    pub(super) fn new(age: Duration, max: usize) -> Self {
        Self { age, max, state: Mutex::default() }
    }

    /// The slot of a key. Whoever fills it did what was asked for; all others wait for that.
    pub(super) fn slot(&self, name: Name, fingerprint: Fingerprint) -> Result<Slot, Mismatch> {
        let mut state = self.state.lock();
        let now = Instant::now();
        while state.order.front().is_some_and(|(began, _)| *began + self.age <= now) {
            state.forget_oldest();
        }
        if let Some(entry) = state.entries.get(&name) {
            return if entry.fingerprint == fingerprint { Ok(Arc::clone(&entry.slot)) } else { Err(Mismatch) };
        }
        while state.entries.len() >= self.max {
            state.forget_oldest();
        }
        let slot = Slot::default();
        state.order.push_back((now, name.clone()));
        state.entries.insert(name, Entry { fingerprint, slot: Arc::clone(&slot), bytes: 0 });
        Ok(slot)
    }

    /// Counts an answer that was put into a slot.
    pub(super) fn filled(&self, name: &Name, slot: &Slot) {
        let bytes = slot.get().map_or(0, Bytes::len);
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(name).filter(|entry| Arc::ptr_eq(&entry.slot, slot)) else { return };
        let before = std::mem::replace(&mut entry.bytes, bytes);
        state.bytes = state.bytes + bytes - before;
        while state.bytes > MAX_BYTES {
            state.forget_oldest();
        }
    }
}

impl State {
    fn forget_oldest(&mut self) {
        let Some((_, name)) = self.order.pop_front() else { return };
        self.bytes -= self.entries.remove(&name).map_or(0, |entry| entry.bytes);
        if self.entries.is_empty() {
            *self = Self::default(); // the memory of many is given back
        }
    }
}

/// Of what is done, and with what.
pub(super) fn fingerprint(what: &str, with: &[u8]) -> Fingerprint {
    Sha256::new().chain_update(what).chain_update([0]).chain_update(with).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(key: &str) -> Name {
        (0, key.to_owned())
    }

    fn fill(remembered: &Remembered, key: &str, len: usize) {
        let slot = remembered.slot(name(key), [0; 32]).unwrap();
        slot.set(vec![0; len].into()).unwrap();
        remembered.filled(&name(key), &slot);
    }

    fn is_known(remembered: &Remembered, key: &str) -> bool {
        remembered.state.lock().entries.contains_key(&name(key))
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_one_thing_for_its_time() {
        let remembered = Remembered::new(Duration::from_secs(60), 10);
        let slot = remembered.slot(name("a"), [1; 32]).unwrap();
        assert_eq!(remembered.slot(name("a"), [2; 32]).err(), Some(Mismatch));
        assert!(Arc::ptr_eq(&remembered.slot(name("a"), [1; 32]).unwrap(), &slot));
        remembered.slot((1, "a".into()), [2; 32]).unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        let again = remembered.slot(name("a"), [2; 32]).unwrap();
        assert!(!Arc::ptr_eq(&again, &slot));
        assert_eq!(remembered.state.lock().order.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_keys_and_bytes_are_remembered_and_no_more() {
        let remembered = Remembered::new(Duration::from_secs(60), 3);
        for key in ["a", "b", "c", "d"] {
            fill(&remembered, key, 10);
        }
        assert!(!is_known(&remembered, "a") && is_known(&remembered, "b"));
        fill(&remembered, "e", MAX_BYTES - 10);
        assert!(!is_known(&remembered, "c") && is_known(&remembered, "d") && is_known(&remembered, "e"));
        fill(&remembered, "f", MAX_BYTES + 1);
        let state = remembered.state.lock();
        assert_eq!((state.entries.len(), state.order.len(), state.bytes), (0, 0, 0), "it takes too much by itself");
    }
}
