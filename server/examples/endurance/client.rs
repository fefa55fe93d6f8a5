//! A client: the protocol crate's machine, over one link after another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use throughline::Transport;
use throughline_protocol::limits::MAX_PACKET;
use throughline_protocol::{
    Close, Config, Decoder, Event, Frame, LinkTraits, Machine, Message, Micros, StreamError, StreamRead, TrySendError,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::Failure;
use crate::fault::Fault;
use crate::link::{Incoming, Link, Place, Resume};

/// A session, as its client sees it. Dropping it cuts the connection.
pub(crate) struct Client {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    driver: JoinHandle<()>,
}

/// Goes on over this link; says when it does.
type Command = (Link, oneshot::Sender<()>);

struct Shared {
    state: Mutex<State>,
    /// Wakes the driver.
    changed: Notify,
    /// Wakes who waits for the machine.
    happened: Notify,
}

struct State {
    machine: Machine,
    /// Of the current link.
    fault: Fault,
    transport: Transport,
    /// On webtransport.
    endpoint: Option<quinn::Endpoint>,
    /// Links that were lost without having been cut.
    unexpected: Vec<String>,
}

impl Client {
    /// Opens a session.
    pub(crate) async fn open(place: &Place, transport: Transport, fault: &Fault) -> Result<Self, Failure> {
        let link = Link::open(place, transport, None, fault).await?;
        let machine = Machine::client(Config::default());
        let state = State { machine, fault: fault.clone(), transport, endpoint: None, unexpected: Vec::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new(), happened: Notify::new() });
        let (commands, commanded) = mpsc::unbounded_channel();
        let driver = Driver { shared: Arc::clone(&shared), current: None, previous: None };
        let client = Self { shared, commands, driver: tokio::spawn(driver.run(commanded)) };
        client.take(link).await;
        client.until(|machine| machine.is_established().then_some(())).await;
        Ok(client)
    }

    /// Opens a further link for the session. [`Client::take`] chooses it.
    pub(crate) async fn further(&self, place: &Place, transport: Transport, fault: &Fault) -> Result<Link, Failure> {
        let resume = self.resume().ok_or("the session was never open")?;
        let link = Link::open(place, transport, Some(&resume), fault).await?;
        if !link.welcome.resumed || link.welcome.session != resume.session {
            return Err(Gap.into());
        }
        Ok(link)
    }

    /// What names the session.
    pub(crate) fn resume(&self) -> Option<Resume> {
        let machine = &self.shared.state.lock().machine;
        let (session, key) = machine.identity()?;
        Some(Resume { session, key, received: machine.received() })
    }

    /// Goes on over this link; the one before is left when this one works.
    pub(crate) async fn take(&self, link: Link) {
        let (taken, is_taken) = oneshot::channel();
        if self.commands.send((link, taken)).is_ok() {
            drop(is_taken.await); // the driver has ended when the session has
        }
    }

    /// The transport and the fate of the current link, or of the last.
    pub(crate) fn link(&self) -> (Transport, Fault) {
        let state = self.shared.state.lock();
        (state.transport, state.fault.clone())
    }

    /// Of the current link, on webtransport.
    pub(crate) fn endpoint(&self) -> Option<quinn::Endpoint> {
        self.shared.state.lock().endpoint.clone()
    }

    /// Waits until the current link has been lost, or has been cut without anybody having been told.
    pub(crate) async fn link_gone(&self) {
        let fault = self.link().1;
        tokio::select! {
            () = self.until(|machine| (!machine.has_link()).then_some(())) => {}
            () = fault.broken() => {}
        }
    }

    /// Links that were lost without having been cut, in words.
    pub(crate) fn unexpected(&self) -> Vec<String> {
        self.shared.state.lock().unexpected.clone()
    }

    /// The next message or stream; `None` once the session has ended.
    pub(crate) async fn recv(&self) -> Option<Event> {
        loop {
            let happened = self.shared.happened.notified();
            let (event, owes, is_over) = {
                let machine = &mut self.shared.state.lock().machine;
                (machine.poll_event(), machine.owes(), machine.closed().is_some())
            };
            if owes {
                self.shared.changed.notify_one();
            }
            match event {
                Some(Event::Opened) => {}
                Some(Event::Closed(_)) => return None,
                Some(event) => return Some(event),
                None if is_over => return None,
                None => happened.await,
            }
        }
    }

    /// Sends a message, when there is room for it.
    pub(crate) async fn send(&self, message: Message) -> Result<(), Close> {
        loop {
            let happened = self.shared.happened.notified();
            match self.change(|machine| machine.send(message.clone())) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full) => happened.await,
                Err(TrySendError::Closed(close)) => return Err(close),
                Err(error) => return Err(Close::application(0, error.to_string())),
            }
        }
    }

    /// Does something to the machine that it may want to tell the server.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Machine) -> T) -> T {
        let changed = change(&mut self.shared.state.lock().machine);
        self.shared.changed.notify_one();
        changed
    }

    /// Waits until `condition` gives something.
    pub(crate) async fn until<T>(&self, mut condition: impl FnMut(&mut Machine) -> Option<T>) -> T {
        loop {
            let happened = self.shared.happened.notified();
            let met = condition(&mut self.shared.state.lock().machine);
            if let Some(value) = met {
                self.shared.changed.notify_one(); // it may have changed something
                return value;
            }
            happened.await;
        }
    }

    /// Writes all of it, as the server takes it, and ends this half of the stream.
    pub(crate) async fn write_to_end(&self, stream: u64, mut rest: Bytes) -> Result<(), StreamError> {
        while !rest.is_empty() {
            let write = |machine: &mut Machine| match machine.stream_write(stream, &rest) {
                Ok(0) => None,
                other => Some(other),
            };
            let written = self.until(write).await?;
            rest = rest.slice(written..);
        }
        self.change(|machine| machine.stream_finish(stream))
    }

    /// The next bytes of a stream; `None` at its end.
    pub(crate) async fn read(&self, stream: u64) -> Result<Option<Bytes>, StreamError> {
        self.until(|machine| match machine.stream_read(stream, usize::MAX) {
            Ok(StreamRead::Data(bytes)) => Some(Ok(Some(bytes))),
            Ok(StreamRead::End) => Some(Ok(None)),
            Ok(StreamRead::Nothing) => None,
            Err(error) => Some(Err(error)),
        })
        .await
    }

    /// Ends the session, and waits until that is said.
    pub(crate) async fn close(&self) {
        self.change(|machine| machine.close(now(), Close::application(0, "")));
        self.closed().await;
        drop(tokio::time::timeout(Duration::from_secs(2), self.commands.closed()).await);
    }

    /// How the session ended.
    pub(crate) async fn closed(&self) -> Close {
        self.until(|machine| machine.closed().cloned()).await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The server has the session no more, though it should.
#[derive(Debug, thiserror::Error)]
#[error("the server did not resume the session")]
pub(crate) struct Gap;

/// A link, and what is half read of it.
struct Attached {
    link: Link,
    /// The native streams, by their numbers: decoder, and the session's stream.
    natives: HashMap<u64, (Decoder, Option<u64>)>,
}

struct Driver {
    shared: Arc<Shared>,
    current: Option<Attached>,
    /// The link before, until the new one has said something.
    previous: Option<Attached>,
}

impl Driver {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            let (deadline, is_closed) = self.transmit();
            self.shared.happened.notify_waiters();
            if is_closed {
                return self.finish().await;
            }
            let outgoing = self.current.as_ref().map(|current| current.link.outgoing().clone());
            let is_full = outgoing.as_ref().is_some_and(|outgoing| outgoing.capacity() == 0 && !outgoing.is_closed());
            let pause = deadline.map_or(Duration::MAX, |at| Duration::from_micros(at.saturating_sub(now())));
            let room = async {
                match outgoing {
                    Some(outgoing) => drop(outgoing.reserve().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                incoming = next_of(&mut self.current) => self.handle(incoming),
                incoming = next_of(&mut self.previous) => self.handle_late(incoming),
                command = commands.recv() => {
                    let Some((link, taken)) = command else { return };
                    self.take(link);
                    let _ = taken.send(()); // who asked may have gone
                }
                () = room, if is_full => {}
                () = self.shared.changed.notified() => {}
                () = tokio::time::sleep(pause.min(Duration::from_secs(3_600))) => {}
            }
        }
    }

    /// The session has ended: what is said last still goes out, and the server ends the connection.
    async fn finish(mut self) {
        if let Some(current) = &mut self.current {
            let ended = async { while !matches!(current.link.next().await, Incoming::Lost(_)) {} };
            drop(tokio::time::timeout(Duration::from_secs(1), ended).await);
        }
    }

    fn take(&mut self, mut link: Link) {
        let traits = LinkTraits { native_streams: link.natives.is_some(), ..LinkTraits::default() };
        let mut state = self.shared.state.lock();
        state.fault = link.fault.clone();
        state.transport = link.transport;
        state.endpoint = link.connected.as_ref().map(|connected| connected.endpoint.clone());
        state.machine.link_opened(now(), traits);
        state.machine.handle_frame(now(), Frame::Welcome(link.welcome.clone()));
        let mut is_heard = false;
        while let Ok(Some(frame)) = link.decoder.next_frame() {
            is_heard = true;
            state.machine.handle_frame(now(), frame);
        }
        drop(state);
        self.previous = self.current.replace(Attached { link, natives: HashMap::new() });
        if is_heard {
            self.previous = None;
        }
    }

    fn transmit(&mut self) -> (Option<Micros>, bool) {
        let mut state = self.shared.state.lock();
        let machine = &mut state.machine;
        machine.handle_timeout(now());
        if let Some(current) = &mut self.current {
            if let Some(natives) = &current.link.natives {
                while let Some(id) = machine.poll_unrouted() {
                    let number = natives.open();
                    machine.route(id, number.is_some());
                    current.natives.extend(number.map(|number| (number, (Decoder::new(), Some(id)))));
                }
                for (number, (_, id)) in &current.natives {
                    let Some(id) = *id else { continue };
                    while let Some(packet) = machine.poll_native(id, MAX_PACKET) {
                        natives.send(*number, packet.into_bytes());
                    }
                    if !machine.has_stream(id) {
                        natives.finish(*number);
                    }
                }
            }
            while let Ok(permit) = current.link.outgoing().try_reserve() {
                match machine.poll_transmit(now(), MAX_PACKET) {
                    Some(packet) => permit.send(packet.into_bytes()),
                    None => break,
                }
            }
        }
        (machine.poll_timeout(), machine.closed().is_some())
    }

    /// Handles what came on the current link.
    fn handle(&mut self, incoming: Incoming) {
        let Some(current) = &mut self.current else { return };
        let mut state = self.shared.state.lock();
        let machine = &mut state.machine;
        match incoming {
            Incoming::Bytes(bytes) => {
                current.link.decoder.push(bytes);
                loop {
                    match current.link.decoder.next_frame() {
                        Ok(Some(frame)) => {
                            self.previous = None;
                            machine.handle_frame(now(), frame);
                        }
                        Ok(None) => break,
                        Err(error) => {
                            return machine.handle_violation(now(), Close::application(1, error.to_string()));
                        }
                    }
                }
            }
            Incoming::Native(number, Some(bytes)) => {
                let (decoder, stream) = current.natives.entry(number).or_default();
                decoder.push(bytes);
                while let Ok(Some(frame)) = decoder.next_frame() {
                    if let Err(close) = machine.handle_native_frame(now(), stream, frame) {
                        return machine.handle_violation(now(), close);
                    }
                }
            }
            Incoming::Native(number, None) => drop(current.natives.remove(&number)),
            Incoming::Lost(reason) => {
                machine.link_lost(now(), &reason);
                if current.link.fault.how().is_none() && state.machine.closed().is_none() {
                    let transport = current.link.transport;
                    state.unexpected.push(format!("{transport}: {reason}"));
                }
                drop(state);
                self.current = None;
            }
        }
    }

    /// What still comes on the link before.
    fn handle_late(&mut self, incoming: Incoming) {
        let Some(previous) = &mut self.previous else { return };
        let decoder = match &incoming {
            Incoming::Bytes(_) => &mut previous.link.decoder,
            Incoming::Native(number, _) => &mut previous.natives.entry(*number).or_default().0,
            Incoming::Lost(_) => return self.previous = None,
        };
        if let Incoming::Bytes(bytes) | Incoming::Native(_, Some(bytes)) = incoming {
            decoder.push(bytes);
        }
        let machine = &mut self.shared.state.lock().machine;
        while let Ok(Some(frame)) = decoder.next_frame() {
            machine.handle_late_frame(now(), frame);
        }
    }
}

async fn next_of(attached: &mut Option<Attached>) -> Incoming {
    match attached {
        Some(attached) => attached.link.next().await,
        None => std::future::pending().await,
    }
}

/// Microseconds since the Unix epoch, from a clock that never goes back.
pub(crate) fn now() -> Micros {
    static START: std::sync::OnceLock<(Instant, Micros)> = std::sync::OnceLock::new();
    let (start, epoch) = START.get_or_init(|| {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Instant::now(), epoch.as_micros() as Micros)
    });
    epoch + start.elapsed().as_micros() as Micros
}
