//! `h3::quic` over quinn.
//!
//! Incoming streams are told apart here, inside the polls by which h3 accepts them: those of a
//! WebTransport session go to the [`Table`], the others to h3, gated.

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, VarInt};
use tokio::time::Instant;
use tokio_util::sync::ReusableBoxFuture;

use super::{
    codes,
    gate::Gate,
    probe::{self, Failed, Kind, Probe},
    settings,
    stream::{self, RecvStream, SendStream},
    table::{Incoming, Table},
};

/// The most that is taken off a stream at once, in bytes: h3 looks at each piece as a whole.
const MAX_CHUNK: usize = 16 * 1024;
/// Pieces that a gate may swallow before other tasks get their turn.
const MAX_SWALLOWED: u32 = 32;

type Accept<T> = ReusableBoxFuture<'static, Result<T, ConnectionError>>;

/// A quinn connection as h3 sees it.
pub(super) struct Adapter {
    conn: quinn::Connection,
    table: Arc<Table>,
    // Kept from poll to poll: dropped ones would take their wakers with them.
    accept_bi: Accept<(quinn::SendStream, quinn::RecvStream)>,
    accept_uni: Accept<quinn::RecvStream>,
    opening: Option<Accept<quinn::SendStream>>,
    probing_bi: Vec<(Probe, quinn::SendStream, quinn::RecvStream)>,
    probing_uni: Vec<(Probe, quinn::RecvStream)>,
    /// Whether the control stream has been opened, the first that h3 asks for.
    control_opened: bool,
}

impl Adapter {
    pub(super) fn new(conn: quinn::Connection, table: Arc<Table>) -> Self {
        Self {
            accept_bi: ReusableBoxFuture::new(accept_bi(conn.clone())),
            accept_uni: ReusableBoxFuture::new(accept_uni(conn.clone())),
            opening: None,
            probing_bi: Vec::new(),
            probing_uni: Vec::new(),
            control_opened: false,
            conn,
            table,
        }
    }

    fn probe(&self, webtransport: u64) -> Probe {
        self.table.probing.fetch_add(1, Ordering::Relaxed);
        Probe::new(webtransport, Instant::now() + self.table.limits.headers_timeout)
    }

    fn recv(&self, inner: quinn::RecvStream, ungated: Ungated, prefix: Bytes) -> H3Recv {
        H3Recv {
            inner,
            gate: Gate::new(self.table.limits.max_field_section_size),
            ungated,
            input: prefix,
            ended: false,
        }
    }

    /// One stream that has said that it carries a request.
    fn poll_probing_bi(&mut self, cx: &mut Context<'_>) -> Option<H3Bidi> {
        let mut index = 0;
        while let Some((probe, _, recv)) = self.probing_bi.get_mut(index) {
            let outcome = match probe.poll(cx, recv) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending if probe.until <= Instant::now() => Err(Failed::Ended),
                Poll::Pending => {
                    self.table.probing(probe);
                    index += 1;
                    continue;
                }
            };
            self.table.probing.fetch_sub(1, Ordering::Relaxed);
            // In order: whoever accepts streams may rely on that of their opening.
            let (_, mut send, mut recv) = take(&mut self.probing_bi, index);
            match outcome {
                Ok(Kind::Session(id)) => {
                    let stream = Incoming::Bi(SendStream::new(send), RecvStream::new(recv));
                    self.table.stream(id, stream);
                }
                Ok(Kind::Http3(_, prefix)) => {
                    let stopped = send.stopped();
                    self.table.put_stopped(Box::pin(async move {
                        let _ = stopped.await; // for whatever reason
                    }));
                    return Some(H3Bidi {
                        send: H3Send::new(send, None),
                        recv: self.recv(recv, Ungated::Nothing, prefix),
                    });
                }
                Err(Failed::Ended) => {
                    // Errors mean that the halves have ended.
                    let _ = send.reset(codes::H3_REQUEST_INCOMPLETE);
                    let _ = recv.stop(codes::H3_REQUEST_INCOMPLETE);
                }
                Err(Failed::Connection(code)) => self.conn.close(code, b"invalid session id"),
            }
        }
        None
    }

    /// One stream that belongs to HTTP/3 itself.
    fn poll_probing_uni(&mut self, cx: &mut Context<'_>) -> Option<H3Recv> {
        let mut index = 0;
        while let Some((probe, recv)) = self.probing_uni.get_mut(index) {
            let outcome = match probe.poll(cx, recv) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending if probe.until <= Instant::now() => Err(Failed::Ended),
                Poll::Pending => {
                    self.table.probing(probe);
                    index += 1;
                    continue;
                }
            };
            self.table.probing.fetch_sub(1, Ordering::Relaxed);
            let (_, mut recv) = take(&mut self.probing_uni, index);
            match outcome {
                Ok(Kind::Session(id)) => self.table.stream(id, Incoming::Uni(RecvStream::new(recv))),
                // Control, push, QPACK encoder and decoder. Only the first has frames.
                Ok(Kind::Http3(kind @ 0..=3, prefix)) => {
                    let ungated = if kind == 0 { Ungated::Prefix } else { Ungated::Everything };
                    return Some(self.recv(recv, ungated, prefix));
                }
                // An error means that the stream has ended.
                Ok(Kind::Http3(..)) | Err(Failed::Ended) => drop(recv.stop(codes::H3_STREAM_CREATION_ERROR)),
                Err(Failed::Connection(code)) => self.conn.close(code, b"invalid session id"),
            }
        }
        None
    }
}

/// Takes one out. A connection that is idle keeps no room for others.
fn take<T>(probing: &mut Vec<T>, index: usize) -> T {
    let taken = probing.remove(index);
    if probing.is_empty() {
        *probing = Vec::new();
    }
    taken
}

impl Drop for Adapter {
    fn drop(&mut self) {
        for (_, send, _) in &mut self.probing_bi {
            // An error means that the connection or the stream has ended.
            let _ = send.reset(codes::H3_REQUEST_REJECTED);
        }
    }
}

impl quic::Connection<Bytes> for Adapter {
    type RecvStream = H3Recv;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<H3Recv, ConnectionErrorIncoming>> {
        while let Poll::Ready(accepted) = self.accept_uni.poll(cx) {
            self.accept_uni.set(accept_uni(self.conn.clone()));
            let recv = accepted.map_err(connection_error)?;
            let probe = self.probe(probe::UNI);
            self.probing_uni.push((probe, recv));
        }
        self.poll_probing_uni(cx).map_or(Poll::Pending, |recv| Poll::Ready(Ok(recv)))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<H3Bidi, ConnectionErrorIncoming>> {
        while let Poll::Ready(accepted) = self.accept_bi.poll(cx) {
            self.accept_bi.set(accept_bi(self.conn.clone()));
            let (send, recv) = accepted.map_err(connection_error)?;
            let probe = self.probe(probe::BIDI);
            self.probing_bi.push((probe, send, recv));
        }
        self.poll_probing_bi(cx).map_or(Poll::Pending, |bidi| Poll::Ready(Ok(bidi)))
    }

    fn opener(&self) -> Opener {
        Opener(self.conn.clone())
    }
}

impl quic::OpenStreams<Bytes> for Adapter {
    type BidiStream = H3Bidi;
    type SendStream = H3Send;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<H3Bidi, StreamErrorIncoming>> {
        Poll::Ready(Err(never_opened()))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<H3Send, StreamErrorIncoming>> {
        if self.control_opened {
            // QPACK's streams: h3 has no dynamic table, and so nothing to say on them (RFC 9204, section 4.2). It does without, and so does each client, which
            // then costs half a kilobyte less for either.
            return Poll::Ready(Err(never_opened()));
        }
        let conn = &self.conn;
        let opening = self.opening.get_or_insert_with(|| ReusableBoxFuture::new(open_uni(conn.clone())));
        let opened = ready!(opening.poll(cx));
        self.opening = None;
        let send = opened.map_err(stream_connection_error)?;
        self.control_opened = true;
        let settings = Some(self.table.limits.max_sessions_per_connection);
        Poll::Ready(Ok(H3Send::new(send, settings)))
    }

    fn close(&mut self, code: h3::error::Code, reason: &[u8]) {
        close(&self.conn, code, reason);
    }
}

/// What h3 asks for besides the connection; a server opens no streams by it.
pub(super) struct Opener(quinn::Connection);

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = H3Bidi;
    type SendStream = H3Send;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<H3Bidi, StreamErrorIncoming>> {
        Poll::Ready(Err(never_opened()))
    }

    fn poll_open_send(&mut self, _: &mut Context<'_>) -> Poll<Result<H3Send, StreamErrorIncoming>> {
        Poll::Ready(Err(never_opened()))
    }

    fn close(&mut self, code: h3::error::Code, reason: &[u8]) {
        close(&self.0, code, reason);
    }
}

/// The sending half of a stream of HTTP/3. Dropped before its end, it is reset.
pub(super) struct H3Send {
    inner: quinn::SendStream,
    /// What h3 gave and quinn has not yet taken.
    writing: Bytes,
    /// On the control stream, until its first write: the sessions to advertise.
    settings: Option<u32>,
    ended: bool,
}

impl H3Send {
    fn new(inner: quinn::SendStream, settings: Option<u32>) -> Self {
        Self { inner, writing: Bytes::new(), settings, ended: false }
    }
}

impl quic::SendStream<Bytes> for H3Send {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while !self.writing.is_empty() {
            let write = std::pin::pin!(self.inner.write_chunks(std::slice::from_mut(&mut self.writing)));
            ready!(write.poll(cx)).map_err(write_error)?;
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        let mut data = data.into();
        debug_assert!(self.writing.is_empty(), "h3 waits until it may send");
        self.writing = data.copy_to_bytes(data.remaining());
        if let Some(max_sessions) = self.settings.take() {
            self.writing = settings::complete(std::mem::take(&mut self.writing), max_sessions);
        }
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_ready(cx))?;
        self.ended = true;
        // An error means that it has ended already.
        let _ = self.inner.finish();
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, code: u64) {
        self.ended = true;
        // An error means that it has ended already.
        let _ = self.inner.reset(VarInt::from_u64(code).unwrap_or(codes::H3_REQUEST_CANCELLED));
    }

    fn send_id(&self) -> StreamId {
        id(self.inner.id())
    }
}

impl Drop for H3Send {
    fn drop(&mut self) {
        if !self.ended {
            // quinn would finish it, and a broken-off answer would look like a whole one.
            let _ = self.inner.reset(codes::H3_REQUEST_CANCELLED);
        }
    }
}

/// What of a stream is not made of frames.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ungated {
    /// A request stream is frames from the start.
    Nothing,
    /// A control stream begins with its type.
    Prefix,
    /// The QPACK streams have instructions; h3, which uses no dynamic table, never reads them.
    Everything,
}

/// The receiving half of a stream of HTTP/3.
pub(super) struct H3Recv {
    inner: quinn::RecvStream,
    gate: Gate,
    ungated: Ungated,
    /// Read, and not yet through the gate.
    input: Bytes,
    ended: bool,
}

impl quic::RecvStream for H3Recv {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let mut swallowed = 0;
        loop {
            if !self.input.is_empty() {
                if self.ungated != Ungated::Nothing {
                    if self.ungated == Ungated::Prefix {
                        self.ungated = Ungated::Nothing;
                    }
                    return Poll::Ready(Ok(Some(std::mem::take(&mut self.input))));
                }
                match self.gate.pass(&mut self.input) {
                    Ok(Some(bytes)) => return Poll::Ready(Ok(Some(bytes))),
                    Ok(None) => swallowed += 1,
                    Err(code) => return Poll::Ready(Err(self.fail(code))),
                }
                if swallowed > MAX_SWALLOWED {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            match ready!(stream::poll_chunk(&mut self.inner, cx, MAX_CHUNK)) {
                Ok(Some(chunk)) => self.input = chunk,
                Ok(None) => {
                    self.ended = true;
                    if let Err(code) = self.gate.finish() {
                        return Poll::Ready(Err(self.fail(code)));
                    }
                    return Poll::Ready(Ok(None));
                }
                Err(error) => {
                    self.ended = true;
                    return Poll::Ready(Err(read_error(error)));
                }
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        self.ended = true;
        // An error means that it has ended already.
        let _ = self.inner.stop(VarInt::from_u64(code).unwrap_or(codes::H3_NO_ERROR));
    }

    fn recv_id(&self) -> StreamId {
        id(self.inner.id())
    }
}

impl H3Recv {
    /// Breaks the rules: no more of it is read.
    fn fail(&mut self, code: VarInt) -> StreamErrorIncoming {
        self.ended = true;
        self.input = Bytes::new();
        // An error means that it has ended already.
        let _ = self.inner.stop(code);
        StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() }
    }
}

impl Drop for H3Recv {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Nearly always only the end is left, which quinn has but nobody read: telling the peer to
        // stop would cost every GET a frame each way.
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(None) | Err(_)) = stream::poll_chunk(&mut self.inner, &mut cx, 1) {
            return;
        }
        let _ = self.inner.stop(codes::H3_NO_ERROR);
    }
}

/// A request stream.
pub(super) struct H3Bidi {
    send: H3Send,
    recv: H3Recv,
}

impl quic::BidiStream<Bytes> for H3Bidi {
    type SendStream = H3Send;
    type RecvStream = H3Recv;

    fn split(self) -> (H3Send, H3Recv) {
        (self.send, self.recv)
    }
}

impl quic::SendStream<Bytes> for H3Bidi {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

impl quic::RecvStream for H3Bidi {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.recv.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

/// Closes a connection, unless it is closed: quinn would forget by whom.
fn close(conn: &quinn::Connection, code: h3::error::Code, reason: &[u8]) {
    if conn.close_reason().is_none() {
        // h3's codes are far below 2^62.
        conn.close(VarInt::from_u64(code.into()).unwrap_or(codes::H3_NO_ERROR), reason);
    }
}

async fn accept_bi(conn: quinn::Connection) -> Result<(quinn::SendStream, quinn::RecvStream), ConnectionError> {
    conn.accept_bi().await
}

async fn accept_uni(conn: quinn::Connection) -> Result<quinn::RecvStream, ConnectionError> {
    conn.accept_uni().await
}

async fn open_uni(conn: quinn::Connection) -> Result<quinn::SendStream, ConnectionError> {
    conn.open_uni().await
}

fn id(id: quinn::StreamId) -> StreamId {
    let id = VarInt::from(id).into_inner();
    StreamId::try_from(id).expect("both have 62 bits")
}

fn never_opened() -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming {
        connection_error: ConnectionErrorIncoming::InternalError("an HTTP/3 server opens no such stream".into()),
    }
}

fn connection_error(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn stream_connection_error(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}

fn write_error(error: quinn::WriteError) -> StreamErrorIncoming {
    match error {
        quinn::WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        quinn::WriteError::ConnectionLost(error) => stream_connection_error(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn read_error(error: quinn::ReadError) -> StreamErrorIncoming {
    match error {
        quinn::ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        quinn::ReadError::ConnectionLost(error) => stream_connection_error(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}
