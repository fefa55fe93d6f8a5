//! Server-Sent Events: one event is one packet, in base64 (SPEC section 7.3). The uplink is POST.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, header};
use http_body::Frame;
use parking_lot::Mutex;
use throughline_protocol::{Close, Packet};

use super::Transport;
use super::link::{Link, LinkEnd, Received};
use super::uplink::Uplink;

/// Longest packet in one event, in bytes: short, since an event is handed over whole and datagrams wait behind it.
const MAX_EVENT_PACKET: usize = 65_536;

/// A link, the response that carries it, and the place where its POSTs wait.
pub(crate) fn open() -> (SseLink, Response, Arc<Uplink>) {
    let pipe = Arc::new(Mutex::new(Pipe::default()));
    let mut response = Response::new(Body::new(EventBody(Arc::clone(&pipe))));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // Asks nginx not to collect the events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    let uplink = Arc::new(Uplink::default());
    (SseLink { pipe, uplink: Arc::clone(&uplink), sent: 0 }, response, uplink)
}

/// An event stream that carries a session.
pub(crate) struct SseLink {
    pipe: Arc<Mutex<Pipe>>,
    uplink: Arc<Uplink>,
    /// Packets so far: the `id:` of the last event.
    sent: u64,
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

impl Link for SseLink {
    fn transport(&self) -> Transport {
        Transport::Sse
    }

    fn peer_sends_requests(&self) -> bool {
        true
    }

    fn max_packet(&self) -> usize {
        MAX_EVENT_PACKET
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, LinkEnd>> {
        // The POSTs first: a CLOSE may be among them, after which the client left.
        if let Poll::Ready(posted) = self.uplink.poll_recv(cx) {
            return Poll::Ready(Ok(Received::Posted(posted)));
        }
        let mut pipe = self.pipe.lock();
        if pipe.abandoned {
            return Poll::Ready(Err(LinkEnd::Lost("the client left the event stream".into())));
        }
        pipe.link = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        let mut pipe = self.pipe.lock();
        if pipe.abandoned {
            return Poll::Ready(Err(LinkEnd::Lost("the client left the event stream".into())));
        }
        if pipe.event.is_none() {
            return Poll::Ready(Ok(()));
        }
        pipe.link = Some(cx.waker().clone());
        Poll::Pending
    }

    fn send(&mut self, packet: Packet) {
        self.sent += 1;
        let mut pipe = self.pipe.lock();
        pipe.event = Some(event(self.sent, &packet));
        pipe.body.take().into_iter().for_each(Waker::wake);
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        Poll::Ready(Ok(())) // the body asks for what it can take
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, _: &Close) -> Poll<()> {
        self.uplink.close();
        let mut pipe = self.pipe.lock();
        pipe.finished = true;
        pipe.body.take().into_iter().for_each(Waker::wake);
        if pipe.abandoned {
            return Poll::Ready(());
        }
        pipe.link = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for SseLink {
    fn drop(&mut self) {
        self.uplink.close();
        let mut pipe = self.pipe.lock();
        pipe.finished = true;
        pipe.body.take().into_iter().for_each(Waker::wake);
    }
}

/// One `data:` line a piece, so that the base64 of a shared payload is the same for everyone.
fn event(id: u64, packet: &Packet) -> Bytes {
    let mut event = BytesMut::with_capacity(packet.len() * 4 / 3 + packet.pieces().len() * 12 + 32);
    event.put_slice(format!("id: {id}\n").as_bytes());
    for piece in packet.pieces() {
        event.put_slice(b"data: ");
        event.put_slice(BASE64_STANDARD.encode(piece).as_bytes());
        event.put_u8(b'\n');
    }
    event.put_u8(b'\n');
    event.freeze()
}

struct EventBody(Arc<Mutex<Pipe>>);

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
