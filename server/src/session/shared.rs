//! What the handles, the driver and the requests of one session share.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use throughline_protocol::limits::{MAX_CANDIDATES, MAX_DATAGRAM};
use throughline_protocol::machine::Candidate;
use throughline_protocol::{Close, Code, LinkTraits, Machine, Mark, Micros, ResumeKey, SessionId};
use tokio::sync::Notify;

use super::Session;
use super::channels::ChannelHandler;
use super::credentials::Credentials;
use super::flusher::Flusher;
use super::requests::Requests;
use crate::transport::Transport;
use crate::transport::link::{Direct, Link, NativeDatagrams};

/// One session. Lives for as long as its driver or anybody's handle.
pub(crate) struct Shared {
    pub(crate) id: SessionId,
    pub(crate) key: ResumeKey,
    pub(crate) opened: Instant,
    /// Who handles what the client says about channels.
    channels: Option<Arc<dyn ChannelHandler>>,
    core: Mutex<Core>,
    /// Writes to links that take it; without one the driver does.
    pub(super) flusher: Option<Arc<Flusher>>,
    /// Wakes the driver: there is something to send, or a link to take over.
    driver: AtomicWaker,
    /// Wakes [`Session::recv`](super::Session::recv) and [`Session::closed`](super::Session::closed).
    pub(super) incoming: Notify,
    /// Wakes [`Session::send`](super::Session::send).
    pub(super) room: Notify,
    /// Wakes [`Session::open_stream`](super::Session::open_stream).
    pub(super) streams: Notify,
}

/// What changes in a session. The machine's lock is the lock of all of it: a datagram goes to the link that is current at that moment.
pub(crate) struct Core {
    pub(crate) machine: Machine,
    /// Who is behind it, always the same user, and how to ask again.
    pub(crate) credentials: Credentials,
    /// What carries the session now.
    pub(super) carrier: Option<Carrier>,
    /// Where the client was seen last.
    pub(super) remote: Option<IpAddr>,
    pub(crate) history: History,
    /// The client has said CLOSE by POST: no request of its own can cross the end any more.
    pub(crate) left: bool,
    /// Links that came since the driver last looked.
    arrivals: Vec<Arrival>,
    /// The client has asked something about channels, and their handler was not told of the session's end.
    in_channels: bool,
    /// What the two sides ask each other, once they do.
    pub(super) requests: Option<Box<Requests>>,
    /// The driver takes no more links.
    pub(super) over: bool,
    /// The flusher has it on its list.
    pub(super) is_due: bool,
    /// Readers and writers of streams that wait.
    pub(super) waiting: BTreeMap<u64, Waiting>,
}

/// The current link, as others see it.
pub(super) struct Carrier {
    pub(super) transport: Transport,
    /// Its own datagrams, which need no driver.
    pub(super) native: Option<Arc<dyn NativeDatagrams>>,
    /// Whether these begin with a mark.
    pub(super) marked: bool,
    /// Its side that needs no driver, if it has one.
    pub(super) direct: Option<Arc<dyn Direct>>,
}

/// The links that a session has had, for the log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct History {
    pub(crate) links: u32,
    transports: u8,
    last: Option<Transport>,
}

/// A further link of a session.
pub(crate) struct Arrival {
    pub(crate) link: Box<dyn Link>,
    pub(crate) remote: Option<IpAddr>,
    pub(crate) credentials: Credentials,
    /// What the machine says to it: WELCOME, or CLOSE.
    pub(crate) offer: Result<Candidate, Close>,
}

/// Who waits for one stream.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl Shared {
    pub(crate) fn new(
        machine: Machine,
        id: SessionId,
        key: ResumeKey,
        credentials: impl Into<Credentials>,
        channels: Option<Arc<dyn ChannelHandler>>,
    ) -> Self {
        Self {
            id,
            key,
            opened: Instant::now(),
            channels,
            core: Mutex::new(Core {
                machine,
                credentials: credentials.into(),
                carrier: None,
                remote: None,
                history: History::default(),
                left: false,
                arrivals: Vec::new(),
                in_channels: false,
                requests: None,
                over: false,
                is_due: false,
                waiting: BTreeMap::new(),
            }),
            flusher: None,
            driver: AtomicWaker::new(),
            incoming: Notify::new(),
            room: Notify::new(),
            streams: Notify::new(),
        }
    }

    /// Lets this one write what it sends.
    pub(crate) fn flushed_by(mut self, flusher: Arc<Flusher>) -> Self {
        self.flusher = Some(flusher);
        self
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock()
    }

    pub(super) fn register_driver(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    pub(crate) fn wake_driver(&self) {
        self.driver.wake();
    }

    /// Asks for a further link, whose client has `received` so much of stream 0, and is let in until `expires`. `None` when the session has ended.
    pub(crate) fn offer(
        &self,
        received: u64,
        traits: LinkTraits,
        expires: Option<Micros>,
    ) -> Option<Result<Candidate, Close>> {
        let mut core = self.lock();
        if core.machine.closed().is_some() {
            return None;
        }
        Some(core.machine.offer(now(), received, traits, expires))
    }

    /// Hands a link to the driver; gives it back when the session has ended meanwhile.
    pub(crate) fn arrive(&self, arrival: Arrival) -> Result<(), Box<dyn Link>> {
        let mut core = self.lock();
        if core.over || core.machine.closed().is_some() {
            return Err(arrival.link);
        }
        // The driver would keep no more either.
        let oldest = (core.arrivals.len() == MAX_CANDIDATES).then(|| core.arrivals.remove(0));
        core.arrivals.push(arrival);
        drop(core);
        drop(oldest);
        self.wake_driver();
        Ok(())
    }

    /// Tells everybody who waits that the machine has changed.
    pub(crate) fn notify(&self, core: &mut Core) {
        let is_ending = core.machine.closing().is_some();
        // Most of what a client says to a server that sends is ACKs: they wake nobody.
        if is_ending || core.machine.has_event() {
            self.incoming.notify_waiters();
        }
        if is_ending || core.machine.has_room() {
            self.room.notify_waiters();
            core.requests.iter_mut().for_each(|requests| requests.wake_senders());
        }
        for id in core.machine.take_touched() {
            if id == 0 {
                self.streams.notify_waiters();
            } else if let Some(waiting) = core.waiting.get_mut(&id) {
                waiting.wake();
            }
        }
        if is_ending {
            self.streams.notify_waiters();
            core.waiting.values_mut().for_each(Waiting::wake);
        }
    }

    /// Who handles what is said about channels.
    pub(super) fn channels(&self) -> Option<&Arc<dyn ChannelHandler>> {
        self.channels.as_ref()
    }

    /// The client says something about channels: who handles it. From now on that is told of the session's end.
    pub(super) fn begin_channels(&self) -> Option<&Arc<dyn ChannelHandler>> {
        let handler = self.channels.as_ref()?;
        self.lock().in_channels = true;
        Some(handler)
    }

    /// The session has ended, or nobody drives it any more.
    pub(super) fn end_channels(self: &Arc<Self>) {
        let was_in = std::mem::take(&mut self.lock().in_channels);
        if let Some(handler) = self.channels.as_ref().filter(|_| was_in) {
            handler.closed(&Session::new(Arc::clone(self)));
        }
    }

    /// The client has made a mistake above the frames.
    pub(super) fn fail(&self, close: Close) {
        let mut core = self.lock();
        core.machine.handle_violation(now(), close);
        self.notify(&mut core);
    }

    pub(crate) fn close(&self, close: Close) {
        let mut core = self.lock();
        core.machine.close(now(), close);
        // A `send` that waits for room must not wait for its client as well.
        self.notify(&mut core);
        drop(core);
        self.wake_driver();
    }

    /// Asks the client to leave, `delay_ms` from now. One that has not chosen a link yet is sent away at once.
    pub(crate) fn go_away(&self, delay_ms: u64, close: &Close) {
        let mut core = self.lock();
        if core.machine.is_established() {
            core.machine.go_away(now(), delay_ms);
        } else {
            core.machine.close(now(), close.clone());
        }
        drop(core);
        self.wake_driver();
    }

    /// Nobody drives the session any more. Says how it ended, and whether it had ever been open.
    pub(crate) fn cut(self: &Arc<Self>, reason: &str) -> (Close, bool) {
        let mut core = self.lock();
        let close = Close::protocol(Code::ShuttingDown, reason);
        // Closing first: what ends then ends with this code, link or not.
        core.machine.close(now(), close.clone());
        core.machine.link_closed(0, "");
        core.over = true;
        core.carrier = None;
        let ended = core.machine.closed().cloned().unwrap_or(close);
        core.end_requests(&ended);
        self.notify(&mut core);
        let end = (ended, core.machine.is_established());
        drop(core);
        self.end_channels();
        end
    }
}

impl Core {
    /// From now on this link carries the session.
    pub(super) fn carry(&mut self, link: &dyn Link, remote: Option<IpAddr>) {
        let transport = link.transport();
        self.history.links += 1;
        self.history.transports |= 1 << bit(transport);
        self.history.last = Some(transport);
        self.remote = remote.or(self.remote);
        let (native, marked) = (link.native_datagrams(), self.machine.marks_datagrams());
        self.carrier = Some(Carrier { transport, native, marked, direct: link.direct() });
    }

    /// The link's own datagrams, if one of this length goes that way.
    pub(super) fn native(&self, len: usize, mark: Mark) -> Option<Arc<dyn NativeDatagrams>> {
        let Carrier { native, marked, .. } = self.carrier.as_ref()?;
        let native = native.as_ref().filter(|_| self.machine.is_open() && (*marked || mark == Mark::Application))?;
        // A path may take more than the protocol allows: the limit is the same on every transport. And Chromium delivers
        // nothing more after an empty one.
        let most = native.max_len().saturating_sub(usize::from(*marked)).min(MAX_DATAGRAM);
        (1..=most).contains(&len).then(|| Arc::clone(native))
    }

    /// Whether something carries the session now.
    pub(super) fn has_link(&self) -> bool {
        self.carrier.is_some()
    }

    /// Whether whoever handles channels knows of the session.
    pub(super) fn is_in_channels(&self) -> bool {
        self.in_channels
    }

    pub(super) fn take_arrivals(&mut self) -> Vec<Arrival> {
        std::mem::take(&mut self.arrivals)
    }
}

impl Waiting {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

const ALL: [Transport; 4] = [Transport::WebTransport, Transport::WebSocket, Transport::Sse, Transport::Poll];

fn bit(transport: Transport) -> usize {
    ALL.iter().position(|one| *one == transport).unwrap_or(ALL.len())
}

impl History {
    /// What carried the session last.
    pub(crate) fn transport(self) -> &'static str {
        self.last.map_or("none", Transport::name)
    }

    /// The transports that were used, joined by `,`.
    pub(crate) fn transports(self) -> String {
        let used = ALL.iter().filter(|transport| self.transports >> bit(**transport) & 1 == 1);
        used.map(|transport| transport.name()).collect::<Vec<_>>().join(",")
    }
}

/// The machine's clock: microseconds since the Unix epoch as of the start of the process, going on monotonically.
pub(crate) fn now() -> Micros {
    static START: std::sync::OnceLock<(Instant, Micros)> = std::sync::OnceLock::new();
    let (start, epoch) = START.get_or_init(|| {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as Micros);
        (Instant::now(), epoch)
    });
    epoch + start.elapsed().as_micros() as Micros
}
