//! An answer that has no end for now: an event stream on a connection that was taken over for it. Its body comes in chunks (RFC 9112, section 7.1), which may be shared with other connections.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use tokio::io::AsyncWrite as _;

use super::Socket;
use super::takeover::Taken;
use super::unwritten::{JOINED, Unwritten};

/// The end of a body in chunks.
const LAST_CHUNK: Bytes = Bytes::from_static(b"0\r\n\r\n");

/// A connection with such an answer, and what it has not taken yet. Idle, it holds no buffer.
#[derive(Debug)]
pub(crate) struct Endless {
    socket: Socket,
    unwritten: Unwritten,
    /// The end of the body was taken, too.
    is_ending: bool,
}

impl Endless {
    /// Takes the head of the answer. Nothing follows on this connection.
    pub(crate) fn new(taken: Taken) -> Self {
        let head = taken.head(StatusCode::OK, format_args!("transfer-encoding: chunked\r\nconnection: close\r\n"));
        let mut unwritten = Unwritten::default();
        unwritten.put(vec![head]);
        Self { socket: taken.socket, unwritten, is_ending: false }
    }

    /// Whether everything that was taken is written.
    pub(crate) fn is_written(&self) -> bool {
        self.unwritten.is_empty()
    }

    /// Takes a chunk, as [`chunk`] makes it. Only when everything else is written.
    pub(crate) fn put(&mut self, chunk: Bytes) {
        self.unwritten.put(vec![chunk]);
    }

    /// Takes a chunk, and writes as much as the connection takes now. False when something is left, or it has failed: [`poll_write`](Self::poll_write) says which. Only when everything else is written.
    pub(crate) fn write_now(&mut self, chunk: Bytes) -> bool {
        if chunk.len() <= JOINED {
            return self.unwritten.join_and_write(&mut self.socket, std::iter::once(&chunk[..]));
        }
        self.put(chunk);
        self.unwritten.write_now(&mut self.socket)
    }

    /// Writes. Ready when there is nothing left to write.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unwritten.poll_write(&mut self.socket, cx)
    }

    /// Ready when the client has left. It has nothing to say here: what it says all the same is read once, and then no more.
    pub(crate) fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.socket.is_rewound() {
            return Poll::Pending;
        }
        let said = ready!(self.socket.poll_take(cx, |bytes| bytes.first().copied()));
        match said {
            Ok(Some(byte)) => {
                self.socket.rewind(vec![byte].into());
                Poll::Pending
            }
            Ok(None) | Err(_) => Poll::Ready(()),
        }
    }

    /// Ends the body, and the connection.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write(cx))?;
        if !std::mem::replace(&mut self.is_ending, true) {
            self.put(LAST_CHUNK);
            ready!(self.poll_write(cx))?;
        }
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Bytes of a body as a chunk of it. Of none there is none: it would be the end.
pub(crate) fn chunk(bytes: &[u8]) -> Bytes {
    debug_assert!(!bytes.is_empty());
    let mut chunk = Vec::with_capacity(bytes.len() + 12);
    // Writing into a Vec does not fail.
    let _ = write!(chunk, "{:x}\r\n", bytes.len());
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_says_how_long_it_is() {
        assert_eq!(chunk(b"a"), "1\r\na\r\n");
        assert_eq!(chunk(&[b'x'; 300]), format!("12c\r\n{}\r\n", "x".repeat(300)));
    }
}
