//! One channel on this node, as long as somebody is subscribed to it here: a log or one of state.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytestring::ByteString;
use throughline_protocol::{ChannelCode, SessionId, TrySendError};
use tokio::sync::OnceCell;

use super::log::Log;
use super::state::State;
use super::stats::Counters;
use crate::config::{Kind, Namespace};

/// A channel with its subscribers.
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    /// What stands for it on the wire.
    pub(super) number: u64,
    pub(super) namespace: Namespace,
    /// The channel that tells who is subscribed, if that is kept.
    pub(super) presence: Option<Arc<str>>,
    /// Set once the engine hands over what is published.
    pub(super) started: OnceCell<()>,
    pub(super) body: Body,
    /// Sessions that are about to subscribe.
    joining: AtomicUsize,
}

/// What differs between the kinds of channels.
pub(super) enum Body {
    Log(Log),
    State(State),
}

/// Why the server ends a subscription.
pub(super) type End = (ChannelCode, String);

/// How a subscription begins.
#[derive(Debug, Clone)]
pub(super) enum Opening {
    /// The client has asked for it, and said this of itself: SUBSCRIBED.
    Asked { request: u64, about: Option<ByteString> },
    /// The server does it by itself: ADDED.
    Added,
}

/// Why something was not sent.
pub(super) enum Unsent {
    /// The session has no room now.
    Full,
    /// The session is over.
    Gone,
}

impl Topic {
    pub(super) fn new(
        name: &str,
        number: u64,
        namespace: Namespace,
        presence: Option<Arc<str>>,
        threads: usize,
        counters: &Arc<Counters>,
    ) -> Self {
        let body = match namespace.kind {
            Kind::Log => Body::Log(Log::new(number, namespace.slow, threads, counters)),
            Kind::State => Body::State(State::new(number, namespace.max_keys, Arc::clone(counters))),
        };
        let (started, joining) = (OnceCell::new(), AtomicUsize::new(0));
        Self { name: name.into(), number, namespace, presence, started, body, joining }
    }

    pub(super) fn join(&self) {
        self.joining.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn leave(&self) {
        self.joining.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn is_unused(&self) -> bool {
        self.joining.load(Ordering::SeqCst) == 0 && self.subscribers() == 0
    }

    pub(super) fn subscribers(&self) -> usize {
        match &self.body {
            Body::Log(log) => log.subscribers(),
            Body::State(state) => state.subscribers(),
        }
    }

    /// A session is subscribed no more.
    pub(super) fn remove(&self, id: SessionId) {
        match &self.body {
            Body::Log(log) => log.remove(id),
            Body::State(state) => state.remove(id),
        }
    }

    /// Ends a subscription, as soon as there is room to say so: the session is behind until then.
    pub(super) fn end(&self, id: SessionId, end: End) {
        match &self.body {
            Body::Log(log) => log.end(id, end),
            Body::State(state) => state.end(id, end),
        }
    }
}

/// What the subscribers of a count are told that has begun anew.
pub(super) fn began_anew() -> End {
    (ChannelCode::Unavailable, "the channel began anew: subscribe again".into())
}

impl From<TrySendError> for Unsent {
    fn from(error: TrySendError) -> Self {
        match error {
            TrySendError::Full => Self::Full,
            // What is too long for a session was too long to be published.
            TrySendError::Closed(_) | TrySendError::TooLarge { .. } => Self::Gone,
        }
    }
}
