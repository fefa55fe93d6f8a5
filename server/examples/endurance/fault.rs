//! When a link breaks, and how: after so many bytes, counted over all its connections and both directions.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How a link breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Its connections end; both sides are told.
    Reset,
    /// Nothing passes any more, and nobody is told.
    Silence,
}

/// The fate of one link. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Fault(Arc<Fate>);

#[derive(Debug)]
struct Fate {
    /// Bytes that still pass.
    left: AtomicI64,
    is_silent: AtomicBool,
    broken: CancellationToken,
}

impl Fault {
    /// A link that lasts, until [`Fault::arm`] says otherwise.
    pub(crate) fn never() -> Self {
        let fate = Fate { left: i64::MAX.into(), is_silent: false.into(), broken: CancellationToken::new() };
        Self(Arc::new(fate))
    }

    /// Breaks the link after `bytes` more; 0 does it now.
    pub(crate) fn arm(&self, bytes: u64, how: How) {
        self.0.is_silent.store(how == How::Silence, Ordering::SeqCst);
        self.0.left.store(bytes as i64, Ordering::SeqCst);
        if bytes == 0 {
            self.0.broken.cancel();
        }
    }

    /// How many of `wanted` bytes pass. When it is fewer, the link breaks behind them.
    pub(crate) fn pass(&self, wanted: usize) -> usize {
        if self.how().is_some() {
            return 0;
        }
        let left = self.0.left.fetch_sub(wanted as i64, Ordering::SeqCst);
        if left > wanted as i64 {
            return wanted;
        }
        self.0.broken.cancel();
        left.max(0) as usize
    }

    /// How it broke; `None` while it has not.
    pub(crate) fn how(&self) -> Option<How> {
        let how = if self.0.is_silent.load(Ordering::SeqCst) { How::Silence } else { How::Reset };
        self.0.broken.is_cancelled().then_some(how)
    }

    /// Waits until it breaks.
    pub(crate) fn broken(&self) -> WaitForCancellationFutureOwned {
        self.0.broken.clone().cancelled_owned()
    }
}

/// A TCP connection of a link with this fate.
pub(crate) async fn connect(to: SocketAddr, from: Ipv4Addr, fault: &Fault) -> io::Result<Breakable> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    // When a cut drops it, the other side gets a reset, and not an end in good order.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let waits = || Box::pin(fault.broken());
    Ok(Breakable { stream: Some(stream), fault: fault.clone(), read_broken: waits(), write_broken: waits() })
}

/// A TCP connection that breaks when its link does.
pub(crate) struct Breakable {
    /// None after a reset.
    stream: Option<TcpStream>,
    fault: Fault,
    /// Each wakes its own half.
    read_broken: Pin<Box<WaitForCancellationFutureOwned>>,
    write_broken: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Breakable {
    /// What a half sees of a link that has broken.
    fn gone<T>(&mut self) -> Poll<io::Result<T>> {
        match self.fault.how() {
            Some(How::Silence) => Poll::Pending,
            _ => {
                self.stream = None;
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
    }
}

impl AsyncRead for Breakable {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.fault.how().is_some() || this.read_broken.as_mut().poll(context).is_ready() {
            return this.gone();
        }
        let Some(stream) = &mut this.stream else { return this.gone() };
        let before = buf.filled().len();
        let read = Pin::new(stream).poll_read(context, buf);
        let arrived = buf.filled().len() - before;
        if arrived > 0 {
            buf.set_filled(before + this.fault.pass(arrived));
            if buf.filled().len() == before {
                return this.gone(); // nothing read would be an end in good order
            }
        }
        read
    }
}

impl AsyncWrite for Breakable {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.fault.how().is_some() || this.write_broken.as_mut().poll(context).is_ready() {
            return this.gone();
        }
        let left = usize::try_from(this.fault.0.left.load(Ordering::SeqCst)).unwrap_or(0);
        let Some(stream) = this.stream.as_mut().filter(|_| left > 0) else { return this.gone() };
        let written = Pin::new(stream).poll_write(context, &bytes[..bytes.len().min(left)]);
        if let Poll::Ready(Ok(written)) = written {
            this.fault.pass(written);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_flush(context),
            None => self.gone(),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_shutdown(context),
            None => self.gone(),
        }
    }
}
