//! The streams above 0 of one session (SPEC section 4.2): which there are, what they hold, and what is due for each.

mod half;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::rare::{Blank, Rare};
use super::{Config, Role};
use crate::close::{Close, Code};
use crate::frame::{self, DONE, Frame};
use crate::limits::{INITIAL_CLIENT_STREAMS, INITIAL_STREAM_CREDIT, STREAM_CHUNK};
use crate::packet::Packet;
use half::{Receiving, Sending};

/// What reading from a stream gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamRead {
    /// The next bytes.
    Data(Bytes),
    /// Nothing now.
    Nothing,
    /// The peer has ended it, and everything was read.
    End,
}

/// Why nothing can be read from a stream, or written to it, any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer gave its half up.
    #[error("the peer reset the stream with code {0}")]
    Reset(u32),
    /// The peer reads no more.
    #[error("the peer stopped the stream with code {0}")]
    Stopped(u32),
    /// This side has ended, reset or stopped that half, or the stream is over.
    #[error("this half of the stream has ended")]
    Ended,
    /// The session has ended.
    #[error("the session is closed ({0}): open a new one")]
    Closed(Close),
}

/// Why no stream was opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenStreamError {
    /// As many are open as the peer allows: wait until one is over.
    #[error("{0} streams are open or were, which is what the peer allows so far: end one, and wait")]
    Full(u64),
    /// The session has ended, or is ending.
    #[error("the session is closed ({0}): open a new one")]
    Closed(Close),
}

/// What a session keeps for its streams above 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldByStreams {
    /// Streams that are not over, or whose application does not know that they are.
    pub streams: usize,
    /// Bytes that were written and are not acknowledged.
    pub unacknowledged_bytes: u64,
    /// Bytes that were received and not read.
    pub unread_bytes: u64,
    /// Streams with something to say.
    pub due: usize,
}

/// On which way STREAM and END of one direction of a stream travel on the current link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Not known yet: who opened the stream says so by its first STREAM, and the other side follows.
    Open,
    /// The stream's own native one.
    Native,
    /// The link stream, or the packets of a link without native streams.
    Link,
}

#[derive(Debug)]
struct Stream {
    sending: Sending,
    receiving: Receiving,
    send_way: Way,
    receive_way: Way,
    /// We opened it, and have not said so on this link.
    announce: bool,
}

/// The streams of a session, and what is due.
#[derive(Debug)]
pub(super) struct Streams {
    role: Role,
    config: Arc<Config>,
    /// Whether the current link has native streams.
    native: bool,
    /// Streams that we may open, in all.
    may_open: u64,
    /// What the peer allowed at first: so many are open at once.
    at_once: u64,
    /// Streams that the peer may open, in all.
    granted: u64,
    /// Those that were opened.
    used: Rare<Used>,
}

#[derive(Debug, Default)]
struct Used {
    table: BTreeMap<u64, Stream>,
    /// Streams that we have opened, in all, and that the peer has.
    opened: u64,
    accepted: u64,
    grant_due: bool,
    /// Streams with END, RESET, STOP or a done to say, on the link stream.
    control: BTreeSet<u64>,
    /// Streams to acknowledge, and whether that is urgent.
    acks: BTreeMap<u64, bool>,
    /// Streams that the peer opened and the application has not seen.
    incoming: VecDeque<u64>,
    /// Streams whose readers and writers should look again; 0 stands for who wants to open one.
    touched: BTreeSet<u64>,
    /// What all windows have beyond the initial credit, in bytes.
    widened: u64,
    /// Where the next turn of the streams begins.
    turn: u64,
}

impl Blank for Used {
    const BLANK: &'static Self = &Self {
        table: BTreeMap::new(),
        opened: 0,
        accepted: 0,
        grant_due: false,
        control: BTreeSet::new(),
        acks: BTreeMap::new(),
        incoming: VecDeque::new(),
        touched: BTreeSet::new(),
        widened: 0,
        turn: 0,
    };
}

impl Streams {
    pub(super) fn new(role: Role, config: Arc<Config>) -> Self {
        let (may_open, granted) = match role {
            Role::Server => (INITIAL_CLIENT_STREAMS, config.max_streams),
            // What a client grants before its first STREAMS is fixed by the protocol; a server says it in WELCOME.
            Role::Client => (0, INITIAL_CLIENT_STREAMS),
        };
        Self { role, config, native: false, may_open, at_once: may_open, granted, used: Rare::default() }
    }

    /// Streams that the peer may have open at once.
    fn max_open(&self) -> u64 {
        match self.role {
            Role::Server => self.config.max_streams,
            Role::Client => INITIAL_CLIENT_STREAMS,
        }
    }

    /// The id of the stream that one side opened as its `index`th, from 0.
    fn id(&self, ours: bool, index: u64) -> u64 {
        let odd = (self.role == Role::Client) == ours;
        2 * index + if odd { 1 } else { 2 }
    }

    fn is_ours(&self, id: u64) -> bool {
        opened_by(self.role, id)
    }

    /// What the peer may open in all, for WELCOME.
    pub(super) fn granted(&self) -> u64 {
        self.granted
    }

    // ---- the link ----

    /// Another link: everything that a lost one may have swallowed is due again.
    pub(super) fn link_changed(&mut self, native: bool) {
        self.native = native;
        let Some(used) = self.used.get_mut() else { return };
        for (&id, stream) in &mut used.table {
            let ours = opened_by(self.role, id);
            // Who opened it may have forgotten it, when our half has ended: it would never be announced again.
            let waits = native && (ours || !stream.sending.is_ending());
            stream.send_way = if waits { Way::Open } else { Way::Link };
            stream.receive_way = if native { Way::Open } else { Way::Link };
            stream.announce = ours;
            if stream.sending.link_changed() | stream.receiving.link_changed() {
                used.control.insert(id);
            }
            if stream.receiving.wants_ack() {
                used.acks.insert(id, true);
            }
        }
        // Only news: who has never opened a stream has nothing to say of them.
        used.grant_due = used.accepted > 0;
    }

    /// A stream of ours that has no way on this link yet.
    pub(super) fn unrouted(&self) -> Option<u64> {
        self.used
            .table
            .iter()
            .find(|(id, stream)| stream.send_way == Way::Open && self.is_ours(**id))
            .map(|(id, _)| *id)
    }

    pub(super) fn route(&mut self, id: u64, native: bool) {
        if let Some(stream) = self.stream_mut(id) {
            stream.send_way = if native { Way::Native } else { Way::Link };
        }
    }

    // ---- what arrives ----

    /// The stream that a frame names; `None` when it is over. Opens what the peer opens.
    fn named(&mut self, id: u64) -> Result<Option<&mut Stream>, Close> {
        let ours = self.is_ours(id);
        let index = if id % 2 == 1 { id / 2 } else { id / 2 - 1 };
        if ours && index >= self.used.opened {
            return Err(violation(format!("stream {id} was never opened, and is not yours to open")));
        }
        if !ours && index >= self.granted {
            let granted = self.granted;
            return Err(Close::protocol(Code::StreamLimit, format!("stream {id}, when {granted} may be opened")));
        }
        while !ours && index >= self.used.accepted {
            let (opened, way) = (self.id(false, self.used.accepted), self.first_way());
            let used = self.used.make();
            used.accepted += 1;
            used.table.insert(opened, Stream::new(way, false));
            used.incoming.push_back(opened);
        }
        Ok(self.stream_mut(id))
    }

    fn stream_mut(&mut self, id: u64) -> Option<&mut Stream> {
        self.used.get_mut()?.table.get_mut(&id)
    }

    fn first_way(&self) -> Way {
        if self.native { Way::Open } else { Way::Link }
    }

    /// STREAM, which came on this way.
    pub(super) fn data(&mut self, id: u64, offset: u64, data: Bytes, way: Way) -> Result<(), Close> {
        let ours = self.is_ours(id);
        let Some(stream) = self.named(id)? else { return Ok(()) };
        stream.came_by(ours, way)?;
        if stream.receiving.data(offset, data)? {
            self.used.make().touched.insert(id);
            self.note_ack(id);
        }
        Ok(())
    }

    pub(super) fn end(&mut self, id: u64, size: u64, way: Way) -> Result<(), Close> {
        let ours = self.is_ours(id);
        if let Some(stream) = self.named(id)? {
            stream.came_by(ours, way)?;
            stream.receiving.end(size)?;
            self.used.make().touched.insert(id);
        }
        self.say_done(id)
    }

    pub(super) fn reset(&mut self, id: u64, code: u32) -> Result<(), Close> {
        if let Some(stream) = self.named(id)? {
            stream.receiving.reset(code);
            self.used.make().touched.insert(id);
        }
        self.say_done(id)
    }

    pub(super) fn stop(&mut self, id: u64, code: u32) -> Result<(), Close> {
        if let Some(stream) = self.named(id)?
            && stream.sending.stop(code)
        {
            self.used.make().touched.insert(id);
            self.used.make().control.insert(id);
        }
        Ok(())
    }

    pub(super) fn ack(&mut self, id: u64, received: u64, limit: u64) -> Result<(), Close> {
        if let Some(stream) = self.named(id)? {
            if received == DONE {
                stream.sending.done()?;
            } else {
                stream.sending.acknowledge(received, limit)?;
            }
            self.used.make().touched.insert(id);
            self.forget_if_over(id);
        }
        Ok(())
    }

    pub(super) fn may_open(&mut self, limit: u64) {
        if limit > self.may_open {
            if self.at_once == 0 {
                self.at_once = limit; // WELCOME of the first link
            }
            self.may_open = limit;
            self.used.make().touched.insert(0);
        }
    }

    fn say_done(&mut self, id: u64) -> Result<(), Close> {
        self.used.make().control.insert(id);
        // As many as either side may have open can be without an answer. A peer that reads nothing could ask for any number of answers.
        if self.used.control.len() as u64 > 4 * (self.max_open() + self.at_once) + self.used.table.len() as u64 {
            return Err(violation("END or RESET of more streams than can be open"));
        }
        if let Some(stream) = self.stream_mut(id) {
            stream.receiving.done_due = true;
            self.used.make().acks.remove(&id);
            self.forget_if_over(id);
        }
        Ok(())
    }

    fn note_ack(&mut self, id: u64) {
        let Some(stream) = self.used.table.get(&id) else { return };
        if stream.receiving.wants_ack() {
            let urgent = stream.receiving.receiver.is_urgent();
            if urgent || stream.receiving.receiver.has_news() {
                *self.used.make().acks.entry(id).or_default() |= urgent;
            }
        }
    }

    // ---- the application ----

    pub(super) fn open(&mut self) -> Result<u64, OpenStreamError> {
        if self.used.opened >= self.may_open {
            return Err(OpenStreamError::Full(self.may_open));
        }
        let (id, way) = (self.id(true, self.used.opened), self.first_way());
        let used = self.used.make();
        used.opened += 1;
        used.table.insert(id, Stream::new(way, true));
        Ok(id)
    }

    /// Takes as much of `data` as there is room for; returns how much.
    pub(super) fn write(&mut self, id: u64, data: &Bytes) -> Result<usize, StreamError> {
        let (session, buffer) = (self.config.session_stream_bytes, self.config.stream_buffer_bytes);
        let buffer = buffer.max(INITIAL_STREAM_CREDIT);
        let beyond: u64 = self.used.table.values().map(|stream| beyond_initial(stream.sending.sender.buffered())).sum();
        let Some(stream) = self.stream_mut(id) else { return Err(StreamError::Ended) };
        stream.sending.check()?;
        let buffered = stream.sending.sender.buffered();
        let pool = session.saturating_sub(beyond) + beyond_initial(buffered) + INITIAL_STREAM_CREDIT;
        let room = buffer.min(pool).saturating_sub(buffered);
        let taken = data.len().min(room as usize);
        if taken > 0 {
            stream.sending.sender.push(data.slice(..taken), true);
        }
        Ok(taken)
    }

    pub(super) fn finish(&mut self, id: u64) -> Result<(), StreamError> {
        let stream = self.stream_mut(id).ok_or(StreamError::Ended)?;
        stream.sending.check()?;
        stream.sending.finish();
        self.used.make().control.insert(id);
        Ok(())
    }

    pub(super) fn abandon(&mut self, id: u64, code: u32) {
        if let Some(stream) = self.stream_mut(id)
            && stream.sending.abandon(code)
        {
            self.used.make().control.insert(id);
        }
    }

    pub(super) fn read(&mut self, id: u64, max: usize) -> Result<StreamRead, StreamError> {
        let stream = self.stream_mut(id).ok_or(StreamError::Ended)?;
        let read = stream.receiving.read(max);
        if matches!(read, Ok(StreamRead::Data(_))) {
            self.widen(id);
            self.note_ack(id);
        }
        self.forget_if_over(id);
        read
    }

    pub(super) fn refuse(&mut self, id: u64, code: u32) {
        if let Some(stream) = self.stream_mut(id)
            && stream.receiving.refuse(code)
        {
            self.used.make().control.insert(id);
        }
        self.forget_if_over(id);
    }

    /// Nobody holds the stream any more: what is not over is given up.
    pub(super) fn release(&mut self, id: u64) {
        self.abandon(id, 0);
        if let Some(stream) = self.stream_mut(id) {
            stream.sending.release();
        }
        self.refuse(id, 0);
    }

    pub(super) fn has_incoming(&self) -> bool {
        !self.used.incoming.is_empty()
    }

    pub(super) fn next_incoming(&mut self) -> Option<u64> {
        self.used.get_mut()?.incoming.pop_front()
    }

    pub(super) fn take_touched(&mut self) -> Vec<u64> {
        let touched = self.used.get_mut().map(|used| std::mem::take(&mut used.touched));
        touched.unwrap_or_default().into_iter().collect()
    }

    /// The session has ended: everybody should look.
    pub(super) fn touch_all(&mut self) {
        let used = self.used.make();
        used.touched.extend(used.table.keys());
        used.touched.insert(0);
    }

    pub(super) fn held(&self) -> HeldByStreams {
        HeldByStreams {
            streams: self.used.table.len(),
            unacknowledged_bytes: self.used.table.values().map(|stream| stream.sending.sender.buffered()).sum(),
            unread_bytes: self.used.table.values().map(|stream| stream.receiving.unread_bytes() as u64).sum(),
            due: self.used.control.len() + self.used.acks.len(),
        }
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.used.table.contains_key(&id)
    }

    pub(super) fn is_reset(&self, id: u64) -> bool {
        self.used.table.get(&id).is_none_or(|stream| stream.sending.is_reset())
    }

    /// Whether CLOSE may go: what was written has gone before it.
    pub(super) fn is_flushed(&self) -> bool {
        self.used.table.values().all(|stream| stream.sending.is_flushed(stream.send_way == Way::Native))
    }

    pub(super) fn all_acked(&self) -> bool {
        self.used.table.values().all(|stream| stream.sending.is_over() || stream.sending.sender.all_acked())
    }

    /// An application that keeps up gets a larger window, while the session's share allows.
    fn widen(&mut self, id: u64) {
        let widest = self.config.stream_window_bytes.max(INITIAL_STREAM_CREDIT);
        let left = self.config.session_stream_bytes - self.used.widened;
        let Some(stream) = self.stream_mut(id) else { return };
        let receiver = &mut stream.receiving.receiver;
        let before = receiver.window();
        if receiver.waiting() > 0 || !receiver.is_urgent() || before >= widest {
            return;
        }
        let more = (widest - before).min(before).min(left);
        receiver.set_window(before + more);
        self.used.make().widened += more;
    }

    fn forget_if_over(&mut self, id: u64) {
        let Some(stream) = self.used.table.get(&id) else { return };
        if !(stream.sending.is_over() && stream.receiving.is_over()) {
            return;
        }
        let widened = stream.receiving.receiver.window() - INITIAL_STREAM_CREDIT;
        let is_theirs = !self.is_ours(id);
        let used = self.used.make();
        used.widened -= widened;
        used.table.remove(&id);
        used.acks.remove(&id);
        used.grant_due |= is_theirs;
        self.granted += u64::from(is_theirs);
        debug_assert!(self.used.table.len() as u64 <= self.max_open() + self.may_open);
    }

    // ---- what is sent ----

    /// Whether something should go out at once.
    pub(super) fn owes(&self) -> bool {
        self.used.grant_due || !self.used.control.is_empty() || self.used.acks.values().any(|urgent| *urgent)
    }

    /// Whether there is anything to acknowledge.
    pub(super) fn has_news(&self) -> bool {
        !self.used.acks.is_empty()
    }

    /// STREAMS, RESET, STOP, done; and END that is not for a native stream.
    pub(super) fn write_control(&mut self, max: usize, packet: &mut Packet) {
        let Some(used) = self.used.get_mut() else { return };
        if std::mem::take(&mut used.grant_due) {
            Frame::Streams { limit: self.granted }.encode(packet.small());
        }
        while let Some(id) = self.used.control.first().copied() {
            if !packet.is_empty() && packet.len() + 3 * MAX_CONTROL_FRAME > max {
                return;
            }
            self.used.make().control.remove(&id);
            let Some(stream) = self.stream_mut(id) else {
                Frame::Ack { stream: id, received: DONE, limit: 0 }.encode(packet.small());
                continue;
            };
            stream.sending.write_reset(id, packet.small());
            stream.receiving.write_control(id, packet.small());
            self.forget_if_over(id);
        }
    }

    /// ACKs: all that are due, or only the urgent ones. Those that have no room go with the next packet.
    pub(super) fn write_acks(&mut self, all: bool, max: usize, packet: &mut Packet) {
        let due = self.used.acks.iter().filter(|(_, urgent)| all || **urgent);
        let due: Vec<u64> = due.map(|(id, _)| *id).collect();
        for id in due {
            if !packet.is_empty() && packet.len() + MAX_CONTROL_FRAME > max {
                self.used.make().acks.insert(id, true);
                continue;
            }
            self.used.make().acks.remove(&id);
            if let Some(stream) = self.stream_mut(id) {
                let (received, limit) = stream.receiving.say();
                Frame::Ack { stream: id, received, limit }.encode(packet.small());
            }
        }
    }

    /// STREAM and END of the streams that go over the link stream, in turns.
    pub(super) fn write_data(&mut self, max: usize, packet: &mut Packet) {
        if self.used.table.is_empty() {
            return;
        }
        loop {
            let after = self.used.table.range(self.used.turn + 1..).map(|(id, _)| *id);
            let ids: Vec<u64> = after.chain(self.used.table.range(..=self.used.turn).map(|(id, _)| *id)).collect();
            let mut wrote = false;
            for id in ids {
                let Some(stream) = self.stream_mut(id) else { continue };
                if stream.send_way == Way::Link && stream.write(id, max, packet) {
                    wrote = true;
                    self.used.make().turn = id;
                }
            }
            if !wrote {
                return;
            }
        }
    }

    /// STREAM and END of one stream, for its native one.
    pub(super) fn write_native(&mut self, id: u64, max: usize, packet: &mut Packet) {
        if let Some(stream) = self.stream_mut(id).filter(|stream| stream.send_way == Way::Native) {
            while stream.write(id, max, packet) {}
        }
    }
}

/// Bytes of a frame of a stream without data, at most: room that is kept for it.
const MAX_CONTROL_FRAME: usize = 26;

impl Stream {
    fn new(way: Way, announce: bool) -> Self {
        let (sending, receiving) = (Sending::default(), Receiving::default());
        Self { sending, receiving, send_way: way, receive_way: way, announce }
    }

    /// STREAM or END came this way.
    fn came_by(&mut self, ours: bool, way: Way) -> Result<(), Close> {
        if self.receive_way == Way::Open {
            self.receive_way = way;
        }
        if self.send_way == Way::Open && !ours {
            self.send_way = way;
        }
        if self.receive_way == way {
            return Ok(());
        }
        Err(violation("STREAM or END on another way than those before them on this link"))
    }

    /// Writes one STREAM frame, or END; false when there is nothing to send or no room.
    fn write(&mut self, id: u64, max: usize, packet: &mut Packet) -> bool {
        let room = max.saturating_sub(packet.len() + frame::MAX_STREAM_HEADER + MAX_CONTROL_FRAME);
        if room == 0 && !packet.is_empty() {
            return false;
        }
        let sending = &mut self.sending;
        if sending.write(id, room.clamp(1, STREAM_CHUNK), packet) {
            // That announces it, too.
        } else if self.announce {
            frame::encode_stream_header(id, sending.sender.next(), 0, packet.small());
        } else if let Some(size) = sending.take_end() {
            Frame::End { stream: id, size }.encode(packet.small());
        } else {
            return false;
        }
        self.announce = false;
        true
    }
}

/// A client's streams are odd, a server's even and above 0.
fn opened_by(role: Role, id: u64) -> bool {
    (id % 2 == 1) == (role == Role::Client)
}

fn beyond_initial(bytes: u64) -> u64 {
    bytes.saturating_sub(INITIAL_STREAM_CREDIT)
}

fn violation(reason: impl Into<String>) -> Close {
    Close::protocol(Code::ProtocolViolation, reason)
}
