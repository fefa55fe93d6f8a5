//! The channels of this node: who is subscribed, how far each subscriber is, and who may do what.
//!
//! A subscriber is a cursor: the offset of what it was given last. One that is at the head is given a publication as it comes; one that has no room falls behind, and
//! nothing is queued for it: it reads the engine's history when it has room again, until it has caught up. Recovery is the same, begun in the past.
//!
//! Locks are taken in this order, and each for a moment: the map of topics, a topic, a subscriber, a session's machine.

mod encoded;
mod reader;
mod subscriber;
#[cfg(test)]
mod tests;
mod topic;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use throughline_protocol::channel::{self, Position};
use throughline_protocol::{ChannelCode, ChannelMessage, Close, Message, SessionId};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{ChannelsConfig, Namespace};
pub(crate) use crate::engine::Publication;
use crate::engine::{Engine, EngineError, History, Page, Retention, Sink};
use crate::session::channels::ChannelHandler;
use crate::session::{Identity, Session};
use encoded::Encoded;
pub(crate) use reader::{Item, ReadError, Reader};
use subscriber::Subscriber;
use topic::Topic;

/// The channels of a server. Clones are handles to the same ones.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

/// One channel, whether there are subscribers or not.
#[derive(Clone)]
pub struct Channel {
    hub: Arc<Inner>,
    name: Arc<str>,
}

/// What a client wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// To get what is published in a channel from now on, and what it keeps.
    Subscribe {
        /// Its name, which is one.
        channel: &'a str,
    },
    /// To publish in a channel.
    Publish {
        /// Its name, which is one.
        channel: &'a str,
    },
}

impl Action<'_> {
    /// Whether the channel's namespace allows that to every client: what counts without [`Builder::authorize`](crate::Builder::authorize), and what a decision of
    /// one's own may begin with.
    ///
    /// # Errors
    /// [`Denied`], if it does not.
    pub fn allowed_by(self, channels: &ChannelsConfig) -> Result<(), Denied> {
        let namespace = |name| channels.namespace(channel::namespace(name));
        let (is_allowed, what) = match self {
            Action::Subscribe { channel } => (namespace(channel).subscribe, "subscribe to"),
            Action::Publish { channel } => (namespace(channel).publish, "publish in"),
        };
        if is_allowed { Ok(()) } else { Err(Denied::new(format!("clients may not {what} this channel"))) }
    }
}

/// Why a client may not do what it wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Denied {
    reason: String,
}

impl Denied {
    /// With a reason for a person: the client gets it.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// Decides what a client may do.
pub(crate) type Authorize = Box<dyn Fn(&Identity, Action<'_>) -> Result<(), Denied> + Send + Sync>;

/// Why [`Channel::publish`] did not publish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The channel's name is none.
    #[error("not a name of a channel: it takes 1 to 255 bytes, without control characters")]
    BadChannel,
    /// The publication is longer than `channels.max_publication_bytes`.
    #[error("a publication of {len} bytes; at most {max} are allowed")]
    TooLarge {
        /// Its length, in bytes.
        len: usize,
        /// The longest allowed, in bytes.
        max: usize,
    },
    /// There are `channels.max_channels` with subscribers.
    #[error("the server has no room for a further channel")]
    TooManyChannels,
    /// What keeps the channels cannot be reached. It may have been published in spite of that; publishing it again may repeat it.
    #[error("what keeps the channels cannot be reached: {0}")]
    Unavailable(String),
}

/// Why [`Channel::history`] could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The channel's name is none.
    #[error("not a name of a channel: it takes 1 to 255 bytes, without control characters")]
    BadChannel,
    /// What keeps the channels cannot be reached. Asking again later may help.
    #[error("what keeps the channels cannot be reached: {0}")]
    Unavailable(String),
}

/// Why a request fails, as the client is told.
type Failure = (ChannelCode, String);

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
    /// The sessions that have asked for something.
    subscribers: Mutex<HashMap<SessionId, Arc<Subscriber>>>,
    /// What is done for sessions: at most two for each.
    tasks: TaskTracker,
    ended: CancellationToken,
    runtime: Handle,
}

impl Hub {
    /// A hub whose engine `make` makes. What it does ends with `ended`. Called in a runtime, which does its work.
    pub(crate) fn new(
        config: ChannelsConfig,
        authorize: Option<Authorize>,
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
            subscribers: Mutex::default(),
            tasks: TaskTracker::new(),
            ended,
            runtime: Handle::current(),
        }))
    }

    /// A channel by its name: 1 to 255 bytes of UTF-8 without control characters. What comes before the first `:` is its namespace.
    pub fn channel(&self, name: impl Into<Arc<str>>) -> Channel {
        Channel { hub: Arc::clone(&self.0), name: name.into() }
    }

    /// Whether somebody may do that: the same rules for sessions and for those without one.
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

impl Channel {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Publishes to everybody who is subscribed, and says where it stands. Does not wait for any of them. What a namespace allows its clients does not matter here.
    ///
    /// # Errors
    /// [`PublishError`]; but for `Unavailable` it was not published then.
    pub async fn publish(&self, message: impl Into<Message>) -> Result<Position, PublishError> {
        if !channel::is_name(&self.name) {
            return Err(PublishError::BadChannel);
        }
        self.hub.publish(&self.name, message.into()).await
    }

    /// What the channel keeps, the oldest first, at most `limit` publications: after a position, or from the oldest on.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn history(&self, after: Option<Position>, limit: usize) -> Result<History, HistoryError> {
        if !channel::is_name(&self.name) {
            return Err(HistoryError::BadChannel);
        }
        let page = Page { publications: limit, bytes: usize::MAX };
        let history = self.hub.engine.history(&self.name, after, page).await;
        history.map_err(|error| HistoryError::Unavailable(error.to_string()))
    }

    /// Sessions of this server that are subscribed.
    pub fn subscribers(&self) -> usize {
        self.hub.topics.read().get(&self.name).map_or(0, |topic| topic.subscribers())
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Inner {
    async fn publish(&self, name: &str, message: Message) -> Result<Position, PublishError> {
        let (len, max) = (message.len(), self.config.max_publication_bytes);
        if len > max {
            return Err(PublishError::TooLarge { len, max });
        }
        let published = self.engine.publish(name, message, retention(&self.namespace(name))).await;
        published.map_err(|error| match error {
            EngineError::Full => PublishError::TooManyChannels,
            EngineError::Unavailable(reason) => PublishError::Unavailable(reason),
        })
    }

    fn namespace(&self, name: &str) -> Namespace {
        self.config.namespace(channel::namespace(name))
    }

    /// Whether the session may ask that at all.
    fn check(&self, session: &Session, request: &ChannelMessage) -> Result<(), Failure> {
        let (channel, action) = match request {
            ChannelMessage::Subscribe { channel, .. } => (channel, Some(Action::Subscribe { channel })),
            ChannelMessage::Publish { channel, .. } => (channel, Some(Action::Publish { channel })),
            ChannelMessage::Unsubscribe { channel, .. } => (channel, None),
            _ => return Ok(()),
        };
        if !channel::is_name(channel) {
            return Err((ChannelCode::BadChannel, PublishError::BadChannel.to_string()));
        }
        let authorized = action.map_or(Ok(()), |action| self.authorize(&session.identity(), action));
        authorized.map_err(|denied| (ChannelCode::NotAllowed, denied.reason))
    }

    fn authorize(&self, who: &Identity, action: Action<'_>) -> Result<(), Denied> {
        if let Some(authorize) = &self.authorize {
            return authorize(who, action);
        }
        action.allowed_by(&self.config)
    }

    /// The topic of a channel, for somebody who is about to subscribe: it stays until [`Inner::release`] is called.
    fn join(&self, name: &str) -> Arc<Topic> {
        let mut topics = self.topics.write();
        if let Some(topic) = topics.get(name) {
            topic.join();
            return Arc::clone(topic);
        }
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let topic = Arc::new(Topic::new(name, number, self.namespace(name)));
        topic.join();
        topics.insert(Arc::clone(&topic.name), Arc::clone(&topic));
        topic
    }

    /// Begins to get what is published in a channel, unless that has begun.
    async fn start(&self, topic: &Topic) -> Result<(), EngineError> {
        let start = async {
            let position = self.engine.subscribe(&topic.name, retention(&topic.namespace)).await?;
            topic.started_at(position);
            Ok(())
        };
        topic.started.get_or_try_init(|| start).await?;
        Ok(())
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
}

impl ChannelHandler for Hub {
    fn handle(&self, session: &Session, request: ChannelMessage) -> Result<(), Close> {
        let Some(number) = request.request() else { return Ok(()) };
        if let Err((code, reason)) = self.0.check(session, &request) {
            session.answer(&ChannelMessage::failed(number, code, reason));
            return Ok(());
        }
        let mut subscribers = self.0.subscribers.lock();
        let subscriber = subscribers.entry(session.id()).or_insert_with(|| Subscriber::new(session.clone()));
        let subscriber = Arc::clone(subscriber);
        drop(subscribers);
        subscriber.ask(&self.0, request);
        Ok(())
    }

    fn closed(&self, session: &Session) {
        let subscriber = {
            let mut subscribers = self.0.subscribers.lock();
            let subscriber = subscribers.remove(&session.id());
            if subscribers.is_empty() {
                *subscribers = HashMap::new(); // the memory of many is given back
            }
            subscriber
        };
        for topic in subscriber.iter().flat_map(|subscriber| subscriber.end()) {
            topic.remove(session.id());
            self.0.tidy(&topic);
        }
    }
}

/// Where the engine's publications arrive. Knows the hub weakly, since the hub owns the engine.
struct Arrivals(Weak<Inner>);

impl Sink for Arrivals {
    fn publication(&self, channel: &str, epoch: u64, publication: &Publication) {
        let Some(hub) = self.0.upgrade() else { return };
        let topic = hub.topics.read().get(channel).cloned();
        if let Some(topic) = topic {
            for subscriber in topic.deliver(epoch, publication) {
                subscriber.fall_behind(&hub, &topic);
            }
        }
    }
}

fn retention(namespace: &Namespace) -> Retention {
    Retention { count: namespace.history_count, bytes: namespace.history_bytes, age: namespace.history_age }
}
