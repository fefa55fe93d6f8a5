//! Which link carries the session: the first, those that are offered beside it, and what a change of links means (SPEC sections 6 and 6.1).

use std::sync::Arc;

use super::credentials::left_ms;
use super::{CLOSE_PATIENCE_US, Machine, Micros, Phase, Role, UNHEARD_PATIENCE_US};
use crate::VERSION;
use crate::close::{Close, Code};
use crate::frame::{Frame, Welcome};
use crate::packet::Packet;
use crate::varint;

/// What a link can do beside carrying packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkTraits {
    /// The longest payload of its own datagrams, if it has them.
    pub native_datagrams: Option<usize>,
    /// Whether streams above 0 can have native streams of their own.
    pub native_streams: bool,
    /// Whether the peer sends by requests, one at a time: what it has to say waits for the answer to the one before.
    pub peer_sends_requests: bool,
    /// Whether the client has asked for marks in front of its native datagrams (SPEC section 5). A client need not say it: WELCOME does.
    pub marks: bool,
}

impl LinkTraits {
    /// Whether a server marks its native datagrams on such a link.
    fn marks_datagrams(&self) -> bool {
        self.marks && self.native_datagrams.is_some()
    }
}

/// What WELCOME says of its link alone.
struct Terms {
    link: u64,
    resumed: bool,
    marked: bool,
    expires_ms: u64,
}

/// A further link of a server's session, which its client has not chosen yet.
#[derive(Debug)]
pub struct Candidate {
    /// The number of the link.
    pub link: u64,
    /// To be sent on it first.
    pub welcome: Packet,
    /// When it should be closed with `OPEN_TIMEOUT`, if nothing has come on it.
    pub deadline: Micros,
    /// What the client says it has received of the message stream.
    received: u64,
    /// The credit on the message stream that WELCOME promises.
    limit: u64,
    /// Whether WELCOME promises marks.
    marked: bool,
    /// Until when the credentials that the opening has shown are good.
    expires: Option<Micros>,
}

/// Why a candidate did not become the current link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The client chose another link after this one: close the carrier with [`Code::LinkReplaced`].
    Late,
    /// The client left it again.
    Left,
    /// Answer this CLOSE, on this link only.
    Wrong(Close),
}

impl Machine {
    /// A link carries the session from now on: the first of a server's session, or the one that a client has chosen, whose WELCOME is
    /// the next frame.
    pub fn link_opened(&mut self, now: Micros, traits: LinkTraits) {
        if matches!(self.phase, Phase::Closing { .. } | Phase::Closed(_)) {
            return;
        }
        self.links += 1;
        self.link = self.links;
        self.link_changed(now, traits);
        self.phase = Phase::Opening { deadline: now + self.config.open_timeout_ms * 1_000 };
        self.welcome_due = self.role == Role::Server;
    }

    /// A server was asked for a further link by a client that has `received` so much of the message stream, and has shown credentials that are good until
    /// `expires` (for ever, if there is none). The current link goes on.
    ///
    /// # Errors
    /// The CLOSE to answer on that link: the session has ended, or so much was never sent.
    pub fn offer(
        &mut self,
        now: Micros,
        received: u64,
        traits: LinkTraits,
        expires: Option<Micros>,
    ) -> Result<Candidate, Close> {
        if matches!(self.phase, Phase::Closed(_)) {
            return Err(Close::protocol(Code::UnknownSession, "the session has ended"));
        }
        self.sender.check_received(received)?;
        self.links += 1;
        let limit = self.receiver.promise();
        let mut welcome = Packet::default();
        let (marked, said) = (traits.marks_datagrams(), (self.receiver.received(), limit));
        let expires_ms = left_ms(expires, now);
        self.encode_welcome(now, Terms { link: self.links, resumed: true, marked, expires_ms }, said, &mut welcome);
        Ok(Candidate {
            link: self.links,
            welcome,
            deadline: now + self.config.open_timeout_ms * 1_000,
            received,
            limit,
            marked,
            expires,
        })
    }

    /// The first frame came on a candidate: the client has chosen it, and it is the current link now.
    ///
    /// # Errors
    /// [`Refused`]: the link is to be closed, and the session goes on as it was.
    pub fn adopt(
        &mut self,
        now: Micros,
        candidate: &Candidate,
        traits: LinkTraits,
        first: &Frame,
    ) -> Result<(), Refused> {
        let id = match first {
            Frame::Ping { id } => *id,
            Frame::Close(_) => return Err(Refused::Left),
            _ => {
                let reason = "the first frame on a further link of a session must be PING";
                return Err(Refused::Wrong(Close::protocol(Code::ProtocolViolation, reason)));
            }
        };
        if matches!(self.phase, Phase::Closed(_)) {
            return Err(Refused::Wrong(Close::protocol(Code::UnknownSession, "the session has ended")));
        }
        if id <= self.heartbeat.peer_id() {
            return Err(Refused::Late);
        }
        self.sender.rewind(candidate.received).map_err(Refused::Wrong)?;
        self.receiver.heard(candidate.limit);
        self.link = candidate.link;
        self.resumed = true;
        self.welcome_due = false;
        self.link_changed(now, traits);
        self.marked = candidate.marked;
        self.credentials.adopt(candidate.link, candidate.expires);
        self.heartbeat.ping_arrived(id);
        self.ack_due = true;
        match &mut self.phase {
            // It was to be closed while there was no link, or on the one before.
            Phase::Closing { deadline, flush, .. } => {
                *deadline = if *flush { self.flush_until } else { now + CLOSE_PATIENCE_US };
            }
            Phase::Detached { ending: Some(close), .. } => {
                let close = close.clone();
                self.phase = Phase::Closing { close, flush: true, by_owner: true, deadline: self.flush_until };
            }
            _ => self.open(now),
        }
        Ok(())
    }

    /// The link ended without CLOSE. A server keeps the session for its window, a client until it has another link.
    pub fn link_lost(&mut self, now: Micros, reason: &str) {
        let patience_us = match (self.role, self.established) {
            (Role::Server, true) => self.config.resume_window_ms * 1_000,
            // It lost a race, most likely. Or its first frame was lost with it.
            (Role::Server, false) => UNHEARD_PATIENCE_US.min(self.config.resume_window_ms * 1_000),
            (Role::Client, _) => varint::MAX,
        };
        match &self.phase {
            Phase::Detached { .. } | Phase::Closed(_) => {}
            // Whoever opens the next link within this time hears it.
            Phase::Closing { close, by_owner: true, .. } if self.role == Role::Server && patience_us > 0 => {
                let until = now + CLOSE_PATIENCE_US.min(patience_us);
                self.phase = Phase::Detached { until, reason: reason.to_owned(), ending: Some(close.clone()) };
            }
            Phase::Closing { .. } => self.end(Close::protocol(Code::LinkLost, reason)),
            Phase::Opening { .. } | Phase::Open if patience_us == 0 => {
                self.end(Close::protocol(Code::LinkLost, reason));
            }
            Phase::Opening { .. } | Phase::Open => {
                let until = now.saturating_add(patience_us).min(varint::MAX);
                self.phase = Phase::Detached { until, reason: reason.to_owned(), ending: None };
                self.outgoing.clear();
            }
        }
    }

    /// The carrier was closed deliberately, with a code of the application's (SPEC section 8).
    pub fn link_closed(&mut self, code: u32, reason: &str) {
        self.end(Close::application(code, reason));
    }

    fn link_changed(&mut self, now: Micros, traits: LinkTraits) {
        self.native_datagrams = traits.native_datagrams;
        self.marked = traits.marks_datagrams();
        self.heard = now;
        self.heartbeat.link_changed();
        self.credit.link_changed(traits.peer_sends_requests);
        self.streams.link_changed(traits.native_streams);
        self.ack_at = None;
        self.ack_due = false;
        self.leaving.link_changed();
    }

    pub(super) fn write_welcome(&mut self, now: Micros, packet: &mut Packet) {
        if std::mem::take(&mut self.welcome_due) {
            let said = self.receiver.say();
            let (marked, expires_ms) = (self.marked, left_ms(self.expires(), now));
            self.encode_welcome(now, Terms { link: self.link, resumed: false, marked, expires_ms }, said, packet);
        }
    }

    fn encode_welcome(
        &self,
        now: Micros,
        Terms { link, resumed, marked, expires_ms }: Terms,
        (received, limit): (u64, u64),
        packet: &mut Packet,
    ) {
        let Some((session, key)) = self.identity else { return };
        let welcome = Welcome {
            version: VERSION,
            session,
            key,
            resumed,
            marked,
            link,
            time_us: now.min(varint::MAX),
            heartbeat_ms: self.config.heartbeat_ms,
            idle_ms: self.config.idle_timeout_ms,
            max_message: self.config.max_message_bytes as u64,
            received,
            limit,
            streams: self.streams.granted(),
            window_ms: self.config.resume_window_ms,
            expires_ms,
        };
        Frame::Welcome(welcome).encode(packet.small());
    }

    pub(super) fn welcomed(&mut self, now: Micros, welcome: &Welcome) -> Result<(), Close> {
        if self.role == Role::Server || !matches!(self.phase, Phase::Opening { .. }) {
            return Err(Close::protocol(Code::ProtocolViolation, "WELCOME is the server's, and comes once"));
        }
        if welcome.version != VERSION {
            return Err(Close::protocol(
                Code::UnsupportedVersion,
                format!("version {} was not asked for", welcome.version),
            ));
        }
        if self.identity.is_some_and(|(session, _)| !welcome.resumed || session != welcome.session) {
            // The offsets here are those of the old session: in the new one they would lose bytes, or repeat them.
            return Err(Close::protocol(
                Code::UnknownSession,
                "the server has this session no more, and opened a new one",
            ));
        }
        self.sender.rewind(welcome.received)?;
        self.sender.acknowledge(welcome.received, welcome.limit)?;
        self.streams.may_open(welcome.streams);
        self.identity = Some((welcome.session, welcome.key));
        self.resumed = welcome.resumed;
        self.marked = welcome.marked;
        self.link = welcome.link;
        self.expires_arrived(now, welcome.expires_ms)?;
        let config = Arc::make_mut(&mut self.config);
        config.heartbeat_ms = welcome.heartbeat_ms;
        config.idle_timeout_ms = welcome.idle_ms;
        config.resume_window_ms = welcome.window_ms;
        config.max_message_bytes = usize::try_from(welcome.max_message).unwrap_or(usize::MAX);
        self.assembler.set_max_message(config.max_message_bytes);
        self.heartbeat.set_peer_clock(now, welcome.time_us);
        // The last ACK may be lost with the old link, and the server know of less credit than was granted.
        self.ack_due = welcome.resumed;
        self.open(now);
        Ok(())
    }

    /// The link is usable. The application is told of the first.
    pub(super) fn open(&mut self, now: Micros) {
        self.phase = Phase::Open;
        self.opened |= !self.established;
        self.established = true;
        self.heartbeat.beat(now, self.config.heartbeat_ms);
    }
}
