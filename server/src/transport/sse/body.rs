//! An event stream as the body of a response: over HTTP/2, HTTP/3 and other people's servers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;

/// The two ends of an event stream.
pub(super) fn pair() -> (Writer, EventBody) {
    let pipe = Arc::new(Mutex::new(Pipe::default()));
    (Writer(Arc::clone(&pipe)), EventBody(pipe))
}

/// Between the link, which the session's driver polls, and the body, which the HTTP connection polls. One event deep: whatever
/// else is to be sent stays where newer things can replace it.
#[derive(Default)]
struct Pipe {
    event: Option<Bytes>,
    /// The link has no more to send.
    finished: bool,
    /// The reader has gone.
    abandoned: bool,
    link: Option<Waker>,
    body: Option<Waker>,
}

/// The link's end.
pub(super) struct Writer(Arc<Mutex<Pipe>>);

impl Writer {
    /// Ready when the reader has gone.
    pub(super) fn poll_abandoned(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pipe = self.0.lock();
        if pipe.abandoned {
            return Poll::Ready(());
        }
        pipe.link = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when there is room for an event, or the reader has gone: then `false`.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut pipe = self.0.lock();
        if pipe.abandoned || pipe.event.is_none() {
            return Poll::Ready(!pipe.abandoned);
        }
        pipe.link = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn put(&self, event: Bytes) {
        let mut pipe = self.0.lock();
        pipe.event = Some(event);
        pipe.body.take().into_iter().for_each(Waker::wake);
    }

    /// Nothing more comes.
    pub(super) fn finish(&self) {
        let mut pipe = self.0.lock();
        pipe.finished = true;
        pipe.body.take().into_iter().for_each(Waker::wake);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The reader's end.
pub(super) struct EventBody(Arc<Mutex<Pipe>>);

impl http_body::Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut pipe = self.0.lock();
        if let Some(event) = pipe.event.take() {
            pipe.link.take().into_iter().for_each(Waker::wake);
            return Poll::Ready(Some(Ok(Frame::data(event))));
        }
        if pipe.finished {
            return Poll::Ready(None);
        }
        pipe.body = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for EventBody {
    fn drop(&mut self) {
        let mut pipe = self.0.lock();
        pipe.abandoned = true;
        pipe.link.take().into_iter().for_each(Waker::wake);
    }
}
