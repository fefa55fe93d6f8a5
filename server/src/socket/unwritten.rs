//! What was taken to be written, and is not written yet.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::Socket;

/// Pieces that go into one system call. A packet has few; what has more takes several calls.
const MAX_SLICES: usize = 16;

/// Longest head, in bytes: that of a WebSocket frame (RFC 6455, section 5.2, without a mask).
const MAX_HEAD: usize = 10;

/// A head of a few bytes, and pieces after it, which may be shared with other connections and are not copied. Holds no memory when everything is written.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    head: [u8; MAX_HEAD],
    /// What is left of the head: from, to.
    left: (u8, u8),
    pieces: Vec<Bytes>,
    /// The first piece that is not written.
    first: usize,
    /// Some of it may be in the buffer of a layer in between, such as TLS.
    unflushed: bool,
}

impl Unwritten {
    /// Takes pieces to write. Only when nothing else waits.
    pub(crate) fn put(&mut self, pieces: Vec<Bytes>) {
        debug_assert!(self.is_empty());
        (self.pieces, self.first, self.unflushed) = (pieces, 0, true);
    }

    /// Takes a head of at most 10 bytes, and what comes after it. Only when nothing else waits.
    pub(crate) fn put_behind(&mut self, head: &[u8], pieces: Vec<Bytes>) {
        self.put(pieces);
        self.head[..head.len()].copy_from_slice(head);
        self.left = (0, head.len() as u8);
    }

    /// Whether everything is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.left.0 == self.left.1 && self.first == self.pieces.len() && !self.unflushed
    }

    /// Writes. Ready when there is nothing left to write.
    pub(crate) fn poll_write(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.left.0 < self.left.1 || self.first < self.pieces.len() {
            if !socket.is_write_vectored() {
                self.join();
            }
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let head = &self.head[self.left.0 as usize..self.left.1 as usize];
            let parts = [head].into_iter().chain(self.pieces[self.first..].iter().map(|piece| &piece[..]));
            let mut count = 0;
            for (slice, part) in slices.iter_mut().zip(parts.filter(|part| !part.is_empty())) {
                *slice = IoSlice::new(part);
                count += 1;
            }
            if count == 0 {
                self.first = self.pieces.len(); // the pieces that were left are empty
                break;
            }
            let written = ready!(Pin::new(&mut *socket).poll_write_vectored(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        self.pieces = Vec::new();
        self.first = 0;
        if self.unflushed {
            ready!(Pin::new(socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Everything in one piece: where a write takes only one, each would be a frame of its own.
    fn join(&mut self) {
        let head = &self.head[self.left.0 as usize..self.left.1 as usize];
        if self.pieces.len() - self.first + usize::from(!head.is_empty()) < 2 {
            return;
        }
        let mut whole = BytesMut::from(head);
        self.pieces[self.first..].iter().for_each(|piece| whole.extend_from_slice(piece));
        (self.pieces, self.first, self.left) = (vec![whole.freeze()], 0, (0, 0));
    }

    fn advance(&mut self, mut written: usize) {
        let of_head = written.min((self.left.1 - self.left.0) as usize);
        self.left.0 += of_head as u8;
        written -= of_head;
        while let Some(piece) = self.pieces.get_mut(self.first) {
            if written < piece.len() {
                piece.advance(written);
                return;
            }
            written -= piece.len();
            *piece = Bytes::new(); // it is not needed any more
            self.first += 1;
        }
    }
}
