//! WebTransport: frames on one bidirectional stream that the server opens, datagrams as QUIC's own (SPEC section 7.1), and further
//! bidirectional streams of both sides, one for each stream of the session (SPEC section 4.2).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use throughline_protocol::{Close, Code, Mark, Packet};
use tokio::time::{Sleep, sleep};

use super::Transport;
use super::link::{LEFT, Link, LinkEnd, NativeDatagrams, NativeStream, Received, carrier_code};
use super::webtransport::{
    Closed, DatagramSender, How, OpenError, RecvStream, SendStream, StreamError, Upgrade, UpgradeError, WebTransport,
};

/// What is read from the link stream at once, in bytes.
const READ_CHUNK: usize = 64 * 1_024;

/// Longest packet handed to the link stream at once, in bytes: what QUIC takes without waiting on a usual path.
const MAX_STREAM_PACKET: usize = 64 * 1_024;

/// How long a client has to read the link stream to its CLOSE, before the session is closed around it: a slow path's round trip.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Chunks dropped in one go while CLOSE is being read, before others get their turn.
const DROP_BUDGET: usize = 64;

/// Why a WebTransport session did not become a link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    #[error(transparent)]
    Stream(#[from] OpenError),
}

/// Waits for the session, and opens the link stream on it. Datagrams begin with `marks`, if the client has asked for them.
pub(crate) async fn open(upgrade: Upgrade, marks: bool) -> Result<WebTransportLink, LinkError> {
    let session = upgrade.await?;
    let (send, recv) = session.open_bi().await?;
    let datagrams = Arc::new(Datagrams(session.datagram_sender()));
    Ok(WebTransportLink {
        session,
        send,
        recv,
        datagrams,
        marks,
        unsent: Vec::new(),
        stream_next: true,
        client_opens: false,
        reading: None,
    })
}

/// A WebTransport session that carries a session.
pub(crate) struct WebTransportLink {
    session: WebTransport,
    send: SendStream,
    recv: RecvStream,
    datagrams: Arc<Datagrams>,
    /// The client wants marks in front of them.
    marks: bool,
    /// The packet that is being written.
    unsent: Vec<Bytes>,
    /// The stream is read before datagrams: they take turns, and the stream begins, since nothing counts before its first frame.
    stream_next: bool,
    /// The client has opened a stream of its own: it may open more.
    client_opens: bool,
    /// Runs from the moment in which everything is written, CLOSE at the end.
    reading: Option<Pin<Box<Sleep>>>,
}

struct Datagrams(DatagramSender);

impl NativeDatagrams for Datagrams {
    fn max_len(&self) -> usize {
        self.0.max_size().unwrap_or(0)
    }

    fn send(&self, mark: Option<Mark>, payload: &[u8]) {
        if let Err(error) = self.0.send_behind(mark.map(|mark| mark as u8), payload) {
            tracing::trace!(%error, "a datagram was dropped");
        }
    }
}

impl WebTransportLink {
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        let written = ready!(poll_write_all(&mut self.send, &mut self.unsent, cx));
        Poll::Ready(written.map_err(|error| LinkEnd::Lost(error.to_string())))
    }
}

/// Writes all of `unsent`. What is not yet written when this is pending stays there.
fn poll_write_all(
    send: &mut SendStream,
    unsent: &mut Vec<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), StreamError>> {
    while !unsent.is_empty() {
        let written = ready!(send.poll_write_chunks(cx, unsent))?;
        unsent.drain(..written.chunks);
    }
    *unsent = Vec::new(); // an idle stream holds no buffer
    Poll::Ready(Ok(()))
}

/// A bidirectional stream beside the link stream.
struct Native {
    send: SendStream,
    recv: RecvStream,
    /// The packet that is being written.
    unsent: Vec<Bytes>,
}

impl NativeStream for Native {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.recv.poll_read_chunk(cx, READ_CHUNK).map(|read| read.ok().flatten())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        poll_write_all(&mut self.send, &mut self.unsent, cx).map(|written| written.is_ok())
    }

    fn send(&mut self, packet: Packet) {
        self.unsent.extend(packet.into_pieces());
    }

    fn finish(&mut self) {
        self.send.finish();
    }

    fn reset(&mut self) {
        self.unsent = Vec::new();
        self.send.reset(0);
    }
}

impl WebTransportLink {
    /// Whether the client has read CLOSE: it ends its side of the link stream then, or the session. Or it had its time.
    fn poll_was_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.reading.as_mut().is_none_or(|reading| reading.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(());
        }
        for _ in 0..DROP_BUDGET {
            match self.recv.poll_read_chunk(cx, READ_CHUNK) {
                Poll::Ready(Ok(Some(_))) => {} // after CLOSE nothing is of interest
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => return self.session.poll_closed(cx).map(drop),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Link for WebTransportLink {
    fn transport(&self) -> Transport {
        Transport::WebTransport
    }

    fn max_packet(&self) -> usize {
        MAX_STREAM_PACKET
    }

    fn native_datagrams(&self) -> Option<Arc<dyn NativeDatagrams>> {
        Some(Arc::clone(&self.datagrams) as Arc<dyn NativeDatagrams>)
    }

    fn wants_marks(&self) -> bool {
        self.marks
    }

    fn has_native_streams(&self) -> bool {
        true
    }

    fn open_native(&mut self, cx: &mut Context<'_>) -> Option<Box<dyn NativeStream>> {
        let (send, recv, header) = self.session.try_open_bi(cx)?;
        Some(Box::new(Native { send, recv, unsent: vec![header] }))
    }

    fn poll_accept_native(&mut self, cx: &mut Context<'_>) -> Poll<Box<dyn NativeStream>> {
        let Some((send, recv)) = ready!(self.session.poll_accept_bi(cx)) else { return Poll::Pending };
        if !std::mem::replace(&mut self.client_opens, true) {
            self.session.allow_session_streams();
        }
        Poll::Ready(Box::new(Native { send, recv, unsent: Vec::new() }))
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, LinkEnd>> {
        if !std::mem::replace(&mut self.stream_next, true)
            && let Poll::Ready(Some(payload)) = self.session.poll_recv_datagram(cx)
        {
            return Poll::Ready(Ok(Received::Datagram(payload)));
        }
        // The stream before the end of the session: a CLOSE may stand in it.
        let stream_ended = match self.recv.poll_read_chunk(cx, READ_CHUNK) {
            Poll::Ready(Ok(Some(bytes))) => {
                self.stream_next = false;
                return Poll::Ready(Ok(Received::Bytes(bytes)));
            }
            Poll::Ready(Ok(None) | Err(_)) => true,
            Poll::Pending => false,
        };
        if let Poll::Ready(Some(payload)) = self.session.poll_recv_datagram(cx) {
            return Poll::Ready(Ok(Received::Datagram(payload)));
        }
        if let Poll::Ready(closed) = self.session.poll_closed(cx) {
            return Poll::Ready(Err(closed_by_peer(closed)));
        }
        if stream_ended {
            // Firefox says no more than this when a page is left: the session and its QUIC connection stay as they are.
            return Poll::Ready(Err(LinkEnd::Lost("the client ended the link stream".into())));
        }
        if let Poll::Ready(Some(_)) = self.session.poll_accept_uni(cx) {
            let reason = "a unidirectional stream: a session's streams go both ways";
            return Poll::Ready(Err(LinkEnd::Violation(Close::protocol(Code::ProtocolViolation, reason))));
        }
        Poll::Pending
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        self.poll_write(cx)
    }

    fn send(&mut self, packet: Packet) {
        self.unsent.extend(packet.into_pieces());
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        self.poll_write(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, close: &Close) -> Poll<()> {
        if self.reading.is_none() {
            // What cannot be written any more does not matter.
            let _written = ready!(self.poll_write(cx));
            self.send.finish();
            self.reading = Some(Box::pin(sleep(READ_TIMEOUT)));
        }
        // Browsers throw away what a page has not read when the capsule arrives: the last messages, and CLOSE.
        ready!(self.poll_was_read(cx));
        self.session.poll_close(cx, carrier_code(close), &close.reason)
    }
}

fn closed_by_peer(closed: Closed) -> LinkEnd {
    match closed.how {
        How::Client if closed.code == LEFT => LinkEnd::Lost("the client left the link".into()),
        How::Client => LinkEnd::Closed { code: closed.code, reason: closed.reason },
        // A bare FIN is what a browser's `close()` without arguments sends.
        How::Finished => LinkEnd::Closed { code: 0, reason: String::new() },
        How::Reset(code) => LinkEnd::Lost(format!("the client reset the WebTransport session with {code:#x}")),
        How::Malformed => LinkEnd::Lost("the client broke the rules of the CONNECT stream".into()),
        How::ConnectionLost(Some(error)) => LinkEnd::Lost(error.to_string()),
        How::ConnectionLost(None) | How::Server => LinkEnd::Lost("the QUIC connection ended".into()),
    }
}
