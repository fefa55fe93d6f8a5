//! What arrives on the current link, and on the one before it.

use bytes::Bytes;

use super::streams::Way;
use super::{MESSAGE_STREAM, Machine, Micros, Phase, Role};
use crate::close::{Close, Code, Origin};
use crate::datagram::{Mark, TooLarge};
use crate::frame::{DONE, Frame};
use crate::limits::{CLIENT_ACK_DELAY_US, MAX_DATAGRAM, SERVER_ACK_DELAY_US};
use crate::message::Whole;
use crate::varint;

impl Machine {
    /// Something of the peer arrived that is no frame: it is alive.
    pub fn heard_from(&mut self, now: Micros) {
        self.heard = self.heard.max(now);
    }

    /// A frame arrived on the current link.
    pub fn handle_frame(&mut self, now: Micros, frame: Frame) {
        self.heard_from(now);
        match &self.phase {
            Phase::Detached { .. } | Phase::Closed(_) => return,
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
        self.leave_in_time(now);
    }

    /// A frame arrived at a client on the link that was current before this one. It may do so until the first frame after WELCOME has come on
    /// the new link: what is in it comes earlier so. Between [`Machine::link_opened`] and WELCOME nothing is taken: a client that moves gives both at once.
    pub fn handle_late_frame(&mut self, now: Micros, frame: Frame) {
        let result = match frame {
            Frame::Close(close) if is_of_link_alone(&close) => return,
            Frame::Close(close) => return self.end(close),
            Frame::Stream { .. } | Frame::Datagram(_) | Frame::State(_) | Frame::Ack { .. }
                if matches!(self.phase, Phase::Open) =>
            {
                self.dispatch_late(now, frame)
            }
            _ => return,
        };
        if let Err(close) = result {
            self.fail(now, close);
        }
    }

    /// A frame arrived on a native stream of the current link. `stream` is the session's stream that it belongs to, once that is known.
    ///
    /// # Errors
    /// What is wrong with it: the session is to be ended with [`Machine::handle_violation`].
    pub fn handle_native_frame(&mut self, now: Micros, stream: &mut Option<u64>, frame: Frame) -> Result<(), Close> {
        self.heard_from(now);
        if !matches!(self.phase, Phase::Open) {
            return Ok(());
        }
        let (Frame::Stream { stream: id, .. } | Frame::End { stream: id, .. }) = frame else {
            let reason = "a native stream carries STREAM and END only";
            return Err(Close::protocol(Code::ProtocolViolation, reason));
        };
        if id == MESSAGE_STREAM || *stream.get_or_insert(id) != id {
            let reason = format!("stream {id} on the native stream of another");
            return Err(Close::protocol(Code::ProtocolViolation, reason));
        }
        match frame {
            Frame::Stream { stream, offset, data } => self.stream_data(now, stream, offset, data, Way::Native),
            Frame::End { stream, size } => self.streams.end(stream, size, Way::Native),
            _ => Ok(()),
        }
    }

    /// A native datagram arrived on the current link.
    pub fn handle_datagram(&mut self, now: Micros, mut payload: Bytes) {
        self.heard_from(now);
        let len = payload.len();
        let mark = match self.role {
            Role::Client if self.marked => varint::take(&mut payload),
            Role::Client | Role::Server => Some(Mark::Application as u64),
        };
        if payload.len() > MAX_DATAGRAM {
            return self.fail(now, Close::protocol(Code::DatagramTooLarge, TooLarge(payload.len()).to_string()));
        }
        if !matches!(self.phase, Phase::Open) {
            return; // nobody may read it yet, or any more: datagrams may be lost
        }
        self.stats.bytes_in += len as u64;
        match mark {
            Some(mark) if mark == Mark::Application as u64 => self.datagram_arrived(&payload, None),
            Some(mark) if mark == Mark::State as u64 => self.state_arrived(&payload, None),
            Some(_) | None => {} // a later version's
        }
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
            Frame::Welcome(welcome) => self.welcomed(now, &welcome)?,
            // Our first frames came too late for this link: that says nothing of the session.
            Frame::Close(close) if self.role == Role::Client && is_of_link_alone(&close) => {
                self.link_lost(now, &close.reason);
            }
            Frame::Close(close) => self.end(close),
            Frame::Stream { stream: MESSAGE_STREAM, offset, data } => self.message_data(now, offset, data)?,
            Frame::Stream { stream, offset, data } => self.stream_data(now, stream, offset, data, Way::Link)?,
            Frame::Ack { stream: MESSAGE_STREAM, received, limit } => self.sender.acknowledge(received, limit)?,
            Frame::Ack { stream, received, limit } => self.streams.ack(stream, received, limit)?,
            Frame::Datagram(payload) => self.datagram_arrived(&payload, Some(self.link)),
            Frame::Ping { id } => self.heartbeat.ping_arrived(id),
            Frame::Pong { id, time_us } => self.heartbeat.pong_arrived(now, id, time_us),
            Frame::End { stream, size } => self.streams.end(above_zero(stream)?, size, Way::Link)?,
            Frame::Reset { stream, code } => self.streams.reset(above_zero(stream)?, code)?,
            Frame::Stop { stream, code } => self.streams.stop(above_zero(stream)?, code)?,
            Frame::Streams { limit } => self.streams.may_open(limit),
            Frame::Taken { count } => self.credit.peer_took(count),
            Frame::GoAway { delay_ms } => self.goaway_arrived(now, delay_ms),
            Frame::State(_) if self.role == Role::Server => {
                return Err(Close::protocol(Code::ProtocolViolation, "STATE is the server's"));
            }
            Frame::State(value) => self.state_arrived(&value, Some(self.link)),
            Frame::Token(token) => self.token_arrived(token)?,
            Frame::Expires { in_ms } => self.expires_arrived(now, in_ms)?,
        }
        Ok(())
    }

    /// Stream bytes and their acknowledgements mean the same on every link. How streams travel does not: those above 0 stay out of this.
    fn dispatch_late(&mut self, now: Micros, frame: Frame) -> Result<(), Close> {
        match frame {
            Frame::Stream { stream: MESSAGE_STREAM, offset, data } => self.message_data(now, offset, data),
            Frame::Ack { stream: MESSAGE_STREAM, received, limit } => self.sender.acknowledge(received, limit),
            Frame::Ack { stream, received, limit } if received != DONE => self.streams.ack(stream, received, limit),
            Frame::Datagram(payload) => {
                self.datagram_arrived(&payload, None);
                Ok(())
            }
            Frame::State(value) => {
                self.state_arrived(&value, None);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn message_data(&mut self, now: Micros, offset: u64, data: Bytes) -> Result<(), Close> {
        let mut fresh = self.receiver.accept(offset, data)?;
        while let Some(whole) = self.assembler.next(&mut fresh)? {
            let (Whole::Message(assembled) | Whole::Channel(assembled) | Whole::Request(assembled)) = &whole;
            self.receiver.queued(assembled.cost);
            self.stats.messages_in += 1;
            match whole {
                Whole::Message(assembled) => self.inbox.push_message(assembled),
                Whole::Channel(assembled) => self.inbox.push_channel(assembled),
                Whole::Request(assembled) => self.inbox.push_request(assembled),
            }
        }
        self.plan_ack(now, self.receiver.has_news());
        Ok(())
    }

    fn stream_data(&mut self, now: Micros, stream: u64, offset: u64, data: Bytes, way: Way) -> Result<(), Close> {
        self.streams.data(stream, offset, data, way)?;
        self.plan_ack(now, self.streams.has_news());
        Ok(())
    }

    /// An ACK waits a little for company.
    fn plan_ack(&mut self, now: Micros, has_news: bool) {
        if has_news && self.ack_at.is_none() {
            let delay = match self.role {
                Role::Server => SERVER_ACK_DELAY_US,
                Role::Client => CLIENT_ACK_DELAY_US,
            };
            self.ack_at = Some(now + delay);
        }
    }

    fn datagram_arrived(&mut self, payload: &[u8], link: Option<u64>) {
        self.stats.datagrams_in += 1;
        if let Some(dropped) = self.inbox.push_datagram(payload, link) {
            self.stats.datagrams_dropped += 1;
            self.took(dropped);
        }
    }

    fn state_arrived(&mut self, value: &[u8], link: Option<u64>) {
        self.stats.datagrams_in += 1;
        if let Some(dropped) = self.inbox.push_state(value, link) {
            self.stats.datagrams_dropped += 1;
            self.took(dropped);
        }
    }

    fn handle_while_closing(&mut self, frame: Frame) {
        match frame {
            // The stream bytes before our CLOSE may be waiting for this credit.
            Frame::Ack { stream: MESSAGE_STREAM, received, limit } => drop(self.sender.acknowledge(received, limit)),
            Frame::Ack { stream, received, limit } => drop(self.streams.ack(stream, received, limit)),
            // Or in vain.
            Frame::Stop { stream, code } => drop(self.streams.stop(stream, code)),
            Frame::Close(close) => self.end(close),
            _ => {}
        }
    }
}

/// Whether a server's CLOSE ends its link, and not the session.
fn is_of_link_alone(close: &Close) -> bool {
    close.origin == Origin::Protocol && close.code == Code::OpenTimeout as u32
}

fn above_zero(stream: u64) -> Result<u64, Close> {
    if stream == MESSAGE_STREAM {
        let reason = "the message stream is neither ended, nor reset, nor stopped";
        return Err(Close::protocol(Code::ProtocolViolation, reason));
    }
    Ok(stream)
}
