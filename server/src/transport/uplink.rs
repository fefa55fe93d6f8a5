//! The uplink of sse and poll: a POST whose body is one packet (SPEC section 7.5).

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use parking_lot::Mutex;
use throughline_protocol::Code;
use throughline_protocol::limits::MAX_UPLINK_PACKET;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::link::{Posted, Verdict};
use super::open::Rejection;

/// Where the POSTs of one link wait until its session takes them. Each is a request that is under way, so that connections bound them.
#[derive(Default)]
pub(crate) struct Uplink(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: VecDeque<Posted>,
    closed: bool,
    link: Option<Waker>,
}

impl Uplink {
    /// Hands a packet to the link, after those before it, and waits for what becomes of it.
    pub(crate) async fn post(&self, packet: Bytes) -> Verdict {
        let (answer, verdict) = oneshot::channel();
        {
            let mut state = self.0.lock();
            if state.closed {
                return Verdict::Gone;
            }
            state.waiting.push_back(Posted { packet, answer });
            state.link.take().into_iter().for_each(Waker::wake);
        }
        verdict.await.unwrap_or(Verdict::Gone)
    }

    /// The next packet.
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Posted> {
        let mut state = self.0.lock();
        if let Some(posted) = state.waiting.pop_front() {
            return Poll::Ready(posted);
        }
        if state.waiting.capacity() > 0 {
            state.waiting = VecDeque::new(); // an idle link holds no buffer
        }
        state.link = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The link takes no more: whoever waits is told so, and whoever comes.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut state = self.0.lock();
            state.closed = true;
            state.link = None;
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
    }

    /// Whether the link takes no more.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().closed
    }
}

/// Reads the body, within its limit and before `deadline`: an upload that hangs would hold one of the few connections that a browser has.
pub(crate) async fn read_packet(body: Body, deadline: std::time::Duration) -> Result<Bytes, Rejection> {
    let limited = Limited::new(body, MAX_UPLINK_PACKET);
    match timeout(deadline, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let reason = format!("a packet of more than {MAX_UPLINK_PACKET} bytes: send it in several POSTs");
            Err(Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, Code::FrameTooLarge, reason))
        }
        Ok(Err(_)) => Err(Rejection::bad_request("the body ended too early")),
        Err(_) => Err(Rejection::new(StatusCode::REQUEST_TIMEOUT, Code::BadRequest, "the body did not arrive in time")),
    }
}
