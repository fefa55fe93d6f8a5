//! WebSocket: one binary message is one packet (SPEC section 7.2). Over HTTP/1.1 and, by RFC 8441, over HTTP/2.
//!
//! The frames are our own: a library has buffers of its own, and a session that is idle should have none; and what is sent to many has to leave
//! without a copy for each.

mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod reader;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header, request};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use throughline_protocol::limits::{MAX_PACKET, MAX_REASON, STREAM_CHUNK};
use throughline_protocol::{Close, Code, Origin, Packet};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Transport;
use super::link::{Direct, LEFT, Line, Link, LinkEnd, Received, carrier_code};
use super::open::SUBPROTOCOL;
use crate::socket::Socket;
use crate::socket::unwritten::{JOINED, Unwritten};
use frame::{BINARY, CLOSE, MAX_CONTROL, PONG};
use reader::{Broken, Incoming, Reader};

/// Longest packet that is sent, in bytes: two STREAM frames, so that a datagram never waits behind more. The client may send up to [`MAX_PACKET`].
const MAX_OUTGOING_PACKET: usize = 2 * STREAM_CHUNK;

/// A close reason must fit in a control frame beside its code, in bytes (RFC 6455, section 5.5).
const MAX_CLOSE_REASON: usize = MAX_CONTROL - 2;

/// Reads of a link that is closing, before others get their turn.
const DISCARD_BUDGET: usize = 16;

/// The answer to a request whose upgrade was found to be one.
pub(crate) fn accept(parts: &request::Parts) -> Response {
    let mut response = Response::default();
    let headers = response.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    // HTTP/2 has no key: there the answer is 200, and nothing changes but what is in the body (RFC 8441, section 5).
    if let Some(key) = parts.headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| parts.method == http::Method::GET) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::try_from(derive_accept_key(key.as_bytes())) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    }
    response
}

/// The link, when the connection has switched.
pub(crate) async fn open(upgrade: OnUpgrade) -> Result<WebSocketLink, hyper::Error> {
    Ok(WebSocketLink::new(Socket::upgraded(upgrade.await?)))
}

/// A WebSocket that carries a session.
pub(crate) struct WebSocketLink {
    wire: Arc<Mutex<Wire>>,
    reader: Reader,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The client broke the rules: nothing of it is read any more.
    Broken,
    /// The close frame is on its way; the peer's is awaited.
    Closing,
}

/// The connection, and what it has not taken yet. One packet deep: whatever else is to be sent stays where newer things can replace it.
struct Wire {
    socket: Socket,
    unwritten: Unwritten,
    /// A control frame that goes out after that. Of several pongs only the last one counts.
    reply: Option<Bytes>,
}

impl Wire {
    /// Writes what was taken.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.unwritten.poll_write(&mut self.socket, cx))?;
            match self.reply.take() {
                Some(reply) => self.unwritten.put(vec![reply]),
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads what there is; 0 at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, reader: &mut Reader) -> Poll<io::Result<usize>> {
        self.socket.poll_take(cx, |bytes| {
            reader.push(bytes);
            bytes.len()
        })
    }

    fn put(&mut self, packet: Packet) {
        let (header, len) = frame::header(BINARY, packet.len());
        self.unwritten.put_behind(&header[..len], packet.into_pieces());
    }
}

impl Line for Wire {
    const MAX_PACKET: usize = MAX_OUTGOING_PACKET;

    fn is_blocked(&self) -> bool {
        !self.unwritten.is_empty() || self.reply.is_some()
    }

    fn write(&mut self, packet: &mut Packet) -> bool {
        let (header, len) = frame::header(BINARY, packet.len());
        let header = &header[..len];
        if len + packet.len() <= JOINED {
            return self.unwritten.join_and_write(&mut self.socket, [header].into_iter().chain(packet.pieces()));
        }
        self.unwritten.put_behind(header, std::mem::take(packet).into_pieces());
        self.unwritten.write_now(&mut self.socket)
    }
}

impl WebSocketLink {
    fn new(socket: Socket) -> Self {
        let wire = Wire { socket, unwritten: Unwritten::default(), reply: None };
        Self { wire: Arc::new(Mutex::new(wire)), reader: Reader::default(), state: State::Open }
    }

    /// Says something in a control frame. Whether that works is seen by whoever reads or writes next.
    fn reply(&self, cx: &mut Context<'_>, opcode: u8, payload: &[u8]) {
        let mut wire = self.wire.lock();
        wire.reply = Some(control(opcode, payload));
        drop(wire.poll_write(cx));
    }
}

impl Link for WebSocketLink {
    fn transport(&self) -> Transport {
        Transport::WebSocket
    }

    fn max_packet(&self) -> usize {
        MAX_OUTGOING_PACKET
    }

    fn direct(&self) -> Option<Arc<dyn Direct>> {
        Some(Arc::clone(&self.wire) as Arc<dyn Direct>)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, LinkEnd>> {
        if self.state != State::Open {
            return Poll::Pending; // a CLOSE is on its way; the driver bounds the wait
        }
        loop {
            match self.reader.next() {
                Ok(Some(Incoming::Message(bytes))) => return Poll::Ready(Ok(Received::Packet(bytes))),
                Ok(Some(Incoming::Pong)) => return Poll::Ready(Ok(Received::Alive)),
                Ok(Some(Incoming::Ping(payload))) => {
                    self.reply(cx, PONG, &payload);
                    return Poll::Ready(Ok(Received::Alive));
                }
                Ok(Some(Incoming::Close(said))) => {
                    // Its code comes back, as the RFC asks; one that must not be on the wire does not.
                    let code = said.as_ref().map(|(code, _)| if is_allowed(*code) { *code } else { 1_002 });
                    self.reply(cx, CLOSE, code.map(u16::to_be_bytes).as_ref().map_or(&[], |code| &code[..]));
                    return Poll::Ready(Err(closed_by_peer(said)));
                }
                Err(broken) => {
                    self.state = State::Broken;
                    return Poll::Ready(Err(LinkEnd::Violation(violation(broken))));
                }
                Ok(None) => {}
            }
            match ready!(self.wire.lock().poll_read(cx, &mut self.reader)) {
                Ok(0) => return lost("the connection ended without a close frame"),
                Ok(_) => {}
                Err(error) => return lost(&error.to_string()),
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        self.poll_flush(cx)
    }

    fn send(&mut self, packet: Packet) {
        self.wire.lock().put(packet);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        self.wire.lock().poll_write(cx).map_err(|error| LinkEnd::Lost(error.to_string()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, close: &Close) -> Poll<()> {
        let mut wire = self.wire.lock();
        if self.state != State::Closing {
            if ready!(wire.poll_write(cx)).is_err() {
                return Poll::Ready(());
            }
            wire.unwritten.put(vec![close_frame(close)]);
            if self.state == State::Broken {
                self.reader = Reader::default(); // what comes now may be understood again, or not
            }
            self.state = State::Closing;
        }
        if ready!(wire.poll_write(cx)).is_err() {
            return Poll::Ready(());
        }
        // The peer's close frame ends the handshake; what else it sends is of no interest any more.
        for _ in 0..DISCARD_BUDGET {
            loop {
                match self.reader.next() {
                    Ok(Some(Incoming::Close(_))) => return Poll::Ready(()),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        self.reader = Reader::default();
                        break;
                    }
                }
            }
            if !matches!(ready!(wire.poll_read(cx, &mut self.reader)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn lost(reason: &str) -> Poll<Result<Received, LinkEnd>> {
    Poll::Ready(Err(LinkEnd::Lost(reason.into())))
}

fn control(opcode: u8, payload: &[u8]) -> Bytes {
    let (header, len) = frame::header(opcode, payload.len());
    let mut frame = BytesMut::with_capacity(len + payload.len());
    frame.put_slice(&header[..len]);
    frame.put_slice(payload);
    frame.freeze()
}

fn close_frame(close: &Close) -> Bytes {
    let code = match close.origin {
        Origin::Protocol if close.code != 0 => carrier_code(close) as u16, // 4000 and a code of the table
        _ => 1_000,
    };
    let reason = &close.reason[..close.reason.floor_char_boundary(MAX_CLOSE_REASON.min(MAX_REASON))];
    control(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// Whether a close frame may have this code (RFC 6455, section 7.4).
fn is_allowed(code: u16) -> bool {
    matches!(code, 1_000..=1_003 | 1_007..=1_014 | 3_000..=4_999)
}

/// SPEC section 8: 1000 and 3000 to 4999 are deliberate; 1001 (a page that goes away) and others are a lost link.
fn closed_by_peer(said: Option<(u16, String)>) -> LinkEnd {
    match said {
        Some((1_000, reason)) => LinkEnd::Closed { code: 0, reason },
        Some((code, _)) if u32::from(code) == LEFT => LinkEnd::Lost("the client left the link".into()),
        Some((code @ 3_000..=4_999, reason)) => LinkEnd::Closed { code: u32::from(code), reason },
        Some((code, _)) => LinkEnd::Lost(format!("the client closed the WebSocket with {code}")),
        None => LinkEnd::Lost("the client closed the WebSocket without a code".into()),
    }
}

fn violation(broken: Broken) -> Close {
    match broken {
        Broken::TooLarge => Close::protocol(Code::FrameTooLarge, format!("a packet of more than {MAX_PACKET} bytes")),
        Broken::Violation(reason) => Close::protocol(Code::ProtocolViolation, reason),
    }
}
