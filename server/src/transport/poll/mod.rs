//! Long-polling: a GET is held until there is a packet for it (SPEC section 7.4). The uplink is POST.

mod get;
mod held;

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode, header};
use throughline_protocol::limits::MAX_PACKET;
use throughline_protocol::{Close, Frame, Packet};

use super::Transport;
use super::link::{Link, LinkEnd, Received};
use super::uplink::Uplink;

pub(crate) use held::Held;

/// Neither by a browser nor by a proxy, nor changed by one.
const NEVER_STORED: HeaderValue = HeaderValue::from_static("no-store, no-transform");

/// Of a packet.
const CONTENT_TYPE: &str = "application/octet-stream";

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

/// For a GET that comes when the session has ended.
pub(crate) fn answer_closed(close: Close) -> Response {
    let mut packet = BytesMut::new();
    Frame::Close(close).encode(&mut packet);
    answer(StatusCode::OK, packet.freeze())
}

fn answer(status: StatusCode, packet: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(packet));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, NEVER_STORED);
    if status == StatusCode::OK {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
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
        self.held.poll_arrived(cx).map(|()| Ok(Received::Alive))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        self.held.poll_ready(cx).map(Ok)
    }

    fn send(&mut self, packet: Packet) {
        if let Some(get) = self.held.take() {
            self.sent += 1;
            // A GET that went away in this moment took its packet along: its client misses the number, and treats the link as lost.
            get.answer(self.sent, packet);
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
        self.held.finish();
    }
}
