//! The links of one session, as its driver holds them: the one that carries it, those that may come to, and those that are on their way out.

use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use throughline_protocol::machine::{self, LinkTraits, Refused};
use throughline_protocol::{Close, Code, Decoder, Frame, Machine, Micros, Origin, Packet};
use tokio::time::Instant;

use super::credentials::Credentials;
use super::natives::Natives;
use super::shared::{Core, now};
use crate::transport::link::{Link, LinkEnd, Posted, Received, Verdict};

/// Things taken from a link in one go, before others get their turn.
pub(super) const RECEIVE_BUDGET: usize = 64;

/// How long a link that is over may take to say goodbye.
const LINK_CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest packet that a link begins with, in bytes: what TCP sends on a new connection without waiting (RFC 6928). A client that has moved reads
/// the link before until this one has arrived.
pub(super) const MAX_FIRST_PACKET: usize = 12_000;

/// A link, and what is half read of it.
pub(super) struct Attached {
    pub(super) number: u64,
    pub(super) link: Box<dyn Link>,
    pub(super) remote: Option<IpAddr>,
    decoder: Decoder,
    natives: Natives,
    /// Something was sent on it, beside WELCOME.
    has_begun: bool,
}

impl Attached {
    pub(super) fn new(number: u64, link: Box<dyn Link>, remote: Option<IpAddr>) -> Self {
        Self { number, link, remote, decoder: Decoder::new(), natives: Natives::default(), has_begun: false }
    }

    /// Moves what arrived on this link, which carries the session, into its machine.
    pub(super) fn handle(&mut self, core: &mut Core, received: Received) {
        let now = now();
        match received {
            Received::Alive => core.machine.heard_from(now),
            Received::Datagram(payload) => core.machine.handle_datagram(now, payload),
            Received::Bytes(bytes) => feed(&mut core.machine, &mut self.decoder, now, bytes),
            Received::Packet(packet) => feed_packet(&mut core.machine, &mut self.decoder, now, packet),
            Received::Posted(Posted { packet, answer }) => {
                let was_closing = core.machine.closing().is_some();
                feed_packet(&mut core.machine, &mut self.decoder, now, packet);
                drop(answer.send(verdict(core, was_closing)));
            }
        }
    }

    /// What still comes by POST when the link is lost already. Of that only CLOSE counts: a page that goes away stops reading before its last POST has
    /// arrived.
    pub(super) fn poll_last_words(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        while let Poll::Ready(Ok(received)) = self.link.poll_recv(cx) {
            let Received::Posted(Posted { packet, answer }) = received else { continue };
            let mut decoder = Decoder::new();
            decoder.push(packet);
            let mut frames = std::iter::from_fn(|| decoder.next_frame().ok().flatten());
            let close = frames.find_map(|frame| if let Frame::Close(close) = frame { Some(close) } else { None });
            let verdict = if close.is_some() { Verdict::Taken } else { Verdict::Gone };
            core.left |= close.is_some();
            close.into_iter().for_each(|close| core.machine.handle_late_frame(now(), Frame::Close(close)));
            drop(answer.send(verdict));
        }
    }

    /// Whether there is any use in [`receive_natives`](Self::receive_natives).
    pub(super) fn may_have_natives(&self) -> bool {
        self.link.has_native_streams()
    }

    /// Moves what arrived on native streams into the machine. Says whether anything had.
    pub(super) fn receive_natives(&mut self, cx: &mut Context<'_>, machine: &mut Machine) -> bool {
        match self.natives.receive(cx, &mut *self.link, machine, now()) {
            Ok(has_news) => has_news,
            Err(close) => {
                machine.handle_violation(now(), close);
                true
            }
        }
    }

    /// Gives the link what it takes.
    pub(super) fn transmit(&mut self, cx: &mut Context<'_>, machine: &mut Machine, now: Micros) -> Result<(), LinkEnd> {
        loop {
            match self.link.poll_ready(cx) {
                Poll::Pending => break,
                Poll::Ready(ready) => ready?,
            }
            let most = if self.has_begun { usize::MAX } else { MAX_FIRST_PACKET };
            let Some(packet) = machine.poll_transmit(now, self.link.max_packet().min(most)) else { break };
            self.has_begun = true;
            self.link.send(packet);
        }
        if let Some(native) = self.link.native_datagrams() {
            // What came while there was no link. Later ones do not wait here.
            while let Some(datagram) = machine.poll_datagram() {
                native.send(None, &datagram);
            }
        }
        self.natives.transmit(cx, &mut *self.link, machine);
        match self.link.poll_flush(cx) {
            Poll::Ready(Err(end)) => Err(end),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }
}

/// What a link can do.
pub(crate) fn traits(link: &dyn Link) -> LinkTraits {
    LinkTraits {
        native_datagrams: link.native_datagrams().map(|native| native.max_len()),
        native_streams: link.has_native_streams(),
        peer_sends_requests: link.peer_sends_requests(),
        marks: link.wants_marks(),
    }
}

/// A link that its client has not chosen yet.
pub(super) struct Waiting {
    pub(super) attached: Attached,
    offer: machine::Candidate,
    credentials: Credentials,
    welcome: Option<Packet>,
}

/// What became of a link that was waiting.
pub(super) enum Outcome {
    /// It carries the session now, and its first packet was handled. Whether the session has another identity with it.
    Chosen { is_other: bool },
    /// It is to be closed: with a CLOSE of its own, or without a word.
    Refused(Option<Close>, Close),
    /// It has ended.
    Gone,
}

impl Waiting {
    pub(super) fn new(attached: Attached, mut offer: machine::Candidate, credentials: Credentials) -> Self {
        let welcome = Some(std::mem::take(&mut offer.welcome));
        Self { attached, offer, credentials, welcome }
    }

    /// When it has waited for long enough.
    pub(super) fn deadline(&self) -> Micros {
        self.offer.deadline
    }

    /// Says WELCOME, and waits for the first frame.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, core: &mut Core) -> Poll<Outcome> {
        if now() >= self.offer.deadline {
            let close = Close::protocol(Code::OpenTimeout, "no frame came from the client in time");
            return Poll::Ready(Outcome::Refused(Some(close.clone()), close));
        }
        if self.say_welcome(cx).is_err() {
            return Poll::Ready(Outcome::Gone);
        }
        for _ in 0..RECEIVE_BUDGET {
            let received = match self.attached.link.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(received)) => received,
                Poll::Ready(Err(LinkEnd::Violation(close))) => return Poll::Ready(refused(close)),
                Poll::Ready(Err(LinkEnd::Lost(_) | LinkEnd::Closed { .. })) => return Poll::Ready(Outcome::Gone),
            };
            let outcome = match received {
                // A datagram is no frame.
                Received::Alive | Received::Datagram(_) => continue,
                Received::Bytes(bytes) => self.first(core, bytes, false),
                Received::Packet(packet) => self.first(core, packet, true),
                Received::Posted(Posted { packet, answer }) => {
                    let was_closing = core.machine.closing().is_some();
                    let outcome = self.first(core, packet, true);
                    drop(answer.send(match &outcome {
                        Some(Outcome::Chosen { .. }) => verdict(core, was_closing),
                        Some(Outcome::Refused(Some(close), _)) => Verdict::Broke(close.clone()),
                        Some(Outcome::Refused(None, _) | Outcome::Gone) => Verdict::Gone,
                        None => Verdict::Taken,
                    }));
                    outcome
                }
            };
            if let Some(outcome) = outcome {
                return Poll::Ready(outcome);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn say_welcome(&mut self, cx: &mut Context<'_>) -> Result<(), LinkEnd> {
        if self.welcome.is_some() {
            match self.attached.link.poll_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(ready) => ready?,
            }
            self.welcome.take().into_iter().for_each(|welcome| self.attached.link.send(welcome));
        }
        match self.attached.link.poll_flush(cx) {
            Poll::Ready(Err(end)) => Err(end),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// The bytes that the client begins with; `None` while its first frame is not whole.
    fn first(&mut self, core: &mut Core, bytes: Bytes, is_packet: bool) -> Option<Outcome> {
        let len = bytes.len();
        let Attached { number, link, remote, decoder, .. } = &mut self.attached;
        decoder.push(bytes);
        let first = match decoder.next_frame() {
            Ok(Some(first)) => first,
            Ok(None) if is_packet && !decoder.is_empty() => return Some(refused(half_a_frame())),
            Ok(None) => return None,
            Err(error) => return Some(refused(Close::protocol(error.code(), error.to_string()))),
        };
        let now = now();
        match core.machine.adopt(now, &self.offer, traits(&**link), &first) {
            Ok(()) => {
                core.carry(&**link, *remote);
                let is_newest = core.machine.has_credentials_of(*number);
                let is_other = is_newest && core.show(self.credentials.clone());
                core.machine.count_received(len);
                read_frames(&mut core.machine, decoder, now);
                if is_packet {
                    finish_packet(&mut core.machine, decoder, now);
                }
                Some(Outcome::Chosen { is_other })
            }
            Err(Refused::Left) => Some(Outcome::Gone),
            Err(Refused::Wrong(close)) => Some(refused(close)),
            Err(Refused::Late) => {
                tracing::debug!(link = *number, "a link was chosen too late");
                Some(Outcome::Refused(None, replaced()))
            }
        }
    }
}

fn refused(close: Close) -> Outcome {
    Outcome::Refused(Some(close.clone()), close)
}

/// What a carrier is closed with when another link has taken over.
pub(super) fn replaced() -> Close {
    Close::protocol(Code::LinkReplaced, "another link carries the session")
}

/// A link on its way out. It carries nothing any more.
pub(super) struct Leaving {
    link: Box<dyn Link>,
    /// A CLOSE that it has to say first.
    last: Option<Packet>,
    close: Close,
    pub(super) until: Instant,
}

impl Leaving {
    /// Closes the carrier in its own way, after `last`.
    pub(super) fn new(link: Box<dyn Link>, last: Option<Close>, close: Close) -> Self {
        let last = last.map(|close| {
            let mut frame = BytesMut::new();
            Frame::Close(close).encode(&mut frame);
            Packet::from(frame.freeze())
        });
        Self { link, last, close, until: Instant::now() + LINK_CLOSE_TIMEOUT }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The clock first: a peer that floods keeps the link busy.
        if Instant::now() >= self.until {
            return Poll::Ready(());
        }
        if self.last.is_some() {
            match self.link.poll_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => self.last.take().into_iter().for_each(|last| self.link.send(last)),
            }
        }
        self.link.poll_close(cx, &self.close)
    }
}

/// What is said to a POST after its packet was handled.
fn verdict(core: &mut Core, was_closing: bool) -> Verdict {
    core.left |= core.machine.closed().is_some() && !was_closing;
    let ending = core.machine.closing().filter(|close| !was_closing && !core.left && close.origin == Origin::Protocol);
    // Its answer to GOAWAY ends the session, too.
    let broken = ending.filter(|close| close.code != Code::ShuttingDown as u32);
    broken.map_or(Verdict::Taken, |close| Verdict::Broke(close.clone()))
}

fn half_a_frame() -> Close {
    Close::protocol(Code::MalformedFrame, "a packet that ends inside a frame")
}

/// Moves the frames in `bytes` into the machine.
fn feed(machine: &mut Machine, decoder: &mut Decoder, now: Micros, bytes: Bytes) {
    machine.count_received(bytes.len());
    decoder.push(bytes);
    read_frames(machine, decoder, now);
}

fn feed_packet(machine: &mut Machine, decoder: &mut Decoder, now: Micros, packet: Bytes) {
    feed(machine, decoder, now, packet);
    finish_packet(machine, decoder, now);
}

fn read_frames(machine: &mut Machine, decoder: &mut Decoder, now: Micros) {
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => machine.handle_frame(now, frame),
            Ok(None) => return,
            Err(error) => return machine.handle_violation(now, Close::protocol(error.code(), error.to_string())),
        }
    }
}

/// A packet has to end where a frame does.
fn finish_packet(machine: &mut Machine, decoder: &Decoder, now: Micros) {
    if !decoder.is_empty() {
        machine.handle_violation(now, half_a_frame());
    }
}
