//! From an accepted CONNECT request to its session.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::oneshot;

use super::session::WebTransport;

/// Found among the extensions of an extended CONNECT request for WebTransport: resolves to the
/// session once a 200 has been written. It is taken once; a clone that comes second gets an error.
///
/// A handler takes it out of the request, gives it to a task of its own, and answers 200. With any
/// other status the session is rejected, and this resolves to an error.
#[derive(Clone)]
pub(crate) struct Upgrade(Arc<Mutex<Option<oneshot::Receiver<WebTransport>>>>);

/// Why there is no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub(crate) enum UpgradeError {
    /// The request was answered by something other than a 200, or the client was gone before it was.
    #[error("the WebTransport session was not established")]
    NotEstablished,
    /// The session went to a clone of this upgrade.
    #[error("the upgrade was already used")]
    AlreadyUsed,
}

impl Upgrade {
    pub(super) fn pair() -> (oneshot::Sender<WebTransport>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(Arc::new(Mutex::new(Some(receiver)))))
    }
}

impl Future for Upgrade {
    type Output = Result<WebTransport, UpgradeError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.lock();
        let receiver = slot.as_mut().ok_or(UpgradeError::AlreadyUsed)?;
        let received = ready!(Pin::new(receiver).poll(cx));
        *slot = None;
        Poll::Ready(received.map_err(|_| UpgradeError::NotEstablished))
    }
}

impl std::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upgrade").finish_non_exhaustive()
    }
}
