//! The composition root: what is started in which order, who owns it, and how it all ends.
//!
//! 1. Certificates, because both listeners need them. 2. The sockets, QUIC first: its port is told to whoever comes over TCP.
//! 3. The hub, which keeps the channels. 4. The gateway, which opens sessions for both listeners. 5. The accept loops. They end in the opposite order: first nobody new is let
//!    in, then sessions are told, then what is left is cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::api::{self, Api};
use crate::auth::Tokens;
use crate::certificates::{CertificateError, Certificates};
use crate::config::{ChannelsConfig, Config, ConfigError, Limits};
use crate::engine::memory::{Bounds, MemoryEngine};
use crate::gateway::authentication::{Authenticate, Authenticator};
use crate::gateway::registry::Registry;
use crate::gateway::routes::{self, QuicInfo};
use crate::gateway::{Gateway, OnSession};
use crate::http;
use crate::hub::{Action, Authorize, Denied, Hub};
use crate::listener::{self, ListenError, Listener};
use crate::origin::OriginPolicy;
use crate::session::flusher::Flusher;
use crate::session::{Identity, Session};
use crate::transport::open::{Open, Rejection};
use crate::transport::webtransport;

/// How long before the end of a drain the sessions that are left are closed: half of it for their CLOSE, half for connections.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A running server. Dropping it ends everything at once; [`Server::drain`] is the gentle way.
pub struct Server {
    gateway: Arc<Gateway>,
    hub: Hub,
    base: String,
    /// Where channels are read over plain HTTP.
    http_base: Option<String>,
    /// The API for back ends and its base, if there is one.
    api: Option<(Api, String)>,
    tcp: Option<SocketAddr>,
    quic: Option<quinn::Endpoint>,
    certificates: Option<Certificates>,
    /// Ends the accept loops.
    accepting: CancellationToken,
    /// Ends the connections and sessions that are left.
    running: CancellationToken,
    connections: TaskTracker,
}

/// Puts a server together.
pub struct Builder {
    config: Config,
    routes: Router,
    authenticate: Option<Authenticate>,
    /// It looks at nothing but tokens, when a client sends a new one.
    only_tokens: bool,
    authorize: Option<Authorize>,
    tokens: Option<Tokens>,
    on_session: OnSession,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A value of the configuration cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The TCP address cannot be listened on.
    #[error(transparent)]
    Tcp(#[from] ListenError),
    /// The UDP address cannot be listened on.
    #[error("cannot listen on UDP {addr}: {}", listener::bind_reason(source))]
    Quic {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

impl Server {
    /// Begins a server with the default configuration, nobody to authenticate, and an application that does nothing.
    pub fn builder() -> Builder {
        Builder {
            config: Config::default(),
            routes: Router::new(),
            authenticate: None,
            only_tokens: false,
            authorize: None,
            tokens: None,
            on_session: Box::new(|session| async move { while session.recv().await.is_some() {} }.boxed()),
        }
    }

    /// Where TCP is accepted, with the real port; `None` without a TCP listener.
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// Where QUIC is accepted, with the real port; `None` without a QUIC listener.
    pub fn quic_addr(&self) -> Option<SocketAddr> {
        self.quic.as_ref().and_then(|endpoint| endpoint.local_addr().ok())
    }

    /// SHA-256 of the certificates that browsers should accept by their hash, current and next, as
    /// `serverCertificateHashes` takes them. None when the certificate is the user's own.
    pub fn certificate_hashes(&self) -> Vec<[u8; 32]> {
        self.certificates.as_ref().map(Certificates::hashes).unwrap_or_default()
    }

    /// The channels.
    pub fn hub(&self) -> Hub {
        self.hub.clone()
    }

    /// The routes of the transports, below [`Config::base`], of plain HTTP, below [`HttpConfig::base`](crate::HttpConfig::base), and of the API, below [`ApiConfig::base`](crate::ApiConfig::base), for an axum application of one's own: `merge` it, or `nest` it anywhere. Serve that
    /// application with `into_make_service_with_connect_info::<SocketAddr>()`: limits per address need to know it.
    pub fn router(&self) -> Router {
        let router = Router::new().nest(&self.base, routes::router(Arc::clone(&self.gateway)));
        let router = match &self.http_base {
            Some(base) => router.nest(base, http::router(Arc::clone(&self.gateway), self.hub.clone())),
            None => router,
        };
        match &self.api {
            Some((api, base)) => router.merge(api::router(api.clone(), base)),
            None => router,
        }
    }

    /// Stops, gently. `/readyz` says 503, and new sessions are refused with 503; further links of those that are there are still taken. Each client is
    /// asked to leave after a delay of its own within [`Limits::drain_spread`], and its session is closed with `SHUTTING_DOWN` when both sides have what the
    /// other has sent. What has not come so far by then is closed shortly before `timeout`, the listeners close, and at `timeout` what is left is cut.
    pub async fn drain(self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        self.gateway.sessions.close();
        self.gateway.applications.close();
        self.connections.close();
        self.gateway.go_away(self.gateway.limits.drain_spread.min(timeout / 2));
        // A client that polls comes back for its CLOSE, one whose link is lost for the rest, and whoever is new is told why he is refused: the
        // listeners stay while sessions say goodbye.
        let last_words = (timeout / 4).min(LAST_WORDS);
        if tokio::time::timeout_at(deadline - last_words, self.gateway.sessions.wait()).await.is_err() {
            self.gateway.close_all();
            drop(tokio::time::timeout_at(deadline - last_words / 2, self.gateway.sessions.wait()).await);
        }
        self.accepting.cancel();
        let all = async {
            self.gateway.sessions.wait().await;
            self.gateway.applications.wait().await;
            self.hub.settled().await;
            self.connections.wait().await;
        };
        let in_time = tokio::time::timeout_at(deadline, all).await.is_ok();
        tracing::info!(in_time, "server stopped");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The gateway may live on in a router that an application of its own has mounted.
        self.gateway.close_all();
        self.accepting.cancel();
        self.running.cancel();
        if let Some(endpoint) = &self.quic {
            endpoint.close(0u32.into(), b"");
        }
    }
}

impl Builder {
    /// Takes this configuration instead of the default.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Serves these routes beside those of the transports, over TCP and HTTP/3. Their handlers get the channels as `axum::Extension<Hub>`. `/livez` and `/readyz` are taken: they answer 200, the latter
    /// 503 while the server is going away. So is what lies below the configuration's paths.
    pub fn routes(mut self, routes: Router) -> Self {
        self.routes = routes;
        self
    }

    /// Asks about every opening, on all transports, before it is answered with 200 or 101: who is it, or why not? A [`Rejection`] becomes
    /// 401, 403 or 429 with its reason. The answer may take up to `limits.open_timeout`. Take from [`Open`] what the future needs.
    ///
    /// When [`Identity::expires`] comes near, a client may send another token: then this is asked again, with what is kept of the opening of the session's newest
    /// link, and the token in [`Open::token`]. What was secret in that opening is not kept: `Authorization`, and the fields of the opening itself, are not there.
    pub fn authenticate<F, Fut>(mut self, authenticate: F) -> Self
    where
        F: Fn(&Open) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Identity, Rejection>> + Send + 'static,
    {
        self.authenticate = Some(Box::new(move |open| authenticate(open).boxed()));
        self.only_tokens = false;
        self
    }

    /// Asks what each client may do with channels, instead of what the configuration says of their namespaces. The client is told why not. Must not wait:
    /// what it needs to know is in the [`Identity`]. When it panics, the session is closed with `INTERNAL_ERROR`.
    pub fn authorize<F>(mut self, authorize: F) -> Self
    where
        F: Fn(&Identity, Action<'_>) -> Result<(), Denied> + Send + Sync + 'static,
    {
        self.authorize = Some(Box::new(authorize));
        self
    }

    /// Lets tokens decide: [`Tokens::authenticate`] about openings, and, unless there is [`Builder::authorize`], about channels what their namespace allows everybody,
    /// or [`Tokens::authorize`].
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = Some(tokens.clone());
        Self { only_tokens: true, ..self.authenticate(move |open| tokens.authenticate(open)) }
    }

    /// The application: called once for each session, in a task of its own. When it returns, the session is closed with code 0; when it
    /// panics, with `INTERNAL_ERROR`.
    pub fn on_session<F, Fut>(mut self, on_session: F) -> Self
    where
        F: Fn(Session) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_session = Box::new(move |session| on_session(session).boxed());
        self
    }

    /// Starts to listen. When this returns, both listeners accept.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running then.
    pub async fn start(self) -> Result<Server, StartError> {
        let config = self.config;
        config.validate()?;
        let (accepting, running, connections) =
            (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());

        let certificates = open_certificates(&config).await?;
        let quic_limits = quic_limits(&config.limits);
        let quic = match (config.quic.listen, &certificates) {
            (Some(addr), Some(certificates)) => Some(bind_quic(addr, certificates, &quic_limits)?),
            _ => None,
        };
        let quic_port = quic.as_ref().and_then(|endpoint| endpoint.local_addr().ok()).map(|addr| addr.port());
        let advertised = config.quic.advertised_port.or(quic_port);
        let tcp = match config.tcp.listen {
            Some(addr) => Some(Listener::bind(addr)?),
            None => None,
        };

        let mut channels = config.channels.clone();
        // A publication has to fit into a message.
        channels.max_publication_bytes = channels.max_publication_bytes.min(config.limits.max_message_bytes);
        let authorize = self.authorize.or_else(|| Some(by_tokens(self.tokens?, config.channels.clone())));
        let bounds = Bounds { channels: channels.max_channels, bytes: channels.max_history_bytes };
        let max_message = config.limits.max_message_bytes;
        let flusher = Flusher::start(&running);
        let hub = Hub::new(channels, max_message, authorize, Arc::clone(&flusher), running.clone(), |sink| {
            Arc::new(MemoryEngine::new(bounds, sink))
        });

        let gateway = Arc::new(Gateway {
            origins: OriginPolicy::new(&config.origins).unwrap_or_default(), // validated above
            trusted_proxies: config.trusted_proxies.clone(),
            admission: Admission::new(&config.limits),
            authenticator: Arc::new(Authenticator::new(
                self.authenticate,
                self.only_tokens,
                config.limits.open_timeout,
            )),
            on_session: self.on_session,
            channels: Some(hub.handler()),
            registry: Arc::new(Registry::default()),
            flusher,
            sessions: TaskTracker::new(),
            applications: TaskTracker::new(),
            going_away: watch::Sender::new(None),
            ended: running.clone(),
            quic: quic_port.and(advertised).map(|port| QuicInfo {
                host: config.quic.advertised_host.clone(),
                port,
                path: format!("{}/webtransport", config.base),
            }),
            hashes: match certificates.clone() {
                Some(certificates) => Box::new(move || certificates.hashes()),
                None => Box::new(Vec::new),
            },
            machine: Arc::new(Gateway::machine_config(&config.limits)),
            limits: config.limits.clone(),
        });

        let server = Server {
            base: config.base.clone(),
            http_base: config.http.base.clone(),
            api: (!config.api.keys.is_empty()).then(|| {
                let api = Api::new(config.api.clone(), Arc::clone(&gateway), hub.clone());
                (api, config.api.base.clone())
            }),
            tcp: tcp.as_ref().map(Listener::local_addr),
            quic,
            certificates,
            gateway,
            hub,
            accepting,
            running,
            connections,
        };
        let router = server
            .router()
            .merge(routes::health(Arc::clone(&server.gateway)))
            .merge(self.routes.layer(Extension(server.hub())));
        if let Some(endpoint) = &server.quic {
            let (accepting, connections) = (server.accepting.clone(), server.connections.clone());
            let serve = webtransport::serve(endpoint.clone(), router.clone(), quic_limits, accepting, connections);
            server.connections.spawn(serve);
        }
        if let Some(tcp) = tcp {
            let limits = &config.limits;
            let options = listener::Options {
                tls: server
                    .certificates
                    .as_ref()
                    .filter(|_| config.tcp.tls)
                    .map(|c| listener::tls_config(c.resolver())),
                alt_svc: advertised.filter(|_| server.quic.is_some()).map(listener::alt_svc),
                max_connections: limits.max_tcp_connections,
                header_read_timeout: limits.header_read_timeout,
                tls_handshake_timeout: limits.tls_handshake_timeout,
                linger: limits.drain_timeout,
            };
            let (accepting, running) = (server.accepting.clone(), server.running.clone());
            server.connections.spawn(async move {
                tokio::select! {
                    () = tcp.serve(router, options, accepting) => {}
                    () = running.cancelled() => {}
                }
            });
        }
        let (hub, running) = (server.hub.run(), server.accepting.clone());
        server.connections.spawn(async move {
            tokio::select! {
                () = hub => {}
                () = running.cancelled() => {}
            }
        });
        if let Some(certificates) = server.certificates.clone() {
            let accepting = server.accepting.clone();
            server.connections.spawn(async move {
                tokio::select! {
                    () = certificates.keep_fresh() => {}
                    () = accepting.cancelled() => {}
                }
            });
        }
        Ok(server)
    }
}

fn by_tokens(tokens: Tokens, channels: ChannelsConfig) -> Authorize {
    Box::new(move |who, action| action.allowed_by(&channels).or_else(|_| tokens.authorize(who, action)))
}

/// What the configuration says, for the layer below.
fn quic_limits(limits: &Limits) -> webtransport::Limits {
    // Browsers open spare connections, and load pages over HTTP/3: a quarter more than sessions, and a few where sessions are few.
    let connections_for = |sessions: usize| sessions + sessions / 4 + 16;
    webtransport::Limits {
        handshake_timeout: limits.open_timeout,
        headers_timeout: limits.open_timeout,
        max_idle_timeout: limits.idle_timeout,
        keep_alive: Some(limits.idle_timeout / 3), // two pings may be lost before the timeout
        max_bidi_streams: limits.max_streams,
        max_session_streams: limits.max_session_streams,
        // As many as may be open: one that is thrown away would be missed for as long as its link lives.
        max_queued_streams: (limits.max_streams + limits.max_session_streams) as usize,
        max_connections: connections_for(limits.max_sessions),
        max_connections_per_ip: connections_for(limits.max_sessions_per_ip),
        ..webtransport::Limits::default()
    }
}

/// Certificates are needed for QUIC, and for TLS on TCP.
async fn open_certificates(config: &Config) -> Result<Option<Certificates>, StartError> {
    if config.quic.listen.is_none() && !(config.tcp.tls && config.tcp.listen.is_some()) {
        return Ok(None);
    }
    let certificate = config.certificate.clone();
    let opened = tokio::task::spawn_blocking(move || Certificates::open(&certificate)).await;
    let certificates = opened.map_err(|error| StartError::Tls(error.to_string()))??;
    Ok(Some(certificates))
}

fn bind_quic(
    addr: SocketAddr,
    certificates: &Certificates,
    limits: &webtransport::Limits,
) -> Result<quinn::Endpoint, StartError> {
    let config = webtransport::quic_config(certificates.resolver(), limits)
        .map_err(|error| StartError::Tls(error.to_string()))?;
    webtransport::bind(addr, config, limits).map_err(|source| StartError::Quic { addr, source })
}
