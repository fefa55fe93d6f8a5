//! The seam between a session and what carries it.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use throughline_protocol::{Close, Mark, Packet};
use tokio::sync::oneshot;

use super::Transport;

/// One live connection that carries a session, or may come to. All of it is polled by the session's driver, from one task.
pub(crate) trait Link: Send {
    /// The kind of this link.
    fn transport(&self) -> Transport;

    /// Longest packet that [`Link::send`] takes, in bytes.
    fn max_packet(&self) -> usize;

    /// The link's own datagrams, if it has them. Otherwise they travel as frames.
    fn native_datagrams(&self) -> Option<Arc<dyn NativeDatagrams>> {
        None
    }

    /// The side of the link that anybody may write to, if it has one.
    fn direct(&self) -> Option<Arc<dyn Direct>> {
        None
    }

    /// Whether the link has streams of its own beside the one that its frames are in.
    fn has_native_streams(&self) -> bool {
        false
    }

    /// Whether the client has asked for marks in front of the link's own datagrams.
    fn wants_marks(&self) -> bool {
        false
    }

    /// Whether the client sends by requests, one at a time: what it says waits for the answer to the one before.
    fn peer_sends_requests(&self) -> bool {
        false
    }

    /// Opens a stream of its own; `None` when the peer allows none now.
    fn open_native(&mut self, _: &mut Context<'_>) -> Option<Box<dyn NativeStream>> {
        None
    }

    /// The next stream that the peer opened. The driver asks for them only on the link that carries the session.
    fn poll_accept_native(&mut self, _: &mut Context<'_>) -> Poll<Box<dyn NativeStream>> {
        Poll::Pending
    }

    /// What the peer sent next.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, LinkEnd>>;

    /// Ready when the link takes a packet now without piling it up: what waits longer can still be replaced by something newer.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>>;

    /// Takes a packet. Only after [`Link::poll_ready`] was ready.
    fn send(&mut self, packet: Packet);

    /// Drives what was taken towards the peer.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>>;

    /// Closes the connection in its own way, after what was taken. Ready when the peer has it, or cannot have it any more. The driver bounds the wait.
    fn poll_close(&mut self, cx: &mut Context<'_>, close: &Close) -> Poll<()>;
}

/// What a link takes without its driver: the same bytes, in the same order. Used by any thread, under the lock of the session's machine.
pub(crate) trait Direct: Send + Sync {
    /// Writes what `next` puts into `packet`, at most so many bytes at a time, until it has no more, or the link takes no more. False when something
    /// is left that the driver has to be woken for.
    fn transmit(&self, packet: &mut Packet, next: &mut dyn FnMut(&mut Packet, usize) -> bool) -> bool;
}

/// A connection that takes one packet at a time.
pub(crate) trait Line: Send {
    /// Longest packet, in bytes.
    const MAX_PACKET: usize;

    /// Whether something waits to be written already: then its driver waits for the socket.
    fn is_blocked(&self) -> bool;

    /// Writes a packet as far as the socket takes it now, and keeps the rest. False when something is left, or the connection has failed: whoever writes next finds out.
    fn write(&mut self, packet: &mut Packet) -> bool;
}

impl<L: Line> Direct for Mutex<L> {
    fn transmit(&self, packet: &mut Packet, next: &mut dyn FnMut(&mut Packet, usize) -> bool) -> bool {
        let mut line = self.lock();
        if line.is_blocked() {
            return true;
        }
        while next(packet, L::MAX_PACKET) {
            if !line.write(packet) {
                return false;
            }
        }
        true
    }
}

/// The unreliable side of a link. Used by any thread, without waking the driver.
pub(crate) trait NativeDatagrams: Send + Sync {
    /// Longest payload now, in bytes.
    fn max_len(&self) -> usize;

    /// Sends at once, behind a mark if there is one, or drops: an older one that waits, or this one.
    fn send(&self, mark: Option<Mark>, payload: &[u8]);
}

/// A stream of the link's own. Frames follow each other on it in both directions; how it ends says nothing (SPEC section 4.2).
/// Dropped, it is given up.
pub(crate) trait NativeStream: Send {
    /// What the peer sent next; `None` when no more will come.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;

    /// Ready with `true` when everything that was taken is written, and with `false` when the peer takes no more.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<bool>;

    /// Takes a packet. Only after [`NativeStream::poll_ready`] said `true`.
    fn send(&mut self, packet: Packet);

    /// Nothing more will be sent. What was taken is still delivered.
    fn finish(&mut self);

    /// Nothing more will be sent, and what was taken need not be delivered.
    fn reset(&mut self);
}

/// What a link received.
#[derive(Debug)]
pub(crate) enum Received {
    /// A packet of whole frames.
    Packet(Bytes),
    /// Bytes of a stream of frames, cut anywhere.
    Bytes(Bytes),
    /// A packet of whole frames that came by a request of its own, which waits for an answer.
    Posted(Posted),
    /// A native datagram.
    Datagram(Bytes),
    /// Nothing, but the peer is there.
    Alive,
}

/// The body of a POST, and where its answer goes. Dropped without one, its link is over.
#[derive(Debug)]
pub(crate) struct Posted {
    /// A packet of whole frames.
    pub(crate) packet: Bytes,
    /// Takes what became of it.
    pub(crate) answer: oneshot::Sender<Verdict>,
}

/// What became of a packet that came by POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was taken, or is ignored because the session is closing.
    Taken,
    /// It broke the protocol.
    Broke(Close),
    /// Its link is over.
    Gone,
}

/// How a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// Without a word: the session could go on over another link.
    Lost(String),
    /// The peer closed it deliberately, with a code of its application.
    Closed {
        /// The application's code.
        code: u32,
        /// For a person.
        reason: String,
    },
    /// The peer broke the rules of the carrier; the link can still say so.
    Violation(Close),
}

/// What a client closes a carrier with that it leaves without ending the session (SPEC section 8).
pub(crate) const LEFT: u32 = PROTOCOL_CODES + throughline_protocol::Code::LinkReplaced as u32;

/// A protocol close of code n is n + this on a carrier.
const PROTOCOL_CODES: u32 = 4_000;

/// The close code of a carrier: what SPEC section 7 says for a WebTransport session. A WebSocket says 1000 for the
/// application's codes, which it cannot carry.
pub(crate) fn carrier_code(close: &Close) -> u32 {
    match close.origin {
        throughline_protocol::Origin::Protocol if close.code != 0 => PROTOCOL_CODES + close.code,
        _ => close.code,
    }
}
