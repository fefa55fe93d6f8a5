//! A well-behaved client: the protocol crate's machine over one wire after another.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use throughline::Transport;
use throughline_protocol::limits::MAX_PACKET;
use throughline_protocol::machine::{Config, LinkTraits, Machine, StreamError, StreamRead};
use throughline_protocol::{
    Close, Code, Datagram, Decoder, Event, Frame, Message, Micros, SendDatagramError, SessionId, Stats, TrySendError,
    Welcome,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::server::Place;
use super::wire::{Incoming, Opening, Outgoing, Refusal, Wire};
use super::within;

/// Longest packet handed to a wire at once, in bytes: short enough that a POST does not hold up an ACK for long.
const PACKET: usize = MAX_PACKET;

/// A session, as its client sees it. Dropping it cuts the connection.
pub(crate) struct Client {
    pub(crate) transport: Transport,
    pub(crate) welcome: Welcome,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    driver: JoinHandle<()>,
    end: Mutex<Option<oneshot::Receiver<Incoming>>>,
}

enum Command {
    /// Goes on over this wire.
    Take(Box<Wire>),
    /// Cuts the connection, in the middle of whatever it carries; says when it is done.
    Cut(oneshot::Sender<()>),
}

struct Shared {
    machine: Mutex<Machine>,
    /// Wakes the driver.
    changed: Notify,
    /// Wakes who waits for the machine.
    happened: Notify,
    /// Whether the driver leaves alone what the server sends.
    is_paused: AtomicBool,
    /// Bytes that came on native streams.
    native_bytes: AtomicU64,
}

impl Client {
    /// Opens a session that the server has to accept.
    pub(crate) async fn connect(place: &Place, transport: Transport) -> Self {
        Self::over(Wire::connect(place, transport).await).await
    }

    pub(crate) async fn open(place: &Place, transport: Transport, opening: &Opening) -> Result<Self, Refusal> {
        Ok(Self::over(Wire::open(place, transport, opening).await?).await)
    }

    /// Takes over a fresh wire, and reads its WELCOME.
    pub(crate) async fn over(wire: Wire) -> Self {
        let shared = Arc::new(Shared {
            machine: Mutex::new(Machine::client(Config::default())),
            changed: Notify::new(),
            happened: Notify::new(),
            is_paused: AtomicBool::new(false),
            native_bytes: AtomicU64::new(0),
        });
        let (transport, welcome) = (wire.transport, wire.welcome.clone());
        let (ended, end) = oneshot::channel();
        let (commands, commanded) = mpsc::unbounded_channel();
        drop(commands.send(Command::Take(Box::new(wire))));
        let driver = tokio::spawn(Driver::new(Arc::clone(&shared)).run(commanded, ended));
        let client = Self { transport, welcome, shared, commands, driver, end: Mutex::new(Some(end)) };
        client.is_open_over(client.welcome.link).await;
        client
    }

    /// Opens a further link for the session, which the server has to accept as one.
    pub(crate) async fn further(&self, place: &Place, transport: Transport) -> Wire {
        let opening = Opening::resuming(&self.welcome, self.received());
        let wire = Wire::open(place, transport, &opening).await;
        let wire = wire.unwrap_or_else(|refusal| panic!("{transport} was refused: {refusal:?}"));
        assert!(wire.welcome.resumed, "{transport}: the server resumed nothing");
        assert_eq!((wire.welcome.session, wire.welcome.key), (self.welcome.session, self.welcome.key));
        wire
    }

    /// Moves to another link; the old one, if it lives, is left when the new one works.
    pub(crate) async fn move_to(&self, place: &Place, transport: Transport) {
        self.take(self.further(place, transport).await).await;
    }

    /// Goes on over this wire, and waits until it has read its WELCOME.
    pub(crate) async fn take(&self, wire: Wire) {
        let link = wire.welcome.link;
        drop(self.commands.send(Command::Take(Box::new(wire))));
        self.is_open_over(link).await;
    }

    async fn is_open_over(&self, link: u64) {
        let opened = async {
            loop {
                let happened = self.shared.happened.notified();
                {
                    let machine = self.shared.machine.lock();
                    if machine.is_established() && machine.link() == link || machine.closed().is_some() {
                        return;
                    }
                }
                happened.await;
            }
        };
        within("WELCOME", opened).await;
    }

    /// Cuts the connection, and waits until that has happened. The session waits for [`Client::move_to`].
    pub(crate) async fn cut(&self) {
        let (done, is_done) = oneshot::channel();
        drop(self.commands.send(Command::Cut(done)));
        drop(within("the cut", is_done).await);
    }

    pub(crate) fn id(&self) -> SessionId {
        self.welcome.session
    }

    /// What was received of the message stream, in bytes.
    pub(crate) fn received(&self) -> u64 {
        self.shared.machine.lock().received()
    }

    /// The next message, datagram or stream; `None` once the session has ended.
    pub(crate) async fn recv(&self) -> Option<Event> {
        loop {
            let happened = self.shared.happened.notified();
            let event = self.shared.machine.lock().poll_event();
            self.shared.changed.notify_one();
            match event {
                Some(Event::Opened) => {}
                Some(Event::Closed(_)) => return None,
                Some(event) => return Some(event),
                None => happened.await,
            }
        }
    }

    #[track_caller]
    pub(crate) fn message(&self) -> impl Future<Output = Message> {
        let transport = self.transport;
        within("a message", async move {
            loop {
                match self.recv().await {
                    Some(Event::Message(message)) => return message,
                    Some(_) => {}
                    None => panic!("{transport}: the session ended ({:?})", self.shared.machine.lock().closed()),
                }
            }
        })
    }

    #[track_caller]
    pub(crate) fn datagram(&self) -> impl Future<Output = Bytes> {
        let transport = self.transport;
        within("a datagram", async move {
            loop {
                match self.recv().await {
                    Some(Event::Datagram(datagram)) => return datagram,
                    Some(_) => {}
                    None => panic!("{transport}: the session ended ({:?})", self.shared.machine.lock().closed()),
                }
            }
        })
    }

    /// The next stream that the server opens.
    #[track_caller]
    pub(crate) fn stream(&self) -> impl Future<Output = u64> {
        let transport = self.transport;
        within("a stream", async move {
            loop {
                match self.recv().await {
                    Some(Event::Stream(stream)) => return stream,
                    Some(_) => {}
                    None => panic!("{transport}: the session ended ({:?})", self.shared.machine.lock().closed()),
                }
            }
        })
    }

    /// Sends a message, when there is room for it.
    pub(crate) async fn send(&self, message: impl Into<Message>) -> Result<(), Close> {
        let message = message.into();
        loop {
            let happened = self.shared.happened.notified();
            match self.try_send(message.clone()) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full) => within("room for a message", happened).await,
                Err(TrySendError::Closed(close)) => return Err(close),
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn try_send(&self, message: impl Into<Message>) -> Result<(), TrySendError> {
        self.change(|machine| machine.send(message.into()))
    }

    pub(crate) fn send_datagram(
        &self,
        datagram: impl Into<Datagram>,
        key: Option<u64>,
    ) -> Result<(), SendDatagramError> {
        self.change(|machine| machine.send_datagram(datagram.into(), key))
    }

    /// Does something to the machine that it may want to tell the server.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Machine) -> T) -> T {
        let changed = change(&mut self.shared.machine.lock());
        self.shared.changed.notify_one();
        changed
    }

    /// Waits until `condition` gives something.
    #[track_caller]
    pub(crate) fn until<T>(
        &self,
        what: &str,
        mut condition: impl FnMut(&mut Machine) -> Option<T>,
    ) -> impl Future<Output = T> {
        within(what, async move {
            loop {
                let happened = self.shared.happened.notified();
                let met = condition(&mut self.shared.machine.lock());
                if let Some(value) = met {
                    self.shared.changed.notify_one(); // it may have changed something
                    return value;
                }
                happened.await;
            }
        })
    }

    // ---- streams ----

    #[track_caller]
    pub(crate) fn open_stream(&self) -> impl Future<Output = u64> {
        self.until("a stream to open", |machine| machine.open_stream().ok())
    }

    /// Writes all of it, as the server takes it.
    pub(crate) async fn write(&self, stream: u64, bytes: &[u8]) -> Result<(), StreamError> {
        let mut rest = Bytes::copy_from_slice(bytes);
        while !rest.is_empty() {
            let written = self
                .until("room in a stream", |machine| match machine.stream_write(stream, &rest) {
                    Ok(0) => None,
                    other => Some(other),
                })
                .await?;
            rest = rest.slice(written..);
        }
        Ok(())
    }

    pub(crate) fn finish(&self, stream: u64) {
        self.change(|machine| machine.stream_finish(stream)).expect("it was not ended");
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn read(&self, stream: u64) -> Result<Option<Bytes>, StreamError> {
        self.until("bytes of a stream", |machine| match machine.stream_read(stream, usize::MAX) {
            Ok(StreamRead::Data(bytes)) => Some(Ok(Some(bytes))),
            Ok(StreamRead::End) => Some(Ok(None)),
            Ok(StreamRead::Nothing) => None,
            Err(error) => Some(Err(error)),
        })
        .await
    }

    pub(crate) async fn read_to_end(&self, stream: u64) -> Result<Vec<u8>, StreamError> {
        let mut all = Vec::new();
        while let Some(bytes) = self.read(stream).await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// Bytes that came on streams of their own.
    pub(crate) fn native_bytes(&self) -> u64 {
        self.shared.native_bytes.load(Ordering::SeqCst)
    }

    pub(crate) fn close(&self, code: u32, reason: &str) {
        self.change(|machine| machine.close(now(), Close::application(code, reason)));
    }

    /// How the session ended.
    #[track_caller]
    pub(crate) fn closed(&self) -> impl Future<Output = Close> {
        self.until("the end of the session", |machine| machine.closed().cloned())
    }

    /// Waits until the connection is gone, whether the session has ended or waits for another.
    #[track_caller]
    pub(crate) fn has_no_link(&self) -> impl Future<Output = ()> {
        self.until("the end of the link", |machine| (!machine.has_link()).then_some(()))
    }

    /// How the connection ended, after the session had.
    pub(crate) async fn end(&self) -> Incoming {
        let end = self.end.lock().take().expect("asked once");
        within("the end of the connection", end).await.expect("the driver says it")
    }

    /// Reads nothing more until [`Client::resume`], as a page that is suspended.
    pub(crate) fn pause(&self) {
        self.shared.is_paused.store(true, Ordering::SeqCst);
    }

    pub(crate) fn resume(&self) {
        self.shared.is_paused.store(false, Ordering::SeqCst);
        self.shared.changed.notify_one();
    }

    /// Bytes that the server has not acknowledged.
    pub(crate) fn buffered_bytes(&self) -> u64 {
        self.shared.machine.lock().buffered_bytes()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.shared.machine.lock().stats()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A wire, and what is half read of it.
struct Attached {
    wire: Wire,
    decoder: Decoder,
    /// The native streams, by their numbers: decoder, and the session's stream.
    natives: HashMap<u64, (Decoder, Option<u64>)>,
}

impl Attached {
    fn frames(&mut self, bytes: &Bytes) -> Vec<Frame> {
        self.decoder.push(bytes.clone());
        let mut frames = Vec::new();
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => panic!("{}: the server's frame: {error}", self.wire.transport),
            }
        }
        // Elsewhere a packet has to end where a frame does.
        assert!(self.wire.transport == Transport::WebTransport || self.decoder.is_empty(), "half a frame");
        frames
    }
}

struct Driver {
    shared: Arc<Shared>,
    current: Option<Attached>,
    /// The link before, until the new one has said something.
    previous: Option<Attached>,
}

impl Driver {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, current: None, previous: None }
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>, ended: oneshot::Sender<Incoming>) {
        let end = loop {
            let (deadline, is_closed) = self.transmit();
            self.shared.happened.notify_waiters();
            if is_closed {
                // The server closes the connection; a client that did the closing could do it as well.
                match &mut self.current {
                    Some(current) => break within("the end of the connection", current.wire.end()).await,
                    None => break Incoming::Lost("there was no link".into()),
                }
            }
            let outgoing = self.current.as_ref().map(|current| current.wire.sender());
            let is_full = outgoing.as_ref().is_some_and(|outgoing| outgoing.capacity() == 0 && !outgoing.is_closed());
            let is_paused = self.shared.is_paused.load(Ordering::SeqCst);
            let pause = deadline.map_or(Duration::MAX, |at| Duration::from_micros(at.saturating_sub(now())));
            let room = async {
                match outgoing {
                    Some(outgoing) => drop(outgoing.reserve().await),
                    None => std::future::pending().await,
                }
            };
            let next = next_of(&mut self.current);
            let late = next_of(&mut self.previous);
            tokio::select! {
                incoming = next, if !is_paused => {
                    if let Some(end) = self.handle(incoming) {
                        break end;
                    }
                }
                incoming = late, if !is_paused => self.handle_late(incoming),
                command = commands.recv() => match command {
                    Some(Command::Take(wire)) => self.take(*wire),
                    Some(Command::Cut(done)) => {
                        if let Some(current) = self.current.take() {
                            current.wire.cut().await;
                        }
                        self.previous = None;
                        self.shared.machine.lock().link_lost(now(), "it was cut");
                        let _ = done.send(()); // who asked may have gone
                    }
                    None => return,
                },
                () = room, if is_full => {}
                () = self.shared.changed.notified() => {}
                () = tokio::time::sleep(pause.min(Duration::from_secs(3_600))) => {}
            }
        };
        self.shared.happened.notify_waiters();
        drop(ended.send(end));
    }

    fn take(&mut self, mut wire: Wire) {
        let traits = LinkTraits {
            native_datagrams: wire.native_datagrams,
            native_streams: wire.natives.is_some(),
            ..LinkTraits::default()
        };
        let first = wire.take_first();
        self.shared.machine.lock().link_opened(now(), traits);
        self.previous = self.current.replace(Attached { wire, decoder: Decoder::new(), natives: HashMap::new() });
        // WELCOME at once: what still comes on the link before would find the machine without a link.
        self.handle(Incoming::Bytes(first));
    }

    fn transmit(&mut self) -> (Option<Micros>, bool) {
        let mut machine = self.shared.machine.lock();
        machine.handle_timeout(now());
        if let Some(current) = &mut self.current {
            if let Some(natives) = &current.wire.natives {
                while let Some(id) = machine.poll_unrouted() {
                    let number = natives.open();
                    machine.route(id, number.is_some());
                    current.natives.extend(number.map(|number| (number, (Decoder::new(), Some(id)))));
                }
                current.natives.retain(|number, (_, id)| {
                    let Some(id) = *id else { return true };
                    while let Some(packet) = machine.poll_native(id, PACKET) {
                        natives.send(*number, packet.into_bytes());
                    }
                    if !machine.has_stream(id) {
                        natives.finish(*number);
                    }
                    machine.has_stream(id)
                });
            }
            let outgoing = current.wire.sender();
            while let Ok(permit) = outgoing.try_reserve() {
                if let Some(datagram) = machine.poll_datagram() {
                    permit.send(Outgoing::Datagram(datagram));
                } else if let Some(packet) = machine.poll_transmit(now(), PACKET) {
                    permit.send(Outgoing::Packet(packet.into_bytes()));
                } else {
                    break;
                }
            }
        }
        (machine.poll_timeout(), machine.closed().is_some())
    }

    /// Handles what came on the current link. Returns how it ended, when the session has ended with it.
    fn handle(&mut self, incoming: Incoming) -> Option<Incoming> {
        let Some(current) = &mut self.current else { return None };
        let mut machine = self.shared.machine.lock();
        match incoming {
            Incoming::Bytes(ref bytes) => {
                let frames = current.frames(bytes);
                if frames.iter().any(|frame| !matches!(frame, Frame::Welcome(_))) {
                    self.previous = None;
                }
                frames.into_iter().for_each(|frame| machine.handle_frame(now(), frame));
            }
            Incoming::Datagram(ref payload) => machine.handle_datagram(now(), payload.clone()),
            Incoming::Native(number, Some(bytes)) => {
                self.shared.native_bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                let (decoder, stream) = current.natives.entry(number).or_default();
                decoder.push(bytes);
                while let Some(frame) = decoder.next_frame().expect("the server's frames can be read") {
                    machine.handle_native_frame(now(), stream, frame).expect("the server keeps the rules");
                }
            }
            // How it ends says nothing, and the other direction goes on.
            Incoming::Native(_, None) => {}
            // SPEC section 7.5: the reason may be on its way down.
            Incoming::Post(ref refusal) if refusal.status == StatusCode::GONE => {}
            Incoming::Post(ref refusal) => {
                let code = Code::from_number(refusal.code() as u32).expect("a code of the table");
                machine.handle_violation(now(), Close::protocol(code, "a POST was refused"));
            }
            Incoming::Closed { code, ref reason } => {
                if machine.closing().is_some() {
                    machine.link_closed(code, reason);
                    return Some(incoming);
                }
                machine.link_lost(now(), reason);
                self.current = None;
            }
            Incoming::Lost(ref reason) => {
                machine.link_lost(now(), reason);
                if machine.closed().is_some() {
                    return Some(incoming);
                }
                self.current = None;
            }
        }
        None
    }

    /// What still comes on the link before.
    fn handle_late(&mut self, incoming: Incoming) {
        let Some(previous) = &mut self.previous else { return };
        match incoming {
            Incoming::Bytes(bytes) => {
                let frames = previous.frames(&bytes);
                let mut machine = self.shared.machine.lock();
                frames.into_iter().for_each(|frame| machine.handle_late_frame(now(), frame));
            }
            Incoming::Datagram(_) | Incoming::Native(..) | Incoming::Post(_) => {}
            Incoming::Closed { .. } | Incoming::Lost(_) => self.previous = None,
        }
    }
}

async fn next_of(attached: &mut Option<Attached>) -> Incoming {
    match attached {
        Some(attached) => attached.wire.next().await,
        None => std::future::pending().await,
    }
}

pub(crate) fn now() -> Micros {
    static START: std::sync::OnceLock<(Instant, Micros)> = std::sync::OnceLock::new();
    let (start, epoch) = START.get_or_init(|| {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        (Instant::now(), epoch.as_micros() as Micros)
    });
    epoch + start.elapsed().as_micros() as Micros
}
