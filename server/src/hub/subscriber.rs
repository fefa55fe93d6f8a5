//! One session, as the hub has it: what it has asked for, what it is subscribed to, and where it is behind.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use throughline_protocol::channel::Position;
use throughline_protocol::{ChannelCode, ChannelMessage};

use super::topic::{Need, Piece, Topic};
use super::{Failure, Inner, PublishError};
use crate::engine::{EngineError, Page};
use crate::session::Session;

/// What a subscriber that is behind reads at once, and holds while its client takes it: enough to fill a packet, and little beside the session's own buffer.
const PIECE: Page = Page { publications: 64, bytes: 64 * 1024 };

/// A session that has asked for something.
pub(super) struct Subscriber {
    pub(super) session: Session,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The session has ended.
    is_over: bool,
    subscriptions: HashMap<Arc<str>, Arc<Topic>>,
    /// What is still to be done. As many as a session lets wait for their answers.
    requests: VecDeque<ChannelMessage>,
    /// Whether a task does it.
    is_working: bool,
    /// Where it has fallen behind, each once.
    behind: VecDeque<Arc<Topic>>,
    /// Whether a task catches up.
    is_catching_up: bool,
}

impl Subscriber {
    pub(super) fn new(session: Session) -> Arc<Self> {
        Arc::new(Self { session, state: Mutex::default() })
    }

    /// Does what the client asks for, after what it has asked for before: a subscription and its end must not change places, nor two publications.
    pub(super) fn ask(self: &Arc<Self>, hub: &Arc<Inner>, request: ChannelMessage) {
        let mut state = self.state.lock();
        state.requests.push_back(request);
        if !std::mem::replace(&mut state.is_working, true) {
            hub.spawn(Arc::clone(self).work(Arc::clone(hub)));
        }
    }

    /// The session has ended. What its client has published until then is published all the same. Returns what it was subscribed to.
    pub(super) fn end(&self) -> Vec<Arc<Topic>> {
        let mut state = self.state.lock();
        state.is_over = true;
        state.behind = VecDeque::new();
        std::mem::take(&mut state.subscriptions).into_values().collect()
    }

    /// Notes a subscription, unless the session has ended.
    pub(super) fn enter(&self, topic: &Arc<Topic>) -> bool {
        let mut state = self.state.lock();
        if !state.is_over {
            state.subscriptions.insert(Arc::clone(&topic.name), Arc::clone(topic));
        }
        !state.is_over
    }

    /// A subscription has ended.
    pub(super) fn forget(&self, topic: &Topic) {
        self.state.lock().subscriptions.remove(&topic.name);
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

    // ---- requests ----

    async fn work(self: Arc<Self>, hub: Arc<Inner>) {
        while let Some(request) = self.next_request() {
            let Some(number) = request.request() else { continue };
            let done = match request {
                ChannelMessage::Subscribe { channel, position, .. } => {
                    self.subscribe(&hub, number, &channel, position).await
                }
                ChannelMessage::Unsubscribe { channel, .. } => self.unsubscribe(&hub, number, &channel),
                ChannelMessage::Publish { channel, data, .. } => match hub.publish(&channel, data).await {
                    Ok(position) => {
                        self.session.answer(&ChannelMessage::Done { request: number, position });
                        Ok(())
                    }
                    Err(error) => Err(refused(&error)),
                },
                _ => Ok(()), // a server's own
            };
            if let Err((code, reason)) = done {
                self.session.answer(&ChannelMessage::failed(number, code, reason));
            }
        }
    }

    fn next_request(&self) -> Option<ChannelMessage> {
        let mut state = self.state.lock();
        let request = state.requests.pop_front();
        if request.is_none() {
            state.is_working = false;
            state.requests = VecDeque::new(); // an idle session holds no buffer
        }
        request
    }

    async fn subscribe(
        self: &Arc<Self>,
        hub: &Arc<Inner>,
        request: u64,
        channel: &str,
        since: Option<Position>,
    ) -> Result<(), Failure> {
        {
            let state = self.state.lock();
            let max = hub.config.max_subscriptions;
            if state.is_over {
                return Ok(());
            }
            if state.subscriptions.contains_key(channel) {
                return Err((ChannelCode::AlreadySubscribed, "the session is subscribed to it".into()));
            }
            if state.subscriptions.len() >= max {
                return Err((ChannelCode::TooMany, format!("a session may have {max} subscriptions")));
            }
        }
        let topic = hub.join(channel);
        let result = self.join(hub, &topic, request, since).await;
        hub.release(&topic);
        result.map_err(|error| match error {
            EngineError::Full => (ChannelCode::TooMany, error.to_string()),
            EngineError::Unavailable(_) => unavailable(),
        })
    }

    async fn join(
        self: &Arc<Self>,
        hub: &Arc<Inner>,
        topic: &Arc<Topic>,
        request: u64,
        since: Option<Position>,
    ) -> Result<(), EngineError> {
        hub.start(topic).await?;
        // After the start: what is published from now on comes by itself, and what was before is in the history.
        let since = match since {
            Some(position) => Some((position, hub.engine.history(&topic.name, since, PIECE).await?)),
            None => None,
        };
        if topic.admit(self, request, since, &hub.encoded) {
            self.fall_behind(hub, topic);
        }
        Ok(())
    }

    fn unsubscribe(&self, hub: &Inner, request: u64, channel: &str) -> Result<(), Failure> {
        let topic = {
            let mut state = self.state.lock();
            let topic = state.subscriptions.remove(channel);
            state.behind.retain(|behind| *behind.name != *channel);
            topic
        };
        let not_subscribed = || (ChannelCode::NotSubscribed, "the session is not subscribed to it".into());
        let topic = topic.ok_or_else(not_subscribed)?;
        topic.remove(self.session.id());
        self.session.answer(&ChannelMessage::Done { request, position: Position::default() });
        hub.tidy(&topic);
        Ok(())
    }

    // ---- catching up ----

    async fn catch_up(self: Arc<Self>, hub: Arc<Inner>) {
        while let Some(topic) = self.next_behind() {
            if self.read(&hub, &topic).await {
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

    /// Gives the client a piece of what it is missing. Says whether there is more.
    async fn read(&self, hub: &Inner, topic: &Topic) -> bool {
        let id = self.session.id();
        self.session.room().await;
        match topic.need(id) {
            Need::History(after) => match hub.engine.history(&topic.name, Some(after), PIECE).await {
                Ok(history) => {
                    let mut piece = Piece::new(after, history);
                    while topic.give(id, &mut piece, &hub.encoded) {
                        self.session.room().await;
                    }
                }
                Err(_) => topic.end(id, ChannelCode::Unavailable, "the history cannot be read"),
            },
            Need::Room => return true,
            Need::Nothing => return false,
            Need::Ended => {
                hub.tidy(topic);
                return false;
            }
        }
        topic.is_behind(id)
    }
}

fn refused(error: &PublishError) -> Failure {
    let code = match error {
        PublishError::BadChannel => ChannelCode::BadChannel,
        PublishError::TooLarge { .. } => ChannelCode::TooLarge,
        PublishError::TooManyChannels => ChannelCode::TooMany,
        PublishError::Unavailable(_) => return unavailable(),
    };
    (code, error.to_string())
}

/// Why is for the server's operator, and not for its clients.
fn unavailable() -> Failure {
    (ChannelCode::Unavailable, "what keeps the channels cannot be reached".into())
}
