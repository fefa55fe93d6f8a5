//! Where openings become sessions: the routes of the four transports, who may come in, and what a session is made of.

pub(crate) mod authentication;
pub(crate) mod registry;
pub(crate) mod routes;

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{ConnectInfo, OriginalUri};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, CatchUnwind};
use http::{HeaderMap, StatusCode, Uri, request};
use ipnet::IpNet;
use throughline_protocol::{Close, Code, Machine, ResumeKey, SessionId, machine};
use tokio::sync::watch;
use tokio_util::future::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Admission, Place, Refusal};
use crate::client_ip::client_ip;
use crate::config::Limits;
use crate::origin::OriginPolicy;
use crate::session::channels::ChannelHandler;
use crate::session::credentials::Credentials;
use crate::session::driver::Driver;
use crate::session::flusher::Flusher;
use crate::session::links::traits;
use crate::session::shared::{Arrival, Shared, now};
use crate::session::{Identity, Session};
use crate::transport::Transport;
use crate::transport::link::Link;
use crate::transport::open::{Open, Rejection};
use authentication::Authenticator;
use registry::{Attachment, Registry};

/// The application: called once for each session.
pub(crate) type OnSession = Box<dyn Fn(Session) -> BoxFuture<'static, ()> + Send + Sync + 'static>;

/// Tells the hashes of the certificates that browsers should accept: none when they need not be told.
pub(crate) type Hashes = Box<dyn Fn() -> Vec<[u8; 32]> + Send + Sync + 'static>;

/// What a client that met a server on its way out is told to wait: another one has usually taken over by then.
const RETRY_WHEN_GOING_AWAY: Duration = Duration::from_secs(1);

/// How long POSTs and polls find a session that has ended: those under way when it did are answered as if they had come in time. A
/// 410 would overtake its CLOSE, and browsers log every 410 as an error. As long as a CLOSE may take.
const LINGER: Duration = Duration::from_secs(3);

/// Opens sessions. One of them serves all listeners.
pub(crate) struct Gateway {
    pub(crate) limits: Limits,
    /// The same for all sessions.
    pub(crate) machine: Arc<machine::Config>,
    pub(crate) origins: OriginPolicy,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) admission: Admission,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) on_session: OnSession,
    /// What clients say about channels goes there.
    pub(crate) channels: Option<Arc<dyn ChannelHandler>>,
    pub(crate) registry: Arc<Registry>,
    /// Writes what sessions send.
    pub(crate) flusher: Arc<Flusher>,
    /// One task for each session, from its link on.
    pub(crate) sessions: TaskTracker,
    /// One task for each call of `on_session`.
    pub(crate) applications: TaskTracker,
    /// Set when the server goes away: over what time clients are asked to leave.
    pub(crate) going_away: watch::Sender<Option<Duration>>,
    /// Cuts what is left of both.
    pub(crate) ended: CancellationToken,
    pub(crate) quic: Option<routes::QuicInfo>,
    pub(crate) hashes: Hashes,
}

/// An opening that was let in.
pub(crate) struct Admitted {
    transport: Transport,
    remote: Option<IpAddr>,
    credentials: Credentials,
    /// The client wants marks in front of native datagrams.
    pub(crate) marks: bool,
    purpose: Purpose,
}

/// Somebody who was let in without a session. He keeps his place for as long as this.
pub(crate) struct Visitor {
    pub(crate) identity: Identity,
    _place: Place,
}

impl Visitor {
    /// Waits for the end of his credentials.
    pub(crate) fn expired(&self) -> impl Future<Output = ()> + use<> {
        let left = self.identity.expires.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
        async move {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        }
    }
}

/// What a link is for.
enum Purpose {
    /// A session of its own, which has a place.
    New(Place),
    /// The session that is there, whose client has received so much of stream 0.
    Further(Arc<Shared>, u64),
}

impl Gateway {
    /// Decides about an opening: cheap questions first, the application's last.
    pub(crate) async fn admit(&self, transport: Transport, parts: &request::Parts) -> Result<Admitted, Rejection> {
        let remote = self.remote(parts);
        let open = self.check(transport, parts, remote);
        let result = match open {
            Ok(open) => self.authenticate(open, remote).await,
            Err(rejection) => Err(rejection),
        };
        if let Err(rejection) = &result {
            let (status, reason) = (rejection.status().as_u16(), rejection.reason());
            let remote = remote.map(tracing::field::display);
            tracing::debug!(%transport, remote, status, reason, "opening refused");
        }
        result
    }

    fn check(&self, transport: Transport, parts: &request::Parts, remote: Option<IpAddr>) -> Result<Open, Rejection> {
        self.check_origin(&parts.uri, &parts.headers)?;
        let open = Open::parse(transport, original_uri(parts), &parts.headers, remote)?;
        self.admission.opening(remote).map_err(refused)?;
        Ok(open)
    }

    pub(crate) fn check_origin(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Rejection> {
        if self.origins.allows_request(uri, headers) {
            return Ok(());
        }
        Err(Rejection::forbidden("pages of this Origin may not connect: the server's `origins` does not list it"))
    }

    async fn authenticate(&self, open: Open, remote: Option<IpAddr>) -> Result<Admitted, Rejection> {
        // A further link of a session that is there takes no place; whether it is one is not said to anybody.
        let further = open.resume.as_ref().and_then(|resume| {
            let received = resume.received.iter().find(|(stream, _)| *stream == 0).map_or(0, |(_, received)| *received);
            Some((self.registry.resumable(resume)?, received))
        });
        let place = if further.is_none() { Some(self.place(remote)?) } else { None };
        let identity = self.authenticator.identify(&open).await?;
        let purpose = match (further, place) {
            (Some((shared, received)), _) if shared.lock().credentials.identity.user == identity.user => {
                Purpose::Further(shared, received)
            }
            (_, Some(place)) => Purpose::New(place),
            (_, None) => Purpose::New(self.place(remote)?),
        };
        let (transport, marks) = (open.transport, open.marks);
        let credentials = Credentials { identity: identity.into_shared(), again: self.authenticator.again(&open) };
        Ok(Admitted { transport, remote, credentials, marks, purpose })
    }

    /// Decides about a request that opens no session, and takes as much as one: as for an opening, in the same order.
    pub(crate) async fn visit(&self, transport: Transport, parts: &request::Parts) -> Result<Visitor, Rejection> {
        let remote = self.remote(parts);
        self.check_origin(&parts.uri, &parts.headers)?;
        let open = Open::visit(transport, original_uri(parts), &parts.headers, remote)?;
        self.admission.opening(remote).map_err(refused)?;
        let place = self.place(remote)?;
        Ok(Visitor { identity: self.authenticator.identify(&open).await?, _place: place })
    }

    /// A place for a new session.
    fn place(&self, remote: Option<IpAddr>) -> Result<Place, Rejection> {
        if self.is_going_away() {
            return Err(going_away());
        }
        self.admission.admit(remote).map_err(refused)
    }

    fn remote(&self, parts: &request::Parts) -> Option<IpAddr> {
        let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>()?;
        Some(client_ip(peer.ip(), &parts.headers, &self.trusted_proxies))
    }

    /// Takes over a link: for the session that it was opened for, or for one of its own.
    pub(crate) fn begin(self: &Arc<Self>, admitted: Admitted, link: Box<dyn Link>, attachment: Option<Attachment>) {
        let Admitted { transport, remote, credentials, purpose, .. } = admitted;
        debug_assert_eq!(transport, link.transport());
        match purpose {
            Purpose::New(place) => self.begin_session(credentials, remote, link, attachment, Ok(place)),
            Purpose::Further(shared, received) => {
                if let Err(link) = self.join(&shared, received, credentials.clone(), remote, link, attachment.clone()) {
                    // It ended since it was looked for.
                    let place = self.place(remote);
                    self.begin_session(credentials, remote, link, attachment, place);
                }
            }
        }
    }

    /// Gives a link to the session that it was opened for; gives it back when that has ended.
    fn join(
        &self,
        shared: &Arc<Shared>,
        received: u64,
        credentials: Credentials,
        remote: Option<IpAddr>,
        link: Box<dyn Link>,
        attachment: Option<Attachment>,
    ) -> Result<(), Box<dyn Link>> {
        let Some(offer) = shared.offer(received, traits(&*link), credentials.until()) else { return Err(link) };
        if let (Ok(offer), Some(attachment)) = (&offer, attachment) {
            self.registry.attach(shared.id, offer.link, attachment);
        }
        shared.arrive(Arrival { link, remote, credentials, offer })
    }

    /// Begins a session on `link`. It runs in a task of its own until it has ended. Without a place it is closed at once: a status can be
    /// answered no more.
    fn begin_session(
        self: &Arc<Self>,
        credentials: Credentials,
        remote: Option<IpAddr>,
        link: Box<dyn Link>,
        attachment: Option<Attachment>,
        place: Result<Place, Rejection>,
    ) {
        let (id, key) = (SessionId(random()), ResumeKey(random()));
        let mut machine = Machine::server(Arc::clone(&self.machine), id, key);
        machine.set_expires(credentials.until());
        machine.link_opened(now(), traits(&*link));
        let shared = Shared::new(machine, id, key, credentials, self.channels.clone());
        let shared = Arc::new(shared.flushed_by(Arc::clone(&self.flusher)));
        let entered = self.registry.enter(Arc::clone(&shared), attachment);
        if let Err(rejection) = &place {
            shared.close(Close::protocol(rejection.code(), rejection.reason()));
        }
        if self.is_going_away() {
            // It slipped in while the others were told.
            shared.close(shutting_down());
        }
        let on_open = {
            let (gateway, shared) = (Arc::clone(self), Arc::clone(&shared));
            move || gateway.run_application(shared)
        };
        // Nothing here is moved once more inside the task, which would then have room for it twice.
        let mut driver = Driver::new(Arc::clone(&shared), link, remote, on_open);
        let (ended, place) = (self.ended.clone(), place.ok());
        self.sessions.spawn(async move {
            let (close, opened) = tokio::select! {
                end = &mut driver => end,
                () = ended.cancelled() => entered.shared.cut("the server has stopped"),
            };
            drop(place);
            log_end(&entered.shared, &close, opened);
            if entered.takes_requests() {
                // Nothing waits for this: it ends by itself, or with the server.
                tokio::spawn(async move {
                    drop(tokio::time::timeout(LINGER, ended.cancelled()).await);
                    drop(entered);
                });
            }
        });
    }

    /// What these limits are for a session's machine.
    pub(crate) fn machine_config(limits: &Limits) -> machine::Config {
        machine::Config {
            heartbeat_ms: limits.heartbeat_interval.as_millis() as u64,
            idle_timeout_ms: limits.idle_timeout.as_millis() as u64,
            open_timeout_ms: limits.open_timeout.as_millis() as u64,
            max_message_bytes: limits.max_message_bytes,
            send_buffer_bytes: limits.session_buffer_bytes as u64,
            receive_window_bytes: limits.receive_window_bytes as u64,
            resume_window_ms: limits.resume_window.as_millis() as u64,
            max_streams: u64::from(limits.max_session_streams),
            stream_window_bytes: limits.stream_window_bytes as u64,
            stream_buffer_bytes: limits.stream_buffer_bytes as u64,
            session_stream_bytes: limits.session_stream_bytes as u64,
        }
    }

    fn run_application(self: Arc<Self>, shared: Arc<Shared>) {
        let session = Session::new(Arc::clone(&shared));
        let (id, remote) = (session.id(), session.remote_addr().map(tracing::field::display));
        let transport = session.transport().map_or("none", Transport::name);
        let identity = session.identity();
        let user = identity.user.as_deref();
        tracing::info!(session = %id, %transport, remote, user, "session opened");
        self.applications.clone().spawn(async move {
            // Nothing is kept here that is not needed: there is one such task for each session.
            let close = match self.call_application(&shared) {
                Some(running) => match running.with_cancellation_token(&self.ended).await {
                    Some(Ok(())) => Close::protocol(Code::Normal, ""),
                    Some(Err(_)) => application_failed(),
                    None => return,
                },
                None => application_failed(),
            };
            shared.close(close);
        });
    }

    /// The application's future, whose panics are caught. The call itself is caught as well: `None` when it failed.
    fn call_application(&self, shared: &Arc<Shared>) -> Option<CatchUnwind<AssertUnwindSafe<BoxFuture<'static, ()>>>> {
        let called = catch_unwind(AssertUnwindSafe(|| (self.on_session)(Session::new(Arc::clone(shared)))));
        Some(AssertUnwindSafe(called.ok()?).catch_unwind())
    }

    /// Refuses new sessions from now on, and asks the clients of those that are there to leave, each after a delay of its own within `spread`.
    pub(crate) fn go_away(&self, spread: Duration) {
        self.going_away.send_replace(Some(spread));
        let spread_ms = spread.as_millis() as u64;
        for shared in self.registry.all() {
            shared.go_away(random_below(spread_ms), &shutting_down());
        }
    }

    /// Waits for the moment at which somebody who is no session has to leave: one of his own after the server began to go away.
    pub(crate) fn leaving(&self) -> impl Future<Output = ()> + use<> {
        let mut going_away = self.going_away.subscribe();
        async move {
            loop {
                let spread = going_away.wait_for(Option::is_some).await.map_or(Some(Duration::ZERO), |spread| *spread);
                let delay = Duration::from_millis(random_below(spread.unwrap_or_default().as_millis() as u64));
                // It may have to be sooner.
                if tokio::time::timeout(delay, going_away.changed()).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Closes all sessions that are left.
    pub(crate) fn close_all(&self) {
        self.going_away.send_replace(Some(Duration::ZERO));
        for shared in self.registry.all() {
            shared.close(shutting_down());
        }
    }

    pub(crate) fn is_going_away(&self) -> bool {
        self.going_away.borrow().is_some()
    }
}

/// A number from 0 to below this one; 0 of 0.
pub(crate) fn random_below(bound: u64) -> u64 {
    u64::from_be_bytes(random()).checked_rem(bound).unwrap_or(0)
}

/// Routers strip what they are nested under.
fn original_uri(parts: &request::Parts) -> &Uri {
    parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri)
}

fn application_failed() -> Close {
    Close::protocol(Code::InternalError, "the server's application failed")
}

fn shutting_down() -> Close {
    Close::protocol(Code::ShuttingDown, "the server is going away")
}

fn going_away() -> Rejection {
    let reason = "the server is going away";
    let rejection = Rejection::new(StatusCode::SERVICE_UNAVAILABLE, Code::ShuttingDown, reason);
    rejection.retry_after(RETRY_WHEN_GOING_AWAY)
}

fn refused(refusal: Refusal) -> Rejection {
    let status = match refusal {
        Refusal::Full => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::TooManySessions | Refusal::TooManyOpenings { .. } => StatusCode::TOO_MANY_REQUESTS,
    };
    Rejection::new(status, Code::LimitReached, refusal.to_string()).retry_after(refusal.retry_after())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness no id is safe to hand out; Linux has it as soon as it has booted.
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// The one line that says how a session was.
fn log_end(shared: &Shared, close: &Close, opened: bool) {
    let (stats, history) = {
        let core = shared.lock();
        (core.machine.stats(), core.history)
    };
    let duration_ms = shared.opened.elapsed().as_millis() as u64;
    let (session, transport, transports) = (shared.id, history.transport(), history.transports());
    let (code, name) = (close.code, close.name());
    let reason = close.reason.as_str(); // a client's text: formatted as Debug, which escapes what would forge a line
    if opened {
        tracing::info!(
            %session, %transport, %transports, links = history.links, code, name, ?reason, duration_ms,
            bytes_in = stats.bytes_in, bytes_out = stats.bytes_out,
            messages_in = stats.messages_in, messages_out = stats.messages_out,
            datagrams_in = stats.datagrams_in, datagrams_out = stats.datagrams_out,
            "session closed"
        );
    } else {
        tracing::debug!(%session, %transport, code, name, ?reason, duration_ms, "session was not chosen by its client");
    }
}
