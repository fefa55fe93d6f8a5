//! The two halves of a stream above 0, and how each of them ends (SPEC section 4.2).

use bytes::{Bytes, BytesMut};

use super::{StreamError, StreamRead, violation};
use crate::close::Close;
use crate::frame::{DONE, Frame};
use crate::limits::INITIAL_STREAM_CREDIT;
use crate::packet::Packet;
use crate::stream::{Receiver, Sender};

/// The half that this side writes.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) sender: Sender,
    phase: SendPhase,
    /// The peer has stopped it with this code, and the application does not know.
    stopped: Option<u32>,
    /// The application does not want to know how it ends.
    is_released: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SendPhase {
    Open,
    /// END follows the last byte.
    Ending {
        sent: bool,
    },
    Reset {
        code: u32,
        sent: bool,
    },
    /// The peer has confirmed the end, or the reset.
    Over,
}

impl Default for Sending {
    fn default() -> Self {
        Self { sender: Sender::new(INITIAL_STREAM_CREDIT), phase: SendPhase::Open, stopped: None, is_released: false }
    }
}

impl Sending {
    /// Whether there is something to say again.
    pub(super) fn link_changed(&mut self) -> bool {
        self.sender.restart();
        match &mut self.phase {
            SendPhase::Ending { sent } | SendPhase::Reset { sent, .. } => *sent = false,
            SendPhase::Open | SendPhase::Over => {}
        }
        matches!(self.phase, SendPhase::Reset { .. })
    }

    /// Whether the application may write, or end.
    pub(super) fn check(&mut self) -> Result<(), StreamError> {
        match (self.phase, self.stopped.take()) {
            (_, Some(code)) => {
                self.stopped = Some(code);
                Err(StreamError::Stopped(code))
            }
            (SendPhase::Open, None) => Ok(()),
            _ => Err(StreamError::Ended),
        }
    }

    /// Nobody holds the stream any more.
    pub(super) fn release(&mut self) {
        self.is_released = true;
        self.stopped = None;
    }

    pub(super) fn finish(&mut self) {
        self.phase = SendPhase::Ending { sent: false };
    }

    /// Gives up what the peer does not have. False when there is nothing to give up.
    pub(super) fn abandon(&mut self, code: u32) -> bool {
        match self.phase {
            // A finished half is the peer's to have: it goes on by itself.
            SendPhase::Ending { .. } | SendPhase::Reset { .. } | SendPhase::Over => false,
            SendPhase::Open => {
                self.start_reset(code);
                true
            }
        }
    }

    /// STOP arrived. True when RESET answers it.
    pub(super) fn stop(&mut self, code: u32) -> bool {
        match self.phase {
            SendPhase::Open | SendPhase::Ending { sent: false } => {
                self.stopped = Some(code).filter(|_| !self.is_released);
                self.start_reset(code);
                true
            }
            SendPhase::Ending { sent: true } | SendPhase::Reset { .. } | SendPhase::Over => false,
        }
    }

    fn start_reset(&mut self, code: u32) {
        self.sender.abandon();
        self.phase = SendPhase::Reset { code, sent: false };
    }

    pub(super) fn acknowledge(&mut self, received: u64, limit: u64) -> Result<(), Close> {
        match self.phase {
            SendPhase::Open | SendPhase::Ending { .. } => self.sender.acknowledge(received, limit),
            SendPhase::Reset { .. } | SendPhase::Over => self.sender.check_received(received),
        }
    }

    /// The peer needs nothing more.
    pub(super) fn done(&mut self) -> Result<(), Close> {
        match self.phase {
            // On this link it is not said yet, but it was on another one.
            SendPhase::Ending { .. } if self.sender.sent_all() => {}
            SendPhase::Reset { .. } | SendPhase::Over => {}
            SendPhase::Ending { .. } | SendPhase::Open => {
                return Err(violation("a stream that was neither ended nor reset is not done"));
            }
        }
        self.sender.abandon();
        self.phase = SendPhase::Over;
        Ok(())
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == SendPhase::Over && self.stopped.is_none()
    }

    /// Whether nothing of it has to be waited for before CLOSE. On a native stream what was sent may arrive later than what is said on the link stream.
    pub(super) fn is_flushed(&self, native: bool) -> bool {
        match self.phase {
            SendPhase::Open => {
                if native {
                    self.sender.all_acked()
                } else {
                    self.sender.all_sent()
                }
            }
            SendPhase::Ending { sent } => sent && !native,
            SendPhase::Reset { sent, .. } => sent,
            SendPhase::Over => true,
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, SendPhase::Ending { .. })
    }

    pub(super) fn is_reset(&self) -> bool {
        matches!(self.phase, SendPhase::Reset { .. })
    }

    /// Writes one STREAM frame; false when there is nothing to send.
    pub(super) fn write(&mut self, id: u64, max: usize, packet: &mut Packet) -> bool {
        match self.phase {
            SendPhase::Open | SendPhase::Ending { .. } => self.sender.write(id, max, packet),
            SendPhase::Reset { .. } | SendPhase::Over => false,
        }
    }

    /// The size for END, when that is due.
    pub(super) fn take_end(&mut self) -> Option<u64> {
        let SendPhase::Ending { sent } = &mut self.phase else { return None };
        if *sent || !self.sender.all_sent() {
            return None;
        }
        *sent = true;
        Some(self.sender.end())
    }

    pub(super) fn write_reset(&mut self, id: u64, out: &mut BytesMut) {
        if let SendPhase::Reset { code, sent: sent @ false } = &mut self.phase {
            *sent = true;
            Frame::Reset { stream: id, code: *code }.encode(out);
        }
    }
}

/// The half that the peer writes.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) receiver: Receiver,
    /// What the application has not read. A copy: a slice would keep its whole packet in memory, and a credit of 16 KiB would bound nothing.
    unread: BytesMut,
    phase: ReceivePhase,
    pub(super) done_due: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReceivePhase {
    Open,
    /// The peer has ended it at this size.
    Ended(u64),
    /// The peer has reset it, and the application does not know.
    Reset(u32),
    /// The application reads no more; END or RESET of the peer has not come.
    Stopped {
        code: u32,
        sent: bool,
    },
    /// Read to its end, or given up on both sides.
    Over,
}

impl Default for Receiving {
    fn default() -> Self {
        Self {
            receiver: Receiver::new(INITIAL_STREAM_CREDIT, INITIAL_STREAM_CREDIT),
            unread: BytesMut::new(),
            phase: ReceivePhase::Open,
            done_due: false,
        }
    }
}

impl Receiving {
    /// Whether there is something to say again.
    pub(super) fn link_changed(&mut self) -> bool {
        if let ReceivePhase::Stopped { sent, .. } = &mut self.phase {
            *sent = false;
            return true;
        }
        false
    }

    /// STREAM arrived. Whether it brought anything.
    pub(super) fn data(&mut self, offset: u64, data: Bytes) -> Result<bool, Close> {
        let end = offset + data.len() as u64;
        match self.phase {
            ReceivePhase::Reset(_) | ReceivePhase::Over => return Ok(false),
            ReceivePhase::Ended(size) if end > size => {
                return Err(violation(format!("stream bytes up to {end} after END at {size}")));
            }
            _ => {}
        }
        let fresh = self.receiver.accept(offset, data)?;
        if fresh.is_empty() {
            return Ok(false);
        }
        if matches!(self.phase, ReceivePhase::Open) {
            self.receiver.queued(fresh.len() as u64);
            self.unread.extend_from_slice(&fresh);
        } else {
            self.receiver.queued(fresh.len() as u64); // dropped: and no credit comes of it
        }
        Ok(true)
    }

    pub(super) fn end(&mut self, size: u64) -> Result<(), Close> {
        let received = self.receiver.received();
        match self.phase {
            ReceivePhase::Open | ReceivePhase::Stopped { .. } if size != received => {
                Err(violation(format!("END at {size}, when {received} bytes were received")))
            }
            ReceivePhase::Ended(known) if size != known => {
                Err(violation(format!("END at {size}, which was at {known} before")))
            }
            ReceivePhase::Open => {
                self.phase = ReceivePhase::Ended(size);
                Ok(())
            }
            ReceivePhase::Stopped { .. } => {
                self.phase = ReceivePhase::Over;
                Ok(())
            }
            ReceivePhase::Ended(_) | ReceivePhase::Reset(_) | ReceivePhase::Over => Ok(()),
        }
    }

    pub(super) fn reset(&mut self, code: u32) {
        match self.phase {
            ReceivePhase::Open => {
                self.unread = BytesMut::new();
                self.phase = ReceivePhase::Reset(code);
            }
            ReceivePhase::Stopped { .. } => self.phase = ReceivePhase::Over,
            // After END everything is there already.
            ReceivePhase::Ended(_) | ReceivePhase::Reset(_) | ReceivePhase::Over => {}
        }
    }

    pub(super) fn read(&mut self, max: usize) -> Result<StreamRead, StreamError> {
        if !self.unread.is_empty() {
            let all = max >= self.unread.len();
            let data = if all { std::mem::take(&mut self.unread) } else { self.unread.split_to(max) }.freeze();
            self.receiver.taken(data.len() as u64);
            return Ok(StreamRead::Data(data));
        }
        match self.phase {
            ReceivePhase::Open => Ok(StreamRead::Nothing),
            ReceivePhase::Ended(_) => {
                self.phase = ReceivePhase::Over;
                Ok(StreamRead::End)
            }
            ReceivePhase::Reset(code) => {
                self.phase = ReceivePhase::Over;
                Err(StreamError::Reset(code))
            }
            ReceivePhase::Stopped { .. } | ReceivePhase::Over => Err(StreamError::Ended),
        }
    }

    /// The application reads no more. True when STOP says so.
    pub(super) fn refuse(&mut self, code: u32) -> bool {
        let is_open = self.phase == ReceivePhase::Open;
        self.unread = BytesMut::new(); // what was read of it stays credited, what was not never is
        self.phase = match self.phase {
            ReceivePhase::Open => ReceivePhase::Stopped { code, sent: false },
            ReceivePhase::Ended(_) | ReceivePhase::Reset(_) => ReceivePhase::Over,
            other => other,
        };
        is_open
    }

    pub(super) fn unread_bytes(&self) -> usize {
        self.unread.len()
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == ReceivePhase::Over && !self.done_due
    }

    /// Whether the peer still counts on ACKs.
    pub(super) fn wants_ack(&self) -> bool {
        matches!(self.phase, ReceivePhase::Open | ReceivePhase::Stopped { .. })
    }

    pub(super) fn say(&mut self) -> (u64, u64) {
        self.receiver.say()
    }

    pub(super) fn write_control(&mut self, id: u64, out: &mut BytesMut) {
        if std::mem::take(&mut self.done_due) {
            Frame::Ack { stream: id, received: DONE, limit: 0 }.encode(out);
        }
        if let ReceivePhase::Stopped { code, sent: sent @ false } = &mut self.phase {
            *sent = true;
            Frame::Stop { stream: id, code: *code }.encode(out);
        }
    }
}
