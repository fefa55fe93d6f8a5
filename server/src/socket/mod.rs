//! What a connection is to whoever holds it: bytes both ways, and a place among the listener's connections.
//!
//! hyper has a socket only [lent](Lent), for as long as HTTP is spoken on it. Whoever answers a request may ask for it
//! instead of giving a body ([`takeover`]); a WebSocket gets it by HTTP's own upgrade. An idle session then costs its socket and a
//! waker, and nothing of hyper's.

pub(crate) mod endless;
pub(crate) mod takeover;
pub(crate) mod tcp;
pub(crate) mod unwritten;

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;

use tcp::Tcp;

/// Read at once, at most, in bytes. It lies on the stack: an idle socket has no buffer.
pub(crate) const READ: usize = 16 * 1024;

/// A connection. It counts against the listener's limit until it is dropped, whatever is spoken on it.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Stream,
    /// What was read before it was known who it is for. It is read first.
    early: Bytes,
    /// Gives its place back when it is dropped.
    _slot: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Stream {
    Plain(Tcp),
    /// Boxed: a TLS connection is a kilobyte of state that a plain one should not carry.
    Tls(Box<TlsStream<Tcp>>),
    /// Somebody else's server, or a stream of HTTP/2.
    Upgraded(Box<TokioIo<Upgraded>>),
}

impl Socket {
    pub(crate) fn plain(stream: Tcp, slot: OwnedSemaphorePermit) -> Self {
        Self { stream: Stream::Plain(stream), early: Bytes::new(), _slot: Some(slot) }
    }

    pub(crate) fn tls(stream: TlsStream<Tcp>, slot: OwnedSemaphorePermit) -> Self {
        Self { stream: Stream::Tls(Box::new(stream)), early: Bytes::new(), _slot: Some(slot) }
    }

    /// What HTTP was upgraded from: the listener's own socket, where it is one.
    pub(crate) fn upgraded(upgraded: Upgraded) -> Self {
        match upgraded.downcast::<TokioIo<Lent>>() {
            Ok(Parts { io, read_buf, .. }) => {
                let mut socket = io.into_inner().socket;
                socket.rewind(read_buf);
                socket
            }
            Err(upgraded) => {
                let stream = Stream::Upgraded(Box::new(TokioIo::new(upgraded)));
                Self { stream, early: Bytes::new(), _slot: None }
            }
        }
    }

    /// These bytes are read once more, before all others.
    pub(crate) fn rewind(&mut self, bytes: Bytes) {
        self.early = match (bytes.is_empty(), self.early.is_empty()) {
            (true, _) => return,
            (false, true) => bytes,
            (false, false) => BytesMut::from_iter(bytes.iter().chain(&self.early)).freeze(),
        };
    }

    /// Whether there is something to read that was read once already.
    pub(crate) fn is_rewound(&self) -> bool {
        !self.early.is_empty()
    }

    /// Ready when there may be something to read.
    pub(crate) fn poll_awake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_rewound() {
            return Poll::Ready(Ok(()));
        }
        if let Stream::Plain(stream) = &self.stream {
            return stream.poll_read_ready(cx);
        }
        // Bytes of the layer below may mean nothing here, and it may have more than them.
        let mut first = [0];
        let mut buf = ReadBuf::new(&mut first);
        ready!(Pin::new(&mut *self).poll_read(cx, &mut buf))?;
        self.early = Bytes::copy_from_slice(buf.filled());
        Poll::Ready(Ok(()))
    }

    /// Reads what there is into `take`, at most [`READ`] bytes; 0 at the end.
    pub(crate) fn poll_take<R>(&mut self, cx: &mut Context<'_>, take: impl FnOnce(&[u8]) -> R) -> Poll<io::Result<R>> {
        let mut space = [MaybeUninit::uninit(); READ];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(self).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(take(buf.filled())))
    }
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().stream {
            Stream::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Stream::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            Stream::Upgraded(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_rewound() {
            let len = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..len]);
            self.early.advance(len);
            if self.early.is_empty() {
                self.early = Bytes::new(); // gives its memory back
            }
            return Poll::Ready(Ok(()));
        }
        delegate!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Upgraded(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_shutdown(cx))
    }
}

/// A socket while hyper has it.
#[derive(Debug)]
pub(crate) struct Lent {
    socket: Socket,
    /// Whether the last write or flush had to wait: then hyper still has something to write.
    blocked: Arc<AtomicBool>,
}

impl Lent {
    pub(crate) fn new(socket: Socket, blocked: Arc<AtomicBool>) -> Self {
        Self { socket, blocked }
    }

    pub(crate) fn into_socket(self) -> Socket {
        self.socket
    }

    fn note<T>(&self, result: Poll<T>) -> Poll<T> {
        self.blocked.store(result.is_pending(), Ordering::Relaxed);
        result
    }
}

impl AsyncRead for Lent {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Lent {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.note(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.socket).poll_flush(cx);
        self.note(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
