//! A GET that waits: a connection that was taken over, or a request of whoever else speaks HTTP.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use throughline_protocol::Packet;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::{CONTENT_TYPE, PACKET_NUMBER, answer};
use crate::socket::takeover::Taken;
use crate::socket::unwritten::Unwritten;

/// A GET.
pub(super) enum Get {
    Taken(Waiting),
    /// Its request keeps the time by itself.
    Response(oneshot::Sender<(u64, Packet)>),
}

/// A connection on which an answer is awaited.
pub(super) struct Waiting {
    taken: Taken,
    /// Until then.
    hold: Pin<Box<Sleep>>,
    /// The client has gone.
    is_gone: bool,
}

impl Waiting {
    pub(super) fn new(taken: Taken, hold: Duration) -> Self {
        Self { taken, hold: Box::pin(tokio::time::sleep(hold)), is_gone: false }
    }

    /// Ready when the client has gone. A request that it sends meanwhile is read once, and no further, until it is its turn.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let socket = &mut self.taken.socket;
        if socket.is_rewound() {
            return Poll::Pending;
        }
        match ready!(socket.poll_take(cx, Bytes::copy_from_slice)) {
            Ok(bytes) if !bytes.is_empty() => {
                socket.rewind(bytes);
                Poll::Pending
            }
            Ok(_) | Err(_) => {
                self.is_gone = true;
                Poll::Ready(())
            }
        }
    }

    /// Writes an answer, as much of it as goes at once. The rest is written by whoever gets the connection back: the client asks on it again.
    fn answer(mut self, head: Bytes, packet: Option<Packet>) {
        if self.is_gone {
            return;
        }
        let mut pieces = packet.map(Packet::into_pieces).unwrap_or_default();
        pieces.insert(0, head);
        let mut unwritten = Unwritten::default();
        unwritten.put(pieces);
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(_)) = unwritten.poll_write(&mut self.taken.socket, &mut cx) {
            return;
        }
        self.taken.give_back(unwritten);
    }
}

impl Get {
    /// Whether somebody still waits for it.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Self::Taken(_) => true,
            Self::Response(sender) => !sender.is_closed(),
        }
    }

    /// Ready when its time is over, or its client has gone.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Taken(waiting) => match waiting.hold.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => waiting.poll_gone(cx),
            },
            Self::Response(_) => Poll::Pending,
        }
    }

    /// Answers with a packet.
    pub(super) fn answer(self, number: u64, packet: Packet) {
        match self {
            Self::Response(sender) => drop(sender.send((number, packet))),
            Self::Taken(waiting) => {
                let own = format_args!(
                    "content-type: {CONTENT_TYPE}\r\ncontent-length: {}\r\n{PACKET_NUMBER}: {number}\r\n",
                    packet.len()
                );
                let head = waiting.taken.head(StatusCode::OK, own);
                waiting.answer(head, Some(packet));
            }
        }
    }

    /// Answers that there is nothing.
    pub(super) fn answer_nothing(self) {
        match self {
            Self::Response(_) => {} // its request sees that it was dropped
            Self::Taken(waiting) => {
                let head = waiting.taken.head(StatusCode::NO_CONTENT, format_args!(""));
                waiting.answer(head, None);
            }
        }
    }
}

/// The same where HTTP is spoken by others.
pub(super) fn response(packet: Option<(u64, Packet)>) -> Response {
    let Some((number, packet)) = packet else { return answer(StatusCode::NO_CONTENT, Bytes::new()) };
    let mut response = answer(StatusCode::OK, packet.into_bytes());
    response.headers_mut().insert(PACKET_NUMBER, number.into());
    response
}
