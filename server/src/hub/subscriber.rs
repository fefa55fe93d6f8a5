//! One session, as the hub has it: what it has asked for, what it is subscribed to, and where it is behind.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytestring::ByteString;
use parking_lot::Mutex;
use throughline_protocol::channel::Position;
use throughline_protocol::limits::MAX_HISTORY_LIMIT;
use throughline_protocol::{ChannelCode, ChannelMessage, TrySendError};
use tokio::sync::oneshot;

use super::error::{Failure, SubscribeError};
use super::log::{Need, Piece};
use super::page;
use super::permission::Action;
use super::presence::{MemberKey, member};
use super::rate::Rate;
use super::state::Served;
use super::topic::{Body, Opening, Topic, Unsent};
use super::{Inner, log, state};
use crate::engine::Page;
use crate::session::Session;

/// What a subscriber that is behind reads at once, and holds while its client takes it: enough to fill a packet, and little beside the session's own buffer.
const PIECE: Page = Page { publications: 64, bytes: 64 * 1024, newest: false };

/// A session that has asked for something, or was subscribed by the server.
pub(super) struct Subscriber {
    pub(super) session: Session,
    pub(super) rate: Rate,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The session has ended.
    is_over: bool,
    subscriptions: HashMap<Arc<str>, Subscription>,
    /// What is still to be done. Of the client's as many as a session lets wait for their answers.
    tasks: VecDeque<Task>,
    /// Whether somebody does it.
    is_working: bool,
    /// Where it has fallen behind, each once.
    behind: VecDeque<Arc<Topic>>,
    /// Whether a task catches up.
    is_catching_up: bool,
}

/// What it is subscribed to.
pub(super) struct Subscription {
    pub(super) topic: Arc<Topic>,
    about: Option<ByteString>,
    /// How others see it.
    pub(super) member: Option<MemberKey>,
}

/// What is done for a session, one after the other: a subscription and its end must not change places, nor two publications.
enum Task {
    /// The client asks.
    Request(ChannelMessage),
    /// The application subscribes it.
    Add { channel: Arc<str>, done: oneshot::Sender<Result<(), SubscribeError>> },
    /// The application ends a subscription.
    DropOff { channel: Arc<str>, reason: String },
    /// Its identity has changed.
    Review,
}

impl Subscriber {
    pub(super) fn new(session: Session, rate: Rate) -> Arc<Self> {
        Arc::new(Self { session, rate, state: Mutex::default() })
    }

    /// Does what the client asks for.
    pub(super) fn ask(self: &Arc<Self>, hub: &Arc<Inner>, request: ChannelMessage) {
        self.push(hub, Task::Request(request));
    }

    /// Subscribes it, unless it is subscribed.
    pub(super) async fn add(self: &Arc<Self>, hub: &Arc<Inner>, channel: &Arc<str>) -> Result<(), SubscribeError> {
        let (done, result) = oneshot::channel();
        self.push(hub, Task::Add { channel: Arc::clone(channel), done });
        result.await.unwrap_or(Err(SubscribeError::Ended))
    }

    pub(super) fn drop_off(self: &Arc<Self>, hub: &Arc<Inner>, channel: &Arc<str>, reason: &str) {
        self.push(hub, Task::DropOff { channel: Arc::clone(channel), reason: reason.to_owned() });
    }

    /// Looks again at what it may be subscribed to, and what others see of it.
    pub(super) fn review(self: &Arc<Self>, hub: &Arc<Inner>) {
        self.push(hub, Task::Review);
    }

    fn push(self: &Arc<Self>, hub: &Arc<Inner>, task: Task) {
        let mut state = self.state.lock();
        state.tasks.push_back(task);
        if !std::mem::replace(&mut state.is_working, true) {
            hub.spawn(Arc::clone(self).work(Arc::clone(hub)));
        }
    }

    /// The session has ended. What its client has published until then is published all the same. Returns what it was subscribed to.
    pub(super) fn end(&self) -> Vec<Subscription> {
        let mut state = self.state.lock();
        state.is_over = true;
        state.behind = VecDeque::new();
        std::mem::take(&mut state.subscriptions).into_values().collect()
    }

    /// Begins a subscription, and says so, unless the session has ended. Only ADDED may find no room.
    pub(super) fn begin(
        &self,
        hub: &Arc<Inner>,
        topic: &Arc<Topic>,
        opening: &Opening,
        recovered: bool,
        position: Position,
    ) -> Result<bool, Unsent> {
        let mut subscriber = self.state.lock();
        if subscriber.is_over {
            return Ok(false);
        }
        let (number, state) = (topic.number, matches!(topic.body, Body::State(_)));
        let about = match opening {
            Opening::Asked { request, about } => {
                self.session.answer(&ChannelMessage::Subscribed {
                    request: *request,
                    number,
                    recovered,
                    state,
                    position,
                });
                about.clone()
            }
            Opening::Added => {
                let channel = ByteString::from(&*topic.name);
                let added = ChannelMessage::Added { number, channel, state, position };
                self.session.try_send_channel(added.encode())?;
                None
            }
        };
        let key = topic.presence.as_ref().map(MemberKey::new);
        if let Some(key) = &key {
            hub.tell_presence(key, Some(member(&self.session.identity(), about.as_deref())));
        }
        hub.counters.subscriptions.add(1);
        let subscription = Subscription { topic: Arc::clone(topic), about, member: key };
        subscriber.subscriptions.insert(Arc::clone(&topic.name), subscription);
        Ok(true)
    }

    /// Says that a subscription has ended, if there is room for it, and forgets it: both at once, since its client may ask for it again as soon as it hears.
    pub(super) fn dismiss(
        &self,
        hub: &Arc<Inner>,
        topic: &Topic,
        code: ChannelCode,
        reason: String,
    ) -> Result<(), Unsent> {
        let mut state = self.state.lock();
        let last = ChannelMessage::unsubscribed(topic.number, code, reason).encode();
        if let Err(TrySendError::Full) = self.session.try_send_channel(last) {
            return Err(Unsent::Full);
        }
        let gone = state.subscriptions.remove(&topic.name);
        gone.iter().for_each(|gone| hub.left(gone));
        Ok(())
    }

    /// Reads from now on what is missing of a topic, when there is room.
    pub(super) fn fall_behind(self: &Arc<Self>, hub: &Arc<Inner>, topic: &Arc<Topic>) {
        let mut state = self.state.lock();
        if state.is_over || state.behind.iter().any(|behind| Arc::ptr_eq(behind, topic)) {
            return;
        }
        state.behind.push_back(Arc::clone(topic));
        if !std::mem::replace(&mut state.is_catching_up, true) {
            hub.spawn(Arc::clone(self).catch_up(Arc::clone(hub)));
        }
    }

    // ---- what is asked, one after the other ----

    async fn work(self: Arc<Self>, hub: Arc<Inner>) {
        while let Some(task) = self.next_task() {
            match task {
                Task::Request(request) => self.serve(&hub, request).await,
                Task::Add { channel, done } => {
                    let result = match self.subscribe(&hub, &channel, Opening::Added, None).await {
                        Err(Refused::Already) => Ok(()),
                        Err(Refused::Error(error)) => Err(error),
                        Ok(()) => Ok(()),
                    };
                    drop(done.send(result)); // nobody may wait for it any more
                }
                Task::DropOff { channel, reason } => self.drop_now(&hub, &channel, ChannelCode::Normal, reason),
                Task::Review => self.review_now(&hub),
            }
        }
    }

    fn next_task(&self) -> Option<Task> {
        let mut state = self.state.lock();
        let task = state.tasks.pop_front();
        if task.is_none() {
            state.is_working = false;
            state.tasks = VecDeque::new(); // an idle session holds no buffer
        }
        task
    }

    /// Does what the client asks for, and answers.
    async fn serve(self: &Arc<Self>, hub: &Arc<Inner>, request: ChannelMessage) {
        let Some(number) = request.request() else { return };
        let result = match request {
            ChannelMessage::Subscribe { channel, position, about, .. } => {
                let opening = Opening::Asked { request: number, about };
                let refused = self.subscribe(hub, &channel, opening, position).await.map_err(|refused| match refused {
                    Refused::Already => (ChannelCode::AlreadySubscribed, "the session is subscribed to it".into()),
                    Refused::Error(error) => error.failure(),
                });
                refused.map(|()| None)
            }
            ChannelMessage::Unsubscribe { channel, .. } => {
                self.unsubscribe(hub, &channel).map(|()| Some(done(number, Position::default())))
            }
            ChannelMessage::Publish { channel, data, .. } => {
                let published = hub.publish(&channel, data).await;
                published.map(|position| Some(done(number, position))).map_err(|error| error.failure())
            }
            ChannelMessage::Set { channel, key, data, .. } => {
                let set = hub.set(&channel, &key, data).await;
                set.map(|position| Some(done(number, position))).map_err(|error| error.failure())
            }
            ChannelMessage::History { channel, after, newest, limit, .. } => {
                // A page is longer than other answers: it waits until there is room for what is before it.
                self.session.room().await;
                let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MAX_HISTORY_LIMIT);
                let asked = Page { publications: limit, bytes: hub.max_page, newest };
                let history = hub.history(&channel, after, asked).await;
                history
                    .map(|history| Some(page::page(number, history, newest, hub.max_page)))
                    .map_err(|error| error.failure())
            }
            _ => return, // a server's own
        };
        match result {
            Ok(answer) => answer.iter().for_each(|answer| self.session.answer(answer)),
            Err((code, reason)) => self.session.answer(&ChannelMessage::failed(number, code, reason)),
        }
    }

    async fn subscribe(
        self: &Arc<Self>,
        hub: &Arc<Inner>,
        channel: &str,
        opening: Opening,
        since: Option<Position>,
    ) -> Result<(), Refused> {
        {
            let state = self.state.lock();
            if state.is_over {
                return Err(Refused::Error(SubscribeError::Ended));
            }
            if state.subscriptions.contains_key(channel) {
                return Err(Refused::Already);
            }
            if state.subscriptions.len() >= hub.config.max_subscriptions {
                return Err(Refused::Error(SubscribeError::TooMany));
            }
        }
        let topic = hub.join(channel);
        let result = self.join(hub, &topic, opening, since).await;
        hub.release(&topic);
        result.map_err(Refused::Error)
    }

    async fn join(
        self: &Arc<Self>,
        hub: &Arc<Inner>,
        topic: &Arc<Topic>,
        opening: Opening,
        since: Option<Position>,
    ) -> Result<(), SubscribeError> {
        hub.start(topic).await?;
        // After the start: what is published from now on comes by itself, and what was before is in the history.
        let mut since = match (since, &topic.body) {
            (Some(position), Body::Log(_)) => {
                Some((position, hub.engine.history(&topic.name, Some(position), PIECE).await?))
            }
            _ => None,
        };
        let is_behind = loop {
            let admitted = match &topic.body {
                Body::Log(log) => log.admit(hub, topic, self, &opening, since.take()),
                Body::State(state) => state.admit(hub, topic, self, &opening),
            };
            match admitted {
                Ok(is_behind) => break is_behind,
                Err(Unsent::Full) => self.session.room().await,
                Err(Unsent::Gone) => return Err(SubscribeError::Ended),
            }
        };
        if is_behind {
            self.fall_behind(hub, topic);
        }
        Ok(())
    }

    fn unsubscribe(&self, hub: &Arc<Inner>, channel: &str) -> Result<(), Failure> {
        let gone = {
            let mut state = self.state.lock();
            let gone = state.subscriptions.remove(channel);
            state.behind.retain(|behind| *behind.name != *channel);
            gone
        };
        let not_subscribed = || (ChannelCode::NotSubscribed, "the session is not subscribed to it".into());
        let gone = gone.ok_or_else(not_subscribed)?;
        gone.topic.remove(self.session.id());
        hub.left(&gone);
        hub.tidy(&gone.topic);
        Ok(())
    }

    /// Ends a subscription, as soon as there is room to say so.
    fn drop_now(self: &Arc<Self>, hub: &Arc<Inner>, channel: &str, code: ChannelCode, reason: String) {
        let topic = self.state.lock().subscriptions.get(channel).map(|subscription| Arc::clone(&subscription.topic));
        if let Some(topic) = topic {
            topic.end(self.session.id(), (code, reason));
            self.fall_behind(hub, &topic);
        }
    }

    fn review_now(self: &Arc<Self>, hub: &Arc<Inner>) {
        let who = self.session.identity();
        let channels: Vec<_> = self.state.lock().subscriptions.keys().cloned().collect();
        for channel in channels {
            // The application decides: not under a lock.
            if let Err(denied) = hub.authorize(&who, Action::Subscribe { channel: &channel }) {
                self.drop_now(hub, &channel, ChannelCode::NotAllowed, denied.reason);
                continue;
            }
            let state = self.state.lock();
            if let Some(Subscription { about, member: Some(key), .. }) = state.subscriptions.get(&channel) {
                hub.tell_presence(key, Some(member(&who, about.as_deref())));
            }
        }
    }

    // ---- catching up ----

    async fn catch_up(self: Arc<Self>, hub: Arc<Inner>) {
        while let Some(topic) = self.next_behind() {
            let is_behind = match &topic.body {
                Body::Log(log) => self.read(&hub, &topic, log).await,
                Body::State(state) => self.take(&hub, &topic, state).await,
            };
            if is_behind {
                // The others come first.
                self.fall_behind(&hub, &topic);
            }
        }
    }

    fn next_behind(&self) -> Option<Arc<Topic>> {
        let mut state = self.state.lock();
        let topic = state.behind.pop_front();
        if topic.is_none() {
            state.is_catching_up = false;
            state.behind = VecDeque::new(); // an idle session holds no buffer
        }
        topic
    }

    /// Gives the client a piece of what it is missing of a log. Says whether there is more.
    async fn read(&self, hub: &Arc<Inner>, topic: &Arc<Topic>, log: &log::Log) -> bool {
        let id = self.session.id();
        self.session.room().await;
        match log.need(hub, topic, id) {
            Need::History(after) => match hub.engine.history(&topic.name, Some(after), PIECE).await {
                Ok(history) => {
                    let mut piece = Piece::new(after, history);
                    while log.give(id, &mut piece, &hub.encoded) {
                        self.session.room().await;
                    }
                }
                Err(_) => log.end(id, (ChannelCode::Unavailable, "the history cannot be read".into())),
            },
            Need::Room => return true,
            Need::Nothing => return false,
            Need::Ended => {
                hub.tidy(topic);
                return false;
            }
        }
        log.is_behind(id)
    }

    /// Gives the client what it lacks of a channel of state. Says whether there is more.
    async fn take(&self, hub: &Arc<Inner>, topic: &Arc<Topic>, state: &state::State) -> bool {
        self.session.fresh_room().await;
        match state.serve(hub, topic, self.session.id()) {
            Served::All => false,
            Served::Full => true,
            Served::Ended => {
                hub.tidy(topic);
                false
            }
        }
    }
}

/// Why a session was not subscribed.
enum Refused {
    /// It is.
    Already,
    Error(SubscribeError),
}

fn done(request: u64, position: Position) -> ChannelMessage {
    ChannelMessage::Done { request, position }
}
