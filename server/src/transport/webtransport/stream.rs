//! The streams of a WebTransport session: quinn's, with WebTransport's error codes and an end that
//! is never an accident.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use quinn::VarInt;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::codes;

/// Why a stream cannot be read or written any more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub(crate) enum StreamError {
    /// The peer reset the stream, with this application code.
    #[error("the peer reset the stream with code {0}")]
    Reset(u32),
    /// The peer asked that no more be sent, with this application code.
    #[error("the peer stopped reading with code {0}")]
    Stopped(u32),
    /// The peer ended the stream with a code of HTTP/3, not of an application: usually because
    /// the session has ended.
    #[error("the peer ended the stream with HTTP/3 code {0:#x}")]
    Http3(u64),
    /// The connection was lost.
    #[error("the connection was lost: {0}")]
    ConnectionLost(quinn::ConnectionError),
    /// The stream was finished, reset or stopped on this side before.
    #[error("the stream was closed on this side")]
    Closed,
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Closed | StreamError::ConnectionLost(_) => io::ErrorKind::NotConnected,
            _ => io::ErrorKind::ConnectionReset,
        };
        Self::new(kind, error)
    }
}

impl From<quinn::ReadError> for StreamError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(code) => {
                codes::from_http3(code).map_or(Self::Http3(code.into_inner()), Self::Reset)
            }
            quinn::ReadError::ConnectionLost(error) => Self::ConnectionLost(error),
            _ => Self::Closed,
        }
    }
}

impl From<quinn::WriteError> for StreamError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::Stopped(code) => {
                codes::from_http3(code).map_or(Self::Http3(code.into_inner()), Self::Stopped)
            }
            quinn::WriteError::ConnectionLost(error) => Self::ConnectionLost(error),
            _ => Self::Closed,
        }
    }
}

/// Why a stream could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub(crate) enum OpenError {
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// The stream ended before its header was out, or the connection was lost.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// The sending half of a stream. Dropped before [`finish`](Self::finish), it is reset with code 0:
/// an end of the data is something that is said.
#[derive(Debug)]
pub(crate) struct SendStream {
    inner: quinn::SendStream,
    ended: bool,
}

impl SendStream {
    pub(super) fn new(inner: quinn::SendStream) -> Self {
        Self { inner, ended: false }
    }

    /// Writes from the front of `chunks`, without copying. What was written is advanced over: chunks
    /// that went whole are left empty, and [`quinn::Written::chunks`] counts them. Waits for credit
    /// when none can be written.
    pub(crate) fn poll_write_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<quinn::Written, StreamError>> {
        // The future keeps nothing between polls: quinn notes the waker with the stream.
        let write = pin!(self.inner.write_chunks(chunks));
        write.poll(cx).map_err(StreamError::from)
    }

    /// Writes all of `chunk`, without copying. Whatever part is not yet written when this is pending
    /// is left in `chunk`, to be given again.
    pub(crate) fn poll_write_all(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), StreamError>> {
        while !chunk.is_empty() {
            ready!(self.poll_write_chunks(cx, std::slice::from_mut(chunk)))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more will come. What was written is still delivered; this does not wait for it.
    /// Does nothing on a stream that has ended before.
    pub(crate) fn finish(&mut self) {
        self.ended = true;
        // An error means that it had ended already.
        let _ = self.inner.finish();
    }

    /// Gives the stream up: what was not delivered is dropped, and the peer sees `code`.
    pub(crate) fn reset(&mut self, code: u32) {
        self.reset_http3(codes::to_http3(code));
    }

    /// Resolves when the peer has all of a finished stream (`Ok`), or wants no more of it.
    pub(crate) fn stopped(&self) -> impl Future<Output = Result<(), StreamError>> + Send + 'static {
        let stopped = self.inner.stopped();
        async move {
            match stopped.await {
                Ok(None) => Ok(()),
                Ok(Some(code)) => Err(quinn::WriteError::Stopped(code).into()),
                Err(error) => Err(quinn::WriteError::from(error).into()),
            }
        }
    }

    /// Sets how this stream stands to the connection's others: higher goes first, 0 is the start.
    pub(crate) fn set_priority(&self, priority: i32) {
        // An error means that the stream has ended.
        let _ = self.inner.set_priority(priority);
    }

    /// The QUIC stream id.
    pub(crate) fn id(&self) -> u64 {
        VarInt::from(self.inner.id()).into_inner()
    }

    pub(super) fn reset_http3(&mut self, code: VarInt) {
        self.ended = true;
        // An error means that it had ended already.
        let _ = self.inner.reset(code);
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.ended {
            self.reset(0);
        }
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf));
        Poll::Ready(written.map_err(|error| StreamError::from(error).into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// [Finishes](SendStream::finish) the stream.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

/// The receiving half of a stream. Dropped before its end, the peer is told to stop, with code 0.
#[derive(Debug)]
pub(crate) struct RecvStream {
    inner: quinn::RecvStream,
    ended: bool,
}

impl RecvStream {
    pub(super) fn new(inner: quinn::RecvStream) -> Self {
        Self { inner, ended: false }
    }

    /// The next bytes in order, at most `max` of them, without copying; `None` at the end. They may
    /// be a part of a larger packet's memory: copy what is to be kept long.
    pub(crate) fn poll_read_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let chunk = ready!(poll_chunk(&mut self.inner, cx, max));
        self.ended |= !matches!(chunk, Ok(Some(_)));
        Poll::Ready(chunk.map_err(StreamError::from))
    }

    /// Tells the peer to stop sending, with `code`, and drops what was not read.
    pub(crate) fn stop(&mut self, code: u32) {
        self.stop_http3(codes::to_http3(code));
    }

    /// The QUIC stream id.
    pub(crate) fn id(&self) -> u64 {
        VarInt::from(self.inner.id()).into_inner()
    }

    pub(super) fn stop_http3(&mut self, code: VarInt) {
        self.ended = true;
        // An error means that it had ended already.
        let _ = self.inner.stop(code);
    }
}

/// Polls quinn's `read_chunk`, whose future keeps nothing between polls.
pub(super) fn poll_chunk(
    recv: &mut quinn::RecvStream,
    cx: &mut Context<'_>,
    max: usize,
) -> Poll<Result<Option<Bytes>, quinn::ReadError>> {
    let read = pin!(recv.read_chunk(max, true));
    read.poll(cx).map_ok(|chunk| chunk.map(|chunk| chunk.bytes))
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if !self.ended {
            self.stop(0);
        }
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(self.inner.poll_read_buf(cx, buf));
        self.ended |= read.is_err() || (buf.filled().len() == before && buf.remaining() > 0);
        Poll::Ready(read.map_err(|error| StreamError::from(error).into()))
    }
}
