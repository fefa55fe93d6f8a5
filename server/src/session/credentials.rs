//! What a session's client has authenticated with, and how it does so anew (SPEC section 12).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use throughline_protocol::{Close, Code, Micros, Token, varint};

use super::shared::{Core, Shared, now};
use super::{Identity, Session};

/// Asks whoever has authenticated a link's opening about another token in its place.
pub(crate) type Again = Arc<dyn Fn(Token) -> BoxFuture<'static, Result<Identity, NotRefreshed>> + Send + Sync>;

/// Why there is no newer identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotRefreshed {
    /// The token is not good.
    Refused(String),
    /// Nobody can say now.
    Unknown(String),
}

/// What the opening of a link has shown.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) identity: Arc<Identity>,
    /// `None` when nobody is asked: then a token changes nothing.
    pub(crate) again: Option<Again>,
}

impl Credentials {
    /// Until when they are good, by the machine's clock; `None`: for ever.
    pub(crate) fn until(&self) -> Option<Micros> {
        until(&self.identity)
    }
}

impl From<Identity> for Credentials {
    /// Without anybody to ask again.
    fn from(identity: Identity) -> Self {
        Self { identity: Arc::new(identity), again: None }
    }
}

/// Until when an identity is good, by the machine's clock, which does not follow the changes of the other one.
fn until(identity: &Identity) -> Option<Micros> {
    let left = identity.expires?.duration_since(SystemTime::now()).unwrap_or_default();
    let left_us = Micros::try_from(left.as_micros()).unwrap_or(varint::MAX);
    Some(now().saturating_add(left_us).min(varint::MAX))
}

/// The side of the driver: a token that is being looked at.
#[derive(Default)]
pub(super) struct Refresh(Option<BoxFuture<'static, Result<Identity, NotRefreshed>>>);

impl Refresh {
    /// Has the newest token of the client looked at, one at a time.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, shared: &Arc<Shared>) {
        loop {
            let Some(looking) = &mut self.0 else {
                let mut core = shared.lock();
                let Some(token) = core.machine.poll_token() else { return };
                let Some(again) = core.credentials.again.clone() else {
                    let until = core.credentials.until();
                    core.machine.refreshed(until);
                    continue;
                };
                drop(core);
                self.0 = Some(again(token));
                continue;
            };
            let Poll::Ready(result) = looking.as_mut().poll(cx) else { return };
            self.0 = None;
            looked_at(shared, result);
        }
    }
}

fn looked_at(shared: &Arc<Shared>, result: Result<Identity, NotRefreshed>) {
    let session = shared.id;
    let mut core = shared.lock();
    match result {
        Ok(identity) if identity.user == core.credentials.identity.user => {
            if core.machine.refreshed(until(&identity)) {
                tracing::debug!(%session, "the client has authenticated anew");
                core.credentials.identity = Arc::new(identity);
                drop(core);
                tell_refreshed(shared);
            }
        }
        Ok(_) => {
            drop(core);
            shared.close(Close::protocol(Code::Unauthorized, "the token is another user's"));
        }
        Err(NotRefreshed::Refused(reason)) => {
            drop(core);
            shared.close(Close::protocol(Code::Unauthorized, reason));
        }
        Err(NotRefreshed::Unknown(reason)) => {
            tracing::debug!(%session, reason, "a token could not be looked at");
            core.machine.not_refreshed();
        }
    }
}

/// Tells whoever handles channels that the session has another identity.
pub(super) fn tell_refreshed(shared: &Arc<Shared>) {
    let Some(handler) = shared.channels().filter(|_| shared.lock().is_in_channels()) else { return };
    let session = Session::new(Arc::clone(shared));
    // What the application decides runs here, too: a panic would take the driver along.
    if std::panic::catch_unwind(AssertUnwindSafe(|| handler.refreshed(&session))).is_err() {
        shared.fail(Close::protocol(Code::InternalError, "the server's application failed"));
    }
}

impl Core {
    /// The client has chosen a link: what its opening has shown counts, unless the session knows something newer. Says whether the identity is another one now.
    pub(super) fn show(&mut self, credentials: Credentials) -> bool {
        let is_other = *credentials.identity != *self.credentials.identity;
        self.credentials = credentials;
        is_other
    }
}
