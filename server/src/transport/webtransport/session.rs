//! One WebTransport session, as whoever accepted it holds it.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use h3::{error::StreamError as H3Error, server::RequestStream};

use super::{
    adapter::{H3Recv, H3Send},
    capsule, codes,
    datagram::{DatagramError, DatagramSender},
    probe,
    stream::{OpenError, RecvStream, SendStream, StreamError},
    table::{Active, Inbox, Stopped, Table},
    varint,
};

/// Pieces of skipped capsules that one poll reads, before other tasks get their turn.
const MAX_READS: u32 = 32;

/// A session that was accepted with a 200 (draft-ietf-webtrans-http3).
///
/// All of it can be polled by one task; it has none of its own. Dropped without
/// [`close`](Self::close), the session is reset; the connection, and other sessions on it, go on.
/// Streams that were taken from it live on their own: drop them with it.
pub(crate) struct WebTransport {
    conn: quinn::Connection,
    table: Arc<Table>,
    inbox: Arc<Inbox>,
    id: u64,
    recv: RequestStream<H3Recv, Bytes>,
    capsules: capsule::Reader,
    sending: Sending,
    closed: Option<Box<Closed>>,
    _active: Active,
}

/// The CONNECT stream's sending half, on which nothing is said but the end.
enum Sending {
    Open(RequestStream<H3Send, Bytes>, Stopped),
    Closing(Pin<Box<dyn Future<Output = ()> + Send>>),
    Ended,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    /// The application's code; 0 when none was sent.
    pub(crate) code: u32,
    /// The application's reason, at most 1,024 bytes; empty when none was sent.
    pub(crate) reason: String,
    /// By what the end was made known.
    pub(crate) how: How,
}

/// By what the end of a session was made known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum How {
    /// The client closed it, with a code and a reason.
    Client,
    /// The client ended the CONNECT stream without a word, which is a close with code 0.
    Finished,
    /// The client reset the CONNECT stream, with this HTTP/3 code.
    Reset(u64),
    /// The client broke the rules of the CONNECT stream, and was reset.
    Malformed,
    /// The connection was closed or lost.
    ConnectionLost(Option<quinn::ConnectionError>),
    /// This side closed it.
    Server,
}

impl WebTransport {
    pub(super) fn new(
        conn: quinn::Connection,
        table: Arc<Table>,
        inbox: Arc<Inbox>,
        id: u64,
        (send, mut stopped, recv): (RequestStream<H3Send, Bytes>, Stopped, RequestStream<H3Recv, Bytes>),
    ) -> Self {
        // It keeps the waker of the request's task, and so that task's memory, until it is polled by somebody else.
        if stopped.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            stopped = Box::pin(std::future::ready(()));
        }
        Self {
            _active: table.activate(),
            conn,
            table,
            inbox,
            id,
            recv,
            capsules: capsule::Reader::default(),
            sending: Sending::Open(send, stopped),
            closed: None,
        }
    }

    /// The id of the CONNECT stream, which names the session within its connection.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Where the client is now: it may move.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.conn.remote_address()
    }

    /// The connection's smoothed round-trip time.
    pub(crate) fn rtt(&self) -> Duration {
        self.conn.rtt()
    }

    /// Opens a bidirectional stream. Its header is written at once, so that the client sees the
    /// stream before there is anything on it. Waits when the client allows no more streams.
    pub(crate) fn open_bi(&self) -> impl Future<Output = Result<(SendStream, RecvStream), OpenError>> + Send + 'static {
        let (conn, inbox, id) = (self.conn.clone(), Arc::clone(&self.inbox), self.id);
        async move {
            let (send, recv) = conn.open_bi().await.map_err(StreamError::ConnectionLost)?;
            let (mut send, recv) = (SendStream::new(send), RecvStream::new(recv));
            write_header(&mut send, probe::BIDI, id).await?;
            if inbox.is_ended() { Err(OpenError::Ended) } else { Ok((send, recv)) }
        }
    }

    /// Opens a bidirectional stream if the client allows one now. What it must begin with is not written yet, but given along: a stream
    /// that nothing is written on stays unseen.
    pub(crate) fn try_open_bi(&self, cx: &mut Context<'_>) -> Option<(SendStream, RecvStream, Bytes)> {
        // The future keeps nothing between polls: whoever is told "not now" does without.
        let opened = pin!(self.conn.open_bi()).poll(cx);
        let Poll::Ready(Ok((send, recv))) = opened else { return None };
        Some((SendStream::new(send), RecvStream::new(recv), header(probe::BIDI, self.id)))
    }

    /// Lets the client open as many bidirectional streams as [`Limits::max_session_streams`](super::Limits::max_session_streams) says, beside
    /// those that it may have anyway. Not before it needs them: quinn reserves room for each.
    pub(crate) fn allow_session_streams(&self) {
        self.conn.set_max_concurrent_bi_streams(self.table.limits.all_bidi_streams());
    }

    /// Opens a unidirectional stream, as [`open_bi`](Self::open_bi) does a bidirectional one.
    pub(crate) fn open_uni(&self) -> impl Future<Output = Result<SendStream, OpenError>> + Send + 'static {
        let (conn, inbox, id) = (self.conn.clone(), Arc::clone(&self.inbox), self.id);
        async move {
            let send = conn.open_uni().await.map_err(StreamError::ConnectionLost)?;
            let mut send = SendStream::new(send);
            write_header(&mut send, probe::UNI, id).await?;
            if inbox.is_ended() { Err(OpenError::Ended) } else { Ok(send) }
        }
    }

    /// The next bidirectional stream that the client opened; `None` when the session has ended.
    pub(crate) fn poll_accept_bi(&self, cx: &mut Context<'_>) -> Poll<Option<(SendStream, RecvStream)>> {
        self.inbox.poll_bi(cx)
    }

    /// As [`poll_accept_bi`](Self::poll_accept_bi). Nothing is lost when the future is dropped.
    pub(crate) async fn accept_bi(&self) -> Option<(SendStream, RecvStream)> {
        poll_fn(|cx| self.poll_accept_bi(cx)).await
    }

    /// The next unidirectional stream that the client opened; `None` when the session has ended.
    pub(crate) fn poll_accept_uni(&self, cx: &mut Context<'_>) -> Poll<Option<RecvStream>> {
        self.inbox.poll_uni(cx)
    }

    /// As [`poll_accept_uni`](Self::poll_accept_uni). Nothing is lost when the future is dropped.
    pub(crate) async fn accept_uni(&self) -> Option<RecvStream> {
        poll_fn(|cx| self.poll_accept_uni(cx)).await
    }

    /// The next datagram, of those that were not dropped for newer ones; `None` when the session has ended.
    pub(crate) fn poll_recv_datagram(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.inbox.poll_datagram(cx)
    }

    /// As [`poll_recv_datagram`](Self::poll_recv_datagram). Nothing is lost when the future is dropped.
    pub(crate) async fn recv_datagram(&self) -> Option<Bytes> {
        poll_fn(|cx| self.poll_recv_datagram(cx)).await
    }

    /// Sends a datagram, as [`DatagramSender::send`] does.
    ///
    /// # Errors
    /// When it is too large for the path as it is now, or can never be sent.
    pub(crate) fn send_datagram(&self, payload: &[u8]) -> Result<(), DatagramError> {
        self.datagram_sender().send(payload)
    }

    /// A handle that sends this session's datagrams from anywhere.
    pub(crate) fn datagram_sender(&self) -> DatagramSender {
        DatagramSender::new(self.conn.clone(), Arc::clone(&self.inbox), self.id)
    }

    /// How the session ended, as soon as it has: by the client's close, the end of the CONNECT stream,
    /// or the loss of the connection. Has to be polled for an end to be noticed at all. Ready for ever once
    /// it was.
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        if let Some(closed) = &self.closed {
            return Poll::Ready(Closed::clone(closed));
        }
        for _ in 0..MAX_READS {
            let read = ready!(self.recv.poll_recv_data(cx));
            let closed = match read {
                Ok(Some(data)) => match self.capsules.read(data) {
                    Ok(None) => continue,
                    Ok(Some(close)) => Closed { code: close.code, reason: close.reason, how: How::Client },
                    Err(capsule::Malformed) => Closed::without_words(How::Malformed),
                },
                Ok(None) if self.capsules.finish().is_err() => Closed::without_words(How::Malformed),
                Ok(None) => Closed::without_words(How::Finished),
                Err(H3Error::RemoteTerminate { code, .. }) => Closed::without_words(How::Reset(code.into())),
                Err(_) => Closed::without_words(How::ConnectionLost(self.conn.close_reason())),
            };
            self.end(closed.clone());
            self.answer_close(&closed.how);
            return Poll::Ready(closed);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// As [`poll_closed`](Self::poll_closed). Nothing is lost when the future is dropped.
    pub(crate) async fn closed(&mut self) -> Closed {
        poll_fn(|cx| self.poll_closed(cx)).await
    }

    /// Closes the session with a code and a reason, of which the first 1,024 bytes are sent, and waits until the
    /// client has them, or [`Limits::close_timeout`](super::Limits::close_timeout) has passed. What the first
    /// poll says counts; on a session that has ended it is ready at once.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>, code: u32, reason: &str) -> Poll<()> {
        if let Sending::Open(..) = self.sending
            && let Sending::Open(send, stopped) = std::mem::replace(&mut self.sending, Sending::Ended)
        {
            let timeout = self.table.limits.close_timeout;
            let capsule = capsule::close(code, reason);
            self.sending = Sending::Closing(Box::pin(async move {
                // After the timeout `send` is dropped: what was not finished by then is reset.
                let _ = tokio::time::timeout(timeout, say(send, capsule, stopped)).await;
            }));
            self.end(Closed { code, reason: reason.to_owned(), how: How::Server });
        }
        if let Sending::Closing(closing) = &mut self.sending {
            ready!(closing.as_mut().poll(cx));
            self.sending = Sending::Ended;
        }
        Poll::Ready(())
    }

    /// As [`poll_close`](Self::poll_close).
    pub(crate) async fn close(&mut self, code: u32, reason: &str) {
        poll_fn(|cx| self.poll_close(cx, code, reason)).await;
    }

    /// No more streams and datagrams; those that were not taken are dropped.
    fn end(&mut self, closed: Closed) {
        self.closed = Some(Box::new(closed));
        self.table.end(self.id);
    }

    /// The client has ended the session: so does this side, in the way that fits.
    fn answer_close(&mut self, how: &How) {
        if let Sending::Open(mut send, _) = std::mem::replace(&mut self.sending, Sending::Ended) {
            match how {
                How::Malformed => {
                    send.stop_stream(h3::error::Code::H3_MESSAGE_ERROR);
                    self.recv.stop_sending(h3::error::Code::H3_MESSAGE_ERROR);
                }
                // Dropped, it is reset.
                How::Reset(_) | How::ConnectionLost(_) => {}
                _ => {
                    // Nothing is being written, so it is ready at once.
                    let mut cx = Context::from_waker(Waker::noop());
                    let _ = pin!(send.finish()).poll(&mut cx);
                }
            }
        }
    }
}

impl Closed {
    fn without_words(how: How) -> Self {
        Self { code: 0, reason: String::new(), how }
    }
}

impl Drop for WebTransport {
    fn drop(&mut self) {
        if self.closed.is_none() {
            self.table.end(self.id);
        }
    }
}

impl std::fmt::Debug for WebTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebTransport").field("id", &self.id).field("closed", &self.closed).finish_non_exhaustive()
    }
}

/// Sends the close capsule and the end of the stream, and waits until they have arrived.
async fn say(mut send: RequestStream<H3Send, Bytes>, capsule: Bytes, stopped: Stopped) -> Result<(), H3Error> {
    send.send_data(capsule).await?;
    send.finish().await?;
    stopped.await;
    Ok(())
}

/// What a stream of a session begins with.
fn header(kind: u64, session: u64) -> Bytes {
    let mut header = BytesMut::with_capacity(16);
    varint::encode(kind, &mut header);
    varint::encode(session, &mut header);
    header.freeze()
}

async fn write_header(send: &mut SendStream, kind: u64, session: u64) -> Result<(), StreamError> {
    let mut header = header(kind, session);
    let written = poll_fn(|cx| send.poll_write_all(cx, &mut header)).await;
    if written.is_err() {
        send.reset_http3(codes::SESSION_GONE);
    }
    written
}
