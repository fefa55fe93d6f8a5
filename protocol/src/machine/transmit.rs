//! What a machine sends: packets of what is due, in one order, and native datagrams.

use bytes::{Bytes, BytesMut};

use super::{MESSAGE_STREAM, Machine, Micros, Phase, Role};
use crate::datagram::{Datagram, Mark};
use crate::frame::{self, Frame};
use crate::limits::{CLIENT_ACK_BYTES, STREAM_CHUNK};
use crate::packet::Packet;
use crate::varint;

/// Bytes of an ACK frame, at most: room that is kept for it at the end of every packet.
const MAX_ACK_FRAME: usize = 26;

impl Machine {
    /// The next packet of at most `max` bytes (and never less than one frame), or `None` when there is nothing to send now.
    pub fn poll_transmit(&mut self, now: Micros, max: usize) -> Option<Packet> {
        let mut packet = Packet::default();
        self.transmit_into(&mut packet, now, max).then_some(packet)
    }

    /// Like [`Machine::poll_transmit`], but into a packet that was used before. False when there is nothing to send now.
    pub fn transmit_into(&mut self, packet: &mut Packet, now: Micros, max: usize) -> bool {
        packet.clear();
        match &self.phase {
            Phase::Detached { .. } | Phase::Closed(_) => return false,
            Phase::Opening { .. } => self.write_welcome(now, packet),
            Phase::Open => {
                self.write_welcome(now, packet);
                self.write_control(now, max, packet);
                self.write_datagrams(now, max, packet);
                self.write_stream(max, packet);
                self.streams.write_data(max, packet);
                self.write_acks(max, packet);
            }
            Phase::Closing { close, flush, .. } => {
                let (close, flush) = (close.clone(), *flush);
                self.write_welcome(now, packet);
                if flush {
                    self.write_acks(max, packet); // on a new link, first of all
                    self.streams.write_control(max, packet);
                    self.write_stream(max, packet);
                    self.streams.write_data(max, packet);
                }
                if !flush || (self.sender.all_sent() && self.streams.is_flushed()) {
                    let mut frame = BytesMut::new();
                    Frame::Close(close.clone()).encode(&mut frame);
                    // A reason may be long, and the packet full: then CLOSE is the next one.
                    if packet.is_empty() || packet.len() + frame.len() <= max {
                        packet.small().extend_from_slice(&frame);
                        self.phase = Phase::Closed(close);
                        self.streams.touch_all();
                    }
                }
            }
        }
        self.stats.bytes_out += packet.len() as u64;
        !packet.is_empty()
    }

    /// The next datagram for a link that has its own, its mark included where they have one.
    pub fn poll_datagram(&mut self) -> Option<Bytes> {
        let waits = |mark: &Mark| self.outgoing.front(*mark).is_some_and(|front| self.goes_natively(*mark, front));
        let mark = [Mark::Application, Mark::State].into_iter().find(waits)?;
        if !matches!(self.phase, Phase::Open) {
            return None;
        }
        let payload = self.outgoing.get_mut()?.pop(mark)?.payload();
        let payload = if self.marks_datagrams() { [&[mark as u8], &payload[..]].concat().into() } else { payload };
        self.count_native_datagram(payload.len());
        Some(payload)
    }

    /// An empty one does not: Chromium delivers no datagram any more after one (SPEC section 5). A value does only where a mark tells it from the
    /// application's.
    fn goes_natively(&self, mark: Mark, datagram: &Datagram) -> bool {
        let most = self.native_datagrams.map_or(0, |native| native.saturating_sub(usize::from(self.marks_datagrams())));
        (mark == Mark::Application || self.marks_datagrams()) && (1..=most).contains(&datagram.len())
    }

    /// Whether native datagrams that this side sends on the current link begin with a mark.
    pub fn marks_datagrams(&self) -> bool {
        self.marked && self.role == Role::Server
    }

    /// Counts a datagram that its owner handed to the link himself.
    pub fn count_native_datagram(&mut self, len: usize) {
        self.stats.datagrams_out += 1;
        self.stats.bytes_out += len as u64;
    }

    /// STREAM and END of a stream that has a native one on this link, at most `max` bytes of them; `None` when there is nothing to send.
    pub fn poll_native(&mut self, stream: u64, max: usize) -> Option<Packet> {
        if !matches!(self.phase, Phase::Open | Phase::Closing { flush: true, .. }) {
            return None;
        }
        let mut packet = Packet::default();
        self.streams.write_native(stream, max, &mut packet);
        self.stats.bytes_out += packet.len() as u64;
        (!packet.is_empty()).then_some(packet)
    }

    fn write_control(&mut self, now: Micros, max: usize, packet: &mut Packet) {
        if let Some(id) = self.heartbeat.take_pong() {
            Frame::Pong { id, time_us: now.min(varint::MAX) }.encode(packet.small());
        }
        if let Some(id) = self.heartbeat.take_ping(now) {
            Frame::Ping { id }.encode(packet.small());
        }
        if let Some(delay_ms) = self.take_goaway(now) {
            Frame::GoAway { delay_ms }.encode(packet.small());
        }
        if let Some(token) = self.take_token() {
            Frame::Token(token).encode(packet.small());
        }
        if let Some(in_ms) = self.take_expires(now) {
            Frame::Expires { in_ms }.encode(packet.small());
        }
        if let Some(count) = self.credit.take_due() {
            Frame::Taken { count }.encode(packet.small());
        }
        if self.resumed && self.ack_due {
            // The first packet on a further link: what the peer may not know goes before what it may have.
            self.write_acks(max, packet);
        }
        self.streams.write_control(max, packet);
    }

    fn write_datagrams(&mut self, now: Micros, max: usize, packet: &mut Packet) {
        let (_, min_rtt_us) = self.heartbeat.rtt_us();
        while let Some((mark, datagram)) = self.next_framed() {
            let fits = packet.len() + datagram.frame().len() + MAX_ACK_FRAME <= max || packet.is_empty();
            if !fits || !self.credit.allows(now, min_rtt_us) {
                break;
            }
            packet.payload(datagram.frame(), 0..datagram.frame().len());
            self.outgoing.get_mut().and_then(|outgoing| outgoing.pop(mark));
            self.credit.sent();
            self.stats.datagrams_out += 1;
        }
    }

    /// The next datagram that travels as a frame: where both kinds wait, they take turns.
    fn next_framed(&self) -> Option<(Mark, Datagram)> {
        let waits = |mark| self.outgoing.front(mark).filter(|front| !self.goes_natively(mark, front)).cloned();
        let turn = self.outgoing.turn();
        let other = if turn == Mark::State { Mark::Application } else { Mark::State };
        [turn, other].into_iter().find_map(|mark| Some((mark, waits(mark)?)))
    }

    fn write_stream(&mut self, max: usize, packet: &mut Packet) {
        loop {
            let room = max.saturating_sub(packet.len() + frame::MAX_STREAM_HEADER + MAX_ACK_FRAME);
            let room = if packet.is_empty() { room.max(1) } else { room };
            if !self.sender.write(MESSAGE_STREAM, room.min(STREAM_CHUNK), packet) {
                break;
            }
        }
    }

    /// Whether an ACK of the message stream should go now.
    pub(super) fn is_ack_urgent(&self) -> bool {
        self.receiver.is_urgent() || (self.role == Role::Client && self.receiver.news() >= CLIENT_ACK_BYTES)
    }

    /// All ACKs in company or when they are due, else the urgent ones.
    fn write_acks(&mut self, max: usize, packet: &mut Packet) {
        let in_company = !packet.is_empty();
        let is_due = std::mem::take(&mut self.ack_due);
        if is_due || self.is_ack_urgent() || (in_company && self.receiver.has_news()) {
            let (received, limit) = self.receiver.say();
            Frame::Ack { stream: MESSAGE_STREAM, received, limit }.encode(packet.small());
        }
        self.streams.write_acks(is_due || in_company, max, packet);
        if !self.receiver.has_news() && !self.streams.has_news() {
            self.ack_at = None;
        }
    }
}
