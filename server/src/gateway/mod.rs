//! Where openings become sessions: the routes of the four transports, who may come in, and what a session is made of.

pub(crate) mod registry;
pub(crate) mod routes;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{ConnectInfo, OriginalUri};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode, Uri, request};
use ipnet::IpNet;
use throughline_protocol::{Close, Code, Machine, ResumeKey, SessionId, machine};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Admission, Place, Refusal};
use crate::client_ip::client_ip;
use crate::config::Limits;
use crate::origin::OriginPolicy;
use crate::session::driver::Driver;
use crate::session::handle::{Shared, now};
use crate::session::{Identity, Session};
use crate::transport::Transport;
use crate::transport::link::Link;
use crate::transport::open::{Open, Rejection};
use registry::{Attachment, Registry};

/// Decides about an opening before it is answered.
pub(crate) type Authenticate =
    Box<dyn Fn(&Open) -> BoxFuture<'static, Result<Identity, Rejection>> + Send + Sync + 'static>;

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
    pub(crate) origins: OriginPolicy,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) admission: Admission,
    pub(crate) authenticate: Authenticate,
    pub(crate) on_session: OnSession,
    pub(crate) registry: Arc<Registry>,
    /// One task for each session, from its link on.
    pub(crate) sessions: TaskTracker,
    /// One task for each call of `on_session`.
    pub(crate) applications: TaskTracker,
    pub(crate) going_away: AtomicBool,
    /// Cuts what is left of both.
    pub(crate) ended: CancellationToken,
    pub(crate) quic: Option<routes::QuicInfo>,
    pub(crate) hashes: Hashes,
}

/// An opening that was let in.
pub(crate) struct Admitted {
    transport: Transport,
    remote: Option<IpAddr>,
    identity: Identity,
    place: Place,
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
        if self.going_away.load(Ordering::Relaxed) {
            let reason = "the server is going away";
            let rejection = Rejection::new(StatusCode::SERVICE_UNAVAILABLE, Code::ShuttingDown, reason);
            return Err(rejection.retry_after(RETRY_WHEN_GOING_AWAY));
        }
        self.check_origin(&parts.uri, &parts.headers)?;
        // Routers strip what they are nested under.
        let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
        let open = Open::parse(transport, uri, &parts.headers, remote)?;
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
        let place = self.admission.admit(remote).map_err(refused)?;
        let failed = |reason| {
            let rejection = Rejection::new(StatusCode::SERVICE_UNAVAILABLE, Code::InternalError, reason);
            Err(rejection.retry_after(RETRY_WHEN_GOING_AWAY))
        };
        // A panic would take along the connection, and whoever else is on it.
        let decision = AssertUnwindSafe(async { (self.authenticate)(&open).await }).catch_unwind();
        let identity = match tokio::time::timeout(self.limits.open_timeout, decision).await {
            Ok(Ok(identity)) => identity?,
            Ok(Err(_)) => return failed("authentication failed"),
            Err(_) => return failed("authentication took too long"),
        };
        Ok(Admitted { transport: open.transport, remote, identity, place })
    }

    fn remote(&self, parts: &request::Parts) -> Option<IpAddr> {
        let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>()?;
        Some(client_ip(peer.ip(), &parts.headers, &self.trusted_proxies))
    }

    /// Begins a session on `link`. It runs in a task of its own until it has ended.
    pub(crate) fn begin(self: &Arc<Self>, admitted: Admitted, link: Box<dyn Link>, attachment: Attachment) {
        let Admitted { transport, remote, identity, place } = admitted;
        debug_assert_eq!(transport, link.transport());
        let (id, key) = (SessionId(random()), ResumeKey(random()));
        let native = link.native_datagrams();
        let has_requests = !matches!(attachment, Attachment::None);
        let mut machine = Machine::server(self.machine_config(), id, key);
        machine.link_opened(now(), native.as_ref().map(|native| native.max_len()), None);
        let shared = Arc::new(Shared::new(machine, id, transport, remote, identity, native));
        let entered = self.registry.enter(Arc::clone(&shared), attachment);
        if self.going_away.load(Ordering::Relaxed) {
            // It slipped in while the others were told.
            shared.close(shutting_down());
        }
        let on_open = {
            let (gateway, shared) = (Arc::clone(self), Arc::clone(&shared));
            move || gateway.run_application(shared)
        };
        let driver = Driver::new(Arc::clone(&shared), link, on_open);
        let ended = self.ended.clone();
        self.sessions.spawn(async move {
            let (close, opened) = tokio::select! {
                end = driver => end,
                () = ended.cancelled() => shared.cut("the server has stopped"),
            };
            drop(place);
            log_end(&shared, &close, opened);
            if has_requests {
                // Nothing waits for this: it ends by itself, or with the server.
                tokio::spawn(async move {
                    drop(tokio::time::timeout(LINGER, ended.cancelled()).await);
                    drop(entered);
                });
            }
        });
    }

    fn machine_config(&self) -> machine::Config {
        let limits = &self.limits;
        machine::Config {
            heartbeat_ms: limits.heartbeat_interval.as_millis() as u64,
            idle_timeout_ms: limits.idle_timeout.as_millis() as u64,
            open_timeout_ms: limits.open_timeout.as_millis() as u64,
            max_message_bytes: limits.max_message_bytes,
            send_buffer_bytes: limits.session_buffer_bytes as u64,
            receive_window_bytes: limits.receive_window_bytes as u64,
        }
    }

    fn run_application(self: Arc<Self>, shared: Arc<Shared>) {
        let (id, transport, remote) = (shared.id, shared.transport, shared.remote.map(tracing::field::display));
        let user = shared.identity.user.as_deref();
        tracing::info!(session = %id, %transport, remote, user, "session opened");
        self.applications.clone().spawn(async move {
            // The call itself is caught as well: in the driver's task it would take the session along.
            let running = async { (self.on_session)(Session::new(Arc::clone(&shared))).await };
            let result = tokio::select! {
                result = AssertUnwindSafe(running).catch_unwind() => result,
                () = self.ended.cancelled() => return,
            };
            let close = match result {
                Ok(()) => Close::protocol(Code::Normal, ""),
                Err(_) => Close::protocol(Code::InternalError, "the server's application failed"),
            };
            shared.close(close);
        });
    }

    /// Refuses new sessions from now on, and closes those that are there.
    pub(crate) fn go_away(&self) {
        self.going_away.store(true, Ordering::Relaxed);
        self.registry.close_all(&shutting_down());
    }
}

fn shutting_down() -> Close {
    Close::protocol(Code::ShuttingDown, "the server is going away")
}

fn refused(refusal: Refusal) -> Rejection {
    let status = match refusal {
        Refusal::Full => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::TooManySessions | Refusal::TooManyOpenings { .. } => StatusCode::TOO_MANY_REQUESTS,
    };
    Rejection::new(status, Code::LimitReached, refusal.to_string()).retry_after(refusal.retry_after())
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    // Without randomness no id is safe to hand out; Linux has it as soon as it has booted.
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// The one line that says how a session was.
fn log_end(shared: &Shared, close: &Close, opened: bool) {
    let stats = shared.lock().stats();
    let duration_ms = shared.opened.elapsed().as_millis() as u64;
    let (session, transport, code, name) = (shared.id, shared.transport, close.code, close.name());
    let reason = close.reason.as_str(); // a client's text: formatted as Debug, which escapes what would forge a line
    if opened {
        tracing::info!(
            %session, %transport, code, name, ?reason, duration_ms,
            bytes_in = stats.bytes_in, bytes_out = stats.bytes_out,
            messages_in = stats.messages_in, messages_out = stats.messages_out,
            datagrams_in = stats.datagrams_in, datagrams_out = stats.datagrams_out,
            "session closed"
        );
    } else {
        tracing::debug!(%session, %transport, code, name, ?reason, duration_ms, "link was not chosen by its client");
    }
}
