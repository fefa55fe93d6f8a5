//! What the application holds of a session.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use throughline_protocol::machine::{self, Event as MachineEvent};
use throughline_protocol::{
    ChannelMessage, Close, Datagram, Mark, Message, Origin, SendDatagramError, SessionId, StateDatagram, StateSlot,
    Stats, TrySendError,
};

use super::Identity;
use super::channels::ChannelHandler;
use super::flusher::{Turn, send_soon, write};
use super::requests::{Answer, Request};
use super::shared::Shared;
use super::stream::{OpenStreamError, Stream};
use crate::transport::Transport;

/// One session: a durable conversation with one client. Clones are handles to the same session.
///
/// A session begins when its client has chosen a link. It goes on over as many links as it takes: when one is lost, it waits for the next, and
/// what is sent meanwhile waits, too. It ends with [`Session::close`], with the client's, or when it was without a link for `limits.resume_window`.
#[derive(Clone)]
pub struct Session(Arc<Shared>);

/// What a session received.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message: ordered, reliable.
    Message(Message),
    /// A datagram of at most 1,100 bytes: unreliable. Up to 256 wait for [`Session::recv`]; then the oldest go.
    Datagram(Bytes),
    /// A stream that the client has opened. Dropped, it is reset and stopped with code 0.
    Stream(Stream),
    /// Something that the client asks. Dropped without an answer, it fails.
    Request(Request),
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

/// The session has ended, or is ending.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the session is closed ({0})")]
pub(crate) struct Ended(pub(crate) Close);

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
        self.0.lock().carrier.as_ref().map(|carrier| carrier.transport)
    }

    /// Where the client's last link came from, as far as it is known: behind a trusted proxy, what that proxy says.
    pub fn remote_addr(&self) -> Option<IpAddr> {
        self.0.lock().remote
    }

    /// Who is behind it.
    ///
    /// The user stays the same; the rest is what [`authenticate`](crate::Builder::authenticate) has found last, for the session's newest link or for a
    /// token that its client has sent since.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.0.lock().credentials.identity)
    }

    /// The next event. `None` once the session has ended and everything that arrived before was delivered. Cancel-safe.
    ///
    /// A client may send at most the receive window beyond what was taken here: an application that stops receiving stops its client.
    pub async fn recv(&self) -> Option<Event> {
        loop {
            let notified = self.0.incoming.notified();
            match next_event(&self.0) {
                Next::Event(MachineEvent::Opened) => {}
                Next::Event(MachineEvent::Message(message)) => return Some(Event::Message(message)),
                Next::Event(MachineEvent::Datagram(bytes)) => return Some(Event::Datagram(bytes)),
                Next::Event(MachineEvent::Stream(id)) => return Some(Event::Stream(Stream::new(&self.0, id))),
                Next::Request(request) => return Some(Event::Request(request)),
                Next::Event(MachineEvent::Closed(_)) | Next::Ended => return None,
                Next::Nothing => notified.await,
            }
        }
    }

    /// Sends a message, after those before it. Waits while the session's buffer of unacknowledged bytes is full, as it soon is without a link.
    ///
    /// # Errors
    /// [`SendError`]; the message was then not sent.
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        let message = message.into();
        loop {
            let room = self.0.room.notified();
            let Some(sent) = unless_full(self.try_send(message.clone())) else {
                room.await;
                continue;
            };
            return sent;
        }
    }

    /// Sends a message if the session's buffer has room for it now.
    ///
    /// # Errors
    /// [`TrySendError`]; the message was then not sent.
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), TrySendError> {
        let message = message.into();
        let mut core = self.0.lock();
        core.machine.send(message)?;
        send_soon(&self.0, core);
        Ok(())
    }

    /// Sends a whole channel message, as [`ChannelMessage::encode`] makes it, if the session's buffer has room for it now. It is shared, not copied.
    ///
    /// # Errors
    /// [`TrySendError`]; the message was then not sent.
    pub(crate) fn try_send_channel(&self, message: Bytes) -> Result<(), TrySendError> {
        let mut core = self.0.lock();
        core.machine.send_channel(message)?;
        send_soon(&self.0, core);
        Ok(())
    }

    /// Sends `count` whole channel messages that lie one behind the other, if the session's buffer has room now, and writes them at once if the link lets.
    ///
    /// # Errors
    /// [`TrySendError`]; none was sent then.
    pub(crate) fn try_write_channels(&self, messages: Bytes, count: u64, turn: &mut Turn) -> Result<(), TrySendError> {
        let mut core = self.0.lock();
        core.machine.send_channels(messages, count)?;
        if core.has_link() {
            write(&self.0, core, turn);
        }
        Ok(())
    }

    /// Like [`try_send_channel`](Self::try_send_channel), but only while little of stream 0 waits to be sent or acknowledged, so that what is sent is not older
    /// than it must be.
    ///
    /// # Errors
    /// [`TrySendError`]: `Full` while more waits. The message was then not sent.
    pub(crate) fn try_send_fresh(&self, message: Bytes) -> Result<(), TrySendError> {
        let mut core = self.0.lock();
        if !core.machine.is_fresh() && core.machine.closing().is_none() {
            return Err(TrySendError::Full);
        }
        core.machine.send_channel(message)?;
        send_soon(&self.0, core);
        Ok(())
    }

    /// Waits until [`try_send_fresh`](Self::try_send_fresh) may work, or the session is ending.
    pub(crate) async fn fresh_room(&self) {
        loop {
            let room = self.0.room.notified();
            {
                let core = self.0.lock();
                if core.machine.is_fresh() || core.machine.closing().is_some() {
                    return;
                }
            }
            room.await;
        }
    }

    /// Sends a value of a channel of state, unreliably: while it waits, a newer one of the same slot takes its place. Never waits itself.
    ///
    /// # Errors
    /// The session has ended, or is ending.
    pub(crate) fn try_send_state(&self, slot: StateSlot, value: &StateDatagram) -> Result<(), Ended> {
        let mut core = self.0.lock();
        if let Some(native) = core.native(value.len(), Mark::State) {
            core.machine.count_native_datagram(value.len() + 1);
            drop(core);
            native.send(Some(Mark::State), &value.payload());
            return Ok(());
        }
        core.machine.send_state(slot, value.clone()).map_err(Ended)?;
        send_soon(&self.0, core);
        Ok(())
    }

    /// Who handles what is said about channels.
    pub(crate) fn channel_handler(&self) -> Option<&Arc<dyn ChannelHandler>> {
        self.0.channels()
    }

    /// Whoever handles channels begins something by itself, and is told of the session's end from now on. False when that was too late.
    pub(crate) fn begin_channels(&self) -> bool {
        self.0.begin_channels();
        !self.0.lock().over
    }

    /// Answers a request about channels, also when the buffer is full. Says nothing to a session that has ended.
    pub(crate) fn answer(&self, answer: &ChannelMessage) {
        let mut core = self.0.lock();
        drop(core.machine.answer_channel(answer.encode()));
        send_soon(&self.0, core);
    }

    /// Waits until the buffer may have room, or the session is ending.
    pub(crate) async fn room(&self) {
        let room = self.0.room.notified();
        let has_room = {
            let core = self.0.lock();
            core.machine.has_room() || core.machine.closing().is_some()
        };
        if !has_room {
            room.await;
        }
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
        let mut core = self.0.lock();
        let Some(native) = core.native(datagram.len(), Mark::Application) else {
            core.machine.send_datagram(datagram, key)?;
            send_soon(&self.0, core);
            return Ok(());
        };
        // QUIC's own short queue takes it at once: no need to wake the driver for it.
        let mark = core.machine.marks_datagrams().then_some(Mark::Application);
        core.machine.count_native_datagram(datagram.len() + usize::from(mark.is_some()));
        drop(core);
        native.send(mark, &datagram.payload());
        Ok(())
    }

    /// Asks the client something: it answers with any number of parts and an end, or with an error. The request goes out at once if the session's buffer has
    /// room for it, and otherwise when the [`Answer`] is awaited; in the order of the messages then. At most 100 are under way at once.
    pub fn request(&self, method: &str, data: impl Into<Option<Message>>) -> Answer {
        Answer::new(&self.0, method.into(), data.into())
    }

    /// Opens a stream: ordered, reliable bytes in both directions, beside the messages and without waiting for them. Waits while the client has as
    /// many open as it allows.
    ///
    /// # Errors
    /// [`OpenStreamError`]: the session has ended, or is ending.
    pub async fn open_stream(&self) -> Result<Stream, OpenStreamError> {
        loop {
            let changed = self.0.streams.notified();
            let opened = self.0.lock().machine.open_stream();
            match opened {
                Ok(id) => {
                    self.0.wake_driver();
                    return Ok(Stream::new(&self.0, id));
                }
                Err(machine::OpenStreamError::Full(_)) => changed.await,
                Err(machine::OpenStreamError::Closed(close)) => return Err(OpenStreamError::Closed(close)),
            }
        }
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
            if let Some(close) = self.0.lock().machine.closed() {
                return close.into();
            }
            notified.await;
        }
    }

    /// Bytes of messages that the client has not acknowledged yet.
    pub fn buffered_bytes(&self) -> u64 {
        self.0.lock().machine.buffered_bytes()
    }

    /// Counters, and the round-trip time.
    pub fn stats(&self) -> Stats {
        self.0.lock().machine.stats()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.0.id).field("transport", &self.transport()).finish_non_exhaustive()
    }
}

impl From<&Close> for Closed {
    fn from(close: &Close) -> Self {
        Self { code: close.code, reason: close.reason.clone(), application: close.origin == Origin::Application }
    }
}

/// What became of a message, unless it has to wait for room.
fn unless_full(sent: Result<(), TrySendError>) -> Option<Result<(), SendError>> {
    match sent {
        Ok(()) => Some(Ok(())),
        Err(TrySendError::Full) => None,
        Err(TrySendError::Closed(close)) => Some(Err(SendError::Closed(close))),
        Err(TrySendError::TooLarge { len, max }) => Some(Err(SendError::TooLarge { len, max })),
    }
}

/// What there is to take out.
enum Next {
    Event(MachineEvent),
    Request(Request),
    /// Nothing now.
    Nothing,
    /// Nothing, and nothing will come.
    Ended,
}

/// Takes an event out. What it frees may be worth a word to the client.
fn next_event(shared: &Arc<Shared>) -> Next {
    let mut guard = shared.lock();
    let core = &mut *guard;
    // In their order among the messages.
    let request = core.requests.as_mut().and_then(|requests| requests.take(&mut core.machine, shared));
    let event = if request.is_some() { None } else { core.machine.poll_event() };
    // Asked under the same lock: between two, a last message and CLOSE could arrive, and the message would be overlooked.
    let ended = core.machine.closed().is_some();
    let owes = core.machine.owes();
    drop(guard);
    if owes {
        shared.wake_driver();
    }
    match (request, event) {
        (Some(request), _) => Next::Request(request),
        (None, Some(event)) => Next::Event(event),
        (None, None) if ended => Next::Ended,
        (None, None) => Next::Nothing,
    }
}
