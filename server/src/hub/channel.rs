//! What the application holds of a channel.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use throughline_protocol::Message;
use throughline_protocol::channel::{self, Position};
use throughline_protocol::limits::MAX_KEY;

use super::error::{HistoryError, PublishError, SubscribeError};
use super::subscriber::Subscriber;
use super::{Inner, retention};
use crate::config::Kind;
use crate::engine::{History, Page, State};
use crate::session::Session;

/// One channel, whether there are subscribers or not. What a namespace allows its clients does not matter here.
#[derive(Clone)]
pub struct Channel {
    hub: Arc<Inner>,
    name: Arc<str>,
}

/// Which part of a history is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryQuery {
    /// After which publication; otherwise from the oldest on.
    pub after: Option<Position>,
    /// At most so many.
    pub limit: usize,
    /// Whether the last of these are wanted, and not the first.
    pub newest: bool,
}

impl HistoryQuery {
    /// All that the channel keeps.
    pub const ALL: Self = Self { after: None, limit: usize::MAX, newest: false };

    /// The first after a position, at most `limit`.
    pub fn after(position: Position, limit: usize) -> Self {
        Self { after: Some(position), limit, newest: false }
    }

    /// The last ones, at most `limit`.
    pub fn newest(limit: usize) -> Self {
        Self { after: None, limit, newest: true }
    }
}

/// One subscription, as presence tells of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// Of this subscription, and of no other. Says nothing else.
    #[serde(skip)]
    pub id: String,
    /// Whose session it is, if that is known.
    pub user: Option<String>,
    /// [`Identity::info`](crate::Identity::info).
    pub info: serde_json::Value,
    /// What the client said of itself when it subscribed.
    pub about: Option<String>,
}

/// A channel that has subscribers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Sessions of this server that are subscribed.
    pub subscribers: usize,
}

impl Channel {
    pub(super) fn new(hub: Arc<Inner>, name: Arc<str>) -> Self {
        Self { hub, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is, by its namespace.
    pub fn kind(&self) -> Kind {
        self.hub.namespace(&self.name).kind
    }

    /// Publishes in a log, to everybody who is subscribed, and says where it stands. Does not wait for any of them.
    ///
    /// # Errors
    /// [`PublishError`]; but for `Unavailable` it was not published then.
    pub async fn publish(&self, message: impl Into<Message>) -> Result<Position, PublishError> {
        self.hub.publish(&self.name, message.into()).await
    }

    /// Sets the value of a key of a channel of state, for everybody who is subscribed, and says where the change stands. Does not wait for any of them. A key has 0 to 255 bytes.
    ///
    /// # Errors
    /// [`PublishError`]; but for `Unavailable` nothing was changed then.
    pub async fn set(&self, key: &str, message: impl Into<Message>) -> Result<Position, PublishError> {
        self.hub.set(&self.name, key, Some(message.into())).await
    }

    /// Removes a key of a channel of state. To remove what is not there is no mistake, and no change.
    ///
    /// # Errors
    /// [`PublishError`]; but for `Unavailable` nothing was changed then.
    pub async fn remove(&self, key: &str) -> Result<Position, PublishError> {
        self.hub.set(&self.name, key, None).await
    }

    /// What a log keeps, the oldest first.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn history(&self, query: HistoryQuery) -> Result<History, HistoryError> {
        let HistoryQuery { after, limit, newest } = query;
        self.hub.history(&self.name, after, Page { publications: limit, bytes: usize::MAX, newest }).await
    }

    /// The values of a channel of state.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn values(&self) -> Result<State, HistoryError> {
        if !channel::is_name(&self.name) {
            return Err(HistoryError::BadChannel);
        }
        if self.kind() != Kind::State {
            return Err(HistoryError::WrongKind("the channel is a log: it has no values"));
        }
        Ok(self.hub.engine.values(&self.name).await?)
    }

    /// Who is subscribed, on all servers; at most `max_keys` of the namespace. Who came, or changed, last stands last.
    ///
    /// # Errors
    /// [`HistoryError`], `NoPresence` among them.
    pub async fn presence(&self) -> Result<Vec<Member>, HistoryError> {
        if !channel::is_name(&self.name) {
            return Err(HistoryError::BadChannel);
        }
        let name = self.hub.presence_name(&self.name).ok_or(HistoryError::NoPresence)?;
        let State { values, .. } = self.hub.engine.values(&name).await?;
        let members = values.into_iter().filter_map(|value| {
            // Nobody else writes there.
            let member: Member = serde_json::from_slice(value.message.as_bytes()).ok()?;
            Some(Member { id: value.key.to_string(), ..member })
        });
        Ok(members.collect())
    }

    /// Sessions of this server that are subscribed.
    pub fn subscribers(&self) -> usize {
        self.hub.topics.read().get(&self.name).map_or(0, |topic| topic.subscribers())
    }

    /// Subscribes a session of this server, which need not ask: it is told (ADDED, SPEC section 10), and gets what is published from now on. Whether its client may subscribe does not
    /// matter until its credentials change: then the subscription ends if it may not. Comes after what the client has asked for before. A session that is subscribed stays so.
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub async fn subscribe(&self, session: &Session) -> Result<(), SubscribeError> {
        if !channel::is_name(&self.name) {
            return Err(SubscribeError::BadChannel);
        }
        let subscriber = self.hub.subscriber(session);
        if !session.begin_channels() {
            self.hub.closed(session); // nobody else will say so
            return Err(SubscribeError::Ended);
        }
        subscriber.add(&self.hub, &self.name).await
    }

    /// Ends the subscription of a session, if it has one, with NORMAL and a reason for a person, which is cut at 512 bytes. Comes after what the client has asked for before.
    pub fn unsubscribe(&self, session: &Session, reason: &str) {
        let subscriber = self.hub.subscribers.lock().get(&session.id()).map(Arc::clone);
        subscriber.iter().for_each(|subscriber: &Arc<Subscriber>| subscriber.drop_off(&self.hub, &self.name, reason));
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) async fn publish(&self, name: &str, message: Message) -> Result<Position, PublishError> {
        self.check_writing(name, Kind::Log, Some(&message))?;
        Ok(self.engine.publish(name, message, retention(&self.namespace(name))).await?)
    }

    pub(super) async fn set(&self, name: &str, key: &str, message: Option<Message>) -> Result<Position, PublishError> {
        self.check_writing(name, Kind::State, message.as_ref())?;
        if key.len() > MAX_KEY {
            return Err(PublishError::BadKey(key.len()));
        }
        Ok(self.engine.set(name, key, message, retention(&self.namespace(name))).await?)
    }

    pub(super) async fn history(
        &self,
        name: &str,
        after: Option<Position>,
        page: Page,
    ) -> Result<History, HistoryError> {
        if !channel::is_name(name) {
            return Err(HistoryError::BadChannel);
        }
        if self.namespace(name).kind != Kind::Log {
            return Err(HistoryError::WrongKind("the channel is one of state: it has values, and no history"));
        }
        Ok(self.engine.history(name, after, page).await?)
    }

    fn check_writing(&self, name: &str, kind: Kind, message: Option<&Message>) -> Result<(), PublishError> {
        if !channel::is_name(name) {
            return Err(PublishError::BadChannel);
        }
        if name.starts_with('$') {
            return Err(PublishError::Reserved);
        }
        match (self.namespace(name).kind, kind) {
            (Kind::Log, Kind::State) => return Err(PublishError::WrongKind("the channel is a log: publish in it")),
            (Kind::State, Kind::Log) => {
                return Err(PublishError::WrongKind("the channel is one of state: set its keys"));
            }
            _ => {}
        }
        let (len, max) = (message.map_or(0, Message::len), self.config.max_publication_bytes);
        if len > max { Err(PublishError::TooLarge { len, max }) } else { Ok(()) }
    }
}
