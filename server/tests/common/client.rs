//! A well-behaved client: the protocol crate's machine over a wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use throughline::Transport;
use throughline_protocol::limits::MAX_PACKET;
use throughline_protocol::machine::{Config, Machine};
use throughline_protocol::{
    Close, Code, Datagram, Decoder, Event, Message, Micros, SendDatagramError, SessionId, Stats, TrySendError, Welcome,
};
use tokio::sync::{Notify, oneshot};
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
    driver: JoinHandle<()>,
    end: Mutex<Option<oneshot::Receiver<Incoming>>>,
}

struct Shared {
    machine: Mutex<Machine>,
    /// Wakes the driver.
    changed: Notify,
    /// Wakes who waits for the machine.
    happened: Notify,
    /// Whether the driver leaves alone what the server sends.
    is_paused: AtomicBool,
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
        let mut machine = Machine::client(Config::default());
        machine.link_opened(now(), wire.native_datagrams, None);
        let shared = Arc::new(Shared {
            machine: Mutex::new(machine),
            changed: Notify::new(),
            happened: Notify::new(),
            is_paused: AtomicBool::new(false),
        });
        let (transport, welcome) = (wire.transport, wire.welcome.clone());
        let (ended, end) = oneshot::channel();
        let driver = tokio::spawn(drive(Arc::clone(&shared), wire, ended));
        let opened = async {
            loop {
                let happened = shared.happened.notified();
                if shared.machine.lock().is_established() {
                    return;
                }
                happened.await;
            }
        };
        within("WELCOME", opened).await;
        Self { transport, welcome, shared, driver, end: Mutex::new(Some(end)) }
    }

    pub(crate) fn id(&self) -> SessionId {
        self.welcome.session
    }

    /// The next message or datagram; `None` once the session has ended.
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
        let result = self.shared.machine.lock().send(message.into());
        self.shared.changed.notify_one();
        result
    }

    pub(crate) fn send_datagram(
        &self,
        datagram: impl Into<Datagram>,
        key: Option<u64>,
    ) -> Result<(), SendDatagramError> {
        let result = self.shared.machine.lock().send_datagram(datagram.into(), key);
        self.shared.changed.notify_one();
        result
    }

    pub(crate) fn close(&self, code: u32, reason: &str) {
        self.shared.machine.lock().close(now(), Close::application(code, reason));
        self.shared.changed.notify_one();
    }

    /// How the session ended.
    #[track_caller]
    pub(crate) fn closed(&self) -> impl Future<Output = Close> {
        within("the end of the session", async {
            loop {
                let happened = self.shared.happened.notified();
                if let Some(close) = self.shared.machine.lock().closed() {
                    return close.clone();
                }
                happened.await;
            }
        })
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

async fn drive(shared: Arc<Shared>, mut wire: Wire, ended: oneshot::Sender<Incoming>) {
    let mut decoder = Decoder::new();
    let outgoing = wire.sender();
    let end = loop {
        let (deadline, closed) = {
            let mut machine = shared.machine.lock();
            machine.handle_timeout(now());
            while let Ok(permit) = outgoing.try_reserve() {
                if let Some(datagram) = machine.poll_datagram() {
                    permit.send(Outgoing::Datagram(datagram));
                } else if let Some(packet) = machine.poll_transmit(now(), PACKET) {
                    permit.send(Outgoing::Packet(packet.into_bytes()));
                } else {
                    break;
                }
            }
            (machine.poll_timeout(), machine.closed().cloned())
        };
        shared.happened.notify_waiters();
        if closed.is_some() && !outgoing.is_closed() {
            // The server closes the connection; a client that did the closing could do it as well.
            break within("the end of the connection", wire.end()).await;
        }
        let is_full = outgoing.capacity() == 0;
        let is_paused = shared.is_paused.load(Ordering::SeqCst);
        let pause = deadline.map_or(Duration::MAX, |at| Duration::from_micros(at.saturating_sub(now())));
        tokio::select! {
            incoming = wire.next(), if !is_paused => {
                let mut machine = shared.machine.lock();
                match incoming {
                    Incoming::Bytes(ref bytes) => {
                        decoder.push(bytes.clone());
                        loop {
                            match decoder.next_frame() {
                                Ok(Some(frame)) => machine.handle_frame(now(), frame),
                                Ok(None) => break,
                                Err(error) => panic!("{}: the server's frame: {error}", wire.transport),
                            }
                        }
                        // Elsewhere a packet has to end where a frame does.
                        assert!(wire.transport == Transport::WebTransport || decoder.is_empty(), "half a frame");
                    }
                    Incoming::Datagram(ref payload) => machine.handle_datagram(now(), payload.clone()),
                    // SPEC section 7.5: the reason may be on its way down.
                    Incoming::Post(ref refusal) if refusal.status == StatusCode::GONE => {}
                    Incoming::Post(ref refusal) => {
                        let code = Code::from_number(refusal.code() as u32).expect("a code of the table");
                        machine.handle_violation(now(), Close::protocol(code, "a POST was refused"));
                    }
                    Incoming::Closed { code, ref reason } => machine.link_closed(code, reason),
                    Incoming::Lost(ref reason) => machine.link_lost(reason),
                }
                if let Incoming::Closed { .. } | Incoming::Lost(_) = incoming {
                    break incoming;
                }
            }
            _ = outgoing.reserve(), if is_full => {}
            () = shared.changed.notified() => {}
            () = tokio::time::sleep(pause.min(Duration::from_secs(3_600))) => {}
        }
    };
    shared.happened.notify_waiters();
    drop(ended.send(end));
}

fn now() -> Micros {
    static START: std::sync::OnceLock<(Instant, Micros)> = std::sync::OnceLock::new();
    let (start, epoch) = START.get_or_init(|| {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        (Instant::now(), epoch.as_micros() as Micros)
    });
    epoch + start.elapsed().as_micros() as Micros
}
