//! Who is subscribed: a channel of state beside each channel, which the hub writes by itself (SPEC section 10.1).
//!
//! A member lasts as long as its subscription. Whoever subscribes or leaves does not wait for the engine: what is to be written waits here, for each member only the newest, and one
//! task at a time writes it, in the order in which it came.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use throughline_protocol::Message;
use throughline_protocol::channel::{self, PRESENCE_PREFIX};

use super::{Inner, retention};
use crate::engine::EngineError;
use crate::session::Identity;

/// How long an engine that cannot be reached is left alone: what is to be written waits, and nobody misses it meanwhile.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A member of a channel: which channel tells of it, and by which key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct MemberKey {
    channel: Arc<str>,
    key: Arc<str>,
}

/// What is still to be written.
#[derive(Default)]
pub(super) struct Presence(Mutex<State>);

#[derive(Default)]
struct State {
    order: VecDeque<MemberKey>,
    /// `None`: the member has left.
    values: HashMap<MemberKey, Option<Message>>,
    /// Whether a task writes.
    is_writing: bool,
}

impl MemberKey {
    /// A member that is new.
    pub(super) fn new(channel: &Arc<str>) -> Self {
        let mut bytes = [0; 8];
        // Linux has randomness as soon as it has booted.
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        Self { channel: Arc::clone(channel), key: format!("{:016x}", u64::from_be_bytes(bytes)).into() }
    }
}

/// What others see of a member.
pub(super) fn member(who: &Identity, about: Option<&str>) -> Message {
    serde_json::json!({ "user": who.user, "info": who.info, "about": about }).to_string().into()
}

impl Inner {
    /// The name of the channel that tells who is subscribed to this one, if that is kept. One that would be too long for a name is not.
    pub(super) fn presence_name(&self, channel: &str) -> Option<Arc<str>> {
        let is_kept = channel::is_name(channel) && !channel.starts_with('$') && self.namespace(channel).presence;
        is_kept.then(|| format!("{PRESENCE_PREFIX}{channel}").into()).filter(|name: &Arc<str>| channel::is_name(name))
    }

    /// A member has come, has changed, or has left: `None`.
    pub(super) fn tell_presence(self: &Arc<Self>, member: &MemberKey, value: Option<Message>) {
        let mut state = self.presence.0.lock();
        if state.values.insert(member.clone(), value).is_none() {
            state.order.push_back(member.clone());
        }
        if !std::mem::replace(&mut state.is_writing, true) {
            self.spawn(Arc::clone(self).write_presence());
        }
    }

    async fn write_presence(self: Arc<Self>) {
        while let Some((member, value)) = self.presence.next() {
            let retention = retention(&self.namespace(&member.channel));
            match self.engine.set(&member.channel, &member.key, value.clone(), retention).await {
                Ok(_) => {}
                Err(EngineError::Unavailable(_)) => {
                    self.presence.put_back(member, value);
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                // The list is cut: a channel may have more subscribers than its list has members.
                Err(error) => tracing::debug!(channel = &*member.channel, %error, "a member is not in the list"),
            }
        }
    }
}

impl Presence {
    fn next(&self) -> Option<(MemberKey, Option<Message>)> {
        let mut state = self.0.lock();
        let next = state.order.pop_front();
        let next = next.and_then(|member| state.values.remove(&member).map(|value| (member, value)));
        if next.is_none() {
            *state = State::default(); // an idle hub holds no buffer
        }
        next
    }

    /// What could not be written comes first again, unless there is something newer.
    fn put_back(&self, member: MemberKey, value: Option<Message>) {
        let mut state = self.0.lock();
        if !state.values.contains_key(&member) {
            state.values.insert(member.clone(), value);
            state.order.push_front(member);
        }
    }
}
