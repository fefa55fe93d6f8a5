//! One side's machine, as its owner and its application use it. The client's may be another implementation.

use bytes::Bytes;
use throughline_protocol::{
    Close, Datagram, Event, Frame, LinkTraits, Machine, Message, OpenStreamError, StreamError, StreamRead, TrySendError,
};

/// What both sides' machines can do.
pub(crate) trait Peer {
    fn link_opened(&mut self, now: u64, traits: LinkTraits);
    fn link_lost(&mut self, now: u64);
    fn has_link(&mut self) -> bool;
    fn closed(&mut self) -> Option<Close>;
    /// What was received of stream 0, and what is not acknowledged of it.
    fn received(&mut self) -> u64;
    fn buffered(&mut self) -> u64;
    /// What it keeps: streams, their bytes that are not acknowledged, those that are not read, and things to say.
    fn held(&mut self) -> Held;

    fn handle_frame(&mut self, now: u64, frame: Frame);
    fn handle_late_frame(&mut self, now: u64, frame: Frame);
    fn handle_native_frame(&mut self, now: u64, known: &mut Option<u64>, frame: Frame);
    fn handle_datagram(&mut self, now: u64, payload: Bytes);
    fn poll_timeout(&mut self) -> Option<u64>;
    fn handle_timeout(&mut self, now: u64);

    fn poll_transmit(&mut self, now: u64, max: usize) -> Option<Bytes>;
    fn poll_datagram(&mut self) -> Option<Bytes>;
    fn poll_unrouted(&mut self) -> Option<u64>;
    fn route(&mut self, stream: u64, native: bool);
    fn poll_native(&mut self, now: u64, stream: u64, max: usize) -> Option<Bytes>;

    fn poll_event(&mut self) -> Option<Event>;
    fn send(&mut self, message: Message) -> Result<(), TrySendError>;
    fn send_datagram(&mut self, payload: Bytes, key: Option<u64>);
    fn open_stream(&mut self) -> Result<u64, OpenStreamError>;
    fn stream_write(&mut self, stream: u64, data: &Bytes) -> Result<usize, StreamError>;
    fn stream_finish(&mut self, stream: u64) -> Result<(), StreamError>;
    fn stream_reset(&mut self, stream: u64, code: u32);
    fn stream_read(&mut self, stream: u64, max: usize) -> Result<StreamRead, StreamError>;
    fn stream_stop(&mut self, stream: u64, code: u32);
    fn stream_release(&mut self, stream: u64);
    fn close(&mut self, now: u64, close: Close);
}

/// What a machine keeps of its streams above 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) streams: usize,
    pub(crate) unacknowledged: u64,
    pub(crate) unread: u64,
    pub(crate) due: usize,
}

impl Peer for Machine {
    fn link_opened(&mut self, now: u64, traits: LinkTraits) {
        self.link_opened(now, traits);
    }

    fn link_lost(&mut self, now: u64) {
        self.link_lost(now, "cut");
    }

    fn has_link(&mut self) -> bool {
        Machine::has_link(self)
    }

    fn closed(&mut self) -> Option<Close> {
        Machine::closed(self).cloned()
    }

    fn received(&mut self) -> u64 {
        Machine::received(self)
    }

    fn buffered(&mut self) -> u64 {
        self.buffered_bytes()
    }

    fn held(&mut self) -> Held {
        let held = self.held_by_streams();
        Held {
            streams: held.streams,
            unacknowledged: held.unacknowledged_bytes,
            unread: held.unread_bytes,
            due: held.due,
        }
    }

    fn handle_frame(&mut self, now: u64, frame: Frame) {
        self.handle_frame(now, frame);
    }

    fn handle_late_frame(&mut self, now: u64, frame: Frame) {
        self.handle_late_frame(now, frame);
    }

    fn handle_native_frame(&mut self, now: u64, known: &mut Option<u64>, frame: Frame) {
        if let Err(close) = self.handle_native_frame(now, known, frame) {
            self.handle_violation(now, close);
        }
    }

    fn handle_datagram(&mut self, now: u64, payload: Bytes) {
        self.handle_datagram(now, payload);
    }

    fn poll_timeout(&mut self) -> Option<u64> {
        Machine::poll_timeout(self)
    }

    fn handle_timeout(&mut self, now: u64) {
        self.handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: u64, max: usize) -> Option<Bytes> {
        self.poll_transmit(now, max).map(|packet| packet.into_bytes())
    }

    fn poll_datagram(&mut self) -> Option<Bytes> {
        self.poll_datagram()
    }

    fn poll_unrouted(&mut self) -> Option<u64> {
        Machine::poll_unrouted(self)
    }

    fn route(&mut self, stream: u64, native: bool) {
        self.route(stream, native);
    }

    fn poll_native(&mut self, _now: u64, stream: u64, max: usize) -> Option<Bytes> {
        self.poll_native(stream, max).map(|packet| packet.into_bytes())
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.poll_event()
    }

    fn send(&mut self, message: Message) -> Result<(), TrySendError> {
        self.send(message)
    }

    fn send_datagram(&mut self, payload: Bytes, key: Option<u64>) {
        drop(self.send_datagram(Datagram::from(payload), key));
    }

    fn open_stream(&mut self) -> Result<u64, OpenStreamError> {
        self.open_stream()
    }

    fn stream_write(&mut self, stream: u64, data: &Bytes) -> Result<usize, StreamError> {
        self.stream_write(stream, data)
    }

    fn stream_finish(&mut self, stream: u64) -> Result<(), StreamError> {
        self.stream_finish(stream)
    }

    fn stream_reset(&mut self, stream: u64, code: u32) {
        self.stream_reset(stream, code);
    }

    fn stream_read(&mut self, stream: u64, max: usize) -> Result<StreamRead, StreamError> {
        self.stream_read(stream, max)
    }

    fn stream_stop(&mut self, stream: u64, code: u32) {
        self.stream_stop(stream, code);
    }

    fn stream_release(&mut self, stream: u64) {
        self.stream_release(stream);
    }

    fn close(&mut self, now: u64, close: Close) {
        self.close(now, close);
    }
}
