//! What the two ends of a connection have to tell each other past hyper: its service, and whoever drives it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;

use crate::socket::takeover::Takeover;

/// One for each connection.
#[derive(Default)]
pub(super) struct Line {
    /// A request has come.
    spoken: AtomicBool,
    /// hyper has something to write that the socket does not take.
    blocked: Arc<AtomicBool>,
    /// Requests whose answers hyper does not have whole yet, and whether it had one whole.
    under_way: AtomicUsize,
    has_answered: AtomicBool,
    /// Somebody has not read the whole body of a request: what is left of it must not be taken for the next one.
    has_unread: AtomicBool,
    wish: Mutex<Option<Wish>>,
}

/// What a request wants of its connection.
pub(super) enum Wish {
    /// To take it, with these headers in the answer.
    Take(Takeover, HeaderMap),
    /// To be served where it can be upgraded. These are the bytes of the request's head.
    Upgrade(Bytes),
    /// Nothing: all requests are read and answered.
    Rest,
}

/// A request that is not answered yet, as long as this.
pub(super) struct UnderWay(Arc<Line>);

impl UnderWay {
    pub(super) fn new(line: &Arc<Line>) -> Self {
        line.under_way.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(line))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        self.0.has_answered.store(true, Ordering::Relaxed);
    }
}

/// The body of an answer. hyper drops it when it has all of it.
pub(super) struct Answer {
    pub(super) body: axum::body::Body,
    pub(super) _under_way: UnderWay,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request, for whoever answers it.
pub(super) struct Question {
    body: Incoming,
    is_read: bool,
    line: Arc<Line>,
}

impl Question {
    pub(super) fn new(body: Incoming, line: &Arc<Line>) -> Self {
        Self { body, is_read: false, line: Arc::clone(line) }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.is_read && !self.body.is_end_stream() {
            self.line.has_unread.store(true, Ordering::Relaxed);
        }
    }
}

impl Body for Question {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.is_read = frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Line {
    pub(super) fn has_spoken(&self) {
        self.spoken.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_spoken_on(&self) -> bool {
        self.spoken.load(Ordering::Relaxed)
    }

    pub(super) fn has_unread(&self) -> bool {
        self.has_unread.load(Ordering::Relaxed)
    }

    pub(super) fn blocked(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.blocked)
    }

    pub(super) fn wish(&self, wish: Wish) {
        *self.wish.lock() = Some(wish);
    }

    /// What is wished for, once the answers before it are written: they are in hyper's buffer, which goes when the connection is taken.
    pub(super) fn take_wish(&self) -> Option<Wish> {
        if self.blocked.load(Ordering::Relaxed) {
            return None;
        }
        let is_answered = self.has_answered.load(Ordering::Relaxed) && self.under_way.load(Ordering::Relaxed) == 0;
        let is_at_rest = is_answered && !self.has_unread();
        self.wish.lock().take().or(is_at_rest.then_some(Wish::Rest))
    }
}

/// Whether the connection of a request can be had: nothing of the request is still to be read, and both sides would go on with the next one after it.
pub(super) fn can_be_taken(request: &Request<impl Body>) -> bool {
    let closes = |value: &http::HeaderValue| {
        let mut tokens = value.as_bytes().split(|byte| *byte == b',');
        tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
    };
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && request.body().is_end_stream()
        && !request.headers().get_all(header::CONNECTION).iter().any(closes)
}

/// The head of a request, as it could have come.
pub(super) fn repeated<B>(request: &Request<B>) -> Bytes {
    let mut head = format!("{} {} {:?}\r\n", request.method(), request.uri(), request.version()).into_bytes();
    for (name, value) in request.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head.into()
}
