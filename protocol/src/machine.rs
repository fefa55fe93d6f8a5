//! One session, without IO: frames and the time go in, packets and events come out.
//!
//! The owner of a machine
//! 1. tells it of its link ([`Machine::link_opened`], [`Machine::link_lost`]) and of what arrives on it
//!    ([`Machine::handle_frame`], [`Machine::handle_datagram`], [`Machine::handle_violation`]);
//! 2. calls [`Machine::handle_timeout`] when the time of [`Machine::poll_timeout`] has come;
//! 3. after each of these asks for [`Machine::poll_transmit`] and [`Machine::poll_datagram`] while the link takes more, and
//!    for [`Machine::poll_event`] while the application does, and [`Machine::poll_channel`], [`Machine::poll_state`] and [`Machine::poll_request`] while whoever handles channels and requests
//!    does.
//!
//! A session outlives its links. A server's owner lets its client open further ones with [`Machine::offer`], and [`Machine::adopt`]s the one that the client chooses. A client's owner opens them,
//! waits for WELCOME, and says [`Machine::link_opened`] of the one that it chooses. What arrives on other links is not the machine's, but for what
//! [`Machine::handle_late_frame`] takes.
//!
//! A machine is one session for life. When a server answers a further link with a WELCOME that resumes nothing, the session is
//! gone: the machine ends with `UNKNOWN_SESSION`, so that the application is told, and its owner may start another.

mod channels;
mod config;
mod credentials;
mod credit;
mod heartbeat;
mod inbox;
mod leaving;
mod links;
mod rare;
mod receive;
mod requests;
mod send;
mod streams;
mod transmit;

use std::sync::Arc;

use bytes::Bytes;

use crate::close::{Close, Code};
use crate::datagram::Outgoing;
use crate::id::{ResumeKey, SessionId};
use crate::limits::INITIAL_CLIENT_CREDIT;
use crate::message::{Assembler, Message};
use crate::stream::{Receiver, Sender};
use channels::Answers;
use credentials::Credentials;
use credit::Credit;
use heartbeat::Heartbeat;
use inbox::{Arrived, Inbox};
use leaving::Leaving;
use rare::{Blank, Rare};
use requests::Requests;
use streams::Streams;

pub use config::Config;
pub use links::{Candidate, LinkTraits, Refused};
pub use requests::ArrivedRequest;
pub use send::{SendDatagramError, TrySendError};
pub use streams::{HeldByStreams, OpenStreamError, StreamError, StreamRead};

/// A time in microseconds since the Unix epoch, from a clock that never goes back.
pub type Micros = u64;

/// The message stream.
const MESSAGE_STREAM: u64 = 0;

/// How long a CLOSE may wait for the stream bytes before it, and again for a link that takes it, in microseconds.
const CLOSE_PATIENCE_US: Micros = 3_000_000;

/// How long a server keeps a session without a link whose client has never been heard: its first frame may be lost with the link.
const UNHEARD_PATIENCE_US: Micros = 3_000_000;

/// Which side a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends WELCOME.
    Server,
    /// Waits for WELCOME.
    Client,
}

/// What the application gets to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The session is open: on a client WELCOME has arrived, on a server the client's first frame. Once, whatever links follow.
    Opened,
    /// A message.
    Message(Message),
    /// A datagram.
    Datagram(Bytes),
    /// The peer has opened this stream.
    Stream(u64),
    /// The session has ended. Nothing comes after it.
    Closed(Close),
}

/// Counters of one session. Bytes are those of frames and native datagrams, without what the carrier adds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes handed to the link.
    pub bytes_out: u64,
    /// Messages received, those about channels among them.
    pub messages_in: u64,
    /// Messages taken from the application, and those about channels.
    pub messages_out: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams handed to the link.
    pub datagrams_out: u64,
    /// Datagrams that a newer one replaced, or that a full queue pushed out, in either direction.
    pub datagrams_dropped: u64,
    /// The smoothed round-trip time, in microseconds; 0 before the first PONG.
    pub rtt_us: u64,
    /// The least round-trip time seen, in microseconds; 0 before the first PONG.
    pub min_rtt_us: u64,
}

#[derive(Debug)]
enum Phase {
    /// There is no link, and until then there may be another.
    Detached {
        until: Micros,
        /// Why the last one ended.
        reason: String,
        /// The owner has closed the session: the next link is told.
        ending: Option<Close>,
    },
    /// A link is there; the other side's first frame is not.
    Opening {
        deadline: Micros,
    },
    Open,
    /// CLOSE is to be sent: after the stream bytes (`flush`), or now.
    Closing {
        close: Close,
        flush: bool,
        /// Not because of a mistake: what was sent before is worth another link.
        by_owner: bool,
        deadline: Micros,
    },
    Closed(Close),
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    role: Role,
    config: Arc<Config>,
    identity: Option<(SessionId, ResumeKey)>,
    phase: Phase,
    /// The number of the current link, from 1, and how many there were.
    link: u64,
    links: u64,
    resumed: bool,
    welcome_due: bool,
    opened: bool,
    /// Whether the session was ever open.
    established: bool,
    closed_told: bool,
    /// Until when CLOSE may wait for the stream bytes before it, once it is to be sent: over all links together.
    flush_until: Micros,
    /// Largest native datagram of the link, if it has them.
    native_datagrams: Option<usize>,
    /// Whether native datagrams to the client begin with a mark on this link.
    marked: bool,

    sender: Sender,
    receiver: Receiver,
    assembler: Assembler,
    outgoing: Rare<Outgoing>,
    credit: Credit,
    inbox: Inbox,
    answers: Rare<Answers>,
    requests: Rare<Requests>,
    streams: Streams,
    leaving: Leaving,
    credentials: Credentials,

    heard: Micros,
    ack_at: Option<Micros>,
    ack_due: bool,
    heartbeat: Heartbeat,
    stats: Stats,
}

impl Blank for Outgoing {
    const BLANK: &'static Self = &Self::NONE;
}

impl Machine {
    /// The server's side of a new session.
    pub fn server(config: impl Into<Arc<Config>>, session: SessionId, key: ResumeKey) -> Self {
        let credit = INITIAL_CLIENT_CREDIT;
        Self::new(Role::Server, config.into(), Some((session, key)), credit)
    }

    /// The client's side. Its id, key and credit come with WELCOME.
    pub fn client(config: impl Into<Arc<Config>>) -> Self {
        Self::new(Role::Client, config.into(), None, 0)
    }

    fn new(role: Role, config: Arc<Config>, identity: Option<(SessionId, ResumeKey)>, credit: u64) -> Self {
        // What a client grants before its first ACK is fixed by the protocol; a server says it in WELCOME.
        let initial_limit = if role == Role::Client { INITIAL_CLIENT_CREDIT } else { 0 };
        Self {
            role,
            identity,
            phase: Phase::Detached { until: crate::varint::MAX, reason: String::new(), ending: None },
            link: 0,
            links: 0,
            resumed: false,
            welcome_due: false,
            opened: false,
            established: false,
            closed_told: false,
            flush_until: 0,
            native_datagrams: None,
            marked: false,
            sender: Sender::new(credit),
            receiver: Receiver::new(config.receive_window_bytes, initial_limit),
            assembler: Assembler::new(config.max_message_bytes),
            outgoing: Rare::default(),
            credit: Credit::default(),
            inbox: Inbox::default(),
            answers: Rare::default(),
            requests: Rare::default(),
            streams: Streams::new(role, Arc::clone(&config)),
            leaving: Leaving::default(),
            credentials: Credentials::default(),
            heard: 0,
            ack_at: None,
            ack_due: false,
            heartbeat: Heartbeat::default(),
            stats: Stats::default(),
            config,
        }
    }

    // ---- time ----

    /// When [`Machine::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Micros> {
        match &self.phase {
            Phase::Detached { until, .. } => {
                let until = Some(*until).filter(|until| *until < crate::varint::MAX);
                let leaving = self.leaving.at().filter(|_| self.role == Role::Server);
                until.into_iter().chain(leaving).min()
            }
            Phase::Closed(_) => None,
            Phase::Opening { deadline } | Phase::Closing { deadline, .. } => Some(*deadline),
            Phase::Open => {
                let idle = self.heard + self.config.idle_timeout_ms * 1_000;
                let leaving = self.leaving.at().filter(|_| self.role == Role::Client);
                let expires = self.credentials.until().filter(|_| self.role == Role::Server);
                let due = [self.ack_at, leaving, expires].into_iter().flatten();
                due.chain([idle, self.heartbeat.next_at()]).min()
            }
        }
    }

    /// The time has come, or has passed by. What is due for sending comes out of [`Machine::poll_transmit`]; whether the current link has fallen
    /// silent for too long, and is lost, out of [`Machine::has_link`].
    pub fn handle_timeout(&mut self, now: Micros) {
        match &mut self.phase {
            Phase::Opening { deadline } if now >= *deadline => {
                let close = match self.role {
                    Role::Server => Close::protocol(Code::OpenTimeout, "no frame came from the client in time"),
                    Role::Client => Close::protocol(Code::OpenTimeout, "no WELCOME came from the server in time"),
                };
                self.fail(now, close);
            }
            Phase::Open if now >= self.heard + self.config.idle_timeout_ms * 1_000 => {
                let silence = self.config.idle_timeout_ms;
                return self.link_lost(now, &format!("nothing was heard for {silence} ms"));
            }
            Phase::Closing { close, flush, deadline, .. } if now >= *deadline => {
                if *flush {
                    *flush = false;
                    *deadline = now + CLOSE_PATIENCE_US;
                } else {
                    self.phase = Phase::Closed(close.clone());
                    self.streams.touch_all();
                }
            }
            Phase::Detached { until, ending, reason } if now >= *until => {
                let lost = |reason: &str| {
                    let reason = if reason.is_empty() { "there was no link" } else { reason };
                    Close::protocol(Code::LinkLost, format!("{reason}, and no other link came in time"))
                };
                let close = ending.take().unwrap_or_else(|| lost(reason));
                self.end(close);
            }
            _ => {}
        }
        // Due, not sent: the link may not take anything now, and the next timeout must lie ahead all the same.
        if now >= self.heartbeat.next_at() {
            self.heartbeat.beat(now, self.config.heartbeat_ms);
            self.trim();
        }
        if self.ack_at.is_some_and(|at| now >= at) {
            self.ack_at = None;
            self.ack_due = true;
        }
        self.leave_in_time(now);
        self.expire_in_time(now);
    }

    /// Gives back the room of what has come to its end. With each heartbeat: often enough for a session that is idle, and seldom for one that is not.
    fn trim(&mut self) {
        self.inbox.trim();
        if self.outgoing.is_empty() {
            self.outgoing.clear();
        }
        if self.answers.is_empty() {
            self.answers.clear();
        }
        if self.requests.is_empty() {
            self.requests.clear();
        }
    }

    // ---- the application ----

    /// The next event for the application. A message that is taken frees its credit.
    pub fn poll_event(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.opened) {
            return Some(Event::Opened);
        }
        if let Some(stream) = self.streams.next_incoming() {
            return Some(Event::Stream(stream));
        }
        match self.inbox.pop() {
            Some(Arrived::Message(message, cost)) => {
                self.receiver.taken(cost);
                Some(Event::Message(message))
            }
            Some(Arrived::Datagram(payload, link)) => {
                self.took(link);
                Some(Event::Datagram(payload))
            }
            None => match &self.phase {
                Phase::Closed(close) if !self.closed_told => {
                    self.closed_told = true;
                    Some(Event::Closed(close.clone()))
                }
                _ => None,
            },
        }
    }

    /// Whether [`Machine::poll_event`] may have something.
    pub fn has_event(&self) -> bool {
        let is_end_untold = matches!(self.phase, Phase::Closed(_)) && !self.closed_told;
        self.opened || is_end_untold || self.inbox.has_events() || self.streams.has_incoming()
    }

    /// Ends the session: the messages before it are sent, then CLOSE. Does nothing when it is ending already.
    pub fn close(&mut self, now: Micros, close: Close) {
        if self.closing().is_none() {
            self.flush_until = now + CLOSE_PATIENCE_US;
        }
        match self.phase {
            Phase::Closing { .. } | Phase::Closed(_) => {}
            // The next link is told, if it comes soon.
            Phase::Detached { ref mut until, ref mut ending, .. } if self.role == Role::Server && self.established => {
                *until = (*until).min(now + CLOSE_PATIENCE_US);
                ending.get_or_insert(close);
            }
            Phase::Detached { .. } => self.end(close),
            Phase::Opening { .. } | Phase::Open => {
                let flush = matches!(self.phase, Phase::Open);
                self.outgoing.clear();
                self.phase = Phase::Closing { close, flush, by_owner: true, deadline: now + CLOSE_PATIENCE_US };
            }
        }
    }

    // ---- what is known ----

    /// Whether messages and datagrams go out now.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether the session was ever open, though it may have ended since: on a server, whether its client chose a link.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// How the session ended; `None` while it has not.
    pub fn closed(&self) -> Option<&Close> {
        match &self.phase {
            Phase::Closed(close) => Some(close),
            _ => None,
        }
    }

    /// How the session ends or ended; `None` while it goes on.
    pub fn closing(&self) -> Option<&Close> {
        match &self.phase {
            Phase::Closing { close, .. } | Phase::Closed(close) => Some(close),
            Phase::Detached { ending, .. } => ending.as_ref(),
            Phase::Opening { .. } | Phase::Open => None,
        }
    }

    /// Whether a link carries the session. Without one it waits, or has ended.
    pub fn has_link(&self) -> bool {
        matches!(self.phase, Phase::Opening { .. } | Phase::Open | Phase::Closing { .. })
    }

    /// The id and key; a client has none before WELCOME.
    pub fn identity(&self) -> Option<(SessionId, ResumeKey)> {
        self.identity
    }

    /// The number of the current link, or the last, from 1; 0 before the first.
    pub fn link(&self) -> u64 {
        self.link
    }

    /// Links that were opened for the session, chosen or not.
    pub fn links(&self) -> u64 {
        self.links
    }

    /// Whether the current link continued a session that was there.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Whether the peer should be told something at once: that a quarter of a window was received or freed, or that datagrams were taken.
    pub fn owes(&self) -> bool {
        self.is_open() && (self.is_ack_urgent() || self.credit.owes() || self.streams.owes())
    }

    /// What has been received of the message stream, in bytes.
    pub fn received(&self) -> u64 {
        self.receiver.received()
    }

    /// What the session keeps for its streams above 0.
    pub fn held_by_streams(&self) -> HeldByStreams {
        self.streams.held()
    }

    /// The peer's clock, in microseconds since the Unix epoch.
    pub fn peer_time(&self, now: Micros) -> Micros {
        self.heartbeat.peer_time(now)
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        let (rtt_us, min_rtt_us) = self.heartbeat.rtt_us();
        Stats { rtt_us, min_rtt_us, ..self.stats }
    }

    /// Ends the session because of a mistake of the peer, or its silence: CLOSE goes out at once.
    fn fail(&mut self, now: Micros, close: Close) {
        match self.phase {
            Phase::Closing { .. } | Phase::Closed(_) => {}
            Phase::Detached { .. } => self.end(close),
            Phase::Opening { .. } | Phase::Open => {
                self.outgoing.clear();
                self.phase = Phase::Closing { close, flush: false, by_owner: false, deadline: now + CLOSE_PATIENCE_US };
            }
        }
    }

    /// The session is over. One that was ending already ends as it was going to: whoever closed it must not be told
    /// of a lost link, and open a new session.
    fn end(&mut self, close: Close) {
        let gone = Phase::Detached { until: 0, reason: String::new(), ending: None };
        self.phase = match std::mem::replace(&mut self.phase, gone) {
            Phase::Closing { close: own, .. } | Phase::Closed(own) => Phase::Closed(own),
            Phase::Detached { ending: Some(own), .. } => Phase::Closed(own),
            Phase::Detached { ending: None, .. } | Phase::Opening { .. } | Phase::Open => Phase::Closed(close),
        };
        self.outgoing.clear();
        self.streams.touch_all();
    }

    /// A datagram was taken by the application, or dropped; `link` wants to hear of it.
    fn took(&mut self, link: Option<u64>) {
        if link == Some(self.link) {
            self.credit.took();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Machine;

    /// A server has as many as sessions: what most of them never have belongs into a `Rare`.
    #[test]
    fn an_idle_machine_is_small() {
        assert!(size_of::<Machine>() <= 832, "{} bytes", size_of::<Machine>());
    }
}
