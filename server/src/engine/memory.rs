//! The engine of a single node: channels live in its memory, and begin anew when it does.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use throughline_protocol::channel::Position;
use throughline_protocol::{Message, varint};
use tokio::time::Instant;

use super::{
    Change, Engine, EngineError, History, PUBLICATION_OVERHEAD, Page, Publication, Retention, Sink, State, Value,
};

/// Locks that keep the publications of one channel in order on their way to the sink. Many, so that channels with many subscribers seldom meet.
const LANES: usize = 64;

/// How often what is too old is looked for where nothing is published any more. Memory that waits for so long is none that anybody misses.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How much is forgotten at once, by whoever comes by: more than one publication adds, so that it never piles up, and too little to be felt.
const FORGET_AT_ONCE: usize = 16;

/// How much all channels together may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Channels, those that only their history keeps included.
    pub(crate) channels: usize,
    /// Bytes of all histories and values, counted as in [`Retention::bytes`].
    pub(crate) bytes: usize,
}

/// Channels in memory.
pub(crate) struct MemoryEngine {
    bounds: Bounds,
    sink: Arc<dyn Sink>,
    state: Mutex<Channels>,
    lanes: [Mutex<()>; LANES],
    hasher: std::hash::RandomState,
}

/// When something is to go, and a number that no other has.
type Due = (Instant, u64);

#[derive(Default)]
struct Channels {
    channels: HashMap<Arc<str>, Log>,
    /// All publications that are kept, in the order in which they go, by channel and offset.
    kept: BTreeMap<Due, (Arc<str>, u64)>,
    /// The channels that nobody is subscribed to, in the order in which they go.
    idle: BTreeMap<Due, Arc<str>>,
    /// Of all publications that are kept, and of all values.
    bytes: usize,
    last_due: u64,
}

/// One channel.
struct Log {
    epoch: u64,
    newest: u64,
    publications: VecDeque<Kept>,
    /// Of a channel of state.
    values: HashMap<Arc<str>, Value>,
    /// Of both.
    bytes: usize,
    /// How often it is subscribed to.
    subscribed: usize,
    /// Its place in [`Channels::idle`], when it is not.
    idle: Option<Due>,
    age: Duration,
}

struct Kept {
    publication: Arc<Publication>,
    due: Due,
}

impl MemoryEngine {
    pub(crate) fn new(bounds: Bounds, sink: Arc<dyn Sink>) -> Self {
        Self {
            bounds,
            sink,
            state: Mutex::default(),
            lanes: [const { Mutex::new(()) }; LANES],
            hasher: std::hash::RandomState::new(),
        }
    }

    fn publish_now(&self, channel: &str, message: Message, retention: Retention) -> Result<Position, EngineError> {
        let lane = self.lanes[self.hasher.hash_one(channel) as usize % LANES].lock();
        let mut state = self.state.lock();
        let now = Instant::now();
        state.forget(now, FORGET_AT_ONCE);
        let name = state.enter(channel, retention, now, self.bounds)?;
        let (position, publication, is_subscribed) = state.append(&name, message, retention, now);
        while state.bytes > self.bounds.bytes && state.forget_next() {}
        drop(state);
        if is_subscribed {
            self.sink.publication(channel, position.epoch, &publication);
        }
        drop(lane);
        Ok(position)
    }

    fn set_now(
        &self,
        channel: &str,
        key: &str,
        message: Option<Message>,
        retention: Retention,
    ) -> Result<Position, EngineError> {
        let lane = self.lanes[self.hasher.hash_one(channel) as usize % LANES].lock();
        let mut state = self.state.lock();
        let now = Instant::now();
        state.forget(now, FORGET_AT_ONCE);
        if message.is_none() && state.channels.get(channel).is_none_or(|log| !log.values.contains_key(key)) {
            return Ok(state.channels.get(channel).map(Log::position).unwrap_or_default());
        }
        let name = state.enter(channel, retention, now, self.bounds)?;
        let change = state.change(&name, key, message, retention, self.bounds)?;
        let log = state.channels.get_mut(&name).expect("it was entered");
        log.age = retention.age;
        let (position, is_subscribed) = (log.position(), log.subscribed > 0);
        if !is_subscribed {
            state.rest(&name, now);
        }
        drop(state);
        if is_subscribed {
            self.sink.change(channel, position.epoch, &change);
        }
        drop(lane);
        Ok(position)
    }

    fn subscribe_now(&self, channel: &str, retention: Retention) -> Result<Position, EngineError> {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.forget(now, FORGET_AT_ONCE);
        let name = state.enter(channel, retention, now, self.bounds)?;
        let Channels { channels, idle, .. } = &mut *state;
        let log = channels.get_mut(&name).expect("it was entered");
        log.subscribed += 1;
        log.idle.take().into_iter().for_each(|due| drop(idle.remove(&due)));
        Ok(log.position())
    }
}

impl Engine for MemoryEngine {
    fn publish<'a>(
        &'a self,
        channel: &'a str,
        message: Message,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Position, EngineError>> {
        async move { self.publish_now(channel, message, retention) }.boxed()
    }

    fn subscribe<'a>(&'a self, channel: &'a str, retention: Retention) -> BoxFuture<'a, Result<Position, EngineError>> {
        async move { self.subscribe_now(channel, retention) }.boxed()
    }

    fn unsubscribe(&self, channel: &str) {
        let mut state = self.state.lock();
        let Some(log) = state.channels.get_mut(channel) else { return };
        log.subscribed = log.subscribed.saturating_sub(1);
        if log.subscribed == 0 {
            state.rest(channel, Instant::now());
        }
    }

    fn history<'a>(
        &'a self,
        channel: &'a str,
        after: Option<Position>,
        page: Page,
    ) -> BoxFuture<'a, Result<History, EngineError>> {
        async move { Ok(self.state.lock().history(channel, after, page, Instant::now())) }.boxed()
    }

    fn set<'a>(
        &'a self,
        channel: &'a str,
        key: &'a str,
        message: Option<Message>,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Position, EngineError>> {
        async move { self.set_now(channel, key, message, retention) }.boxed()
    }

    fn values<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<State, EngineError>> {
        async move { Ok(self.state.lock().values(channel)) }.boxed()
    }

    fn run(&self) -> BoxFuture<'_, ()> {
        async {
            loop {
                tokio::time::sleep(SWEEP_INTERVAL).await;
                let now = Instant::now();
                while self.state.lock().forget(now, FORGET_AT_ONCE) {
                    tokio::task::yield_now().await;
                }
            }
        }
        .boxed()
    }
}

impl Channels {
    /// Finds a channel, or begins it, if need be in the place of the one that nobody has used for longest.
    fn enter(
        &mut self,
        channel: &str,
        retention: Retention,
        now: Instant,
        bounds: Bounds,
    ) -> Result<Arc<str>, EngineError> {
        if let Some((name, _)) = self.channels.get_key_value(channel) {
            return Ok(Arc::clone(name));
        }
        if self.channels.len() >= bounds.channels {
            let (_, name) = self.idle.pop_first().ok_or(EngineError::Full)?;
            self.remove(&name);
        }
        let name: Arc<str> = channel.into();
        self.channels.insert(Arc::clone(&name), Log::new(retention.age));
        self.rest(channel, now);
        Ok(name)
    }

    /// Nobody is subscribed to it: its time runs, from now on.
    fn rest(&mut self, channel: &str, now: Instant) {
        let Some((name, log)) = self.channels.get_key_value(channel) else { return };
        let (name, age, before) = (Arc::clone(name), log.age, log.idle);
        before.into_iter().for_each(|due| drop(self.idle.remove(&due)));
        let due = self.due(now + age);
        self.idle.insert(due, name);
        self.channels.get_mut(channel).into_iter().for_each(|log| log.idle = Some(due));
    }

    fn due(&mut self, at: Instant) -> Due {
        self.last_due += 1;
        (at, self.last_due)
    }

    fn append(
        &mut self,
        name: &Arc<str>,
        message: Message,
        retention: Retention,
        now: Instant,
    ) -> (Position, Arc<Publication>, bool) {
        let due = self.due(now + retention.age);
        let log = self.channels.get_mut(name).expect("it was entered");
        log.newest += 1;
        log.age = retention.age;
        let (position, is_subscribed) = (log.position(), log.subscribed > 0);
        let publication = Arc::new(Publication { offset: log.newest, message });
        let bytes = cost(&publication);
        log.publications.push_back(Kept { publication: Arc::clone(&publication), due });
        log.bytes += bytes;
        self.bytes += bytes;
        self.kept.insert(due, (Arc::clone(name), publication.offset));
        while let Some(log) = self.channels.get(name)
            && (log.publications.len() > retention.count || log.bytes > retention.bytes)
        {
            self.drop_oldest(name);
        }
        if !is_subscribed {
            self.rest(name, now);
        }
        (position, publication, is_subscribed)
    }

    /// Changes a value, if it may be as long as that, or removes it.
    fn change(
        &mut self,
        name: &Arc<str>,
        key: &str,
        message: Option<Message>,
        retention: Retention,
        bounds: Bounds,
    ) -> Result<Change, EngineError> {
        let log = self.channels.get(name).expect("it was entered");
        let old = log.values.get_key_value(key);
        if old.is_none() && log.values.len() >= retention.keys {
            return Err(EngineError::TooManyKeys);
        }
        let freed = old.map_or(0, |(_, value)| value_cost(key, &value.message));
        let taken = message.as_ref().map_or(0, |message| value_cost(key, message));
        let key = old.map_or_else(|| key.into(), |(key, _)| Arc::clone(key));
        if taken > freed {
            if log.bytes - freed + taken > retention.bytes {
                return Err(EngineError::TooLarge);
            }
            self.make_room(taken - freed, name, bounds)?;
        }
        let log = self.channels.get_mut(name).expect("it makes no room for itself");
        log.newest += 1;
        log.bytes = log.bytes - freed + taken;
        let change = Change { key: Arc::clone(&key), offset: log.newest, message };
        match &change.message {
            Some(message) => {
                let value = Value { key: Arc::clone(&key), offset: change.offset, message: message.clone() };
                log.values.insert(key, value);
            }
            None => {
                log.values.remove(&key);
                if log.values.is_empty() {
                    log.values = HashMap::new(); // the memory of many is given back
                }
            }
        }
        self.bytes = self.bytes - freed + taken;
        Ok(change)
    }

    /// Makes room for values: histories go first, then the channels that nobody uses. Values of others are not taken from those who use them.
    fn make_room(&mut self, bytes: usize, name: &Arc<str>, bounds: Bounds) -> Result<(), EngineError> {
        while self.bytes + bytes > bounds.bytes {
            if self.forget_next() {
                continue;
            }
            let next = self.idle.iter().find(|(_, idle)| *idle != name).map(|(due, _)| *due);
            let idle = next.and_then(|due| self.idle.remove(&due)).ok_or(EngineError::TooLarge)?;
            self.remove(&idle);
        }
        Ok(())
    }

    fn values(&self, channel: &str) -> State {
        let Some(log) = self.channels.get(channel) else {
            return State { position: Position::default(), values: Vec::new() };
        };
        let mut values: Vec<_> = log.values.values().cloned().collect();
        values.sort_unstable_by_key(|value| value.offset);
        State { position: log.position(), values }
    }

    fn drop_oldest(&mut self, channel: &str) {
        let Some(log) = self.channels.get_mut(channel) else { return };
        let Some(Kept { publication, due }) = log.publications.pop_front() else { return };
        log.bytes -= cost(&publication);
        self.bytes -= cost(&publication);
        self.kept.remove(&due);
        if log.publications.is_empty() {
            log.publications = VecDeque::new(); // a channel that is only remembered holds no buffer
        }
    }

    fn remove(&mut self, channel: &str) {
        while self.channels.get(channel).is_some_and(|log| !log.publications.is_empty()) {
            self.drop_oldest(channel);
        }
        let values = self.channels.remove(channel).map_or(0, |log| log.bytes);
        self.bytes -= values;
    }

    /// Forgets a publication before its time, to make room. False when there is none.
    fn forget_next(&mut self) -> bool {
        let Some((_, (channel, offset))) = self.kept.first_key_value() else { return false };
        let (channel, offset) = (Arc::clone(channel), *offset);
        self.drop_through(&channel, offset);
        true
    }

    /// Forgets what stands before this offset as well: a history has no holes.
    fn drop_through(&mut self, channel: &str, offset: u64) {
        while self.channels.get(channel).and_then(Log::oldest).is_some_and(|oldest| oldest <= offset) {
            self.drop_oldest(channel);
        }
    }

    /// Forgets what is too old, so many things at most. True when there may be more.
    fn forget(&mut self, now: Instant, at_most: usize) -> bool {
        for _ in 0..at_most {
            if self.kept.first_key_value().is_some_and(|(due, _)| due.0 <= now) {
                self.forget_next();
            } else if let Some(first) = self.idle.first_entry().filter(|first| first.key().0 <= now) {
                let name = first.remove();
                self.remove(&name);
            } else {
                if self.channels.is_empty() {
                    self.channels = HashMap::new(); // the memory of many channels is given back
                }
                return false;
            }
        }
        true
    }

    fn history(&mut self, channel: &str, after: Option<Position>, page: Page, now: Instant) -> History {
        // What is too old may be here still.
        while self.channels.get(channel).is_some_and(|log| log.oldest_due().is_some_and(|due| due.0 <= now)) {
            self.drop_oldest(channel);
        }
        let Some(log) = self.channels.get(channel) else {
            return History { newest: Position::default(), complete: after.is_none(), publications: Vec::new() };
        };
        let newest = log.position();
        let after = after.unwrap_or(Position { epoch: log.epoch, offset: 0 });
        if after.epoch != newest.epoch || after.offset > newest.offset {
            return History { newest, complete: false, publications: Vec::new() };
        }
        let first = newest.offset + 1 - log.publications.len() as u64;
        let skipped = (after.offset + 1).saturating_sub(first) as usize;
        let kept = log.publications.iter().skip(skipped);
        let mut publications = if page.newest { fitting(kept.rev(), page) } else { fitting(kept, page) };
        let begins = if page.newest {
            publications.reverse();
            publications.first().map_or(newest.offset + 1, |oldest| oldest.offset)
        } else {
            first
        };
        History { newest, complete: after.offset + 1 >= begins, publications }
    }
}

impl Log {
    fn new(age: Duration) -> Self {
        Self {
            epoch: epoch(),
            newest: 0,
            publications: VecDeque::new(),
            values: HashMap::new(),
            bytes: 0,
            subscribed: 0,
            idle: None,
            age,
        }
    }

    fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.newest }
    }

    fn oldest(&self) -> Option<u64> {
        self.publications.front().map(|kept| kept.publication.offset)
    }

    fn oldest_due(&self) -> Option<Due> {
        self.publications.front().map(|kept| kept.due)
    }
}

/// The first of these, as many as a page takes.
fn fitting<'a>(kept: impl Iterator<Item = &'a Kept>, page: Page) -> Vec<Arc<Publication>> {
    let mut bytes = 0;
    let publications = kept.take(page.publications).enumerate().map_while(|(index, kept)| {
        bytes += kept.publication.message.len();
        (index == 0 || bytes <= page.bytes).then(|| Arc::clone(&kept.publication))
    });
    publications.collect()
}

fn value_cost(key: &str, message: &Message) -> usize {
    key.len() + message.len() + PUBLICATION_OVERHEAD
}

fn cost(publication: &Publication) -> usize {
    publication.message.len() + PUBLICATION_OVERHEAD
}

/// An epoch that this channel has not had before, on this server or on the one that ran here yesterday.
fn epoch() -> u64 {
    let mut bytes = [0; 8];
    // Linux has randomness as soon as it has booted.
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    u64::from_be_bytes(bytes) % varint::MAX + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::conformance::{self, Taken};

    const ROOMY: Retention = Retention { count: 100, bytes: 1 << 20, age: Duration::from_secs(60), keys: 100 };
    const ALL: Page = Page { publications: usize::MAX, bytes: usize::MAX, newest: false };

    fn engine(channels: usize, bytes: usize) -> MemoryEngine {
        MemoryEngine::new(Bounds { channels, bytes }, Arc::new(Taken::default()))
    }

    async fn publish(
        engine: &MemoryEngine,
        channel: &str,
        message: impl Into<Message>,
        retention: Retention,
    ) -> Position {
        engine.publish(channel, message.into(), retention).await.expect("there is room")
    }

    async fn offsets(engine: &MemoryEngine, channel: &str) -> Vec<u64> {
        let history = engine.history(channel, None, ALL).await.expect("it is always there");
        history.publications.iter().map(|publication| publication.offset).collect()
    }

    /// What the engine holds: channels, publications, bytes, and entries of both orders.
    fn held(engine: &MemoryEngine) -> [usize; 5] {
        let state = engine.state.lock();
        let publications = state.channels.values().map(|log| log.publications.len()).sum();
        assert_eq!(state.bytes, state.channels.values().map(|log| log.bytes).sum::<usize>());
        [state.channels.len(), publications, state.bytes, state.kept.len(), state.idle.len()]
    }

    #[tokio::test]
    async fn it_is_an_engine() {
        conformance::conformance(|sink| async {
            Arc::new(MemoryEngine::new(Bounds { channels: 1_000, bytes: 1 << 24 }, sink)) as Arc<dyn Engine>
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn publications_grow_old_and_channels_are_forgotten() {
        let engine = engine(10, 1 << 20);
        let first = publish(&engine, "a", "one", ROOMY).await;
        tokio::time::advance(Duration::from_secs(59)).await;
        publish(&engine, "a", "two", ROOMY).await;
        assert_eq!(offsets(&engine, "a").await, [1, 2]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(offsets(&engine, "a").await, [2], "the first is a minute old");
        let history = engine.history("a", Some(Position { offset: 0, ..first }), ALL).await.unwrap();
        assert!(!history.complete);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(!engine.state.lock().forget(Instant::now(), usize::MAX));
        assert_eq!(held(&engine), [0; 5]);
        let again = publish(&engine, "a", "three", ROOMY).await;
        assert_eq!(again.offset, 1);
        assert_ne!(again.epoch, first.epoch, "a count that began anew has an epoch of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_is_published_any_more_it_forgets_by_itself() {
        let engine = Arc::new(engine(1_000, 1 << 20));
        for channel in 0..1_000 {
            publish(&engine, &channel.to_string(), "x", ROOMY).await;
        }
        let running = tokio::spawn({
            let engine = Arc::clone(&engine);
            async move { engine.run().await }
        });
        tokio::time::sleep(ROOMY.age + 2 * SWEEP_INTERVAL).await; // simulated
        assert_eq!(held(&engine), [0; 5]);
        assert_eq!(engine.state.lock().channels.capacity(), 0);
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_with_subscribers_is_remembered_when_its_publications_are_gone() {
        let engine = engine(1, 1 << 20);
        let before = publish(&engine, "a", "one", ROOMY).await;
        assert_eq!(engine.subscribe("a", ROOMY).await, Ok(before));
        tokio::time::advance(ROOMY.age).await;
        assert!(!engine.state.lock().forget(Instant::now(), usize::MAX));
        assert_eq!(held(&engine), [1, 0, 0, 0, 0]);
        assert_eq!(engine.publish("b", "x".into(), ROOMY).await, Err(EngineError::Full));
        assert_eq!(engine.subscribe("b", ROOMY).await, Err(EngineError::Full));
        engine.unsubscribe("a");
        assert_eq!(publish(&engine, "a", "two", ROOMY).await, Position { offset: 2, ..before });
    }

    #[tokio::test(start_paused = true)]
    async fn the_channel_that_nobody_used_for_longest_makes_way() {
        let engine = engine(3, 1 << 20);
        for channel in ["a", "b", "c"] {
            publish(&engine, channel, "x", ROOMY).await;
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        publish(&engine, "a", "x", ROOMY).await;
        publish(&engine, "d", "x", ROOMY).await;
        assert!(offsets(&engine, "b").await.is_empty());
        assert_eq!(offsets(&engine, "a").await, [1, 2]);
        assert_eq!(held(&engine), [3, 4, 4 * (1 + PUBLICATION_OVERHEAD), 4, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_histories_together_are_bounded() {
        let each = 100 + PUBLICATION_OVERHEAD;
        let engine = engine(10, 5 * each);
        for channel in ["a", "b", "a", "b", "a"] {
            publish(&engine, channel, vec![0; 100], ROOMY).await;
        }
        assert_eq!(held(&engine), [2, 5, 5 * each, 5, 2]);
        publish(&engine, "c", vec![0; 100], ROOMY).await;
        assert_eq!(offsets(&engine, "a").await, [2, 3], "the oldest of all went");
        assert_eq!(held(&engine), [3, 5, 5 * each, 5, 3]);
        publish(&engine, "c", vec![0; 5 * each], ROOMY).await;
        assert_eq!(held(&engine), [3, 0, 0, 0, 3], "one that is too long for all of it is not kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_publication_that_outlives_those_before_it_does_not_hold_them() {
        let engine = engine(10, 1 << 20);
        let brief = Retention { age: Duration::from_secs(1), ..ROOMY };
        publish(&engine, "a", "long", ROOMY).await;
        publish(&engine, "a", "brief", brief).await;
        publish(&engine, "a", "long", ROOMY).await;
        tokio::time::advance(Duration::from_secs(1)).await;
        engine.state.lock().forget(Instant::now(), usize::MAX);
        assert_eq!(offsets(&engine, "a").await, [3], "a history has no holes");
    }

    async fn set(engine: &MemoryEngine, channel: &str, key: &str, len: usize) -> Result<Position, EngineError> {
        engine.set(channel, key, Some(vec![0; len].into()), ROOMY).await
    }

    /// What a value of 99 bytes costs whose key has one.
    const VALUE: usize = 100 + PUBLICATION_OVERHEAD;

    #[tokio::test(start_paused = true)]
    async fn values_do_not_age_and_go_with_their_channel() {
        let engine = engine(10, 1 << 20);
        engine.subscribe("a", ROOMY).await.unwrap();
        let first = set(&engine, "a", "x", 99).await.unwrap();
        set(&engine, "b", "x", 99).await.unwrap();
        tokio::time::advance(ROOMY.age).await;
        assert!(!engine.state.lock().forget(Instant::now(), usize::MAX));
        assert_eq!(held(&engine), [1, 0, VALUE, 0, 0], "nobody has used b");
        engine.unsubscribe("a");
        tokio::time::advance(ROOMY.age).await;
        engine.state.lock().forget(Instant::now(), usize::MAX);
        assert_eq!(held(&engine), [0; 5]);
        assert_ne!(set(&engine, "a", "x", 99).await.unwrap().epoch, first.epoch);
    }

    #[tokio::test(start_paused = true)]
    async fn values_take_the_room_of_histories_and_of_channels_that_nobody_uses_but_of_no_others() {
        let engine = engine(10, 4 * VALUE);
        engine.subscribe("a", ROOMY).await.unwrap();
        publish(&engine, "log", vec![0; 100], ROOMY).await;
        set(&engine, "idle", "x", 99).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        for key in ["1", "2", "3"] {
            set(&engine, "a", key, 99).await.unwrap();
        }
        assert!(offsets(&engine, "log").await.is_empty(), "a history went first");
        assert_eq!(held(&engine), [3, 0, 4 * VALUE, 0, 2]);
        set(&engine, "a", "4", 99).await.unwrap();
        assert_eq!(engine.values("idle").await.unwrap().values, []);
        assert_eq!(set(&engine, "a", "5", 0).await, Err(EngineError::TooLarge));
        assert_eq!(set(&engine, "b", "1", 0).await, Err(EngineError::TooLarge), "who came first keeps his");
        set(&engine, "a", "4", 98).await.expect("it becomes shorter");
        assert_eq!(engine.values("a").await.unwrap().values.len(), 4);
        publish(&engine, "log", vec![0; 100], ROOMY).await;
        assert!(offsets(&engine, "log").await.is_empty(), "there is no room for histories");
        let newest = engine.set("a", "1", None, ROOMY).await.unwrap();
        assert_eq!(newest.offset, 6);
        publish(&engine, "log", vec![0; 10], ROOMY).await;
        assert_eq!(offsets(&engine, "log").await.len(), 1);
    }
}
