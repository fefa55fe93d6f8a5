//! One session, without IO: frames and the time go in, packets and events come out.
//!
//! The owner of a machine
//! 1. tells it of its link ([`Machine::link_opened`], [`Machine::link_lost`]) and of what arrives
//!    ([`Machine::handle_frame`], [`Machine::handle_datagram`], [`Machine::handle_violation`]);
//! 2. calls [`Machine::handle_timeout`] when the time of [`Machine::poll_timeout`] has come;
//! 3. after each of these asks for [`Machine::poll_transmit`] and [`Machine::poll_datagram`] while the link takes more, and
//!    for [`Machine::poll_event`] while the application does.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::close::{Close, Code};
use crate::datagram::{Datagram, Slots, TooLarge};
use crate::frame::{self, Frame, Welcome};
use crate::id::{ResumeKey, SessionId};
use crate::limits::{
    self, ACK_DELAY_US, INITIAL_CLIENT_CREDIT, MAX_DATAGRAM, MAX_INCOMING_DATAGRAMS, MAX_OPEN_PINGS, STREAM_CHUNK,
};
use crate::message::{Assembler, Message};
use crate::packet::{self, Packet};
use crate::stream::{Receiver, Sender};
use crate::{VERSION, varint};

/// A time in microseconds since the Unix epoch, from a clock that never goes back.
pub type Micros = u64;

/// The message stream.
const MESSAGE_STREAM: u64 = 0;

/// Bytes of an ACK frame, at most: room that is kept for it at the end of every packet.
const MAX_ACK_FRAME: usize = 26;

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

/// What an operator chooses for a session. A client takes `heartbeat_ms`, `idle_timeout_ms` and
/// `max_message_bytes` from WELCOME instead.
#[derive(Debug, Clone)]
pub struct Config {
    /// Milliseconds between PINGs.
    pub heartbeat_ms: u64,
    /// Milliseconds of silence after which the link counts as dead.
    pub idle_timeout_ms: u64,
    /// Milliseconds in which a client must have sent its first frame.
    pub open_timeout_ms: u64,
    /// Longest message body, in bytes.
    pub max_message_bytes: usize,
    /// While this many bytes are unacknowledged, no further message is taken. One message may go beyond it.
    pub send_buffer_bytes: u64,
    /// Bytes that the peer may send beyond what the application has taken. At least
    /// [`INITIAL_CLIENT_CREDIT`] for a client, whose server counts on it.
    pub receive_window_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat_ms: 10_000,
            idle_timeout_ms: 30_000,
            open_timeout_ms: 10_000,
            max_message_bytes: limits::DEFAULT_MAX_MESSAGE,
            send_buffer_bytes: INITIAL_CLIENT_CREDIT,
            receive_window_bytes: INITIAL_CLIENT_CREDIT,
        }
    }
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

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError {
    /// The buffer of unacknowledged bytes is full: wait until the peer has received some.
    #[error("the session's send buffer is full: wait for the peer to receive what was sent")]
    Full,
    /// The session has ended.
    #[error("the session is closed ({0}): open a new one to send")]
    Closed(Close),
    /// The message is longer than the session allows.
    #[error("a message of {len} bytes; at most {max} are allowed in this session: send it in parts")]
    TooLarge {
        /// Its length, in bytes.
        len: usize,
        /// The longest allowed, in bytes.
        max: usize,
    },
}

/// Why a datagram was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendDatagramError {
    /// The session has ended.
    #[error("the session is closed ({0}): open a new one to send")]
    Closed(Close),
    /// It is longer than [`MAX_DATAGRAM`] bytes.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
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
    messages: VecDeque<(u64, Message, u64)>,
    datagrams: VecDeque<(u64, Bytes)>,
    /// Order of arrival among messages and datagrams.
    arrival: u64,

    heard: Micros,
    ack_at: Option<Micros>,
    ack_due: bool,
    ping_at: Micros,
    ping_due: bool,
    ping_id: u64,
    pings: VecDeque<(u64, Micros)>,
    pong_due: Option<u64>,
    /// The peer's clock minus ours, in microseconds.
    clock_offset: i64,
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
            messages: VecDeque::new(),
            datagrams: VecDeque::new(),
            arrival: 0,
            heard: 0,
            ack_at: None,
            ack_due: false,
            ping_at: 0,
            ping_due: false,
            ping_id: 0,
            pings: VecDeque::new(),
            pong_due: None,
            clock_offset: 0,
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
        self.pings.clear();
        self.pong_due = None;
        self.ping_due = false;
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
        if !matches!(self.phase, Phase::Open) {
            return; // nobody may read it yet, or any more: datagrams may be lost
        }
        if payload.len() > MAX_DATAGRAM {
            return self.fail(now, Close::protocol(Code::DatagramTooLarge, TooLarge(payload.len()).to_string()));
        }
        self.stats.bytes_in += payload.len() as u64;
        self.queue_datagram(payload);
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
                    self.arrival += 1;
                    self.messages.push_back((self.arrival, assembled.message, assembled.cost));
                }
                if self.ack_at.is_none() && self.receiver.has_news() {
                    self.ack_at = Some(now + ACK_DELAY_US);
                }
            }
            Frame::Ack { stream, received, limit } => {
                self.known_stream(stream)?;
                self.sender.acknowledge(received, limit)?;
            }
            Frame::Datagram(payload) => self.queue_datagram(payload),
            Frame::Ping { id } => self.pong_due = Some(id),
            Frame::Pong { id, time_us } => self.pong(now, id, time_us),
        }
        Ok(())
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
        self.start_heartbeat(now);
    }

    fn start_heartbeat(&mut self, now: Micros) {
        self.ping_due = true;
        self.ping_at = now + self.config.heartbeat_ms * 1_000;
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
        self.clock_offset = welcome.time_us as i64 - now as i64;
        // The last ACK may be lost with the old link, and the server know of less credit than was granted.
        self.ack_due = welcome.resumed;
        self.open(now);
        Ok(())
    }

    fn pong(&mut self, now: Micros, id: u64, time_us: u64) {
        let Some(index) = self.pings.iter().position(|(sent, _)| *sent == id) else { return };
        let (_, sent_at) = self.pings[index];
        self.pings.drain(..=index);
        let rtt = now.saturating_sub(sent_at).max(1);
        let stats = &mut self.stats;
        stats.rtt_us = if stats.rtt_us == 0 { rtt } else { (7 * stats.rtt_us + rtt) / 8 };
        stats.min_rtt_us = if stats.min_rtt_us == 0 { rtt } else { stats.min_rtt_us.min(rtt) };
        if rtt <= stats.rtt_us {
            // A slow answer says little about the clock.
            self.clock_offset = (time_us + rtt / 2) as i64 - now as i64;
        }
    }

    fn queue_datagram(&mut self, payload: Bytes) {
        self.stats.datagrams_in += 1;
        if self.datagrams.len() == MAX_INCOMING_DATAGRAMS {
            self.datagrams.pop_front();
            self.stats.datagrams_dropped += 1;
        }
        self.arrival += 1;
        // Copied: a slice would keep the whole packet in memory while it waits.
        self.datagrams.push_back((self.arrival, Bytes::copy_from_slice(&payload)));
    }

    // ---- time ----

    /// When [`Machine::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Micros> {
        match &self.phase {
            Phase::Detached | Phase::Closed(_) => None,
            Phase::Opening { deadline } | Phase::Closing { deadline, .. } => Some(*deadline),
            Phase::Open => {
                let idle = self.heard + self.config.idle_timeout_ms * 1_000;
                Some(idle.min(self.ping_at).min(self.ack_at.unwrap_or(Micros::MAX)))
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
        if now >= self.ping_at {
            self.start_heartbeat(now);
        }
        if self.ack_at.is_some_and(|at| now >= at) {
            self.ack_at = None;
            self.ack_due = true;
        }
    }

    // ---- what is sent ----

    /// The next packet of at most `max` bytes (and never less than one frame), or `None` when there is nothing to send now.
    pub fn poll_transmit(&mut self, now: Micros, max: usize) -> Option<Packet> {
        let mut packet = packet::Builder::default();
        match &self.phase {
            Phase::Detached | Phase::Closed(_) => return None,
            Phase::Opening { .. } => self.write_welcome(now, &mut packet),
            Phase::Open => {
                self.write_welcome(now, &mut packet);
                self.write_control(now, &mut packet);
                self.write_datagrams(max, &mut packet);
                self.write_stream(max, &mut packet);
                self.write_ack(&mut packet);
            }
            Phase::Closing { close, flush, .. } => {
                let (close, flush) = (close.clone(), *flush);
                self.write_welcome(now, &mut packet);
                if flush {
                    self.write_stream(max, &mut packet);
                }
                if !flush || self.sender.all_sent() {
                    let mut frame = BytesMut::new();
                    Frame::Close(close.clone()).encode(&mut frame);
                    // A reason may be long, and the packet full: then CLOSE is the next one.
                    if packet.len() == 0 || packet.len() + frame.len() <= max {
                        packet.payload(&frame.freeze());
                        self.phase = Phase::Closed(close);
                    }
                }
            }
        }
        let packet = packet.finish()?;
        self.stats.bytes_out += packet.len() as u64;
        Some(packet)
    }

    /// The next datagram for a link that has its own.
    pub fn poll_datagram(&mut self) -> Option<Bytes> {
        if !matches!(self.phase, Phase::Open) || !self.goes_natively(self.outgoing.front()?) {
            return None;
        }
        let payload = self.outgoing.pop()?.payload();
        self.count_native_datagram(payload.len());
        Some(payload)
    }

    /// An empty one does not: Chromium delivers no datagram any more after one (SPEC section 5).
    fn goes_natively(&self, datagram: &Datagram) -> bool {
        self.native_datagrams.is_some_and(|native| (1..=native).contains(&datagram.len()))
    }

    /// Counts a datagram that its owner handed to the link himself.
    pub fn count_native_datagram(&mut self, len: usize) {
        self.stats.datagrams_out += 1;
        self.stats.bytes_out += len as u64;
    }

    fn write_welcome(&mut self, now: Micros, packet: &mut packet::Builder) {
        let Some((session, key)) = self.identity.filter(|_| self.welcome_due) else { return };
        self.welcome_due = false;
        let (received, limit) = self.receiver.say();
        let welcome = Welcome {
            version: VERSION,
            session,
            key,
            resumed: self.resumed,
            link: self.link,
            time_us: now.min(varint::MAX),
            heartbeat_ms: self.config.heartbeat_ms,
            idle_ms: self.config.idle_timeout_ms,
            max_message: self.config.max_message_bytes as u64,
            received,
            limit,
        };
        Frame::Welcome(welcome).encode(packet.small());
    }

    fn write_control(&mut self, now: Micros, packet: &mut packet::Builder) {
        if let Some(id) = self.pong_due.take() {
            Frame::Pong { id, time_us: now.min(varint::MAX) }.encode(packet.small());
        }
        if std::mem::take(&mut self.ping_due) {
            self.ping_id += 1;
            if self.pings.len() == MAX_OPEN_PINGS {
                self.pings.pop_front();
            }
            self.pings.push_back((self.ping_id, now));
            Frame::Ping { id: self.ping_id }.encode(packet.small());
        }
    }

    fn write_datagrams(&mut self, max: usize, packet: &mut packet::Builder) {
        while let Some(datagram) = self.outgoing.front() {
            let native = self.goes_natively(datagram);
            let fits = packet.len() + datagram.frame().len() + MAX_ACK_FRAME <= max || packet.len() == 0;
            if native || !fits {
                break;
            }
            packet.payload(datagram.frame());
            self.outgoing.pop();
            self.stats.datagrams_out += 1;
        }
    }

    fn write_stream(&mut self, max: usize, packet: &mut packet::Builder) {
        loop {
            let room = max.saturating_sub(packet.len() + frame::MAX_STREAM_HEADER + MAX_ACK_FRAME);
            let room = if packet.len() == 0 { room.max(1) } else { room };
            let Some((offset, len, pieces)) = self.sender.take(room.min(STREAM_CHUNK)) else { break };
            frame::encode_stream_header(MESSAGE_STREAM, offset, len, packet.small());
            for piece in &pieces {
                packet.payload(piece);
            }
        }
    }

    fn write_ack(&mut self, packet: &mut packet::Builder) {
        let in_company = packet.len() > 0 && self.receiver.has_news();
        if self.ack_due || self.receiver.is_urgent() || in_company {
            self.ack_at = None;
            self.ack_due = false;
            let (received, limit) = self.receiver.say();
            Frame::Ack { stream: MESSAGE_STREAM, received, limit }.encode(packet.small());
        }
    }

    // ---- the application ----

    /// The next event for the application. A message that is taken frees its credit.
    pub fn poll_event(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.opened) {
            return Some(Event::Opened);
        }
        let message = self.messages.front().map(|(arrival, ..)| *arrival);
        let datagram = self.datagrams.front().map(|(arrival, _)| *arrival);
        match (message, datagram) {
            (Some(message), datagram) if datagram.is_none_or(|datagram| message < datagram) => {
                let (_, message, cost) = self.messages.pop_front()?;
                self.receiver.taken(cost);
                Some(Event::Message(message))
            }
            (_, Some(_)) => self.datagrams.pop_front().map(|(_, payload)| Event::Datagram(payload)),
            _ => match &self.phase {
                Phase::Closed(close) if !self.closed_told => {
                    self.closed_told = true;
                    Some(Event::Closed(close.clone()))
                }
                _ => None,
            },
        }
    }

    /// Takes a message to send, after those before it.
    ///
    /// # Errors
    /// [`TrySendError`]; the message was then not taken.
    pub fn send(&mut self, message: Message) -> Result<(), TrySendError> {
        if let Some(close) = self.closing() {
            return Err(TrySendError::Closed(close.clone()));
        }
        let (len, max) = (message.len(), self.config.max_message_bytes);
        if len > max {
            return Err(TrySendError::TooLarge { len, max });
        }
        if !self.has_room() {
            return Err(TrySendError::Full);
        }
        for chunk in message.encode().into_iter().flatten() {
            self.sender.push(chunk);
        }
        self.stats.messages_out += 1;
        Ok(())
    }

    /// Takes a datagram to send: of those with the same key, the newest is sent.
    ///
    /// # Errors
    /// [`SendDatagramError`]; the datagram was then not taken.
    pub fn send_datagram(&mut self, datagram: Datagram, key: Option<u64>) -> Result<(), SendDatagramError> {
        if let Some(close) = self.closing() {
            return Err(SendDatagramError::Closed(close.clone()));
        }
        if datagram.len() > MAX_DATAGRAM {
            return Err(TooLarge(datagram.len()).into());
        }
        self.stats.datagrams_dropped += self.outgoing.put(key, datagram);
        Ok(())
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

    /// Whether the application may send a further message.
    pub fn has_room(&self) -> bool {
        self.sender.buffered() < self.config.send_buffer_bytes
    }

    /// Bytes of messages that the peer has not acknowledged.
    pub fn buffered_bytes(&self) -> u64 {
        self.sender.buffered()
    }

    /// Whether the peer has acknowledged everything.
    pub fn is_drained(&self) -> bool {
        self.sender.all_acked()
    }

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
        now.saturating_add_signed(self.clock_offset)
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.stats
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
