//! The one loop of a session: moves what arrives into the machine, what the machine wants to say onto the link that carries the session now, lets
//! the client choose another link, and wakes whoever waits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use throughline_protocol::limits::MAX_CANDIDATES;
use throughline_protocol::{Close, Code, Micros, Origin};
use tokio::time::{Instant, Sleep};

use super::channels::Channels;
use super::credentials::{Refresh, tell_refreshed};
use super::links::{Attached, Leaving, Outcome, RECEIVE_BUDGET, Waiting, replaced};
use super::requests::Requests;
use super::shared::{Arrival, Core, Shared, now};
use crate::transport::Transport;
use crate::transport::link::{Link, LinkEnd};

/// Links of one session that are saying goodbye. More than these are cut: a client that moves faster than it closes has none to spare.
const MAX_LEAVING: usize = 8;

/// How long after the end of an event stream a last POST of its client may come.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(3);

/// Drives one session until it has ended and its links are closed. Calls `on_open` once its client has spoken. Without a link it waits
/// for another, for as long as the machine does.
pub(crate) struct Driver<F> {
    shared: Arc<Shared>,
    current: Option<Attached>,
    /// The other links, while there are any.
    others: Option<Box<Others>>,
    timer: Pin<Box<Sleep>>,
    on_open: Option<F>,
    channels: Channels,
    refresh: Refresh,
    ended: Option<Box<Close>>,
}

/// Links that do not carry the session.
#[derive(Default)]
struct Others {
    /// Those that the client may choose, the oldest first.
    candidates: Vec<Waiting>,
    leaving: Vec<Leaving>,
    /// The current link until a moment ago, and until when something of it may still be on its way.
    lost: Option<(Attached, Instant)>,
}

impl<F: FnOnce() + Unpin> Driver<F> {
    /// Begins with the session's first link, which its machine knows already.
    pub(crate) fn new(shared: Arc<Shared>, link: Box<dyn Link>, remote: Option<std::net::IpAddr>, on_open: F) -> Self {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        let mut core = shared.lock();
        core.carry(&*link, remote);
        let transport = link.transport();
        tracing::debug!(session = %shared.id, link = core.machine.link(), %transport, "link opened");
        let current = Some(Attached::new(core.machine.link(), link, remote));
        drop(core);
        Self {
            shared,
            current,
            others: None,
            timer,
            on_open: Some(on_open),
            channels: Channels::default(),
            refresh: Refresh::default(),
            ended: None,
        }
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        self.shared.register_driver(cx.waker());
        self.take_arrivals();
        self.receive(cx);
        self.poll_candidates(cx);
        if self.serve(RECEIVE_BUDGET) {
            cx.waker().wake_by_ref();
        }
        self.refresh.poll(cx, &self.shared);
        let deadline = self.transmit(cx);
        self.poll_lost(cx);
        let shared = Arc::clone(&self.shared);
        if shared.lock().machine.closed().is_some() {
            // First of all: a client may have said all that it wanted, and CLOSE, in one go.
            self.serve(usize::MAX);
            self.end(&mut shared.lock());
            return shared.end_channels();
        }
        let waiting = self.others.iter().flat_map(|others| others.candidates.iter().map(Waiting::deadline));
        if let Some(deadline) = waiting.chain(deadline).min() {
            self.arm(cx, Instant::now() + Duration::from_micros(deadline.saturating_sub(now())));
        }
    }

    /// Tells the application of the session once its client has spoken, and hands on what the client says about channels, and about
    /// requests: up to `budget` times each. Says whether there
    /// may be more of it.
    fn serve(&mut self, budget: usize) -> bool {
        if self.on_open.is_some() && self.shared.lock().machine.is_established() {
            self.on_open.take().into_iter().for_each(|on_open| on_open());
        }
        let has_more_channels = self.channels.serve(&self.shared, budget);
        Requests::serve(&self.shared, budget) || has_more_channels
    }

    /// The session is over: what is left of its links goes its way.
    fn end(&mut self, core: &mut Core) {
        core.over = true;
        core.carrier = None;
        let Some(close) = core.machine.closed().cloned() else { return };
        core.end_requests(&close);
        self.shared.notify(core);
        let is_lost = close.origin == Origin::Protocol && close.code == Code::LinkLost as u32;
        // CLOSE was the last thing that the current link was given. One that is lost is told nothing.
        let current = self.current.take().filter(|_| !is_lost);
        let others = self.others.get_or_insert_default();
        others.leaving.extend(current.map(|attached| Leaving::new(attached.link, None, close.clone())));
        // To those that came too late to carry it, it is said now.
        let said = if is_lost { Close::protocol(Code::UnknownSession, "the session has ended") } else { close.clone() };
        let candidates = others.candidates.drain(..).map(|waiting| waiting.attached.link);
        let arrived = core.take_arrivals().into_iter().map(|arrival| arrival.link);
        let links = candidates.chain(arrived).map(|link| Leaving::new(link, Some(said.clone()), said.clone()));
        others.leaving.extend(links);
        self.ended = Some(Box::new(close));
    }

    fn take_arrivals(&mut self) {
        let arrivals = self.shared.lock().take_arrivals();
        for Arrival { link, remote, credentials, offer } in arrivals {
            let session = self.shared.id;
            match offer {
                Ok(offer) => {
                    tracing::debug!(%session, link = offer.link, transport = %link.transport(), "link offered");
                    let others = self.others.get_or_insert_default();
                    let is_full = others.candidates.len() == MAX_CANDIDATES;
                    let oldest = is_full.then(|| others.candidates.remove(0).attached.link);
                    others.candidates.push(Waiting::new(Attached::new(offer.link, link, remote), offer, credentials));
                    oldest.into_iter().for_each(|oldest| self.leave(oldest, None, replaced()));
                }
                Err(close) => self.leave(link, Some(close.clone()), close),
            }
        }
    }

    fn leave(&mut self, link: Box<dyn Link>, last: Option<Close>, close: Close) {
        let leaving = &mut self.others.get_or_insert_default().leaving;
        if leaving.len() == MAX_LEAVING {
            leaving.remove(0);
        }
        leaving.push(Leaving::new(link, last, close));
    }

    fn receive(&mut self, cx: &mut Context<'_>) {
        for _ in 0..RECEIVE_BUDGET {
            let Some(current) = &mut self.current else { return };
            match current.link.poll_recv(cx) {
                Poll::Pending => {
                    if current.may_have_natives() {
                        let mut core = self.shared.lock();
                        // They may overtake the first frame on the link stream, before which nothing counts.
                        if core.machine.is_open() && current.receive_natives(cx, &mut core.machine) {
                            self.shared.notify(&mut core);
                        }
                    }
                    return;
                }
                Poll::Ready(Ok(received)) => {
                    let mut core = self.shared.lock();
                    current.handle(&mut core, received);
                    self.shared.notify(&mut core);
                }
                Poll::Ready(Err(end)) => {
                    let shared = Arc::clone(&self.shared);
                    let mut core = shared.lock();
                    match end {
                        LinkEnd::Lost(reason) => core.machine.link_lost(now(), &reason),
                        LinkEnd::Closed { code, reason } => core.machine.link_closed(code, &reason),
                        // The link can still carry the machine's CLOSE.
                        LinkEnd::Violation(close) => return core.machine.handle_violation(now(), close),
                    }
                    return self.detach(&mut core);
                }
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Whether the client has chosen another link.
    fn poll_candidates(&mut self, cx: &mut Context<'_>) {
        let mut index = 0;
        while let Some(others) = &mut self.others
            && let Some(waiting) = others.candidates.get_mut(index)
        {
            let shared = Arc::clone(&self.shared);
            let mut core = shared.lock();
            let Poll::Ready(outcome) = waiting.poll(cx, &mut core) else {
                index += 1;
                continue;
            };
            let attached = others.candidates.remove(index).attached;
            let number = attached.number;
            let session = shared.id;
            let is_other = matches!(outcome, Outcome::Chosen { is_other: true });
            match outcome {
                Outcome::Chosen { .. } => {
                    let (transport, remote) = (attached.link.transport(), attached.remote.map(tracing::field::display));
                    tracing::debug!(%session, link = number, %transport, remote, "session goes on over another link");
                    if let Some(old) = self.current.replace(attached) {
                        self.leave(old.link, None, replaced());
                    }
                    cx.waker().wake_by_ref(); // it may have said more, and was not asked for it
                }
                Outcome::Refused(last, close) => {
                    let (code, name) = (close.code, close.name());
                    tracing::debug!(%session, link = number, code, name, "link refused");
                    self.leave(attached.link, last, close);
                }
                Outcome::Gone => tracing::debug!(%session, link = number, "link was not chosen by its client"),
            }
            shared.notify(&mut core);
            drop(core);
            if is_other {
                tell_refreshed(&shared);
            }
        }
    }

    /// Gives the link what it takes. Returns when the machine wants to be called again.
    fn transmit(&mut self, cx: &mut Context<'_>) -> Option<Micros> {
        let shared = Arc::clone(&self.shared);
        let mut core = shared.lock();
        let now = now();
        core.machine.handle_timeout(now);
        if let Some(current) = &mut self.current
            && current.transmit(cx, &mut core.machine, now).is_err()
        {
            self.write_failed(cx, &mut core);
        }
        if self.current.is_some() && !core.machine.has_link() && core.machine.closed().is_none() {
            // It fell silent. To say so on it would take as long as anything else there.
            self.detach(&mut core);
        }
        core.machine.poll_timeout()
    }

    /// Writing failed. What the peer sent before may still be there to be read, its CLOSE among it; otherwise the link is lost.
    fn write_failed(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        let Some(current) = &mut self.current else { return };
        for _ in 0..RECEIVE_BUDGET {
            match current.link.poll_recv(cx) {
                Poll::Ready(Ok(received)) => current.handle(core, received),
                Poll::Ready(Err(LinkEnd::Closed { code, reason })) => {
                    core.machine.link_closed(code, &reason);
                    break;
                }
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        core.machine.link_lost(now(), "the connection was closed while something was being sent");
        self.detach(core);
        cx.waker().wake_by_ref(); // what came is for the application, and for whoever handles channels
    }

    /// The current link is gone.
    fn detach(&mut self, core: &mut Core) {
        core.carrier = None;
        if let Some(current) = self.current.take() {
            let transport = current.link.transport();
            tracing::debug!(session = %self.shared.id, link = current.number, %transport, "link ended");
            if transport == Transport::Sse {
                let lost = (current, Instant::now() + LAST_WORDS_TIMEOUT);
                self.others.get_or_insert_default().lost = Some(lost);
            }
        }
        self.shared.notify(core);
    }

    /// Whether the client has said CLOSE by a request of its own, while the link it belongs to was lost.
    fn poll_lost(&mut self, cx: &mut Context<'_>) {
        let Some(lost) = self.others.as_mut().and_then(|others| others.lost.as_mut()) else { return };
        let shared = Arc::clone(&self.shared);
        let mut core = shared.lock();
        lost.0.poll_last_words(cx, &mut core);
        let until = lost.1;
        if self.current.is_some() || core.machine.closed().is_some() || Instant::now() >= until {
            self.others.get_or_insert_default().lost = None;
        } else {
            self.arm(cx, until);
        }
    }

    fn poll_leaving(&mut self, cx: &mut Context<'_>) {
        let Some(others) = &mut self.others else { return };
        others.leaving.retain_mut(|leaving| leaving.poll(cx).is_pending());
        if let Some(until) = others.leaving.iter().map(|leaving| leaving.until).min() {
            self.arm(cx, until);
        } else if others.candidates.is_empty() && others.lost.is_none() {
            self.others = None;
        }
    }

    /// Arranges to be polled at `target`, or earlier.
    fn arm(&mut self, cx: &mut Context<'_>, target: Instant) {
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
    /// How the session ended, and whether its client had ever spoken.
    type Output = (Close, bool);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(Close, bool)> {
        let this = &mut *self;
        if this.ended.is_none() {
            this.drive(cx);
        }
        this.poll_leaving(cx);
        match &this.ended {
            Some(close) if this.others.is_none() => Poll::Ready((Close::clone(close), this.on_open.is_none())),
            _ => Poll::Pending,
        }
    }
}
