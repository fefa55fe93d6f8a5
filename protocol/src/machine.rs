//! One session, without IO: frames and the time go in, packets and events come out.
//!
//! The owner of a machine
//! 1. tells it of its link ([`Machine::link_opened`], [`Machine::link_lost`]) and of what arrives
//!    ([`Machine::handle_frame`], [`Machine::handle_datagram`], [`Machine::handle_violation`]);
//! 2. calls [`Machine::handle_timeout`] when the time of [`Machine::poll_timeout`] has come;
//! 3. after each of these asks for [`Machine::poll_transmit`] and [`Machine::poll_datagram`] while the link takes more, and
//!    for [`Machine::poll_event`] while the application does.
//!
//! A machine is one session for life. When a server answers a further link with a WELCOME that resumes nothing, the session is
//! gone: the machine ends with `UNKNOWN_SESSION`, so that the application is told, and its owner may start another.

mod config;
mod heartbeat;
mod inbox;
mod send;
mod transmit;

use bytes::Bytes;

use crate::VERSION;
use crate::close::{Close, Code};
use crate::datagram::{Slots, TooLarge};
use crate::frame::{Frame, Welcome};
use crate::id::{ResumeKey, SessionId};
use crate::limits::{ACK_DELAY_US, INITIAL_CLIENT_CREDIT, MAX_DATAGRAM};
use crate::message::{Assembler, Message};
use crate::stream::{Receiver, Sender};
use heartbeat::Heartbeat;
use inbox::{Arrived, Inbox};

pub use config::Config;
pub use send::{SendDatagramError, TrySendError};

/// A time in microseconds since the Unix epoch, from a clock that never goes back.
pub type Micros = u64;

/// The message stream.
const MESSAGE_STREAM: u64 = 0;

/// How long a CLOSE may wait for the stream bytes before it, and again for a link that takes it, in microseconds.
const CLOSE_PATIENCE_US: Micros = 3_000_000;

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
    /// Messages received.
    pub messages_in: u64,
    /// Messages taken from the application.
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
    /// There is no link.
    Detached,
    /// A link is there; the other side's first frame is not.
    Opening {
        deadline: Micros,
    },
    Open,
    /// CLOSE is to be sent: after the stream bytes (`flush`), or now.
    Closing {
        close: Close,
        flush: bool,
        deadline: Micros,
    },
    Closed(Close),
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    role: Role,
    config: Config,
    identity: Option<(SessionId, ResumeKey)>,
    phase: Phase,
    /// The number of the current link, from 1.
    link: u64,
    resumed: bool,
    welcome_due: bool,
    opened: bool,
    /// Whether the session was ever open.
    established: bool,
    closed_told: bool,
    /// Largest native datagram of the link, if it has them.
    native_datagrams: Option<usize>,

    sender: Sender,
    receiver: Receiver,
    assembler: Assembler,
    outgoing: Slots,
    inbox: Inbox,

    heard: Micros,
    ack_at: Option<Micros>,
    ack_due: bool,
    heartbeat: Heartbeat,
    stats: Stats,
}

impl Machine {
    /// The server's side of a new session.
    pub fn server(config: Config, session: SessionId, key: ResumeKey) -> Self {
        let credit = INITIAL_CLIENT_CREDIT;
        Self::new(Role::Server, config, Some((session, key)), credit)
    }

    /// The client's side. Its id, key and credit come with WELCOME.
    pub fn client(config: Config) -> Self {
        Self::new(Role::Client, config, None, 0)
    }

    fn new(role: Role, config: Config, identity: Option<(SessionId, ResumeKey)>, credit: u64) -> Self {
        // What a client grants before its first ACK is fixed by the protocol; a server says it in WELCOME.
        let initial_limit = if role == Role::Client { INITIAL_CLIENT_CREDIT } else { 0 };
        Self {
            role,
            identity,
            phase: Phase::Detached,
            link: 0,
            resumed: false,
            welcome_due: false,
            opened: false,
            established: false,
            closed_told: false,
            native_datagrams: None,
            sender: Sender::new(credit),
            receiver: Receiver::new(config.receive_window_bytes, initial_limit),
            assembler: Assembler::new(config.max_message_bytes),
            outgoing: Slots::default(),
            inbox: Inbox::default(),
            heard: 0,
            ack_at: None,
            ack_due: false,
            heartbeat: Heartbeat::default(),
            stats: Stats::default(),
            config,
        }
    }

    // ---- the link ----

    /// A link carries the session from now on. `native_datagrams` is the longest payload of its own datagrams, if it has them. On a
    /// server, `resume_from` is what the client says it has received of the message stream, when it resumes.
    pub fn link_opened(&mut self, now: Micros, native_datagrams: Option<usize>, resume_from: Option<u64>) {
        if matches!(self.phase, Phase::Closing { .. } | Phase::Closed(_)) {
            return;
        }
        self.link += 1;
        self.native_datagrams = native_datagrams;
        self.heard = now;
        self.heartbeat.link_changed();
        self.ack_at = None;
        self.ack_due = false;
        self.phase = Phase::Opening { deadline: now + self.config.open_timeout_ms * 1_000 };
        if self.role == Role::Server {
            self.welcome_due = true;
            self.resumed = resume_from.is_some();
            if let Some(Err(close)) = resume_from.map(|received| self.sender.rewind(received)) {
                self.fail(now, close);
            }
        }
    }

    /// The link ended without CLOSE, and the session with it: `LINK_LOST`, unless it was closing already.
    pub fn link_lost(&mut self, reason: &str) {
        self.end(Close::protocol(Code::LinkLost, reason));
    }

    /// The carrier was closed deliberately, with a code of the application's (SPEC section 8).
    pub fn link_closed(&mut self, code: u32, reason: &str) {
        self.end(Close::application(code, reason));
    }

    /// Something of the peer arrived that is no frame: it is alive.
    pub fn heard_from(&mut self, now: Micros) {
        self.heard = self.heard.max(now);
    }

    // ---- what arrives ----

    /// A frame arrived.
    pub fn handle_frame(&mut self, now: Micros, frame: Frame) {
        self.heard_from(now);
        match &self.phase {
            Phase::Detached | Phase::Closed(_) => return,
            Phase::Closing { .. } => return self.handle_while_closing(frame),
            Phase::Opening { .. }
                if self.role == Role::Client && !matches!(frame, Frame::Welcome(_) | Frame::Close(_)) =>
            {
                return self.fail(now, Close::protocol(Code::ProtocolViolation, "a frame before WELCOME"));
            }
            Phase::Opening { .. } | Phase::Open => {}
        }
        if let Err(close) = self.dispatch(now, frame) {
            return self.fail(now, close);
        }
        if self.role == Role::Server && matches!(self.phase, Phase::Opening { .. }) {
            // The client's first frame. CLOSE and what is against the rules do not get here: they open nothing.
            self.open(now);
        }
    }

    /// A native datagram arrived.
    pub fn handle_datagram(&mut self, now: Micros, payload: Bytes) {
        self.heard_from(now);
        if payload.len() > MAX_DATAGRAM {
            return self.fail(now, Close::protocol(Code::DatagramTooLarge, TooLarge(payload.len()).to_string()));
        }
        if !matches!(self.phase, Phase::Open) {
            return; // nobody may read it yet, or any more: datagrams may be lost
        }
        self.stats.bytes_in += payload.len() as u64;
        self.datagram_arrived(&payload);
    }

    /// What arrived could not be read, or is against the rules of its carrier: the session ends.
    pub fn handle_violation(&mut self, now: Micros, close: Close) {
        self.fail(now, close);
    }

    /// Counts bytes of frames that arrived.
    pub fn count_received(&mut self, bytes: usize) {
        self.stats.bytes_in += bytes as u64;
    }

    fn dispatch(&mut self, now: Micros, frame: Frame) -> Result<(), Close> {
        match frame {
            Frame::Welcome(welcome) => self.welcome(now, &welcome)?,
            Frame::Close(close) => self.end(close),
            Frame::Stream { stream, offset, data } => {
                self.known_stream(stream)?;
                let mut fresh = self.receiver.accept(offset, data)?;
                while let Some(assembled) = self.assembler.next(&mut fresh)? {
                    self.receiver.queued(assembled.cost);
                    self.stats.messages_in += 1;
                    self.inbox.push_message(assembled);
                }
                if self.ack_at.is_none() && self.receiver.has_news() {
                    self.ack_at = Some(now + ACK_DELAY_US);
                }
            }
            Frame::Ack { stream, received, limit } => {
                self.known_stream(stream)?;
                self.sender.acknowledge(received, limit)?;
            }
            Frame::Datagram(payload) => self.datagram_arrived(&payload),
            Frame::Ping { id } => self.heartbeat.ping_arrived(id),
            Frame::Pong { id, time_us } => self.heartbeat.pong_arrived(now, id, time_us),
        }
        Ok(())
    }

    fn datagram_arrived(&mut self, payload: &[u8]) {
        self.stats.datagrams_in += 1;
        self.stats.datagrams_dropped += self.inbox.push_datagram(payload);
    }

    fn handle_while_closing(&mut self, frame: Frame) {
        match frame {
            // The stream bytes before our CLOSE may be waiting for this credit.
            Frame::Ack { stream: MESSAGE_STREAM, received, limit } => drop(self.sender.acknowledge(received, limit)),
            Frame::Close(close) => self.end(close),
            _ => {}
        }
    }

    fn known_stream(&self, stream: u64) -> Result<(), Close> {
        if stream == MESSAGE_STREAM {
            Ok(())
        } else {
            Err(Close::protocol(Code::ProtocolViolation, format!("there is no stream {stream}")))
        }
    }

    /// The link is usable. The application is told of the first.
    fn open(&mut self, now: Micros) {
        self.phase = Phase::Open;
        self.opened |= !self.established;
        self.established = true;
        self.heartbeat.beat(now, self.config.heartbeat_ms);
    }

    fn welcome(&mut self, now: Micros, welcome: &Welcome) -> Result<(), Close> {
        if self.role == Role::Server || !matches!(self.phase, Phase::Opening { .. }) {
            return Err(Close::protocol(Code::ProtocolViolation, "WELCOME is the server's, and comes once"));
        }
        if welcome.version != VERSION {
            return Err(Close::protocol(
                Code::UnsupportedVersion,
                format!("version {} was not asked for", welcome.version),
            ));
        }
        if !welcome.resumed && self.identity.is_some() {
            // The offsets here are those of the old session: in the new one they would lose bytes, or repeat them.
            return Err(Close::protocol(
                Code::UnknownSession,
                "the server has this session no more, and opened a new one",
            ));
        }
        if welcome.resumed {
            self.sender.rewind(welcome.received)?;
        }
        self.sender.acknowledge(welcome.received, welcome.limit)?;
        self.identity = Some((welcome.session, welcome.key));
        self.resumed = welcome.resumed;
        self.link = welcome.link;
        self.config.heartbeat_ms = welcome.heartbeat_ms;
        self.config.idle_timeout_ms = welcome.idle_ms;
        self.config.max_message_bytes = usize::try_from(welcome.max_message).unwrap_or(usize::MAX);
        self.assembler.set_max_message(self.config.max_message_bytes);
        self.heartbeat.set_peer_clock(now, welcome.time_us);
        // The last ACK may be lost with the old link, and the server know of less credit than was granted.
        self.ack_due = welcome.resumed;
        self.open(now);
        Ok(())
    }

    // ---- time ----

    /// When [`Machine::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Micros> {
        match &self.phase {
            Phase::Detached | Phase::Closed(_) => None,
            Phase::Opening { deadline } | Phase::Closing { deadline, .. } => Some(*deadline),
            Phase::Open => {
                let idle = self.heard + self.config.idle_timeout_ms * 1_000;
                Some(idle.min(self.heartbeat.next_at()).min(self.ack_at.unwrap_or(Micros::MAX)))
            }
        }
    }

    /// The time has come, or has passed by. What is due for sending comes out of [`Machine::poll_transmit`].
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
                self.fail(now, Close::protocol(Code::IdleTimeout, format!("nothing was heard for {silence} ms")));
            }
            Phase::Closing { close, flush, deadline } if now >= *deadline => {
                if *flush {
                    *flush = false;
                    *deadline = now + CLOSE_PATIENCE_US;
                } else {
                    self.phase = Phase::Closed(close.clone());
                }
            }
            _ => {}
        }
        // Due, not sent: the link may not take anything now, and the next timeout must lie ahead all the same.
        if now >= self.heartbeat.next_at() {
            self.heartbeat.beat(now, self.config.heartbeat_ms);
        }
        if self.ack_at.is_some_and(|at| now >= at) {
            self.ack_at = None;
            self.ack_due = true;
        }
    }

    // ---- the application ----

    /// The next event for the application. A message that is taken frees its credit.
    pub fn poll_event(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.opened) {
            return Some(Event::Opened);
        }
        match self.inbox.pop() {
            Some(Arrived::Message(message, cost)) => {
                self.receiver.taken(cost);
                Some(Event::Message(message))
            }
            Some(Arrived::Datagram(payload)) => Some(Event::Datagram(payload)),
            None => match &self.phase {
                Phase::Closed(close) if !self.closed_told => {
                    self.closed_told = true;
                    Some(Event::Closed(close.clone()))
                }
                _ => None,
            },
        }
    }

    /// Ends the session: the messages before it are sent, then CLOSE. Does nothing when it is ending already.
    pub fn close(&mut self, now: Micros, close: Close) {
        match self.phase {
            Phase::Closing { .. } | Phase::Closed(_) => {}
            Phase::Detached => self.end(close),
            Phase::Opening { .. } | Phase::Open => {
                let flush = matches!(self.phase, Phase::Open);
                self.outgoing.clear();
                self.phase = Phase::Closing { close, flush, deadline: now + CLOSE_PATIENCE_US };
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
            _ => None,
        }
    }

    /// The id and key; a client has none before WELCOME.
    pub fn identity(&self) -> Option<(SessionId, ResumeKey)> {
        self.identity
    }

    /// The number of the current link, from 1; 0 before the first.
    pub fn link(&self) -> u64 {
        self.link
    }

    /// Whether the current link continued an older session.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Whether the peer should be told at once of what was received or freed: a quarter of the window has gathered.
    pub fn owes_ack(&self) -> bool {
        self.is_open() && self.receiver.is_urgent()
    }

    /// What has been received of the message stream, in bytes.
    pub fn received(&self) -> u64 {
        self.receiver.received()
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
            Phase::Detached => self.end(close),
            Phase::Opening { .. } | Phase::Open => {
                self.outgoing.clear();
                self.phase = Phase::Closing { close, flush: false, deadline: now + CLOSE_PATIENCE_US };
            }
        }
    }

    /// The session is over. One that was ending already ends as it was going to: whoever closed it must not be told
    /// of a lost link, and open a new session.
    fn end(&mut self, close: Close) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Detached) {
            Phase::Closing { close: own, .. } | Phase::Closed(own) => Phase::Closed(own),
            Phase::Detached | Phase::Opening { .. } | Phase::Open => Phase::Closed(close),
        };
        self.outgoing.clear();
    }
}
