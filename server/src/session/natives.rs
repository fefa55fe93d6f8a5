//! The native streams of one link: which of the session's streams each of them carries (SPEC section 4.2).

use std::task::{Context, Poll};

use bytes::Bytes;
use throughline_protocol::limits::STREAM_CHUNK;
use throughline_protocol::{Close, Decoder, Machine, Micros};

use crate::transport::link::{Link, NativeStream};

/// Longest packet for a native stream, in bytes: a few STREAM frames, so that streams take turns.
const MAX_NATIVE_PACKET: usize = 2 * STREAM_CHUNK;

/// Chunks read from one native stream in one go, before others get their turn.
const READ_BUDGET: usize = 16;

/// The native streams of one link. QUIC's own limits bound them.
#[derive(Default)]
pub(super) struct Natives {
    streams: Vec<Native>,
}

struct Native {
    io: Box<dyn NativeStream>,
    decoder: Decoder,
    /// The session's stream, once a frame has named it.
    stream: Option<u64>,
    /// The peer says nothing more on it.
    read: bool,
    /// This side says nothing more on it.
    written: bool,
}

impl Native {
    fn new(io: Box<dyn NativeStream>, stream: Option<u64>) -> Self {
        Self { io, decoder: Decoder::new(), stream, read: false, written: false }
    }
}

impl Natives {
    /// Takes over what the peer opened, and reads all of them. Says whether anything had arrived.
    pub(super) fn receive(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut dyn Link,
        machine: &mut Machine,
        now: Micros,
    ) -> Result<bool, Close> {
        while let Poll::Ready(io) = link.poll_accept_native(cx) {
            self.streams.push(Native::new(io, None));
        }
        let mut has_news = false;
        for native in &mut self.streams {
            has_news |= native.receive(cx, machine, now)?;
        }
        Ok(has_news)
    }

    /// Opens what the machine wants opened, and writes all of them as far as they take something.
    pub(super) fn transmit(&mut self, cx: &mut Context<'_>, link: &mut dyn Link, machine: &mut Machine) {
        if link.has_native_streams() {
            while let Some(id) = machine.poll_unrouted() {
                let opened = link.open_native(cx);
                machine.route(id, opened.is_some());
                self.streams.extend(opened.map(|io| Native::new(io, Some(id))));
            }
        }
        for native in &mut self.streams {
            native.transmit(cx, machine);
        }
        // Who has ended its side may still hear the other's end; dropped before, it would say STOP_SENDING.
        self.streams.retain(|native| !(native.read && native.written));
        if self.streams.is_empty() && self.streams.capacity() > 0 {
            self.streams = Vec::new();
        }
    }
}

impl Native {
    fn receive(&mut self, cx: &mut Context<'_>, machine: &mut Machine, now: Micros) -> Result<bool, Close> {
        let mut has_news = false;
        for _ in 0..READ_BUDGET {
            if self.read {
                return Ok(has_news);
            }
            match self.io.poll_recv(cx) {
                Poll::Pending => return Ok(has_news),
                Poll::Ready(Some(bytes)) => {
                    self.feed(machine, now, bytes)?;
                    has_news = true;
                }
                Poll::Ready(None) => {
                    self.read = true;
                    // It never said what it is for.
                    self.written |= self.stream.is_none();
                }
            }
        }
        cx.waker().wake_by_ref();
        Ok(has_news)
    }

    fn feed(&mut self, machine: &mut Machine, now: Micros, bytes: Bytes) -> Result<(), Close> {
        machine.count_received(bytes.len());
        self.decoder.push(bytes);
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => machine.handle_native_frame(now, &mut self.stream, frame)?,
                Ok(None) => return Ok(()),
                Err(error) => return Err(Close::protocol(error.code(), error.to_string())),
            }
        }
    }

    fn transmit(&mut self, cx: &mut Context<'_>, machine: &mut Machine) {
        let Some(id) = self.stream.filter(|_| !self.written) else { return };
        if machine.is_reset(id) && machine.has_stream(id) {
            self.io.reset();
            self.written = true;
            return;
        }
        loop {
            match self.io.poll_ready(cx) {
                Poll::Pending => return,
                // The peer reads no more here, and says by STOP that it means it.
                Poll::Ready(false) => {
                    self.written = true;
                    return;
                }
                Poll::Ready(true) => {}
            }
            match machine.poll_native(id, MAX_NATIVE_PACKET) {
                Some(packet) => self.io.send(packet),
                None => break,
            }
        }
        if !machine.has_stream(id) {
            self.io.finish();
            self.written = true;
        }
    }
}
