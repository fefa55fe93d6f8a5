//! What the application holds of a session.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use throughline_protocol::limits::MAX_DATAGRAM;
use throughline_protocol::machine::Event as MachineEvent;
use throughline_protocol::{
    Close, Code, Datagram, Machine, Message, Micros, Origin, SendDatagramError, SessionId, Stats, TrySendError,
};
use tokio::sync::Notify;

use crate::transport::Transport;
use crate::transport::link::NativeDatagrams;

/// One session: a durable conversation with one client. Clones are handles to the same session.
///
/// A session begins when its client has chosen a link, and ends with [`Session::close`], with the client's, or when its link is lost.
#[derive(Clone)]
pub struct Session(Arc<Shared>);

/// What a session received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A message: ordered, reliable.
    Message(Message),
    /// A datagram of at most 1,100 bytes: unreliable. Up to 256 wait for [`Session::recv`]; then the oldest go.
    Datagram(Bytes),
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The application's code, or the protocol's (SPEC section 8).
    pub code: u32,
    /// For a person.
    pub reason: String,
    /// Whether an application chose the code.
    pub application: bool,
}

/// Who is behind a session: what [`authenticate`](crate::Builder::authenticate) found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Identity {
    /// The user, if known.
    pub user: Option<String>,
    /// Whatever else the application wants to remember about him.
    pub claims: serde_json::Value,
}

impl Identity {
    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// A user by name or id.
    pub fn user(user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), claims: serde_json::Value::Null }
    }
}

/// Why [`Session::send`] did not take a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The session has ended.
    #[error("the session is closed ({0}): open a new one to send")]
    Closed(Close),
    /// The message is longer than the session allows.
    #[error("a message of {len} bytes; at most {max} are allowed in this session: send it in parts")]
    TooLarge {
        /// Its length, in bytes.
        len: usize,
        /// The longest allowed, in bytes.
        max: usize,
    },
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// The session's id. Not a secret.
    pub fn id(&self) -> SessionId {
        self.0.id
    }

    /// What carries the session now; `None` while nothing does.
    pub fn transport(&self) -> Option<Transport> {
        Some(self.0.transport)
    }

    /// Where the client is, as far as it is known: behind a trusted proxy, what that proxy says.
    pub fn remote_addr(&self) -> Option<IpAddr> {
        self.0.remote
    }

    /// Who is behind it.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The next event. `None` once the session has ended and everything that arrived before was delivered. Cancel-safe.
    ///
    /// A client may send at most the receive window beyond what was taken here: an application that stops receiving stops its client.
    pub async fn recv(&self) -> Option<Event> {
        loop {
            let notified = self.0.incoming.notified();
            match self.0.next_event() {
                Next::Event(MachineEvent::Opened) => {}
                Next::Event(MachineEvent::Message(message)) => return Some(Event::Message(message)),
                Next::Event(MachineEvent::Datagram(bytes)) => return Some(Event::Datagram(bytes)),
                Next::Event(MachineEvent::Closed(_)) | Next::Ended => return None,
                Next::Nothing => notified.await,
            }
        }
    }

    /// Sends a message, after those before it. Waits while the session's buffer of unacknowledged bytes is full.
    ///
    /// # Errors
    /// [`SendError`]; the message was then not sent.
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        let message = message.into();
        loop {
            let room = self.0.room.notified();
            match self.try_send(message.clone()) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full) => room.await,
                Err(TrySendError::Closed(close)) => return Err(SendError::Closed(close)),
                Err(TrySendError::TooLarge { len, max }) => return Err(SendError::TooLarge { len, max }),
            }
        }
    }

    /// Sends a message if the session's buffer has room for it now.
    ///
    /// # Errors
    /// [`TrySendError`]; the message was then not sent.
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), TrySendError> {
        self.0.lock().send(message.into())?;
        self.0.wake_driver();
        Ok(())
    }

    /// Sends a datagram: unreliable, and newest wins. While it waits, a newer one with the same `key` takes its place;
    /// without a key it waits in a place of its own. Never waits itself. To send the same to many sessions, make one
    /// [`Datagram`] and clone it.
    ///
    /// # Errors
    /// [`SendDatagramError`]: the session has ended, or the datagram is longer than 1,100 bytes.
    pub fn send_datagram(
        &self,
        datagram: impl Into<Datagram>,
        key: impl Into<Option<u64>>,
    ) -> Result<(), SendDatagramError> {
        let (datagram, key) = (datagram.into(), key.into());
        let mut machine = self.0.lock();
        // A path may take more than the protocol allows: the limit is the same on every transport. And Chromium delivers
        // nothing more after an empty one.
        let fits = |native: &dyn NativeDatagrams| (1..=native.max_len().min(MAX_DATAGRAM)).contains(&datagram.len());
        let native = self.0.native.as_deref().filter(|native| machine.is_open() && fits(*native));
        let Some(native) = native else {
            machine.send_datagram(datagram, key)?;
            drop(machine);
            self.0.wake_driver();
            return Ok(());
        };
        // QUIC's own short queue takes it at once: no need to wake the driver for it.
        machine.count_native_datagram(datagram.len());
        drop(machine);
        native.send(&datagram.payload());
        Ok(())
    }

    /// Ends the session with a code of the application's own. What was sent before still goes out, if the client takes it within three seconds.
    /// Does nothing when the session has ended already. A reason over 1,024 bytes is cut.
    pub fn close(&self, code: u32, reason: &str) {
        self.0.close(Close::application(code, reason));
    }

    /// Waits for the end of the session, and says how it was.
    pub async fn closed(&self) -> Closed {
        loop {
            let notified = self.0.incoming.notified();
            if let Some(close) = self.0.lock().closed() {
                return close.into();
            }
            notified.await;
        }
    }

    /// Bytes of messages that the client has not acknowledged yet.
    pub fn buffered_bytes(&self) -> u64 {
        self.0.lock().buffered_bytes()
    }

    /// Counters, and the round-trip time.
    pub fn stats(&self) -> Stats {
        self.0.lock().stats()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.0.id).field("transport", &self.0.transport).finish_non_exhaustive()
    }
}

impl From<&Close> for Closed {
    fn from(close: &Close) -> Self {
        Self { code: close.code, reason: close.reason.clone(), application: close.origin == Origin::Application }
    }
}

/// What the handles, the driver and the uplink of one session share.
pub(crate) struct Shared {
    pub(crate) id: SessionId,
    pub(crate) transport: Transport,
    pub(crate) remote: Option<IpAddr>,
    pub(crate) identity: Identity,
    pub(crate) opened: Instant,
    /// The client has said CLOSE by POST: no request of its own can cross the end any more.
    pub(crate) left: AtomicBool,
    native: Option<Arc<dyn NativeDatagrams>>,
    machine: Mutex<Machine>,
    /// Wakes the driver: there is something to send.
    driver: AtomicWaker,
    /// Wakes [`Session::recv`] and [`Session::closed`].
    incoming: Notify,
    /// Wakes [`Session::send`].
    room: Notify,
}

impl Shared {
    pub(crate) fn new(
        machine: Machine,
        id: SessionId,
        transport: Transport,
        remote: Option<IpAddr>,
        identity: Identity,
        native: Option<Arc<dyn NativeDatagrams>>,
    ) -> Self {
        Self {
            id,
            transport,
            remote,
            identity,
            opened: Instant::now(),
            left: AtomicBool::new(false),
            native,
            machine: Mutex::new(machine),
            driver: AtomicWaker::new(),
            incoming: Notify::new(),
            room: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock()
    }

    pub(crate) fn register_driver(&self, waker: &std::task::Waker) {
        self.driver.register(waker);
    }

    pub(crate) fn wake_driver(&self) {
        self.driver.wake();
    }

    /// Tells the application's waiting calls that the machine has changed.
    pub(crate) fn notify_application(&self, machine: &Machine) {
        self.incoming.notify_waiters();
        if machine.has_room() || machine.closing().is_some() {
            self.room.notify_waiters();
        }
    }

    pub(crate) fn close(&self, close: Close) {
        let mut machine = self.lock();
        machine.close(now(), close);
        // A `send` that waits for room must not wait for its client as well.
        self.notify_application(&machine);
        drop(machine);
        self.wake_driver();
    }

    /// The link is gone, and nobody drives it any more. Says how the session ended, and whether it had ever been open.
    pub(crate) fn cut(&self, reason: &str) -> (Close, bool) {
        let mut machine = self.lock();
        machine.link_lost(reason);
        self.notify_application(&machine);
        let close = machine.closed().cloned().unwrap_or_else(|| Close::protocol(Code::LinkLost, reason));
        (close, machine.is_established())
    }

    /// Takes an event out. The credit that it frees may be worth an ACK.
    fn next_event(&self) -> Next {
        let mut machine = self.lock();
        let event = machine.poll_event();
        // Asked under the same lock: between two, a last message and CLOSE could arrive, and the message would be overlooked.
        let ended = machine.closed().is_some();
        let owes_ack = machine.owes_ack();
        drop(machine);
        if owes_ack {
            self.wake_driver();
        }
        match event {
            Some(event) => Next::Event(event),
            None if ended => Next::Ended,
            None => Next::Nothing,
        }
    }
}

/// What there is to take out.
enum Next {
    Event(MachineEvent),
    /// Nothing now.
    Nothing,
    /// Nothing, and nothing will come.
    Ended,
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
