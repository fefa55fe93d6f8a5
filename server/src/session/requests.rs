//! Requests (SPEC section 11): what the client asks of the application, and what the application asks of the client.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytestring::ByteString;
use throughline_protocol::limits::{CHUNK_WINDOW, MAX_REQUESTS};
use throughline_protocol::machine::ArrivedRequest;
use throughline_protocol::{Close, Code, Machine, Message, RequestCode, RequestMessage, TrySendError, request};
use tokio::sync::Notify;

use super::Session;
use super::shared::{Core, Shared, now};

/// MORE is said when so many bytes of chunks have been taken since the last: it is on its way while three quarters of them may still come.
const MORE_STEP: u64 = CHUNK_WINDOW / 4;

// ---- what the client asks ----

/// A request of the client, which waits for an answer: from [`Event::Request`](super::Event::Request).
///
/// It is answered by [`respond`](Self::respond) or [`fail`](Self::fail), from any task; parts of the answer may go before it, as [`chunk`](Self::chunk)s.
/// Dropped without an answer it fails: with `UNKNOWN_METHOD` when nobody has looked at more than its method, and with `FAILED` otherwise. It goes on over as
/// many links as the session does.
///
/// ```no_run
/// # use throughline::{Event, Message, RequestCode, Session};
/// # async fn application(session: Session) {
/// while let Some(event) = session.recv().await {
///     let Event::Request(request) = event else { continue };
///     match request.method() {
///         "echo" => {
///             let data = request.data().cloned();
///             request.respond(data);
///         }
///         "count" => {
///             tokio::spawn(async move {
///                 for number in 1..=3 {
///                     if request.chunk(number.to_string()).await.is_err() {
///                         return; // nobody wants the rest
///                     }
///                 }
///                 request.respond(None);
///             });
///         }
///         "secret" => request.fail(RequestCode::NotAllowed as u32, "not for you"),
///         _ => {} // UNKNOWN_METHOD
///     }
/// }
/// # }
/// ```
pub struct Request {
    shared: Arc<Shared>,
    id: u64,
    method: ByteString,
    data: Option<Message>,
    /// Wakes who waits for credit, or for its end.
    changed: Arc<Notify>,
    /// Somebody has looked at more than the method.
    touched: AtomicBool,
}

/// Why a part of an answer was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The client has cancelled the request.
    #[error("the client has cancelled the request")]
    Cancelled,
    /// The session has ended, or is ending.
    #[error("the session is closed ({0})")]
    Closed(Close),
    /// It is longer than a message may be in this session.
    #[error("a part of {len} bytes; at most {max} are allowed in this session: send it in several")]
    TooLarge {
        /// Its length, in bytes.
        len: usize,
        /// The longest allowed, in bytes.
        max: usize,
    },
}

impl Request {
    /// What is asked: 1 to 255 bytes.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// What the method is to work with, if the client has sent anything.
    pub fn data(&self) -> Option<&Message> {
        self.touch();
        self.data.as_ref()
    }

    /// The session that it came from.
    pub fn session(&self) -> Session {
        Session::new(Arc::clone(&self.shared))
    }

    /// Answers, and ends the request. An answer longer than a message may be in this session is `FAILED` instead. Does nothing when the request is cancelled,
    /// or the session has ended.
    pub fn respond(self, data: impl Into<Option<Message>>) {
        self.end(&RequestMessage::Answer { id: self.id, data: data.into() });
    }

    /// Says why there is no answer, and ends the request: a [`RequestCode`], or a code of the application's own from [`RequestCode::APPLICATION`] on. A
    /// reason over 512 bytes is cut.
    pub fn fail(self, code: u32, reason: &str) {
        self.end(&RequestMessage::error(self.id, code, reason));
    }

    /// Sends a part of the answer, after those before it. Waits while the client takes none: when it has not taken 64 KiB of them, and when the session's
    /// buffer is full. Cancel-safe: dropped before it has returned, nothing was sent.
    ///
    /// # Errors
    /// [`ChunkError`]; it was then not sent.
    pub async fn chunk(&self, data: impl Into<Message>) -> Result<(), ChunkError> {
        self.touch();
        let data = data.into();
        let chunk = RequestMessage::Chunk { id: self.id, data };
        loop {
            let (changed, room) = (self.changed.notified(), self.shared.room.notified());
            match self.try_chunk(&chunk)? {
                Sent::Yes => return Ok(()),
                Sent::NoCredit => changed.await,
                Sent::NoRoom => tokio::select! {
                    () = changed => {}
                    () = room => {}
                },
            }
        }
    }

    /// Waits until nobody wants the answer any more: the client has cancelled the request, or the session has ended.
    pub async fn cancelled(&self) {
        self.touch();
        loop {
            let changed = self.changed.notified();
            if !self.shared.lock().requests().theirs.contains_key(&self.id) {
                return;
            }
            changed.await;
        }
    }

    fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }

    fn try_chunk(&self, chunk: &RequestMessage) -> Result<Sent, ChunkError> {
        let mut core = self.shared.lock();
        let (machine, requests) = core.machine_and_requests();
        let Some(asked) = requests.theirs.get_mut(&self.id) else {
            let ended = requests.over.clone();
            return Err(ended.map_or(ChunkError::Cancelled, ChunkError::Closed));
        };
        if asked.sent >= asked.limit {
            return Ok(Sent::NoCredit);
        }
        match machine.send_request(chunk) {
            Ok(()) => {
                asked.sent += chunk.data().map_or(0, Message::len) as u64;
                drop(core);
                self.shared.wake_driver();
                Ok(Sent::Yes)
            }
            Err(TrySendError::Full) => Ok(Sent::NoRoom),
            Err(TrySendError::Closed(close)) => Err(ChunkError::Closed(close)),
            Err(TrySendError::TooLarge { len, max }) => Err(ChunkError::TooLarge { len, max }),
        }
    }

    fn end(&self, end: &RequestMessage) {
        let mut core = self.shared.lock();
        let (machine, requests) = core.machine_and_requests();
        if requests.theirs.remove(&self.id).is_none() {
            return;
        }
        requests.tidy();
        if let Err(error @ TrySendError::TooLarge { .. }) = machine.say_request(end) {
            tracing::warn!(session = %self.shared.id, method = ?self.method, %error, "an answer was not sent");
            let error = RequestMessage::error(self.id, RequestCode::Failed as u32, "the answer is too long");
            drop(machine.say_request(&error));
        }
        drop(core);
        self.shared.wake_driver();
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let (code, reason) = if *self.touched.get_mut() {
            (RequestCode::Failed, "it was not answered")
        } else {
            (RequestCode::UnknownMethod, "nobody there answers it")
        };
        self.end(&RequestMessage::error(self.id, code as u32, reason));
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("id", &self.id).field("method", &self.method).finish_non_exhaustive()
    }
}

/// What became of a chunk.
enum Sent {
    Yes,
    /// Its client has not taken what was sent before.
    NoCredit,
    /// The session's buffer is full.
    NoRoom,
}

// ---- what the application asks ----

/// What the client answers to a request: from [`Session::request`]. Await it for the end of the answer, and take parts that come before with
/// [`next_chunk`](Self::next_chunk). Dropped before the end, it cancels the request: so `tokio::time::timeout` does all that there is to a timeout.
///
/// It goes on over as many links as the session does. Who waits for it must leave it to others to [receive](Session::recv): while messages are not taken, the
/// client can say only so much more.
///
/// ```no_run
/// # use std::time::Duration;
/// # use throughline::{Message, RequestError, Session};
/// # async fn ask(session: Session) -> Result<(), Box<dyn std::error::Error>> {
/// let sum = session.request("sum", Message::from("[1, 2]"));
/// let sum = tokio::time::timeout(Duration::from_secs(5), sum).await??;
///
/// let mut logs = session.request("logs", None);
/// while let Some(line) = logs.next_chunk().await {
///     println!("{line:?}");
/// }
/// logs.await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropped, it cancels the request"]
pub struct Answer {
    shared: Arc<Shared>,
    state: State,
}

enum State {
    /// There was no room for it yet.
    Waiting(ByteString, Option<Message>),
    /// Its number.
    Asked(u64),
    /// It has failed already, or its end was taken.
    Ended(Option<RequestError>),
}

/// Why there is no answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The client says so.
    #[error("the client answered with error {code}: {reason}")]
    Failed {
        /// A [`RequestCode`], or the application's own.
        code: u32,
        /// For a person.
        reason: String,
    },
    /// The session has ended. The client may have done what was asked.
    #[error("the session is closed ({0}): the request may have been done")]
    Closed(Close),
    /// 100 requests are under way in this session: await some of them first. It was not sent.
    #[error("{MAX_REQUESTS} requests are under way in this session: wait for their answers")]
    TooMany,
    /// The data is longer than a message may be in this session. It was not sent.
    #[error("data of {len} bytes; at most {max} are allowed in this session")]
    TooLarge {
        /// Its length, in bytes.
        len: usize,
        /// The longest allowed, in bytes.
        max: usize,
    },
    /// The method's name is empty, or longer than 255 bytes. It was not sent.
    #[error("a method has a name of 1 to 255 bytes")]
    BadMethod,
}

impl Answer {
    pub(super) fn new(shared: &Arc<Shared>, method: ByteString, data: Option<Message>) -> Self {
        let is_method = request::is_method(&method);
        let state = if is_method { State::Waiting(method, data) } else { State::Ended(Some(RequestError::BadMethod)) };
        let mut answer = Self { shared: Arc::clone(shared), state };
        answer.ask(None);
        answer
    }

    /// The next part of the answer, before its end; `None` when no more will come: then await the answer itself. Cancel-safe.
    pub async fn next_chunk(&mut self) -> Option<Message> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.ask(Some(cx));
        let id = match &self.state {
            State::Waiting(..) => return Poll::Pending,
            State::Ended(_) => return Poll::Ready(None),
            State::Asked(id) => *id,
        };
        let mut core = self.shared.lock();
        let (machine, requests) = core.machine_and_requests();
        let Some(ours) = requests.ours.get_mut(&id) else { return Poll::Ready(None) };
        let Some((chunk, cost)) = ours.chunks.pop_front() else {
            if ours.end.is_some() {
                return Poll::Ready(None);
            }
            ours.note(cx);
            return Poll::Pending;
        };
        machine.request_taken(cost);
        ours.taken += chunk.len() as u64;
        let limit = ours.taken + CHUNK_WINDOW;
        if ours.end.is_none() && limit >= ours.limit + MORE_STEP {
            ours.limit = limit;
            drop(machine.say_request(&RequestMessage::More { id, limit }));
        }
        drop(core);
        self.shared.wake_driver(); // MORE, or an ACK for what was freed
        Poll::Ready(Some(chunk))
    }

    /// Sends the request, if there is room for it; else whoever polls hears when there may be.
    fn ask(&mut self, cx: Option<&mut Context<'_>>) {
        let State::Waiting(method, data) = &self.state else { return };
        let mut core = self.shared.lock();
        let (machine, requests) = core.machine_and_requests();
        let state = match requests.ask(machine, method, data) {
            Ok(id) => State::Asked(id),
            Err(TrySendError::Full) if requests.ours.len() >= MAX_REQUESTS => State::Ended(Some(RequestError::TooMany)),
            Err(TrySendError::Full) => {
                cx.into_iter().for_each(|cx| requests.wait_for_room(cx));
                return;
            }
            Err(TrySendError::Closed(close)) => State::Ended(Some(RequestError::Closed(close))),
            Err(TrySendError::TooLarge { len, max }) => State::Ended(Some(RequestError::TooLarge { len, max })),
        };
        drop(core);
        if matches!(state, State::Asked(_)) {
            self.shared.wake_driver();
        }
        self.state = state;
    }
}

impl Future for Answer {
    /// The end of the answer. What is left of the parts before it is dropped.
    type Output = Result<Option<Message>, RequestError>;

    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        while std::task::ready!(self.poll_chunk(cx)).is_some() {}
        let end = match std::mem::replace(&mut self.state, State::Ended(None)) {
            State::Ended(error) => error.map(Err),
            State::Asked(id) => {
                let mut core = self.shared.lock();
                core.requests().ours.remove(&id).and_then(|ours| ours.end)
            }
            State::Waiting(..) => None, // poll_chunk() was not ready then
        };
        Poll::Ready(end.expect("an answer is not polled after it was ready"))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let State::Asked(id) = self.state else { return };
        let mut core = self.shared.lock();
        let (machine, requests) = core.machine_and_requests();
        let Some(ours) = requests.ours.get_mut(&id) else { return };
        ours.chunks.drain(..).for_each(|(_, cost)| machine.request_taken(cost));
        if ours.end.is_some() {
            requests.ours.remove(&id);
        } else {
            // The client answers this, and until then it has a place.
            ours.is_abandoned = true;
            ours.waker = None;
            drop(machine.say_request(&RequestMessage::Cancel { id }));
        }
        drop(core);
        self.shared.wake_driver();
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

// ---- what a session knows of both ----

/// The requests of a session.
#[derive(Default)]
pub(super) struct Requests {
    /// The number of the last that was asked here, and of the last of the client's.
    last: u64,
    their_last: u64,
    /// Those that were asked here, until their end was taken.
    ours: BTreeMap<u64, Ours>,
    /// Those of the client, until they are answered.
    theirs: BTreeMap<u64, Theirs>,
    /// Those of the client that the application has not taken.
    waiting: VecDeque<Waiting>,
    /// Who waits for room to ask.
    senders: Vec<Waker>,
    /// How the session has ended.
    over: Option<Close>,
}

/// A request that was asked here.
struct Ours {
    /// Parts that nobody has taken, each with what it keeps of the stream's credit.
    chunks: VecDeque<(Message, u64)>,
    /// Bytes of the parts that came, that were taken, and below which another one may begin.
    received: u64,
    taken: u64,
    limit: u64,
    end: Option<Result<Option<Message>, RequestError>>,
    /// Nobody waits for it any more.
    is_abandoned: bool,
    waker: Option<Waker>,
}

/// A request of the client.
struct Theirs {
    /// Bytes of the parts that were sent, and below which another one may begin.
    sent: u64,
    limit: u64,
    changed: Arc<Notify>,
}

/// A request of the client that the application has not taken.
struct Waiting {
    id: u64,
    method: ByteString,
    data: Option<Message>,
    /// What it keeps of the stream's credit, and how many messages had come before it.
    cost: u64,
    after: u64,
}

impl Ours {
    fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            received: 0,
            taken: 0,
            limit: CHUNK_WINDOW,
            end: None,
            is_abandoned: false,
            waker: None,
        }
    }

    fn note(&mut self, cx: &mut Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    fn wake(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

impl Requests {
    /// Handles up to `budget` of the client's words about requests. Says whether there may be more.
    pub(super) fn serve(shared: &Shared, budget: usize) -> bool {
        for _ in 0..budget {
            let mut core = shared.lock();
            if core.requests.as_ref().is_some_and(|requests| requests.over.is_some()) {
                return false;
            }
            let Some(arrived) = core.machine.poll_request() else { return false };
            let (machine, requests) = core.machine_and_requests();
            match arrived.and_then(|arrived| requests.handle(machine, arrived)) {
                Ok(false) => {}
                Ok(true) => shared.incoming.notify_waiters(),
                Err(close) => {
                    requests.end(&close);
                    machine.handle_violation(now(), close);
                    shared.notify(&mut core);
                    return false;
                }
            }
        }
        true
    }

    /// Handles what the client says. Says whether that is something for the application to receive.
    fn handle(&mut self, machine: &mut Machine, arrived: ArrivedRequest) -> Result<bool, Close> {
        let ArrivedRequest { message, cost, after } = arrived;
        let (is_ours, id) = (is_of_who_is_asked(&message), message.id());
        let last = if is_ours { self.last } else { self.their_last };
        let is_new = matches!(message, RequestMessage::Request { .. });
        if is_new && id <= last {
            return Err(violation(format!("request {id} after request {last}")));
        }
        if !is_new && id > last {
            return Err(violation(format!("something about request {id}, when the last one was {last}")));
        }
        match message {
            RequestMessage::Request { method, data, .. } => {
                self.their_last = id;
                if self.theirs.len() >= MAX_REQUESTS {
                    machine.request_taken(cost);
                    let reason = format!("{MAX_REQUESTS} requests are under way in this session");
                    drop(machine.say_request(&RequestMessage::error(id, RequestCode::TooMany as u32, &reason)));
                    return Ok(false);
                }
                self.theirs.insert(id, Theirs { sent: 0, limit: CHUNK_WINDOW, changed: Arc::default() });
                self.waiting.push_back(Waiting { id, method, data, cost, after });
                return Ok(true);
            }
            RequestMessage::Cancel { .. } => self.cancelled(machine, id),
            RequestMessage::More { limit, .. } => {
                if let Some(theirs) = self.theirs.get_mut(&id) {
                    theirs.limit = theirs.limit.max(limit);
                    theirs.changed.notify_waiters();
                }
            }
            RequestMessage::Chunk { data, .. } => return self.chunk_arrived(machine, id, data, cost).map(|()| false),
            RequestMessage::Answer { data, .. } => self.ended(id, Ok(data)),
            RequestMessage::Error { code, reason, .. } => {
                self.ended(id, Err(RequestError::Failed { code, reason: reason.into() }));
            }
        }
        Ok(false)
    }

    fn cancelled(&mut self, machine: &mut Machine, id: u64) {
        let Some(theirs) = self.theirs.remove(&id) else { return };
        theirs.changed.notify_waiters();
        if let Some(index) = self.waiting.iter().position(|waiting| waiting.id == id) {
            let cost = self.waiting.remove(index).map_or(0, |waiting| waiting.cost);
            machine.request_taken(cost);
        }
        self.tidy();
        drop(machine.say_request(&RequestMessage::error(id, RequestCode::Cancelled as u32, "it was cancelled")));
    }

    fn chunk_arrived(&mut self, machine: &mut Machine, id: u64, data: Message, cost: u64) -> Result<(), Close> {
        let Some(ours) = self.ours.get_mut(&id).filter(|ours| ours.end.is_none()) else {
            machine.request_taken(cost);
            return Ok(());
        };
        if ours.received >= ours.limit {
            let reason = format!("a chunk after {} bytes of them, when {} may be sent", ours.received, ours.limit);
            return Err(Close::protocol(Code::FlowControl, reason));
        }
        ours.received += data.len() as u64;
        if ours.is_abandoned {
            machine.request_taken(cost);
        } else {
            ours.chunks.push_back((data, cost));
            ours.wake();
        }
        Ok(())
    }

    fn ended(&mut self, id: u64, end: Result<Option<Message>, RequestError>) {
        let Some(ours) = self.ours.get_mut(&id).filter(|ours| ours.end.is_none()) else { return };
        if ours.is_abandoned {
            self.ours.remove(&id);
        } else {
            ours.end = Some(end);
            ours.wake();
        }
    }

    /// Asks the client. `Full` also when too many requests are under way.
    fn ask(&mut self, machine: &mut Machine, method: &ByteString, data: &Option<Message>) -> Result<u64, TrySendError> {
        if let Some(close) = &self.over {
            return Err(TrySendError::Closed(close.clone()));
        }
        if self.ours.len() >= MAX_REQUESTS {
            return Err(TrySendError::Full);
        }
        let id = self.last + 1;
        machine.send_request(&RequestMessage::Request { id, method: method.clone(), data: data.clone() })?;
        self.last = id;
        self.ours.insert(id, Ours::new());
        Ok(id)
    }

    fn wait_for_room(&mut self, cx: &Context<'_>) {
        if !self.senders.iter().any(|sender| sender.will_wake(cx.waker())) {
            self.senders.push(cx.waker().clone());
        }
    }

    /// There may be room, or never will be.
    pub(super) fn wake_senders(&mut self) {
        std::mem::take(&mut self.senders).into_iter().for_each(Waker::wake);
    }

    /// The next request for the application, if no message goes before it.
    pub(super) fn take(&mut self, machine: &mut Machine, shared: &Arc<Shared>) -> Option<Request> {
        let taken = machine.messages_taken();
        let Waiting { id, method, data, cost, .. } = self.waiting.pop_front_if(|waiting| waiting.after <= taken)?;
        machine.request_taken(cost);
        let changed = Arc::clone(&self.theirs.get(&id)?.changed);
        let touched = AtomicBool::new(false);
        Some(Request { shared: Arc::clone(shared), id, method, data, changed, touched })
    }

    /// The session has ended.
    fn end(&mut self, close: &Close) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(close.clone());
        self.ours.retain(|_, ours| !ours.is_abandoned);
        for ours in self.ours.values_mut() {
            ours.end.get_or_insert_with(|| Err(RequestError::Closed(close.clone())));
            ours.wake();
        }
        std::mem::take(&mut self.theirs).into_values().for_each(|theirs| theirs.changed.notify_waiters());
        self.waiting = VecDeque::new();
        self.wake_senders();
    }

    /// An idle session holds no buffers.
    fn tidy(&mut self) {
        if self.theirs.is_empty() {
            self.waiting = VecDeque::new();
        }
    }
}

impl Core {
    /// What the two sides ask each other: from now on there is something to be known of it.
    fn requests(&mut self) -> &mut Requests {
        self.requests.get_or_insert_default()
    }

    fn machine_and_requests(&mut self) -> (&mut Machine, &mut Requests) {
        (&mut self.machine, self.requests.get_or_insert_default())
    }

    /// The session has ended: so have its requests.
    pub(super) fn end_requests(&mut self, close: &Close) {
        self.requests.iter_mut().for_each(|requests| requests.end(close));
    }
}

/// Whether it is about a request of the side that receives it.
fn is_of_who_is_asked(message: &RequestMessage) -> bool {
    matches!(message, RequestMessage::Chunk { .. } | RequestMessage::Answer { .. } | RequestMessage::Error { .. })
}

fn violation(reason: String) -> Close {
    Close::protocol(Code::ProtocolViolation, reason)
}
