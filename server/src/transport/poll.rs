//! Long-polling: a GET is held until there is a packet for it (SPEC section 7.4). The uplink is POST.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use throughline_protocol::limits::MAX_PACKET;
use throughline_protocol::{Close, Frame, Packet};
use tokio::sync::oneshot;

use super::Transport;
use super::link::{Link, LinkEnd, Received};
use super::uplink::Uplink;

/// Neither by a browser nor by a proxy, nor changed by one.
const NEVER_STORED: HeaderValue = HeaderValue::from_static("no-store, no-transform");

/// The number of an answer's packet on its link. Browsers ask again by themselves when a connection breaks before the answer, and nobody else would know that
/// one is missing.
pub(crate) const PACKET_NUMBER: HeaderName = HeaderName::from_static("throughline-packet");

/// A link, and the places where its GETs and its POSTs wait.
pub(crate) fn open() -> (PollLink, Arc<Held>, Arc<Uplink>) {
    let (held, uplink) = <(Arc<Held>, Arc<Uplink>)>::default();
    (PollLink { held: Arc::clone(&held), uplink: Arc::clone(&uplink), sent: 0 }, held, uplink)
}

/// A sequence of held GETs that carries a session.
pub(crate) struct PollLink {
    held: Arc<Held>,
    uplink: Arc<Uplink>,
    /// Packets so far: the number of the last one.
    sent: u64,
}

/// Where a GET waits for its packet. At most one does.
#[derive(Default)]
pub(crate) struct Held(Mutex<State>);

#[derive(Default)]
struct State {
    get: Option<oneshot::Sender<(u64, Packet)>>,
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

    /// Waits up to `hold` for a packet: 200 with it, or 204. A GET that waits already is answered 204 at once.
    pub(crate) async fn answer(&self, hold: Duration) -> Response {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.0.lock();
            // The older one is dropped, and answered; so is this one, when the session has just ended.
            state.get = (!state.finished).then_some(sender);
            state.arrived = true;
            state.link.take().into_iter().for_each(Waker::wake);
        }
        match tokio::time::timeout(hold, receiver).await {
            Ok(Ok((number, packet))) => {
                let mut response = answer(StatusCode::OK, packet.into_bytes());
                response.headers_mut().insert(PACKET_NUMBER, number.into());
                response
            }
            Ok(Err(_)) | Err(_) => answer(StatusCode::NO_CONTENT, Bytes::new()),
        }
    }
}

/// For a GET that comes when the session has ended.
pub(crate) fn answer_closed(close: Close) -> Response {
    let mut packet = BytesMut::new();
    Frame::Close(close).encode(&mut packet);
    answer(StatusCode::OK, packet.freeze())
}

fn answer(status: StatusCode, packet: Bytes) -> Response {
    let mut response = Response::new(Body::from(packet));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, NEVER_STORED);
    if status == StatusCode::OK {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    }
    response
}

impl Link for PollLink {
    fn transport(&self) -> Transport {
        Transport::Poll
    }

    fn peer_sends_requests(&self) -> bool {
        true
    }

    fn max_packet(&self) -> usize {
        MAX_PACKET
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, LinkEnd>> {
        if let Poll::Ready(posted) = self.uplink.poll_recv(cx) {
            return Poll::Ready(Ok(Received::Posted(posted)));
        }
        let mut state = self.held.0.lock();
        if std::mem::take(&mut state.arrived) {
            return Poll::Ready(Ok(Received::Alive));
        }
        state.link = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        let mut state = self.held.0.lock();
        if state.get.as_ref().is_some_and(|get| !get.is_closed()) {
            return Poll::Ready(Ok(()));
        }
        state.link = Some(cx.waker().clone());
        Poll::Pending
    }

    fn send(&mut self, packet: Packet) {
        if let Some(get) = self.held.0.lock().get.take() {
            self.sent += 1;
            // A GET that went away in this moment took its packet along: its client misses the number, and treats the link as lost.
            drop(get.send((self.sent, packet)));
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>, _: &Close) -> Poll<()> {
        self.uplink.close();
        Poll::Ready(()) // CLOSE was the last packet; further GETs find no session
    }
}

impl Drop for PollLink {
    fn drop(&mut self) {
        self.uplink.close();
        let mut state = self.held.0.lock();
        state.finished = true;
        state.get = None;
    }
}
