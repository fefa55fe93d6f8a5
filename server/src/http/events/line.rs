//! A connection that an event stream has for itself.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use throughline_protocol::channel::Position;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::socket::endless::Endless;

/// How long a connection may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Shared by the stream's own task and the audience that it sits in.
pub(super) struct Line(Mutex<State>);

struct State {
    /// `None` when the stream is over.
    answer: Option<Endless>,
    /// The last that it was given.
    at: Position,
    /// An audience writes.
    is_seated: bool,
    /// Of its own task.
    waker: Option<Waker>,
}

/// The stream is over: its client has gone, or takes nothing.
pub(super) struct Over;

impl Line {
    pub(super) fn new(answer: Endless) -> Arc<Self> {
        let (at, is_seated, waker) = (Position::default(), false, None);
        Arc::new(Self(Mutex::new(State { answer: Some(answer), at, is_seated, waker })))
    }

    /// The last that it was given.
    pub(super) fn at(&self) -> Position {
        self.0.lock().at
    }

    /// Waits until everything is written; not longer than this.
    pub(super) async fn written(&self, patience: Duration) -> Result<(), Over> {
        let written = poll_fn(|cx| self.poll(|answer| answer.poll_write(cx).map_err(|_| Over)));
        timeout(patience, written).await.unwrap_or(Err(Over))
    }

    /// Writes a chunk, when everything before it is written: as much of it as goes at once.
    pub(super) async fn say(&self, chunk: Bytes, patience: Duration) -> Result<(), Over> {
        self.written(patience).await?;
        if let Some(answer) = &mut self.0.lock().answer {
            answer.write_now(chunk);
        }
        Ok(())
    }

    /// Waits until the client has left.
    pub(super) async fn abandoned(&self) {
        poll_fn(|cx| self.poll(|answer| answer.poll_abandoned(cx).map(|()| Err(Over)))).await.unwrap_or_default();
    }

    /// Waits until it has to go on at its own pace.
    pub(super) async fn unseated(&self) -> Result<(), Over> {
        poll_fn(|cx| {
            let mut state = self.0.lock();
            if !state.is_seated {
                return Poll::Ready(Ok(()));
            }
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
            let Some(answer) = &mut state.answer else { return Poll::Ready(Err(Over)) };
            answer.poll_abandoned(cx).map(|()| Err(Over))
        })
        .await
    }

    /// Says goodbye, as long as the server has time for it, and gives the connection back.
    pub(super) async fn close(&self, ended: &CancellationToken) {
        let Some(mut answer) = self.0.lock().answer.take() else { return };
        tokio::select! {
            biased;
            _ = timeout(CLOSE_TIMEOUT, poll_fn(|cx| answer.poll_close(cx))) => {}
            () = ended.cancelled() => {}
        }
    }

    /// An audience writes from now on, what comes after this position.
    pub(super) fn sit(&self, at: Position) {
        let mut state = self.0.lock();
        (state.at, state.is_seated) = (at, true);
    }

    /// An audience gives it a chunk, with what is between two positions. False when it sits there no longer.
    pub(super) fn tell(&self, chunk: &Bytes, before: Position, after: Position) -> bool {
        let mut state = self.0.lock();
        if state.at != before {
            if state.at.epoch == after.epoch && state.at.offset >= after.offset {
                return true; // it had it before it came
            }
            state.unseat(); // it had some of it
            return false;
        }
        let Some(answer) = &mut state.answer else { return false };
        let is_written = answer.write_now(chunk.clone());
        state.at = after;
        if !is_written {
            state.unseat(); // an error comes once more, when its own task writes
        }
        is_written
    }

    /// The audience is over.
    pub(super) fn unseat(&self) {
        self.0.lock().unseat();
    }

    fn poll(&self, step: impl FnOnce(&mut Endless) -> Poll<Result<(), Over>>) -> Poll<Result<(), Over>> {
        let mut state = self.0.lock();
        let Some(answer) = &mut state.answer else { return Poll::Ready(Err(Over)) };
        step(answer)
    }
}

impl State {
    fn unseat(&mut self) {
        self.is_seated = false;
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}
