//! What a machine sends: packets of what is due, in one order, and native datagrams.

use bytes::{Bytes, BytesMut};

use super::{MESSAGE_STREAM, Machine, Micros, Phase};
use crate::datagram::Datagram;
use crate::frame::{self, Frame, Welcome};
use crate::limits::STREAM_CHUNK;
use crate::packet::{self, Packet};
use crate::{VERSION, varint};

/// Bytes of an ACK frame, at most: room that is kept for it at the end of every packet.
const MAX_ACK_FRAME: usize = 26;

impl Machine {
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
        if let Some(id) = self.heartbeat.take_pong() {
            Frame::Pong { id, time_us: now.min(varint::MAX) }.encode(packet.small());
        }
        if let Some(id) = self.heartbeat.take_ping(now) {
            Frame::Ping { id }.encode(packet.small());
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
}
