//! The TCP listener: HTTP/1.1 and HTTP/2, with or without TLS, in front of one axum router.
//!
//! `axum::serve` knows none of: TLS, a limit of connections, a time limit for request heads, RFC 8441, and an end that an open
//! stream cannot put off. So the accept loop is ours, over hyper.

mod socket;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use http::{HeaderValue, Request, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::{ServerConfig, crypto::aws_lc_rs, server::ResolvesServerCert};
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use socket::Socket;

/// Connections that the kernel keeps until they are accepted. A whole fleet may come back in one second.
const BACKLOG: i32 = 1_024;

/// What the kernel may hold of a connection's data before it has been sent once. More would be state that grows stale
/// where newest-wins cannot reach it; at 4 KiB a client that drains 20 KB/s sees it 0.2 s late.
const NOTSENT_LOWAT_BYTES: u32 = 4 * 1024;

/// Bound on a request head in HTTP/1.1, and on hyper's buffers: the longest token and everybody's cookies fit.
const HTTP1_BUFFER_BYTES: usize = 64 * 1024;

/// Requests under way on one HTTP/2 connection. The RFC asks for at least 100 (RFC 9113, section 5.1.2).
const HTTP2_MAX_STREAMS: u32 = 128;

/// Bound on a request head in HTTP/2, with the same reason as for HTTP/1.1; curl's and nginx's own bounds are near.
const HTTP2_MAX_HEADER_BYTES: u32 = 32 * 1024;

/// What a client may upload ahead of us on one HTTP/2 stream: 10 Mbit/s at 100 ms.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 128 * 1024;

/// The same for all streams of a connection. It bounds what a hostile connection can make us hold.
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;

/// What HTTP/2 buffers of one response. One frame: as with [`NOTSENT_LOWAT_BYTES`], a queue here is a queue of stale state.
const HTTP2_SEND_BUFFER_BYTES: usize = 16 * 1024;

/// Silence on an HTTP/2 connection before it is pinged, and then before it is given up. HTTP/2 knows no other idle limit here.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);

/// Pause after an accept that failed for want of something (file descriptors, memory), doubled until the longest. Connections
/// that end in the meantime give back what is missing.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const ACCEPT_PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// The answer to a connection beyond the limit, written without waiting.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A bound socket that accepts from the moment it is served.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// How connections are treated.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// From [`tls_config`]; none for plain HTTP.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// From [`alt_svc`], while there is a QUIC listener.
    pub(crate) alt_svc: Option<HeaderValue>,
    /// Connections at the same time; those beyond it are answered 503 and closed.
    pub(crate) max_connections: usize,
    /// From the connection, or the end of the last response, to a whole request head.
    pub(crate) header_read_timeout: Duration,
    /// For a TLS handshake.
    pub(crate) tls_handshake_timeout: Duration,
    /// From the stop signal to the end of connections that still answer.
    pub(crate) linger: Duration,
}

/// A socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on TCP {address}: {}", bind_reason(error))]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    error: io::Error,
}

impl Listener {
    /// Binds to `address`; port 0 takes a free one. `[::]` takes IPv4, too. Must be called inside a tokio runtime.
    pub(crate) fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let bound = || {
            let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            // A restart must not wait until the connections of the last run have left TIME_WAIT. On Windows the
            // option would let two programs share the port.
            #[cfg(unix)]
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(false)?;
            }
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            let socket = TcpListener::from_std(socket.into())?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        bound().map_err(|error| ListenError { address, error })
    }

    /// The address with the real port.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts and answers until `stop`. Then nothing more is accepted, idle connections close, those that still answer get
    /// `options.linger`, and are cut. Completes when no connection is left, other than upgraded ones: those belong to whoever upgraded
    /// them. Dropping the future cuts everything at once.
    pub(crate) async fn serve(self, router: Router, options: Options, stop: CancellationToken) {
        let Self { socket, .. } = self;
        let linger = options.linger;
        let slots = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
        let is_tls = options.tls.is_some();
        let serving = Arc::new(Serving::new(router, options, stop.clone()));
        let mut connections = JoinSet::new();
        let mut pause = ACCEPT_PAUSE;
        let mut was_full = false;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = socket.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if concerns_one_connection(&error) => continue,
                Err(error) => {
                    tracing::error!(%error, pause = ?pause, "cannot accept TCP connections for the moment");
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = sleep(pause) => {}
                    }
                    pause = (pause * 2).min(ACCEPT_PAUSE_LONGEST);
                    continue;
                }
            };
            pause = ACCEPT_PAUSE;
            match slots.clone().try_acquire_owned() {
                Ok(slot) => {
                    was_full = false;
                    connections.spawn(serving.clone().connection(stream, peer, slot));
                }
                Err(_) => {
                    // A flood must not flood the log as well.
                    if !std::mem::replace(&mut was_full, true) {
                        tracing::warn!("limits.max_tcp_connections is reached; further connections are refused");
                    }
                    if !is_tls {
                        // Best effort: the socket's buffer is empty, so this does not fail for want of room.
                        let _ = stream.try_write(FULL);
                    }
                }
            }
        }
        drop(socket);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if timeout(linger, all_ended).await.is_err() {
            tracing::debug!(connections = connections.len(), "cutting TCP connections that still answer");
        }
        connections.shutdown().await;
    }
}

/// TLS 1.2 and 1.3 with the resolver's certificate, and HTTP/2 and HTTP/1.1 by ALPN.
pub(crate) fn tls_config(resolver: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs has cipher suites for TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Tells browsers that the same is served over HTTP/3 on `port` (RFC 7838). A day, which is what browsers assume anyway.
pub(crate) fn alt_svc(port: u16) -> HeaderValue {
    HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).expect("digits and ASCII are a header value")
}

/// What all connections share.
struct Serving {
    router: Router,
    options: Options,
    tls: Option<TlsAcceptor>,
    http: auto::Builder<TokioExecutor>,
    stop: CancellationToken,
}

impl Serving {
    fn new(router: Router, options: Options, stop: CancellationToken) -> Self {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_read_timeout)
            .max_buf_size(HTTP1_BUFFER_BYTES);
        http.http2()
            .timer(TokioTimer::new())
            .enable_connect_protocol()
            .max_concurrent_streams(HTTP2_MAX_STREAMS)
            .max_header_list_size(HTTP2_MAX_HEADER_BYTES)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
            .keep_alive_interval(HTTP2_PING_INTERVAL)
            .keep_alive_timeout(HTTP2_PING_INTERVAL);
        let tls = options.tls.clone().map(TlsAcceptor::from);
        Self { router, options, tls, http, stop }
    }

    /// One connection, from its handshake to its end or its upgrade.
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        if let Err(error) = tune(&stream) {
            tracing::debug!(%peer, %error, "TCP options could not be set");
        }
        let socket = match &self.tls {
            None => Socket::plain(stream, slot),
            Some(acceptor) => {
                // Boxed, so that its kilobytes do not stay with the connection for life.
                let handshake = Box::pin(acceptor.accept(stream));
                match timeout(self.options.tls_handshake_timeout, handshake).await {
                    Ok(Ok(stream)) => Socket::tls(stream, slot),
                    Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => return tracing::debug!(%peer, "TLS handshake timed out"),
                }
            }
        };
        let has_spoken = Arc::new(AtomicBool::new(false));
        let service = {
            let (this, has_spoken) = (self.clone(), has_spoken.clone());
            service_fn(move |request: Request<Incoming>| {
                has_spoken.store(true, Ordering::Relaxed);
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(peer));
                let (response, alt_svc) = (this.router.clone().oneshot(request), this.options.alt_svc.clone());
                async move {
                    let mut response = response.await?;
                    if let Some(alt_svc) = alt_svc {
                        response.headers_mut().insert(header::ALT_SVC, alt_svc);
                    }
                    Ok::<_, Infallible>(response)
                }
            })
        };
        let mut http = pin!(self.http.serve_connection_with_upgrades(TokioIo::new(socket), service));
        // hyper starts its own clock with the first byte in HTTP/1.1, and has none in HTTP/2.
        let mut silence = Some(Box::pin(sleep(self.options.header_read_timeout)));
        let mut is_stopping = false;
        loop {
            tokio::select! {
                result = http.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(%peer, %error, "HTTP connection failed");
                    }
                    return;
                }
                () = self.stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    http.as_mut().graceful_shutdown();
                }
                () = async { match &mut silence { Some(silence) => silence.await, None => std::future::pending().await } } => {
                    silence = None;
                    if !has_spoken.load(Ordering::Relaxed) {
                        return tracing::debug!(%peer, "no request came");
                    }
                }
            }
        }
    }
}

/// Small writes leave at once, and the kernel's queue stays shallow.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    SockRef::from(stream).set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
    Ok(())
}

/// Whether a failed accept says something about that connection only: it was gone before we came. Everything else is a want
/// of something, and trying again at once would spin.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// A failed `bind` in words, for TCP and UDP.
pub(crate) fn bind_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is busy; stop what uses it, or choose another one".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => "not permitted; ports below 1024 need privileges".to_owned(),
        _ => error.to_string(),
    }
}
