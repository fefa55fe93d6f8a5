//! The sessions of one connection, and what comes in for them.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::VarInt;
use tokio::{sync::Notify, time::Instant};

use super::{
    codes,
    limits::Limits,
    probe::Probe,
    stream::{RecvStream, SendStream},
    varint,
};

/// Ended sessions whose ids are remembered, so that their late streams are told so at once. A stream
/// of one that was forgotten is parked for a while and then refused: the same end, later.
const MAX_ENDED: usize = 32;

/// Resolves when the peer wants no more of a stream, or has all of it.
pub(super) type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the connection's task, the adapter below h3 and the sessions share.
pub(super) struct Table {
    inner: Mutex<Inner>,
    /// Requests and sessions that keep the connection open.
    active: AtomicUsize,
    /// Streams that have not yet said what they are.
    pub(super) probing: AtomicUsize,
    /// Wakes the connection's task when it has a deadline more, or when the last request or session has ended.
    pub(super) changed: Notify,
    pub(super) limits: Arc<Limits>,
}

#[derive(Default)]
struct Inner {
    sessions: Vec<(u64, Slot)>,
    ended: VecDeque<u64>,
    parked: Vec<Parked>,
    /// Of the request stream that h3 is being given at this moment.
    stopped: Option<Stopped>,
}

enum Slot {
    /// The CONNECT request is being answered: its streams wait.
    Opening,
    Open(Arc<Inbox>),
}

struct Parked {
    session: u64,
    stream: Incoming,
    until: Instant,
}

/// A stream that a client opened in a session.
pub(super) enum Incoming {
    Bi(SendStream, RecvStream),
    Uni(RecvStream),
}

impl Incoming {
    fn reject(self, code: VarInt) {
        match self {
            Self::Bi(mut send, mut recv) => {
                send.reset_http3(code);
                recv.stop_http3(code);
            }
            Self::Uni(mut recv) => recv.stop_http3(code),
        }
    }
}

impl Table {
    pub(super) fn new(limits: Arc<Limits>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            active: AtomicUsize::new(0),
            probing: AtomicUsize::new(0),
            changed: Notify::new(),
            limits,
        })
    }

    /// Keeps the connection open until the guard is dropped.
    pub(super) fn activate(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(Arc::clone(self))
    }

    pub(super) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire) > 0
    }

    /// Leaves the `stopped` of the request stream that is being accepted for [`take_stopped`](Self::take_stopped).
    pub(super) fn put_stopped(&self, stopped: Stopped) {
        self.inner.lock().stopped = Some(stopped);
    }

    /// Takes what [`put_stopped`](Self::put_stopped) left. h3 accepts one stream at a time.
    pub(super) fn take_stopped(&self) -> Option<Stopped> {
        self.inner.lock().stopped.take()
    }

    /// A CONNECT request for the session `id` has come; its early streams are kept until it is answered.
    /// `false` when the connection has all the sessions it may.
    pub(super) fn opening(&self, id: u64) -> bool {
        let mut inner = self.inner.lock();
        let room = inner.sessions.len() < self.limits.max_sessions_per_connection as usize;
        if room {
            inner.sessions.push((id, Slot::Opening));
        }
        room
    }

    /// The session `id` is accepted. To be called before the 200 is written, so that nothing that the
    /// client sends in answer is too early.
    pub(super) fn open(&self, id: u64) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox {
            state: Mutex::default(),
            max_streams: self.limits.max_queued_streams,
            max_datagrams: self.limits.max_queued_datagrams,
        });
        let early: Vec<_> = {
            let mut inner = self.inner.lock();
            inner.sessions.retain(|(other, _)| *other != id);
            inner.sessions.push((id, Slot::Open(Arc::clone(&inbox))));
            inner.parked.extract_if(.., |parked| parked.session == id).collect()
        };
        for parked in early {
            inbox.push(parked.stream);
        }
        inbox
    }

    /// The session `id` has ended, or was rejected: its streams are reset, now and when more come.
    pub(super) fn end(&self, id: u64) {
        let (slots, parked): (Vec<_>, Vec<_>) = {
            let mut inner = self.inner.lock();
            if inner.ended.len() == MAX_ENDED {
                inner.ended.pop_front();
            }
            inner.ended.push_back(id);
            (
                inner.sessions.extract_if(.., |(other, _)| *other == id).collect(),
                inner.parked.extract_if(.., |parked| parked.session == id).collect(),
            )
        };
        for (_, slot) in slots {
            if let Slot::Open(inbox) = slot {
                inbox.end();
            }
        }
        for parked in parked {
            parked.stream.reject(codes::SESSION_GONE);
        }
    }

    /// Hands a stream to its session, keeps it for one that is to come, or rejects it.
    pub(super) fn stream(&self, session: u64, stream: Incoming) {
        let inbox = {
            let mut inner = self.inner.lock();
            match inner.sessions.iter().find(|(id, _)| *id == session) {
                Some((_, Slot::Open(inbox))) => Arc::clone(inbox),
                None if inner.ended.contains(&session) => {
                    drop(inner);
                    return stream.reject(codes::SESSION_GONE);
                }
                _ if inner.parked.len() >= self.limits.max_early_streams => {
                    drop(inner);
                    return stream.reject(codes::BUFFERED_STREAM_REJECTED);
                }
                _ => {
                    let until = Instant::now() + self.limits.early_stream_timeout;
                    inner.parked.push(Parked { session, stream, until });
                    self.changed.notify_one();
                    return;
                }
            }
        };
        inbox.push(stream);
    }

    /// Hands a datagram (as it came: quarter stream id, then payload) to its session; one for no open
    /// session is dropped. An error is the code to close the connection with (RFC 9297, section 2.1).
    pub(super) fn datagram(&self, datagram: &[u8]) -> Result<(), VarInt> {
        let (quarter, len) = varint::decode(datagram).ok_or(codes::H3_DATAGRAM_ERROR)?;
        if quarter > varint::MAX / 4 {
            return Err(codes::H3_DATAGRAM_ERROR);
        }
        let inbox = {
            let inner = self.inner.lock();
            match inner.sessions.iter().find(|(id, _)| *id == quarter * 4) {
                Some((_, Slot::Open(inbox))) => Arc::clone(inbox),
                _ => return Ok(()),
            }
        };
        // Copied, because the packet's memory is that of a whole burst: 64 bytes could pin 64 KiB.
        inbox.push_datagram(Bytes::copy_from_slice(&datagram[len..]));
        Ok(())
    }

    /// Notes that a stream is silent, so that the connection's task comes back when it has had its time.
    pub(super) fn probing(&self, probe: &mut Probe) {
        if !std::mem::replace(&mut probe.announced, true) {
            self.changed.notify_one();
        }
    }

    /// Rejects the streams that have waited too long, and says when to come back.
    pub(super) fn expire(&self, now: Instant) -> Option<Instant> {
        let (late, next): (Vec<_>, _) = {
            let mut inner = self.inner.lock();
            if inner.parked.is_empty() {
                return None;
            }
            let late = inner.parked.extract_if(.., |parked| parked.until <= now).collect();
            (late, inner.parked.iter().map(|parked| parked.until).min())
        };
        for parked in late {
            parked.stream.reject(codes::BUFFERED_STREAM_REJECTED);
        }
        next
    }
}

/// Keeps a connection open.
pub(super) struct Active(Arc<Table>);

impl Drop for Active {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Ordering::Release) == 1 {
            self.0.changed.notify_one();
        }
    }
}

/// What has come in for one session and was not yet taken.
pub(super) struct Inbox {
    state: Mutex<State>,
    max_streams: usize,
    max_datagrams: usize,
}

#[derive(Default)]
struct State {
    bi: VecDeque<(SendStream, RecvStream)>,
    uni: VecDeque<RecvStream>,
    datagrams: VecDeque<Bytes>,
    bi_waker: Option<Waker>,
    uni_waker: Option<Waker>,
    datagram_waker: Option<Waker>,
    ended: bool,
}

impl Inbox {
    /// Whether the session has ended.
    pub(super) fn is_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// The next bidirectional stream; `None` when the session has ended.
    pub(super) fn poll_bi(&self, cx: &mut Context<'_>) -> Poll<Option<(SendStream, RecvStream)>> {
        let mut state = self.state.lock();
        let State { bi, bi_waker, ended, .. } = &mut *state;
        poll(bi, bi_waker, *ended, cx)
    }

    /// The next unidirectional stream; `None` when the session has ended.
    pub(super) fn poll_uni(&self, cx: &mut Context<'_>) -> Poll<Option<RecvStream>> {
        let mut state = self.state.lock();
        let State { uni, uni_waker, ended, .. } = &mut *state;
        poll(uni, uni_waker, *ended, cx)
    }

    /// The next datagram; `None` when the session has ended.
    pub(super) fn poll_datagram(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.state.lock();
        let State { datagrams, datagram_waker, ended, .. } = &mut *state;
        poll(datagrams, datagram_waker, *ended, cx)
    }

    fn push(&self, stream: Incoming) {
        let mut state = self.state.lock();
        let (len, waker) = match &stream {
            Incoming::Bi(..) => (state.bi.len(), state.bi_waker.take()),
            Incoming::Uni(_) => (state.uni.len(), state.uni_waker.take()),
        };
        if state.ended {
            drop(state);
            return stream.reject(codes::SESSION_GONE);
        }
        if len >= self.max_streams {
            drop(state);
            return stream.reject(codes::BUFFERED_STREAM_REJECTED);
        }
        match stream {
            Incoming::Bi(send, recv) => state.bi.push_back((send, recv)),
            Incoming::Uni(recv) => state.uni.push_back(recv),
        }
        drop(state);
        wake(waker);
    }

    fn push_datagram(&self, datagram: Bytes) {
        let waker = {
            let mut state = self.state.lock();
            if state.ended {
                return;
            }
            if state.datagrams.len() >= self.max_datagrams {
                state.datagrams.pop_front();
            }
            state.datagrams.push_back(datagram);
            state.datagram_waker.take()
        };
        wake(waker);
    }

    /// Drops what was not taken and wakes whoever waits.
    fn end(&self) {
        let (bi, uni, wakers) = {
            let mut state = self.state.lock();
            state.ended = true;
            state.datagrams = VecDeque::new();
            let wakers = [state.bi_waker.take(), state.uni_waker.take(), state.datagram_waker.take()];
            (std::mem::take(&mut state.bi), std::mem::take(&mut state.uni), wakers)
        };
        for (send, recv) in bi {
            Incoming::Bi(send, recv).reject(codes::SESSION_GONE);
        }
        for recv in uni {
            Incoming::Uni(recv).reject(codes::SESSION_GONE);
        }
        wakers.into_iter().for_each(wake);
    }
}

fn poll<T>(queue: &mut VecDeque<T>, waker: &mut Option<Waker>, ended: bool, cx: &mut Context<'_>) -> Poll<Option<T>> {
    if let Some(item) = queue.pop_front() {
        return Poll::Ready(Some(item));
    }
    if ended {
        return Poll::Ready(None);
    }
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
    Poll::Pending
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
