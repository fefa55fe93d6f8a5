//! The two halves of a stream (SPEC section 4): what was sent and not acknowledged, and what was received.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::close::{Close, Code};
use crate::frame;
use crate::packet::Packet;

/// The sending half. Keeps every byte until it is acknowledged.
#[derive(Debug)]
pub(crate) struct Sender {
    /// The bytes from `acked` to `end`, in chunks as the application gave them.
    chunks: VecDeque<Chunk>,
    /// What the peer has received.
    acked: u64,
    /// The next byte to send on the current link.
    next: u64,
    /// The chunk in which `next` lies, and where in it.
    cursor: (usize, usize),
    /// Where the stream ends so far.
    end: u64,
    /// The most that was ever sent: what an ACK may speak of.
    sent: u64,
    /// The peer takes bytes below this offset.
    limit: u64,
    /// Bytes of the first chunk that are acknowledged already.
    front: usize,
    /// The first chunk goes on with a unit of the application, whose first chunk is acknowledged already.
    within: bool,
    /// Nothing at or above this offset is sent any more: it is for another session.
    hold: Option<u64>,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    /// Whether a unit of the application ends with it: a message, which is sent whole or not at all.
    is_last: bool,
}

impl Sender {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            chunks: VecDeque::new(),
            acked: 0,
            next: 0,
            cursor: (0, 0),
            end: 0,
            sent: 0,
            limit,
            front: 0,
            within: false,
            hold: None,
        }
    }

    /// Bytes that are kept: not sent, or not acknowledged.
    pub(crate) fn buffered(&self) -> u64 {
        self.end - self.acked
    }

    /// Takes bytes to send; with `is_last`, a unit of the application ends with them.
    pub(crate) fn push(&mut self, bytes: Bytes, is_last: bool) {
        self.end += bytes.len() as u64;
        self.chunks.push_back(Chunk { bytes, is_last });
    }

    /// Sends what it has begun, and nothing after that.
    pub(crate) fn hold(&mut self) {
        let mut at = self.acked - self.front as u64;
        let mut ends = self.chunks.iter().filter_map(|chunk| {
            at += chunk.bytes.len() as u64;
            chunk.is_last.then_some(at)
        });
        let sent = self.sent;
        let has_begun = sent > self.acked || self.front > 0 || self.within;
        let end = if has_begun { ends.find(|end| *end >= sent).unwrap_or(self.end) } else { sent };
        self.hold.get_or_insert(end);
    }

    /// A new link: go on from what is acknowledged.
    pub(crate) fn restart(&mut self) {
        self.next = self.acked;
        self.cursor = (0, self.front);
    }

    /// Whether everything was sent once, on whichever link.
    pub(crate) fn sent_all(&self) -> bool {
        self.sent == self.end
    }

    /// Drops everything that was not acknowledged: it is not wanted any more. What the peer is known to have received stays the
    /// place from which a further link goes on: anything above it may be a gap to the peer.
    pub(crate) fn abandon(&mut self) {
        self.chunks = VecDeque::new();
        (self.cursor, self.front) = ((0, 0), 0);
        (self.next, self.end) = (self.acked, self.acked);
    }

    /// The next byte to send on the current link.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// What the peer is known to have received.
    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// Where the stream ends so far.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that may be sent now.
    pub(crate) fn sendable(&self) -> u64 {
        self.end.min(self.limit).min(self.hold.unwrap_or(u64::MAX)).saturating_sub(self.next)
    }

    /// Whether everything has been handed to the link.
    pub(crate) fn all_sent(&self) -> bool {
        self.next == self.end
    }

    /// Whether the peer has received everything, but what is held back.
    pub(crate) fn all_acked(&self) -> bool {
        self.acked >= self.end.min(self.hold.unwrap_or(u64::MAX))
    }

    /// Writes a STREAM frame with up to `max` bytes of those that may be sent now. False when there are none.
    pub(crate) fn write(&mut self, stream: u64, max: usize, packet: &mut Packet) -> bool {
        let len = self.sendable().min(max as u64) as usize;
        if len == 0 {
            return false;
        }
        frame::encode_stream_header(stream, self.next, len, packet.small());
        let mut missing = len;
        while missing > 0 {
            let (index, within) = self.cursor;
            let chunk = &self.chunks[index].bytes; // sendable() never goes beyond `end`, which the chunks reach
            let part = missing.min(chunk.len() - within);
            packet.payload(chunk, within..within + part);
            missing -= part;
            self.cursor = if within + part == chunk.len() { (index + 1, 0) } else { (index, within + part) };
        }
        self.next += len as u64;
        self.sent = self.sent.max(self.next);
        true
    }

    /// Takes note of an ACK. Lower values than known are ignored.
    pub(crate) fn acknowledge(&mut self, received: u64, limit: u64) -> Result<(), Close> {
        self.check_received(received)?;
        self.limit = self.limit.max(limit);
        self.release(received);
        Ok(())
    }

    /// Whether the peer may have received as much.
    pub(crate) fn check_received(&self, received: u64) -> Result<(), Close> {
        if received <= self.sent {
            return Ok(());
        }
        let sent = self.sent;
        Err(Close::protocol(Code::ProtocolViolation, format!("{received} bytes received, when {sent} were sent")))
    }

    /// A new link: go on from what the peer has received, as far as is known. Less than it has acknowledged says nothing: an ACK
    /// may have overtaken it.
    pub(crate) fn rewind(&mut self, received: u64) -> Result<(), Close> {
        self.check_received(received)?;
        self.release(received);
        self.restart();
        Ok(())
    }

    fn release(&mut self, received: u64) {
        let mut newly = received.saturating_sub(self.acked) as usize;
        if newly == 0 {
            return;
        }
        self.acked = received;
        self.next = self.next.max(received); // acknowledged on another link before it was sent again on this one
        while newly > 0 {
            let left = self.chunks[0].bytes.len() - self.front;
            if newly < left {
                self.front += newly;
                break;
            }
            newly -= left;
            self.front = 0;
            self.within = self.chunks.pop_front().is_some_and(|chunk| !chunk.is_last);
            self.cursor.0 = self.cursor.0.saturating_sub(1);
        }
        if self.next == self.acked {
            self.cursor = (0, self.front);
        }
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new(); // an idle session holds no buffer
        }
    }
}

/// The receiving half: what is in order, what was granted, and what was said of it.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// Bytes received in order.
    received: u64,
    /// Bytes that wait for the application: on the message stream, those of whole messages.
    waiting: u64,
    window: u64,
    /// The limit and `received` of the last ACK.
    said_limit: u64,
    said_received: u64,
    /// The highest limit that was said on any link, also where the peer may not have heard it.
    promised: u64,
}

impl Receiver {
    pub(crate) fn new(window: u64, initial_limit: u64) -> Self {
        Self { received: 0, waiting: 0, window, said_limit: initial_limit, said_received: 0, promised: initial_limit }
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Takes note of a STREAM frame, and returns the part of `data` that is new.
    pub(crate) fn accept(&mut self, offset: u64, mut data: Bytes) -> Result<Bytes, Close> {
        if offset > self.received {
            let received = self.received;
            return Err(Close::protocol(
                Code::ProtocolViolation,
                format!("stream bytes from {offset} when {received} were received: a gap"),
            ));
        }
        let end = offset + data.len() as u64;
        if end > self.promised {
            let limit = self.promised;
            return Err(Close::protocol(
                Code::FlowControl,
                format!("stream bytes up to {end}, beyond the limit of {limit}"),
            ));
        }
        if end <= self.received {
            return Ok(Bytes::new());
        }
        let fresh = data.split_off((self.received - offset) as usize);
        self.received = end;
        Ok(fresh)
    }

    /// `cost` bytes wait for the application.
    pub(crate) fn queued(&mut self, cost: u64) {
        self.waiting += cost;
    }

    /// The application took `cost` bytes.
    pub(crate) fn taken(&mut self, cost: u64) {
        self.waiting -= cost;
    }

    /// Bytes that wait for the application.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Bytes that the peer may be ahead of the application.
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    pub(crate) fn set_window(&mut self, window: u64) {
        self.window = window;
    }

    /// The limit for WELCOME on a further link. The peer may count on it from now on, whichever link it chooses.
    pub(crate) fn promise(&mut self) -> u64 {
        self.promised = self.promised.max(self.limit());
        self.promised
    }

    /// The link on which `limit` was promised is the current one now.
    pub(crate) fn heard(&mut self, limit: u64) {
        self.said_limit = self.said_limit.max(limit);
    }

    /// The limit that would be granted now. It never goes back.
    pub(crate) fn limit(&self) -> u64 {
        self.said_limit.max(self.received - self.waiting + self.window)
    }

    /// Whether there is anything new to acknowledge.
    pub(crate) fn has_news(&self) -> bool {
        self.news() > 0
    }

    /// Bytes that are not acknowledged yet.
    pub(crate) fn news(&self) -> u64 {
        self.received - self.said_received
    }

    /// Whether an ACK should go now: a quarter of the window was received or freed since the last.
    pub(crate) fn is_urgent(&self) -> bool {
        let quarter = (self.window / 4).max(1); // nothing new is never urgent
        self.news() >= quarter || self.limit() - self.said_limit >= quarter
    }

    /// `received` and `limit` for an ACK or WELCOME that is being sent.
    pub(crate) fn say(&mut self) -> (u64, u64) {
        self.said_limit = self.limit();
        self.promised = self.promised.max(self.said_limit);
        self.said_received = self.received;
        (self.said_received, self.said_limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Decoder;
    use crate::frame::Frame;

    /// What up to `max` bytes are sent of: their offset, and themselves.
    fn take(sender: &mut Sender, max: usize) -> Option<(u64, String)> {
        let mut packet = Packet::default();
        if !sender.write(0, max, &mut packet) {
            return None;
        }
        let mut decoder = Decoder::new();
        decoder.push(packet.into_bytes());
        match decoder.next_frame() {
            Ok(Some(Frame::Stream { offset, data, .. })) => {
                Some((offset, String::from_utf8(data.to_vec()).expect("test data is ASCII")))
            }
            other => panic!("{other:?} is no STREAM"),
        }
    }

    #[test]
    fn sends_across_chunks_within_credit_and_keeps_until_acknowledged() {
        let mut sender = Sender::new(8);
        for chunk in ["abc", "defg", "hij"] {
            sender.push(Bytes::from_static(chunk.as_bytes()), true);
        }
        let (offset, text) = take(&mut sender, 5).expect("there is data");
        assert_eq!((offset, text.as_str()), (0, "abcde"));
        let (offset, text) = take(&mut sender, 100).expect("there is credit");
        assert_eq!((offset, text.as_str()), (5, "fgh"));
        assert!(take(&mut sender, 100).is_none(), "credit is used up");
        assert_eq!(sender.buffered(), 10);

        sender.acknowledge(4, 10).expect("was sent");
        assert_eq!(sender.buffered(), 6);
        let (offset, text) = take(&mut sender, 100).expect("there is credit again");
        assert_eq!((offset, text.as_str()), (8, "ij"));
        assert!(sender.all_sent());
        sender.acknowledge(10, 10).expect("was sent");
        assert!(sender.all_acked());
    }

    #[test]
    fn a_new_link_goes_on_from_what_was_received() {
        let mut sender = Sender::new(100);
        sender.push(Bytes::from_static(b"abc"), true);
        sender.push(Bytes::from_static(b"defg"), true);
        take(&mut sender, 7).expect("there is data");
        sender.rewind(2).expect("within what was sent");
        let (offset, text) = take(&mut sender, 100).expect("there is data");
        assert_eq!((offset, text.as_str()), (2, "cdefg"));
        assert!(sender.rewind(8).is_err(), "never sent");
        sender.rewind(1).expect("an ACK has overtaken it");
        let (offset, text) = take(&mut sender, 100).expect("there is data");
        assert_eq!((offset, text.as_str()), (2, "cdefg"), "acknowledged bytes are gone");
    }

    #[test]
    fn an_acknowledgement_from_another_link_overtakes_a_replay() {
        let mut sender = Sender::new(100);
        for chunk in ["abc", "defg", "hij"] {
            sender.push(Bytes::from_static(chunk.as_bytes()), true);
        }
        take(&mut sender, 10).expect("there is data");
        sender.rewind(1).expect("within what was sent");
        take(&mut sender, 1).expect("there is data");
        sender.acknowledge(5, 100).expect("was sent on the old link");
        let (offset, text) = take(&mut sender, 100).expect("there is data");
        assert_eq!((offset, text.as_str()), (5, "fghij"));
        sender.acknowledge(10, 100).expect("was sent");
        sender.push(Bytes::from_static(b"k"), true);
        let (offset, text) = take(&mut sender, 100).expect("there is data");
        assert_eq!((offset, text.as_str()), (10, "k"));
    }

    #[test]
    fn what_is_held_back_begins_where_a_message_does() {
        let mut sender = Sender::new(100);
        for (chunk, is_last) in [("he", false), ("ad", true), ("abc", true), ("def", true)] {
            sender.push(Bytes::from_static(chunk.as_bytes()), is_last);
        }
        take(&mut sender, 5).expect("there is data");
        sender.acknowledge(3, 100).expect("was sent");
        sender.hold();
        let (offset, text) = take(&mut sender, 100).expect("the second message has begun");
        assert_eq!((offset, text.as_str()), (5, "bc"));
        assert!(take(&mut sender, 100).is_none() && !sender.all_acked());
        sender.acknowledge(7, 100).expect("was sent");
        assert!(sender.all_acked());
    }

    #[test]
    fn a_message_that_has_begun_is_not_held_back_when_all_that_was_sent_of_it_is_acknowledged() {
        // Its rest was held back, and the message was lost with the session.
        for acknowledged in [1, 2, 3] {
            let mut sender = Sender::new(acknowledged);
            for (chunk, is_last) in [("he", false), ("ad", true), ("abc", true)] {
                sender.push(Bytes::from_static(chunk.as_bytes()), is_last);
            }
            take(&mut sender, 100).expect("there is credit");
            sender.acknowledge(acknowledged, 100).expect("was sent");
            sender.hold();
            assert_eq!(take(&mut sender, 100).map(|(_, text)| text.len() as u64), Some(4 - acknowledged));
            assert!(take(&mut sender, 100).is_none());
        }
    }

    #[test]
    fn an_ack_of_what_was_never_sent_is_refused() {
        let mut sender = Sender::new(100);
        sender.push(Bytes::from_static(b"abc"), true);
        let close = sender.acknowledge(1, 100).expect_err("nothing was sent");
        assert_eq!(close.code, Code::ProtocolViolation as u32);
    }

    #[test]
    fn a_receiver_discards_repeats_and_refuses_gaps_and_excess() {
        let mut receiver = Receiver::new(10, 10);
        assert_eq!(&receiver.accept(0, Bytes::from_static(b"abcd")).expect("in order")[..], b"abcd");
        assert_eq!(&receiver.accept(2, Bytes::from_static(b"cdef")).expect("overlaps")[..], b"ef");
        assert_eq!(&receiver.accept(0, Bytes::from_static(b"abc")).expect("a repeat")[..], b"");
        assert_eq!(
            receiver.accept(7, Bytes::from_static(b"h")).expect_err("a gap").code,
            Code::ProtocolViolation as u32
        );
        assert_eq!(
            receiver.accept(6, Bytes::from_static(b"ghijk")).expect_err("11 bytes").code,
            Code::FlowControl as u32
        );
        assert_eq!(&receiver.accept(6, Bytes::from_static(b"ghij")).expect("10 bytes")[..], b"ghij");
    }

    #[test]
    fn credit_follows_what_the_application_takes() {
        let mut receiver = Receiver::new(8, 8);
        receiver.accept(0, Bytes::from_static(b"abcd")).expect("in order");
        receiver.queued(4);
        assert_eq!(receiver.limit(), 8, "nothing was taken");
        assert!(receiver.is_urgent(), "half a window was received");
        assert_eq!(receiver.say(), (4, 8));
        assert!(!receiver.is_urgent());
        receiver.taken(4);
        assert!(receiver.is_urgent(), "half a window was freed");
        assert_eq!(receiver.say(), (4, 12));
    }

    #[test]
    fn a_tiny_window_does_not_ask_for_acks_without_end() {
        // A quarter of a window below four bytes is zero, and nothing new is as much as that.
        let mut receiver = Receiver::new(3, 3);
        assert!(!receiver.is_urgent());
        receiver.accept(0, Bytes::from_static(b"a")).expect("in order");
        assert!(receiver.is_urgent());
        receiver.say();
        assert!(!receiver.is_urgent());
    }
}
