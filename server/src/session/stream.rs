//! A stream of bytes inside a session.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use throughline_protocol::Close;
use throughline_protocol::limits::STREAM_CHUNK;
use throughline_protocol::machine::{self, StreamRead};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shared::{Core, Shared};

/// An ordered, reliable, flow-controlled stream of bytes in both directions. It survives the links that carry it.
///
/// It is read and written as any [`AsyncRead`] and [`AsyncWrite`]; errors have a [`StreamError`] inside. `shutdown` ends the half that is
/// written, and the client reads an end. Dropped before that, this half is reset with code 0; dropped before it was read to its end, the other
/// half is stopped with code 0.
pub struct Stream {
    reader: StreamReader,
    writer: StreamWriter,
}

/// The half of a [`Stream`] that is read. Dropped before the end, the client is told to stop, with code 0.
pub struct StreamReader {
    handle: Arc<Handle>,
    /// It was read to its end.
    ended: bool,
    /// Nothing more is to be said when it is dropped.
    over: bool,
}

/// The half of a [`Stream`] that is written. Dropped before `shutdown`, it is reset with code 0.
pub struct StreamWriter {
    handle: Arc<Handle>,
    /// Nothing more is to be said when it is dropped.
    over: bool,
}

/// Why nothing can be read from a stream, or written to it, any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The client gave its half up, with this code.
    #[error("the client reset the stream with code {0}")]
    Reset(u32),
    /// The client reads no more, and says so with this code.
    #[error("the client stopped the stream with code {0}")]
    Stopped(u32),
    /// This half was ended, reset or stopped here before.
    #[error("this half of the stream has ended")]
    Ended,
    /// The session has ended.
    #[error("the session is closed ({0})")]
    Closed(Close),
}

/// Why a stream was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenStreamError {
    /// The session has ended, or is ending.
    #[error("the session is closed ({0}): open a new one")]
    Closed(Close),
}

impl Stream {
    pub(super) fn new(shared: &Arc<Shared>, id: u64) -> Self {
        let handle = Arc::new(Handle { shared: Arc::clone(shared), id });
        shared.lock().waiting.entry(id).or_default();
        Self {
            reader: StreamReader { handle: Arc::clone(&handle), ended: false, over: false },
            writer: StreamWriter { handle, over: false },
        }
    }

    /// The number of the stream within its session: odd when the client opened it, even when the server did.
    pub fn id(&self) -> u64 {
        self.reader.id()
    }

    /// Gives the half that is written up: the client reads an error with this code. Does nothing once that half has ended.
    pub fn reset(&mut self, code: u32) {
        self.writer.reset(code);
    }

    /// Tells the client to send no more, with this code, and drops what was not read.
    pub fn stop(&mut self, code: u32) {
        self.reader.stop(code);
    }

    /// The two halves, for different tasks.
    pub fn into_split(self) -> (StreamReader, StreamWriter) {
        (self.reader, self.writer)
    }
}

impl StreamReader {
    /// The number of the stream within its session.
    pub fn id(&self) -> u64 {
        self.handle.id
    }

    /// Tells the client to send no more, with this code, and drops what was not read.
    pub fn stop(&mut self, code: u32) {
        if !std::mem::replace(&mut self.over, true) {
            self.handle.change(|core, id| core.machine.stream_stop(id, code));
        }
    }
}

impl StreamWriter {
    /// The number of the stream within its session.
    pub fn id(&self) -> u64 {
        self.handle.id
    }

    /// Gives this half up: the client reads an error with this code. Does nothing once it has ended.
    pub fn reset(&mut self, code: u32) {
        if !std::mem::replace(&mut self.over, true) {
            self.handle.change(|core, id| core.machine.stream_reset(id, code));
        }
    }
}

impl AsyncRead for StreamReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ended || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        let (shared, id) = (&this.handle.shared, this.handle.id);
        let mut core = shared.lock();
        let read = core.machine.stream_read(id, buf.remaining());
        if matches!(read, Ok(StreamRead::Nothing)) {
            note(&mut core.waiting.entry(id).or_default().reader, cx);
            return Poll::Pending;
        }
        let owes = core.machine.owes();
        drop(core);
        if owes {
            shared.wake_driver();
        }
        match read {
            Ok(StreamRead::Data(data)) => buf.put_slice(&data),
            Ok(StreamRead::Nothing) => {}
            Ok(StreamRead::End) => (this.ended, this.over) = (true, true),
            Err(error) => return Poll::Ready(Err(StreamError::from(error).into())),
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let (shared, id) = (&self.handle.shared, self.handle.id);
        // Copied before the lock is taken, and in pieces that fit a frame: small ones are kept together.
        let data = Bytes::copy_from_slice(&buf[..buf.len().min(STREAM_CHUNK)]);
        let mut core = shared.lock();
        match core.machine.stream_write(id, &data) {
            Ok(0) if !buf.is_empty() => {
                note(&mut core.waiting.entry(id).or_default().writer, cx);
                Poll::Pending
            }
            Ok(written) => {
                drop(core);
                shared.wake_driver();
                Poll::Ready(Ok(written))
            }
            Err(error) => Poll::Ready(Err(StreamError::from(error).into())),
        }
    }

    /// Everything is on its way by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends this half. The client gets what was written before; this does not wait for it.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::replace(&mut self.over, true) {
            return Poll::Ready(Ok(()));
        }
        let finished = self.handle.change(|core, id| core.machine.stream_finish(id));
        Poll::Ready(finished.map_err(|error| StreamError::from(error).into()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.stop(0);
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.reset(0);
    }
}

/// What both halves share.
struct Handle {
    shared: Arc<Shared>,
    id: u64,
}

impl Handle {
    fn change<T>(&self, change: impl FnOnce(&mut Core, u64) -> T) -> T {
        let changed = change(&mut self.shared.lock(), self.id);
        self.shared.wake_driver();
        changed
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.change(|core, id| {
            core.waiting.remove(&id);
            core.machine.stream_release(id);
        });
    }
}

fn note(place: &mut Option<Waker>, cx: &mut Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

impl From<machine::StreamError> for StreamError {
    fn from(error: machine::StreamError) -> Self {
        match error {
            machine::StreamError::Reset(code) => Self::Reset(code),
            machine::StreamError::Stopped(code) => Self::Stopped(code),
            machine::StreamError::Ended => Self::Ended,
            machine::StreamError::Closed(close) => Self::Closed(close),
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
            StreamError::Stopped(_) | StreamError::Ended => io::ErrorKind::BrokenPipe,
            StreamError::Closed(_) => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReader").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamWriter").field("id", &self.id()).finish_non_exhaustive()
    }
}
