//! One client: a [`Wire`] on its connections. It reads into a buffer that all clients share, so that ten thousand of them are cheap.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::wire::{Io, LANES, Wire};
use crate::Failure;

/// From the connection until the server has let a client in, while others come, too.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Clients that are let in at the same time: enough to keep a server busy, and fewer than fit into the shortest backlog.
const OPENING: usize = 64;

/// Clients with one source address. There are 28,000 ports for it, and those of the measurement before are not free yet.
const PER_SOURCE: usize = 1_000;

/// Read at once, in bytes.
const READ_MAX: usize = 65_536;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_MAX]);
}

/// Where a server listens, and what it expects there.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<TlsConnector>,
}

impl Target {
    /// Connects from one of several addresses of this machine.
    async fn connect(&self, number: usize) -> Result<Stream, Failure> {
        let socket = TcpSocket::new_v4()?;
        if self.address.ip().is_loopback() {
            let source = u8::try_from(2 + number / PER_SOURCE % 250)?;
            socket.bind((Ipv4Addr::new(127, 0, 0, source), 0).into())?;
        }
        socket.set_nodelay(true)?;
        let stream = socket.connect(self.address).await?;
        Ok(match &self.tls {
            None => Stream::Plain(stream),
            Some(tls) => {
                let stream = tls.connect(ServerName::try_from("localhost")?, stream).await?;
                Stream::Tls(Box::new(Secure { stream, is_unflushed: false }))
            }
        })
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<Secure>),
}

struct Secure {
    stream: TlsStream<TcpStream>,
    /// It has taken bytes that the connection may not have: tokio lets nobody write for ever, and then the connection takes nothing for a moment.
    is_unflushed: bool,
}

impl Stream {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(secure) => Pin::new(&mut secure.stream).poll_read(context, buffer),
        }
    }

    /// Writes from the front of `bytes` what the connection takes. Ready when it has all of it.
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &mut Vec<u8>) -> Poll<io::Result<()>> {
        let mut written = 0;
        while written < bytes.len() {
            let polled = match self {
                Self::Plain(stream) => Pin::new(stream).poll_write(context, &bytes[written..]),
                Self::Tls(secure) => {
                    secure.is_unflushed = true;
                    Pin::new(&mut secure.stream).poll_write(context, &bytes[written..])
                }
            };
            match polled {
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    bytes.drain(..written);
                    return Poll::Pending;
                }
            }
        }
        bytes.clear();
        match self {
            Self::Tls(secure) if secure.is_unflushed => {
                ready!(Pin::new(&mut secure.stream).poll_flush(context))?;
                secure.is_unflushed = false;
                Poll::Ready(Ok(()))
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// A client that the server has let in. Dropping it cuts its connections.
pub(crate) struct Client {
    commands: mpsc::UnboundedSender<Bytes>,
    task: JoinHandle<Driver>,
    failure: Rc<RefCell<Option<String>>>,
}

/// Gets what arrives for a client.
pub(crate) type OnMessage = Box<dyn FnMut(&[u8])>;

impl Client {
    /// Connects, and waits until the server has let the client in.
    pub(crate) async fn open(
        target: &Target,
        number: usize,
        wire: Box<dyn Wire>,
        on_message: OnMessage,
    ) -> Result<Self, Failure> {
        let driver = Driver {
            target: target.clone(),
            number,
            wire,
            on_message,
            lanes: [Lane::Idle, Lane::Idle],
            out: [Vec::new(), Vec::new()],
            timer: None,
        };
        Self::go_on(driver).await
    }

    async fn go_on(mut driver: Driver) -> Result<Self, Failure> {
        let opened = tokio::time::timeout(OPEN_TIMEOUT, driver.open()).await;
        opened.map_err(|_| "a client was not let in in time")??;
        let (commands, mut commanded) = mpsc::unbounded_channel();
        let failure = Rc::new(RefCell::new(None));
        let failed = Rc::clone(&failure);
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = poll_fn(|context| driver.poll(context, Some(&mut commanded))).await {
                *failed.borrow_mut() = Some(error.to_string());
            }
            driver
        });
        Ok(Self { commands, task, failure })
    }

    /// Sends a message. What cannot be sent is missing when it is counted.
    pub(crate) fn send(&self, message: Bytes) {
        drop(self.commands.send(message));
    }

    /// Why the conversation has ended, if it has.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// Cuts the connections, and says nothing to the server.
    pub(crate) async fn cut(self) -> Result<Cut, Failure> {
        drop(self.commands);
        let mut driver = self.task.await?;
        driver.lanes = [Lane::Idle, Lane::Idle];
        driver.out = [Vec::new(), Vec::new()];
        Ok(Cut(driver))
    }
}

/// A client without connections, which can come back.
pub(crate) struct Cut(Driver);

impl Cut {
    /// Connects again, and waits until the server has let it in. True if it went on where it was.
    pub(crate) async fn back(mut self) -> Result<(Client, bool), Failure> {
        let opened = tokio::time::timeout(OPEN_TIMEOUT, self.0.open()).await;
        opened.map_err(|_| "a client was not let in again in time")??;
        let is_resumed = self.0.wire.is_resumed();
        Ok((Client::go_on(self.0).await?, is_resumed))
    }
}

/// Opens many clients, a few at a time. `make` gives each its wire and its ear.
pub(crate) async fn open_many(
    target: &Target,
    numbers: std::ops::Range<usize>,
    mut make: impl FnMut(usize) -> (Box<dyn Wire>, OnMessage),
) -> Result<Vec<Client>, Failure> {
    let opening = numbers.map(|number| {
        let (wire, on_message) = make(number);
        Client::open(target, number, wire, on_message)
    });
    stream::iter(opening).buffer_unordered(OPENING).try_collect().await
}

/// What moves the bytes of one client.
struct Driver {
    target: Target,
    number: usize,
    wire: Box<dyn Wire>,
    on_message: OnMessage,
    lanes: [Lane; LANES],
    out: [Vec<u8>; LANES],
    /// Never later than the wire's deadline.
    timer: Option<Pin<Box<Sleep>>>,
}

enum Lane {
    /// Nothing was to be sent on it yet.
    Idle,
    Connecting(Pin<Box<dyn Future<Output = Result<Stream, Failure>>>>),
    Connected(Stream),
}

impl Driver {
    /// Connects the first lane, unless it is, and goes on until the server has let the client in.
    async fn open(&mut self) -> Result<(), Failure> {
        if matches!(self.lanes[0], Lane::Idle) {
            self.lanes[0] = Lane::Connected(self.target.connect(self.number).await?);
            self.tell(|wire, io| {
                wire.start(io);
                Ok(())
            })?;
        }
        poll_fn(|context| self.poll(context, None)).await
    }

    /// Does what can be done now. Without commands it is ready when the wire is open and all is written, and with them when there will be no more.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut commands: Option<&mut mpsc::UnboundedReceiver<Bytes>>,
    ) -> Poll<Result<(), Failure>> {
        if let Some(commands) = &mut commands {
            while let Poll::Ready(command) = commands.poll_recv(context) {
                let Some(message) = command else { return Poll::Ready(Ok(())) };
                self.tell(|wire, io| wire.send(&message, io))?;
            }
        }
        for lane in 0..LANES {
            self.read(lane, context)?;
        }
        self.keep_time(context)?;
        let mut is_written = true;
        for lane in 0..LANES {
            is_written &= self.write(lane, context)?;
        }
        if commands.is_none() && is_written && self.wire.is_open() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Reads what there is on a lane.
    fn read(&mut self, lane: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        BUFFER.with_borrow_mut(|buffer| {
            while let Lane::Connected(stream) = &mut self.lanes[lane] {
                let mut buffer = ReadBuf::new(buffer);
                let Poll::Ready(read) = stream.poll_read(context, &mut buffer) else { break };
                read?;
                if buffer.filled().is_empty() {
                    if lane == 0 || !self.out[lane].is_empty() {
                        return Err("the server ended the connection".into());
                    }
                    // A connection for requests, which nobody has needed for a while.
                    self.lanes[lane] = Lane::Idle;
                    break;
                }
                self.tell(|wire, io| wire.take(lane, buffer.filled(), io))?;
            }
            Ok(())
        })
    }

    /// Writes what waits for a lane, and connects it if need be. True if nothing waits any more.
    fn write(&mut self, lane: usize, context: &mut Context<'_>) -> Result<bool, Failure> {
        loop {
            match &mut self.lanes[lane] {
                // Also when nothing waits: TLS may still hold some of what it has taken.
                Lane::Connected(stream) => {
                    let written = stream.poll_write(context, &mut self.out[lane]);
                    return if let Poll::Ready(written) = written {
                        written.map(|()| true).map_err(Into::into)
                    } else {
                        Ok(false)
                    };
                }
                _ if self.out[lane].is_empty() => return Ok(true),
                Lane::Connecting(connecting) => match connecting.as_mut().poll(context) {
                    Poll::Ready(stream) => {
                        self.lanes[lane] = Lane::Connected(stream?);
                        context.waker().wake_by_ref(); // it is to be read, too
                    }
                    Poll::Pending => return Ok(false),
                },
                Lane::Idle => {
                    let (target, number) = (self.target.clone(), self.number);
                    self.lanes[lane] = Lane::Connecting(Box::pin(async move { target.connect(number).await }));
                }
            }
        }
    }

    /// Calls the wire when its time has come. A timer that is early is left as it is: most deadlines only move on.
    fn keep_time(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        loop {
            let Some(deadline) = self.wire.deadline().map(Instant::from) else { return Ok(()) };
            if deadline <= Instant::now() {
                self.tell(|wire, io| wire.tick(io))?;
                continue;
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if timer.deadline() > deadline || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(context).is_pending() {
                return Ok(());
            }
        }
    }

    fn tell(&mut self, tell: impl FnOnce(&mut dyn Wire, &mut Io<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
        tell(self.wire.as_mut(), &mut Io { out: &mut self.out, message: &mut *self.on_message })
    }
}
