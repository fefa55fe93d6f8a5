//! The one loop of a session: moves what arrives into the machine, what the machine wants to say onto the link, and wakes whoever waits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use throughline_protocol::{Close, Code, Decoder, Machine, Micros};
use tokio::time::{Instant, Sleep};

use super::handle::{Shared, now};
use crate::transport::link::{Link, LinkEnd, Received};

/// How long a closed session's link may take to say goodbye.
const LINK_CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Things taken from a link in one go, before others get their turn.
const RECEIVE_BUDGET: usize = 64;

/// Drives one session until it has ended and its link is closed. Calls `on_open` once the client has chosen this link.
pub(crate) struct Driver<F> {
    shared: Arc<Shared>,
    link: Box<dyn Link>,
    decoder: Decoder,
    timer: Pin<Box<Sleep>>,
    on_open: Option<F>,
    /// The link takes nothing more, and gives nothing.
    link_ended: bool,
    closing: Option<Close>,
}

impl<F: FnOnce() + Unpin> Driver<F> {
    pub(crate) fn new(shared: Arc<Shared>, link: Box<dyn Link>, on_open: F) -> Self {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        Self { shared, link, decoder: Decoder::new(), timer, on_open: Some(on_open), link_ended: false, closing: None }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.register_driver(cx.waker());
        self.receive(cx);
        let deadline = self.transmit(cx);
        self.set_timer(cx, deadline);
        if self.shared.lock().is_established()
            && let Some(on_open) = self.on_open.take()
        {
            on_open();
        }
        let machine = self.shared.lock();
        let Some(close) = machine.closed().cloned() else { return Poll::Pending };
        self.shared.notify_application(&machine);
        drop(machine);
        self.closing = Some(close);
        self.timer.as_mut().reset(Instant::now() + LINK_CLOSE_TIMEOUT);
        Poll::Ready(())
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>, close: &Close) -> Poll<()> {
        // The timer first: a peer that floods keeps the link busy, and tokio then gives later futures of this turn nothing.
        if self.link_ended || self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.link.poll_close(cx, close)
    }

    fn receive(&mut self, cx: &mut Context<'_>) {
        if self.link_ended {
            return;
        }
        for _ in 0..RECEIVE_BUDGET {
            match self.link.poll_recv(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(received)) => self.handle(received),
                Poll::Ready(Err(end)) => {
                    let mut machine = self.shared.lock();
                    match end {
                        LinkEnd::Lost(reason) => machine.link_lost(&reason),
                        LinkEnd::Closed { code, reason } => machine.link_closed(code, &reason),
                        LinkEnd::Violation(close) => machine.handle_violation(now(), close),
                    }
                    self.shared.notify_application(&machine);
                    // After a violation the machine still has its CLOSE to send.
                    self.link_ended = machine.closed().is_some();
                    return;
                }
            }
        }
        cx.waker().wake_by_ref();
    }

    fn handle(&mut self, received: Received) {
        let mut machine = self.shared.lock();
        let now = now();
        match received {
            Received::Alive => return machine.heard_from(now),
            Received::Datagram(payload) => machine.handle_datagram(now, payload),
            Received::Bytes(bytes) => feed(&mut machine, &mut self.decoder, now, bytes),
            Received::Packet(bytes) => {
                feed(&mut machine, &mut self.decoder, now, bytes);
                finish_packet(&mut machine, &self.decoder, now);
            }
        }
        self.shared.notify_application(&machine);
    }

    /// Gives the link what it takes. Returns when the machine wants to be called again.
    fn transmit(&mut self, cx: &mut Context<'_>) -> Option<Micros> {
        let shared = Arc::clone(&self.shared);
        let mut machine = shared.lock();
        let now = now();
        machine.handle_timeout(now);
        while !self.link_ended {
            match self.link.poll_ready(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => {
                    self.write_failed(cx, &mut machine);
                    break;
                }
                Poll::Ready(Ok(())) => {}
            }
            let Some(packet) = machine.poll_transmit(now, self.link.max_packet()) else { break };
            self.link.send(packet);
        }
        if !self.link_ended
            && let Poll::Ready(Err(_)) = self.link.poll_flush(cx)
        {
            self.write_failed(cx, &mut machine);
        }
        machine.poll_timeout()
    }

    /// Writing failed. What the peer sent before may still be there to be read, its CLOSE among it; otherwise the link is lost.
    fn write_failed(&mut self, cx: &mut Context<'_>, machine: &mut Machine) {
        self.link_ended = true;
        for _ in 0..RECEIVE_BUDGET {
            match self.link.poll_recv(cx) {
                Poll::Ready(Ok(Received::Bytes(bytes) | Received::Packet(bytes))) => {
                    feed(machine, &mut self.decoder, now(), bytes);
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(LinkEnd::Closed { code, reason })) => {
                    return machine.link_closed(code, &reason);
                }
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        machine.link_lost("the connection was closed while something was being sent");
    }

    /// Arranges to be polled when the machine wants to be called again.
    fn set_timer(&mut self, cx: &mut Context<'_>, deadline: Option<Micros>) {
        let Some(deadline) = deadline else { return };
        let target = Instant::now() + Duration::from_micros(deadline.saturating_sub(now()));
        // Deadlines move back with every frame that arrives. The timer follows when it goes off: too early costs one turn,
        // and moving it every time would cost more.
        if target < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(target);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

impl<F: FnOnce() + Unpin> Future for Driver<F> {
    /// How the session ended, and whether its client had ever chosen this link.
    type Output = (Close, bool);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(Close, bool)> {
        let this = &mut *self;
        if this.closing.is_none() && this.poll_open(cx).is_pending() {
            return Poll::Pending;
        }
        let Some(close) = this.closing.take() else { return Poll::Pending };
        match this.poll_closing(cx, &close) {
            Poll::Ready(()) => Poll::Ready((close, this.on_open.is_none())),
            Poll::Pending => {
                this.closing = Some(close);
                Poll::Pending
            }
        }
    }
}

/// Moves the frames in `bytes` into the machine.
pub(crate) fn feed(machine: &mut Machine, decoder: &mut Decoder, now: Micros, bytes: bytes::Bytes) {
    machine.count_received(bytes.len());
    decoder.push(bytes);
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => machine.handle_frame(now, frame),
            Ok(None) => return,
            Err(error) => return machine.handle_violation(now, Close::protocol(error.code(), error.to_string())),
        }
    }
}

/// A packet has to end where a frame does.
pub(crate) fn finish_packet(machine: &mut Machine, decoder: &Decoder, now: Micros) {
    if !decoder.is_empty() {
        machine.handle_violation(now, Close::protocol(Code::MalformedFrame, "a packet that ends inside a frame"));
    }
}
