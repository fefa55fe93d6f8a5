//! Asking the application who somebody is: for an opening, and again for a token that a client sends later (SPEC section 12).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::StatusCode;
use throughline_protocol::Code;

use super::RETRY_WHEN_GOING_AWAY;
use crate::session::Identity;
use crate::session::credentials::{Again, NotRefreshed};
use crate::transport::open::{Kept, Open, Rejection};

/// Decides about an opening before it is answered.
pub(crate) type Authenticate =
    Box<dyn Fn(&Open) -> BoxFuture<'static, Result<Identity, Rejection>> + Send + Sync + 'static>;

/// Asks the application, if it wants to be asked.
pub(crate) struct Authenticator {
    ask: Option<Authenticate>,
    /// It looks at nothing but the token, when it is asked again.
    only_tokens: bool,
    /// How long it may think.
    timeout: Duration,
}

impl Authenticator {
    /// Without `ask` everybody is anonymous.
    pub(crate) fn new(ask: Option<Authenticate>, only_tokens: bool, timeout: Duration) -> Self {
        Self { ask, only_tokens, timeout }
    }

    /// Who is it?
    pub(super) async fn identify(&self, open: &Open) -> Result<Identity, Rejection> {
        let Some(ask) = &self.ask else { return Ok(Identity::anonymous()) };
        let failed = |reason| {
            let rejection = Rejection::new(StatusCode::SERVICE_UNAVAILABLE, Code::InternalError, reason);
            Err(rejection.retry_after(RETRY_WHEN_GOING_AWAY))
        };
        // A panic would take along the connection, and whoever else is on it.
        let decision = AssertUnwindSafe(async { ask(open).await }).catch_unwind();
        let identity = match tokio::time::timeout(self.timeout, decision).await {
            Ok(Ok(identity)) => identity?,
            Ok(Err(_)) => return failed("authentication failed"),
            Err(_) => return failed("authentication took too long"),
        };
        if identity.expires.is_some_and(|expires| expires <= SystemTime::now()) {
            return Err(Rejection::unauthorized("what the client authenticates with has expired"));
        }
        Ok(identity)
    }

    /// How to ask again with a newer token; `None` when there is nobody to ask.
    pub(super) fn again(self: &Arc<Self>, open: &Open) -> Option<Again> {
        self.ask.as_ref()?;
        let kept = if self.only_tokens { Kept::bare(open) } else { Kept::whole(open) };
        let authenticator = Arc::clone(self);
        Some(Arc::new(move |token| {
            let (authenticator, open) = (Arc::clone(&authenticator), kept.open(token));
            async move { authenticator.identify(&open).await.map_err(not_refreshed) }.boxed()
        }))
    }
}

fn not_refreshed(rejection: Rejection) -> NotRefreshed {
    let reason = rejection.reason().to_owned();
    match rejection.code() {
        Code::Unauthorized | Code::Forbidden => NotRefreshed::Refused(reason),
        _ => NotRefreshed::Unknown(reason),
    }
}
