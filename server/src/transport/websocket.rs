//! WebSocket: one binary message is one packet (SPEC section 7.2). Over HTTP/1.1 and, by RFC 8441, over HTTP/2.

use std::task::{Context, Poll, ready};

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures_util::{Sink, SinkExt, StreamExt};
use throughline_protocol::limits::{MAX_PACKET, MAX_REASON, STREAM_CHUNK};
use throughline_protocol::{Close, Code, Origin, Packet};

use super::Transport;
use super::link::{LEFT, Link, LinkEnd, Received, carrier_code};
use super::open::SUBPROTOCOL;

/// Read buffer of one connection, in bytes: zero-filled at every read, so small; larger frames get their own.
const READ_BUFFER: usize = 4_096;

/// Longest packet that is sent, in bytes: two STREAM frames, so that a datagram never waits behind more. The client may send up to [`MAX_PACKET`].
const MAX_OUTGOING_PACKET: usize = 2 * STREAM_CHUNK;

/// Most that may wait in a connection's write buffer, in bytes. One packet is written at a time, and pongs beside it.
const MAX_WRITE_BUFFER: usize = 2 * MAX_OUTGOING_PACKET;

/// A close reason must fit in a control frame beside its code, in bytes (RFC 6455, section 5.5).
const MAX_CLOSE_REASON: usize = 123;

/// Answers the upgrade, and hands over the link when the connection has switched.
pub(crate) fn upgrade(upgrade: WebSocketUpgrade, on_link: impl FnOnce(WebSocketLink) + Send + 'static) -> Response {
    upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(MAX_PACKET)
        .max_frame_size(MAX_PACKET)
        .on_upgrade(async move |socket| on_link(WebSocketLink { socket, closing: Closing::No, failed: None }))
}

/// A WebSocket that carries a session.
pub(crate) struct WebSocketLink {
    socket: WebSocket,
    closing: Closing,
    failed: Option<LinkEnd>,
}

enum Closing {
    No,
    /// The close frame is written; the peer's is awaited.
    Sent,
}

impl Link for WebSocketLink {
    fn transport(&self) -> Transport {
        Transport::WebSocket
    }

    fn max_packet(&self) -> usize {
        MAX_OUTGOING_PACKET
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, LinkEnd>> {
        if let Some(end) = &self.failed {
            return Poll::Ready(Err(end.clone()));
        }
        let result = match ready!(self.socket.poll_next_unpin(cx)) {
            Some(Ok(Message::Binary(bytes))) => Ok(Received::Packet(bytes)),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(Received::Alive),
            Some(Ok(Message::Text(_))) => Err(LinkEnd::Violation(Close::protocol(
                Code::ProtocolViolation,
                "a text message: packets are binary messages",
            ))),
            Some(Ok(Message::Close(frame))) => Err(closed_by_peer(frame)),
            Some(Err(error)) => Err(read_error(&error)),
            None => Err(LinkEnd::Lost("the connection ended".into())),
        };
        Poll::Ready(result)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        let ready = ready!(std::pin::Pin::new(&mut self.socket).poll_ready(cx));
        Poll::Ready(ready.map_err(|error| LinkEnd::Lost(error.to_string())))
    }

    fn send(&mut self, packet: Packet) {
        if let Err(error) = self.socket.start_send_unpin(Message::Binary(packet.into_bytes())) {
            self.failed = Some(LinkEnd::Lost(error.to_string()));
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        let flushed = ready!(self.socket.poll_flush_unpin(cx));
        Poll::Ready(flushed.map_err(|error| LinkEnd::Lost(error.to_string())))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, close: &Close) -> Poll<()> {
        if matches!(self.closing, Closing::No) {
            match ready!(std::pin::Pin::new(&mut self.socket).poll_ready(cx)) {
                Ok(()) => {}
                Err(_) => return Poll::Ready(()),
            }
            let code = match close.origin {
                Origin::Protocol if close.code != 0 => carrier_code(close) as u16, // 4000 and a code of the table
                _ => 1_000,
            };
            let reason = &close.reason[..close.reason.floor_char_boundary(MAX_CLOSE_REASON.min(MAX_REASON))];
            let frame = CloseFrame { code, reason: reason.into() };
            if self.socket.start_send_unpin(Message::Close(Some(frame))).is_err() {
                return Poll::Ready(());
            }
            self.closing = Closing::Sent;
        }
        if ready!(self.socket.poll_flush_unpin(cx)).is_err() {
            return Poll::Ready(());
        }
        // The peer's close frame ends the handshake; what else it sends is of no interest any more.
        loop {
            match ready!(self.socket.poll_next_unpin(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(()),
            }
        }
    }
}

/// SPEC section 8: 1000 and 3000 to 4999 are deliberate; 1001 (a page that goes away) and others are a lost link.
fn closed_by_peer(frame: Option<CloseFrame>) -> LinkEnd {
    match frame {
        Some(CloseFrame { code: 1_000, reason }) => LinkEnd::Closed { code: 0, reason: reason.to_string() },
        Some(CloseFrame { code, .. }) if u32::from(code) == LEFT => LinkEnd::Lost("the client left the link".into()),
        Some(CloseFrame { code: code @ 3_000..=4_999, reason }) => {
            LinkEnd::Closed { code: u32::from(code), reason: reason.to_string() }
        }
        Some(CloseFrame { code, .. }) => LinkEnd::Lost(format!("the client closed the WebSocket with {code}")),
        None => LinkEnd::Lost("the client closed the WebSocket without a code".into()),
    }
}

fn read_error(error: &axum::Error) -> LinkEnd {
    use std::error::Error as _;
    use tokio_tungstenite::tungstenite::Error;
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    match error.source().and_then(|source| source.downcast_ref::<Error>()) {
        Some(Error::Capacity(_)) => LinkEnd::Violation(Close::protocol(
            Code::FrameTooLarge,
            format!("a packet of more than {MAX_PACKET} bytes"),
        )),
        Some(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
            LinkEnd::Lost("the connection ended without a close frame".into())
        }
        Some(Error::Protocol(_) | Error::Utf8(_)) => {
            LinkEnd::Violation(Close::protocol(Code::ProtocolViolation, error.to_string()))
        }
        _ => LinkEnd::Lost(error.to_string()),
    }
}
