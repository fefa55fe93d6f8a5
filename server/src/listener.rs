//! The TCP listener: HTTP/1.1 and HTTP/2, with or without TLS, in front of one axum router.
//!
//! `axum::serve` knows none of: TLS, a limit of connections, a time limit for request heads, RFC 8441, and an end that an open
//! stream cannot put off. So the accept loop is ours, over hyper.

mod connection;
mod line;
mod preface;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use http::HeaderValue;
use rustls::{ServerConfig, crypto::aws_lc_rs, server::ResolvesServerCert};
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use connection::Serving;

/// Connections that the kernel keeps until they are accepted. A whole fleet may come back in one second.
const BACKLOG: i32 = 1_024;

/// What the kernel may hold of a connection's data before it has been sent once. More would be state that grows stale
/// where newest-wins cannot reach it; at 4 KiB a client that drains 20 KB/s sees it 0.2 s late.
const NOTSENT_LOWAT_BYTES: u32 = 4 * 1024;

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
    /// `options.linger`, and are cut. Completes when no connection is left, other than those that were upgraded or taken over: they belong to whoever has
    /// them. Dropping the future cuts everything at once.
    pub(crate) async fn serve(self, router: Router, options: Options, stop: CancellationToken) {
        let Self { socket, .. } = self;
        let linger = options.linger;
        let slots = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
        let is_tls = options.tls.is_some();
        let stopping = stop.child_token();
        let serving = Arc::new(Serving::new(router, options, stopping.clone()));
        let _cut = (serving.cut.clone().drop_guard(), stopping.drop_guard());
        let mut pause = ACCEPT_PAUSE;
        let mut was_full = false;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
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
                    serving.accept(stream, peer, slot);
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
        let connections = &serving.connections;
        connections.close();
        if timeout(linger, connections.wait()).await.is_err() {
            tracing::debug!(connections = connections.len(), "cutting TCP connections that still answer");
        }
        serving.cut.cancel();
        connections.wait().await;
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
