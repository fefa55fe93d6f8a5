//! What was taken to be written, and is not written yet.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, ReadBuf};

use super::Socket;

/// Pieces that go into one system call. A packet has few; what has more takes several calls.
const MAX_SLICES: usize = 16;

/// What is joined on the stack, in bytes, instead of being written as pieces: copying it costs less than they would.
pub(crate) const JOINED: usize = 4 * 1_024;

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

    /// Writes as much as the socket takes now. False when something is left, or the connection has failed: [`poll_write`](Self::poll_write) says which.
    pub(crate) fn write_now(&mut self, socket: &mut Socket) -> bool {
        matches!(self.poll_write(socket, &mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    }

    /// The same with pieces of at most [`JOINED`] bytes, which need neither memory nor a call that gathers them, as long as the socket takes them. Only when nothing else waits.
    pub(crate) fn join_and_write<'a>(&mut self, socket: &mut Socket, pieces: impl Iterator<Item = &'a [u8]>) -> bool {
        debug_assert!(self.is_empty());
        let mut space = [MaybeUninit::uninit(); JOINED];
        let mut joined = ReadBuf::uninit(&mut space);
        pieces.for_each(|piece| joined.put_slice(piece));
        let mut cx = Context::from_waker(Waker::noop());
        let written = match Pin::new(&mut *socket).poll_write(&mut cx, joined.filled()) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(_)) | Poll::Pending => 0, // what has failed fails again
        };
        match &joined.filled()[written..] {
            [] => self.unflushed = true,
            rest => self.put(vec![Bytes::copy_from_slice(rest)]),
        }
        self.write_now(socket)
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
