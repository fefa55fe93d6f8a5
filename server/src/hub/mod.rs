//! The channels of this node: who is subscribed, how far each subscriber is, and who may do what.
//!
//! A subscriber is a cursor: the offset of what it was given last. One that is at the head is given a publication as it comes; one that has no room falls behind, and
//! nothing is queued for it: it reads the engine's history when it has room again, until it has caught up. Recovery is the same, begun in the past.
//!
//! Locks are taken in this order, and each for a moment: the map of topics, a topic, a subscriber, a session's machine.

mod channel;
mod encoded;
mod error;
mod log;
mod page;
mod permission;
mod presence;
mod rate;
mod reader;

mod state;
mod stats;
mod subscriber;
#[cfg(test)]
mod tests;
mod topic;

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use throughline_protocol::channel::{self as names, PRESENCE_PREFIX};
use throughline_protocol::limits::{MAX_CHANNEL_OVERHEAD, MAX_PAGE};
use throughline_protocol::{ChannelCode, ChannelMessage, Close, SessionId};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{ChannelsConfig, Kind, Namespace};
use crate::engine::{Change, Engine, EngineError, Retention, Sink};
pub(crate) use crate::engine::{Publication, State as Held, Value as HeldValue};
use crate::session::channels::ChannelHandler;
use crate::session::flusher::{Due, Flusher, Turn};
use crate::session::{Identity, Session};
pub use channel::{Channel, ChannelInfo, HistoryQuery, Member};
use encoded::Encoded;
use error::Failure;
pub use error::{HistoryError, PublishError, SubscribeError};
use log::Delivery;
pub(crate) use permission::Authorize;
pub use permission::{Action, Denied};
use presence::Presence;
use rate::Rate;
pub(crate) use reader::values::{ValueItem, ValueReader};
pub(crate) use reader::{Item, ReadError, Reader};
use stats::Counters;
pub use stats::HubStats;
use subscriber::{Subscriber, Subscription};
use topic::{Body, Topic};

/// The channels of a server. Clones are handles to the same ones.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    config: ChannelsConfig,
    authorize: Option<Authorize>,
    engine: Arc<dyn Engine>,
    /// The channels with subscribers.
    topics: RwLock<HashMap<Arc<str>, Arc<Topic>>>,
    /// The number that was given to a topic last.
    last_number: AtomicU64,
    /// What those read who are behind.
    encoded: Encoded,
    /// Who is subscribed, as far as others have not been told.
    presence: Presence,
    counters: Arc<Counters>,
    /// Writes to those at the head of a log.
    flusher: Arc<Flusher>,
    /// Longest body of a PAGE, in bytes.
    max_page: usize,
    /// The sessions that have asked for something.
    subscribers: Mutex<HashMap<SessionId, Arc<Subscriber>>>,
    /// What is done for sessions, at most two for each; for channels of state, at most two for each; and one for presence.
    tasks: TaskTracker,
    ended: CancellationToken,
    runtime: Handle,
}

impl Hub {
    /// A hub whose engine `make` makes, for sessions with messages of up to `max_message` bytes. What it does ends with `ended`. Called in a runtime, which does its work.
    pub(crate) fn new(
        config: ChannelsConfig,
        max_message: usize,
        authorize: Option<Authorize>,
        flusher: Arc<Flusher>,
        ended: CancellationToken,
        make: impl FnOnce(Arc<dyn Sink>) -> Arc<dyn Engine>,
    ) -> Self {
        Self(Arc::new_cyclic(|inner: &Weak<Inner>| Inner {
            config,
            authorize,
            engine: make(Arc::new(Arrivals(Weak::clone(inner)))),
            topics: RwLock::default(),
            last_number: AtomicU64::new(0),
            encoded: Encoded::default(),
            presence: Presence::default(),
            counters: Arc::default(),
            flusher,
            max_page: max_message.saturating_add(MAX_CHANNEL_OVERHEAD).min(MAX_PAGE),
            subscribers: Mutex::default(),
            tasks: TaskTracker::new(),
            ended,
            runtime: Handle::current(),
        }))
    }

    /// A channel by its name: 1 to 255 bytes of UTF-8 without control characters. What comes before the first `:` is its namespace.
    pub fn channel(&self, name: impl Into<Arc<str>>) -> Channel {
        Channel::new(Arc::clone(&self.0), name.into())
    }

    /// The channels whose names begin with `prefix` and that have subscribers on this server, sorted by name: at most `limit`, those after the name `after`.
    pub fn channels(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<ChannelInfo> {
        let topics = self.0.topics.read();
        let is_meant = |name: &str| name.starts_with(prefix) && after.is_none_or(|after| name > after);
        let mut meant: Vec<_> = topics.values().filter(|topic| is_meant(&topic.name)).cloned().collect();
        drop(topics);
        meant.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let infos =
            meant.iter().map(|topic| ChannelInfo { name: Arc::clone(&topic.name), subscribers: topic.subscribers() });
        infos.filter(|info| info.subscribers > 0).take(limit).collect()
    }

    /// What has been counted so far.
    pub fn stats(&self) -> HubStats {
        self.0.counters.stats()
    }

    /// Whether somebody may do that: the same rules for sessions and for those without one. The name of the channel was checked.
    pub(crate) fn authorize(&self, who: &Identity, action: Action<'_>) -> Result<(), Denied> {
        self.0.authorize(who, action)
    }

    /// What the sessions of this hub tell it.
    pub(crate) fn handler(&self) -> Arc<dyn ChannelHandler> {
        Arc::new(self.clone())
    }

    /// What has to run beside for as long as the server.
    pub(crate) fn run(&self) -> impl Future<Output = ()> + use<> {
        let engine = Arc::clone(&self.0.engine);
        async move { engine.run().await }
    }

    /// Waits until nothing is being done for a session any more.
    pub(crate) async fn settled(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("topics", &self.0.topics.read().len()).finish_non_exhaustive()
    }
}

impl Session {
    /// The channels of the server.
    ///
    /// # Panics
    /// Not in a session of a [`Server`](crate::Server): there it always has one.
    pub fn hub(&self) -> Hub {
        let handler: Option<&dyn Any> = self.channel_handler().map(|handler| &**handler as &dyn Any);
        handler.and_then(|handler| handler.downcast_ref::<Hub>()).expect("a server gives its sessions its hub").clone()
    }
}

impl Inner {
    fn namespace(&self, name: &str) -> Namespace {
        let Some(of) = name.strip_prefix(PRESENCE_PREFIX) else {
            return self.config.namespace(names::namespace(name));
        };
        // As much as the other channel may have; and nobody but the hub writes there.
        let of = self.config.namespace(names::namespace(of));
        Namespace { kind: Kind::State, subscribe: false, publish: false, history: false, presence: false, ..of }
    }

    /// The subscriber of a session, which is one from now on.
    fn subscriber(&self, session: &Session) -> Arc<Subscriber> {
        let mut subscribers = self.subscribers.lock();
        let subscriber = subscribers.entry(session.id());
        Arc::clone(subscriber.or_insert_with(|| Subscriber::new(session.clone(), Rate::new(&self.config))))
    }

    /// Whether the session may ask that at all.
    fn check(&self, subscriber: &Subscriber, request: &ChannelMessage) -> Result<(), Failure> {
        let (channel, action) = match request {
            ChannelMessage::Subscribe { channel, .. } => (channel, Some(Action::Subscribe { channel })),
            ChannelMessage::Publish { channel, .. } | ChannelMessage::Set { channel, .. } => {
                if !subscriber.rate.allows() {
                    self.counters.too_fast.add(1);
                    let max = self.config.publishes_per_second;
                    return Err((ChannelCode::TooFast, format!("a session may publish {max} times per second")));
                }
                (channel, Some(Action::Publish { channel }))
            }
            ChannelMessage::History { channel, .. } => (channel, Some(Action::History { channel })),
            ChannelMessage::Unsubscribe { channel, .. } => (channel, None),
            _ => return Ok(()),
        };
        if !names::is_name(channel) {
            return Err((ChannelCode::BadChannel, PublishError::BadChannel.to_string()));
        }
        let authorized = action.map_or(Ok(()), |action| self.authorize(&subscriber.session.identity(), action));
        authorized.map_err(|denied| (ChannelCode::NotAllowed, denied.reason))
    }

    /// A subscription is over.
    fn left(self: &Arc<Self>, gone: &Subscription) {
        self.counters.subscriptions.sub(1);
        gone.member.iter().for_each(|member| self.tell_presence(member, None));
    }

    /// The topic of a channel, for somebody who is about to subscribe: it stays until [`Inner::release`] is called.
    fn join(&self, name: &str) -> Arc<Topic> {
        let mut topics = self.topics.write();
        if let Some(topic) = topics.get(name) {
            topic.join();
            return Arc::clone(topic);
        }
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let (namespace, presence, threads) = (self.namespace(name), self.presence_name(name), self.flusher.threads());
        let topic = Topic::new(name, number, namespace, presence, threads, &self.counters);
        let topic = Arc::new(topic);
        topic.join();
        topics.insert(Arc::clone(&topic.name), Arc::clone(&topic));
        topic
    }

    /// Begins to get what is published in a channel, unless that has begun.
    async fn start(self: &Arc<Self>, topic: &Arc<Topic>) -> Result<(), EngineError> {
        let start = async {
            let retention = retention(&topic.namespace);
            let position = self.engine.subscribe(&topic.name, retention).await?;
            if let Some(presence) = &topic.presence {
                // So that it is not forgotten while there are members.
                let kept = self.engine.subscribe(presence, retention).await;
                kept.inspect_err(|_| self.engine.unsubscribe(&topic.name))?;
            }
            if let Body::Log(log) = &topic.body {
                log.started_at(position);
            }
            Ok(())
        };
        topic.started.get_or_try_init(|| start).await?;
        match &topic.body {
            Body::State(state) if !state.is_whole() => self.read_state(topic, state).await,
            _ => Ok(()),
        }
    }

    /// Reads what the engine keeps of a channel of state.
    async fn read_state(self: &Arc<Self>, topic: &Arc<Topic>, state: &state::State) -> Result<(), EngineError> {
        let values = self.engine.values(&topic.name).await?;
        self.follow(topic, state.install(values));
        Ok(())
    }

    /// Does what follows from a change of a channel of state.
    fn follow(self: &Arc<Self>, topic: &Arc<Topic>, delivered: state::Delivered) {
        delivered.fallen.iter().for_each(|subscriber| subscriber.fall_behind(self, topic));
        if delivered.settle {
            self.spawn(Arc::clone(self).settle(Arc::clone(topic)));
        }
        if delivered.read {
            self.spawn(Arc::clone(self).read_again(Arc::clone(topic)));
        }
    }

    /// Sends what has not changed for a while once more, until there is nothing.
    async fn settle(self: Arc<Self>, topic: Arc<Topic>) {
        let Body::State(state) = &topic.body else { return };
        loop {
            let (fallen, next) = state.settle();
            fallen.iter().for_each(|subscriber| subscriber.fall_behind(&self, &topic));
            let Some(next) = next else { return };
            tokio::time::sleep_until(next).await;
        }
    }

    /// A log has something for those at its head, in one of its shards.
    fn write_soon(self: &Arc<Self>, topic: &Arc<Topic>, shard: usize) {
        let (key, topic) = (topic.number as usize + shard, Arc::clone(topic));
        self.flusher.add(key, Arc::new(Written { hub: Arc::downgrade(self), topic, shard }));
    }

    /// The same, when it has enough of it.
    fn write_now(self: &Arc<Self>, topic: &Arc<Topic>, shard: usize) {
        let mut turn = Turn::default();
        while !self.write(topic, shard, &mut turn) {
            turn.begin();
        }
    }

    fn write(self: &Arc<Self>, topic: &Arc<Topic>, shard: usize, turn: &mut Turn) -> bool {
        let Body::Log(log) = &topic.body else { return true };
        let (fallen, is_done) = log.write(shard, turn);
        fallen.iter().for_each(|subscriber| subscriber.fall_behind(self, topic));
        is_done
    }

    /// Something was missed.
    async fn read_again(self: Arc<Self>, topic: Arc<Topic>) {
        let Body::State(state) = &topic.body else { return };
        if self.read_state(&topic, state).await.is_err() {
            let end = (ChannelCode::Unavailable, "the values cannot be read".into());
            state.fail(&end).iter().for_each(|subscriber| subscriber.fall_behind(&self, &topic));
        }
    }

    /// Who had [joined](Inner::join) is subscribed, or will not be.
    fn release(&self, topic: &Topic) {
        topic.leave();
        self.tidy(topic);
    }

    /// Forgets a topic that nobody is subscribed to. Its number is never used again.
    fn tidy(&self, topic: &Topic) {
        let mut topics = self.topics.write();
        let is_current = topics.get(&topic.name).is_some_and(|current| std::ptr::eq(&**current, topic));
        if !is_current || !topic.is_unused() {
            return;
        }
        topics.remove(&topic.name);
        if topic.started.initialized() {
            self.engine.unsubscribe(&topic.name);
            topic.presence.iter().for_each(|presence| self.engine.unsubscribe(presence));
        }
        if topics.is_empty() {
            *topics = HashMap::new(); // the memory of many topics is given back
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        let task = async move {
            tokio::select! {
                () = task => {}
                () = ended.cancelled() => {}
            }
        };
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Nothing comes of a session any more.
    fn closed(self: &Arc<Self>, session: &Session) {
        let subscriber = {
            let mut subscribers = self.subscribers.lock();
            let subscriber = subscribers.remove(&session.id());
            if subscribers.is_empty() {
                *subscribers = HashMap::new(); // the memory of many is given back
            }
            subscriber
        };
        for gone in subscriber.iter().flat_map(|subscriber| subscriber.end()) {
            gone.topic.remove(session.id());
            self.left(&gone);
            self.tidy(&gone.topic);
        }
    }
}

impl ChannelHandler for Hub {
    fn handle(&self, session: &Session, request: ChannelMessage) -> Result<(), Close> {
        let Some(number) = request.request() else { return Ok(()) };
        let subscriber = self.0.subscriber(session);
        match self.0.check(&subscriber, &request) {
            Ok(()) => subscriber.ask(&self.0, request),
            Err((code, reason)) => session.answer(&ChannelMessage::failed(number, code, reason)),
        }
        Ok(())
    }

    fn refreshed(&self, session: &Session) {
        let subscriber = self.0.subscribers.lock().get(&session.id()).cloned();
        subscriber.iter().for_each(|subscriber| subscriber.review(&self.0));
    }

    fn closed(&self, session: &Session) {
        self.0.closed(session);
    }
}

/// Where the engine's publications arrive. Knows the hub weakly, since the hub owns the engine.
struct Arrivals(Weak<Inner>);

impl Sink for Arrivals {
    fn publication(&self, channel: &str, epoch: u64, publication: &Publication) {
        let Some(hub) = self.0.upgrade() else { return };
        let topic = hub.topics.read().get(channel).cloned();
        if let Some(topic) = topic
            && let Body::Log(log) = &topic.body
        {
            log.deliver(epoch, publication, |shard, delivery| match delivery {
                Delivery::None => {}
                Delivery::Fallen(fallen) => fallen.iter().for_each(|one| one.fall_behind(&hub, &topic)),
                Delivery::Soon => hub.write_soon(&topic, shard),
                Delivery::Now => hub.write_now(&topic, shard),
            });
        }
    }

    fn change(&self, channel: &str, epoch: u64, change: &Change) {
        let Some(hub) = self.0.upgrade() else { return };
        let topic = hub.topics.read().get(channel).cloned();
        if let Some(topic) = topic
            && let Body::State(state) = &topic.body
        {
            hub.follow(&topic, state.deliver(epoch, change));
        }
    }
}

/// A shard of a log that has something for those at its head.
struct Written {
    hub: Weak<Inner>,
    topic: Arc<Topic>,
    shard: usize,
}

impl Due for Written {
    fn write(&self, turn: &mut Turn) -> bool {
        self.hub.upgrade().is_none_or(|hub| hub.write(&self.topic, self.shard, turn))
    }
}

fn retention(namespace: &Namespace) -> Retention {
    Retention {
        count: namespace.history_count,
        bytes: namespace.history_bytes,
        age: namespace.history_age,
        keys: namespace.max_keys,
    }
}
