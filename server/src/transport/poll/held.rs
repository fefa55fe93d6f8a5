//! Where a GET waits for its packet. At most one does.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::NEVER_STORED;
use super::get::{Get, Waiting, response};
use crate::socket::takeover::{Offer, Takeover};

#[derive(Default)]
pub(crate) struct Held(Mutex<State>);

#[derive(Default)]
struct State {
    get: Option<Get>,
    /// A GET has come since the link last looked.
    arrived: bool,
    finished: bool,
    /// A GET has come since the session ended.
    was_told: bool,
    link: Option<Waker>,
}

impl Held {
    /// Whether no GET was answered with the session's CLOSE yet that came after its end.
    pub(crate) fn is_first_after_end(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().was_told, true)
    }

    /// Whether the link is over: it answers no GET any more.
    pub(crate) fn is_finished(&self) -> bool {
        self.0.lock().finished
    }

    /// Waits up to `hold` for a packet: 200 with it, or 204. A GET that waits already is answered 204 at once. Calls `begin` before it waits; not at all when the
    /// client leaves before that.
    pub(crate) async fn answer(
        self: Arc<Self>,
        offer: Option<Offer>,
        hold: Duration,
        begin: impl FnOnce() + Send + 'static,
    ) -> Response<Body> {
        if offer.is_some() {
            let mut response = Takeover::response(move |taken| {
                begin();
                self.hold(Get::Taken(Waiting::new(taken, hold)));
            });
            response.headers_mut().insert(header::CACHE_CONTROL, NEVER_STORED);
            return response;
        }
        begin();
        let (sender, receiver) = oneshot::channel();
        self.hold(Get::Response(sender));
        response(tokio::time::timeout(hold, receiver).await.ok().and_then(Result::ok))
    }

    fn hold(&self, get: Get) {
        let older = {
            let mut state = self.0.lock();
            state.arrived = true;
            state.link.take().into_iter().for_each(Waker::wake);
            // When the session has just ended, this one has come too late.
            if state.finished { Some(get) } else { state.get.replace(get) }
        };
        older.into_iter().for_each(Get::answer_nothing);
    }

    /// Ready when a GET has come since this was last asked. Looks after the one that waits.
    pub(super) fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if std::mem::take(&mut state.arrived) {
            return Poll::Ready(());
        }
        if state.get.as_mut().is_some_and(|get| get.poll_over(cx).is_ready()) {
            let over = state.get.take();
            drop(state);
            over.into_iter().for_each(Get::answer_nothing);
            state = self.0.lock();
        }
        state.link = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when a GET waits.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.get.as_ref().is_some_and(Get::is_there) {
            return Poll::Ready(());
        }
        state.link = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The GET that waits, to be answered.
    pub(super) fn take(&self) -> Option<Get> {
        self.0.lock().get.take()
    }

    /// The link is over.
    pub(super) fn finish(&self) {
        let last = {
            let mut state = self.0.lock();
            state.finished = true;
            state.get.take()
        };
        last.into_iter().for_each(Get::answer_nothing);
    }
}
