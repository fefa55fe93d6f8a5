//! One connection, from its handshake to its end, or until somebody takes it over.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{Request, Response, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::error::Elapsed;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::future::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::line::{Answer, Line, Question, UnderWay, Wish, can_be_taken, repeated};
use super::{Options, preface, tune};
use crate::socket::takeover::{Offer, Origin, Taken, Takeover};
use crate::socket::tcp::Tcp;
use crate::socket::unwritten::Unwritten;
use crate::socket::{Lent, Socket};

/// Bound on a request head in HTTP/1.1, and on hyper's buffers: the longest token and everybody's cookies fit.
pub(super) const HTTP1_BUFFER_BYTES: usize = 64 * 1024;

/// Requests under way on one HTTP/2 connection. The RFC asks for at least 100 (RFC 9113, section 5.1.2).
const HTTP2_MAX_STREAMS: u32 = 128;

/// Bound on a request head in HTTP/2, with the same reason as for HTTP/1.1; curl's and nginx's own bounds are near.
const HTTP2_MAX_HEADER_BYTES: u32 = 32 * 1024;

/// What a client may upload ahead of us on one HTTP/2 stream: 10 Mbit/s at 100 ms.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 128 * 1024;

/// The same for all streams of a connection. It bounds what a hostile connection can make us hold.
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;

/// What HTTP/2 buffers of one response. One frame: as with [`NOTSENT_LOWAT_BYTES`](super::NOTSENT_LOWAT_BYTES), a queue here is a queue of stale state.
const HTTP2_SEND_BUFFER_BYTES: usize = 16 * 1024;

/// Silence on an HTTP/2 connection before it is pinged, and then before it is given up. HTTP/2 knows no other idle limit here.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);

/// For the rest of an answer that its writer left to us: the longest packet at 5 KB/s.
const REST_TIMEOUT: Duration = Duration::from_secs(60);

/// What all connections share.
pub(super) struct Serving {
    router: Router,
    pub(super) options: Options,
    tls: Option<TlsAcceptor>,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    /// No further requests. Also when everything is cut.
    stop: CancellationToken,
    /// No further anything.
    pub(super) cut: CancellationToken,
    pub(super) connections: TaskTracker,
    /// Connections come back from wherever their session is dropped.
    runtime: Handle,
}

/// What a request begins with, if it came in time.
type Begins<T> = Result<io::Result<T>, Elapsed>;

/// The same; `None` when the connection ends here.
fn begun<T>(begins: Option<Begins<T>>, peer: SocketAddr) -> Option<T> {
    match begins? {
        Ok(Ok(begins)) => return Some(begins),
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TCP connection failed"),
        Err(_) => tracing::debug!(%peer, "no request came"),
    }
    None
}

/// A connection that waits for its next request. In a box of its own, since an `async fn` has room for its arguments twice.
struct Waiting {
    socket: Socket,
    peer: SocketAddr,
}

impl Serving {
    pub(super) fn new(router: Router, options: Options, stop: CancellationToken) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_read_timeout)
            .max_buf_size(HTTP1_BUFFER_BYTES);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
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
        let (cut, connections, runtime) = (CancellationToken::new(), TaskTracker::new(), Handle::current());
        Self { router, options, tls, http1, http2, stop, cut, connections, runtime }
    }

    /// Begins with a connection.
    pub(super) fn accept(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        self.spawn(self.clone().begin(stream, peer, slot));
    }

    /// Speaks HTTP/1.1 on the connection that comes of this, if one does.
    fn spawn(self: &Arc<Self>, begins: impl Future<Output = Option<Box<Waiting>>> + Send + 'static) {
        // Boxed, so that its kilobytes do not stay with the connection for life.
        let (this, begins) = (self.clone(), Box::pin(begins.with_cancellation_token_owned(self.cut.clone())));
        let connection = async move {
            if let Some(Some(waiting)) = begins.await {
                this.requests(waiting).await;
            }
        };
        self.connections.spawn_on(connection, &self.runtime);
    }

    /// Finds out what is spoken on a connection. HTTP/2 is spoken here.
    async fn begin(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        slot: OwnedSemaphorePermit,
    ) -> Option<Box<Waiting>> {
        if let Err(error) = tune(&stream) {
            tracing::debug!(%peer, %error, "TCP options could not be set");
        }
        let stream = Tcp::from(stream);
        let (socket, is_http2) = match &self.tls {
            None => {
                let mut socket = Socket::plain(stream, slot);
                let begins = self.in_time(preface::begins_with_it(&mut socket)).await;
                (socket, begun(begins, peer)??)
            }
            Some(acceptor) => match timeout(self.options.tls_handshake_timeout, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    // Without ALPN it is HTTP/1.1 (RFC 9113, section 3.2).
                    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    (Socket::tls(stream, slot), is_http2)
                }
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "TLS handshake failed");
                    return None;
                }
                Err(_) => {
                    tracing::debug!(%peer, "TLS handshake timed out");
                    return None;
                }
            },
        };
        if is_http2 {
            self.http2(socket, peer).await;
            return None;
        }
        Some(Box::new(Waiting { socket, peer }))
    }

    /// HTTP/1.1: one request after the other. A connection that waits for its next one is a socket and nothing else: hyper's buffers come when there is something
    /// to read, and go when it is answered.
    async fn requests(self: Arc<Self>, mut waiting: Box<Waiting>) {
        loop {
            let begins = self.in_time(poll_fn(|cx| waiting.socket.poll_awake(cx))).await;
            if begun(begins, waiting.peer).is_none() {
                return;
            }
            waiting = match Box::pin(self.clone().http1(waiting)).await {
                Some(again) => again,
                None => return,
            };
        }
    }

    /// Waits for what a request begins with: for as long as it may take, and as long as requests are answered.
    fn in_time<T>(&self, begins: impl Future<Output = io::Result<T>>) -> impl Future<Output = Option<Begins<T>>> {
        timeout(self.options.header_read_timeout, begins).with_cancellation_token(&self.stop)
    }

    async fn http2(self: Arc<Self>, socket: Socket, peer: SocketAddr) {
        let line = Arc::new(Line::default());
        let http = pin!(self.http2.serve_connection(TokioIo::new(socket), self.service(&line, peer)));
        // hyper has no clock for a connection without requests here, as it has in HTTP/1.1.
        let silence = Box::pin(sleep(self.options.header_read_timeout));
        self.drive(http, |http| http.graceful_shutdown(), peer, &line, Some(silence)).await;
    }

    /// Answers a request, and those that were sent ahead behind it. Returns the connection when it waits for the next one; not if it has ended, or if somebody has taken
    /// it for an answer.
    async fn http1(self: Arc<Self>, waiting: Box<Waiting>) -> Option<Box<Waiting>> {
        let Waiting { socket, peer } = *waiting;
        let line = Arc::new(Line::default());
        let service = {
            let (this, line) = (self.clone(), line.clone());
            service_fn(move |mut request: Request<Incoming>| {
                line.has_spoken();
                // One with a body is answered as if it had not asked for an upgrade: hyper may have read some of it.
                if request.extensions_mut().remove::<OnUpgrade>().is_some() && request.body().is_end_stream() {
                    line.wish(Wish::Upgrade(repeated(&request)));
                    return pending().boxed();
                }
                if can_be_taken(&request) {
                    request.extensions_mut().insert(Offer);
                }
                let request = request.map(|body| Body::new(Question::new(body, &line)));
                let (answer, line) = (this.answer(request, peer), line.clone());
                let under_way = UnderWay::new(&line);
                let answer = async move {
                    let mut response = answer.await?;
                    if let Some(takeover) = response.extensions_mut().remove::<Takeover>() {
                        line.wish(Wish::Take(takeover, response.into_parts().0.headers));
                        return pending().await;
                    }
                    Ok(response.map(|body| Answer { body, _under_way: under_way }))
                };
                answer.boxed() as BoxFuture<'static, Result<_, Infallible>>
            })
        };
        let io = TokioIo::new(Lent::new(socket, line.blocked()));
        let mut http = self.http1.serve_connection(io, service);
        let wish = self.drive(Pin::new(&mut http), |http| http.graceful_shutdown(), peer, &line, None).await?;
        if matches!(wish, Wish::Rest) {
            // It stops at once, unless somebody still reads the body of a request that is answered: then that was the last one.
            Pin::new(&mut http).graceful_shutdown();
            if poll_fn(|cx| Poll::Ready(http.poll_without_shutdown(cx).is_pending())).await {
                self.cut.run_until_cancelled(&mut http).await;
                return None;
            }
            if line.has_unread() {
                return None; // somebody has given it up just now
            }
        }
        let parts = http.into_parts();
        let mut socket = parts.io.into_inner().into_socket();
        socket.rewind(parts.read_buf);
        drop(parts.service);
        match wish {
            Wish::Rest => return Some(Box::new(Waiting { socket, peer })),
            Wish::Take(takeover, headers) => takeover.complete(Taken::new(socket, &headers, peer, self)),
            Wish::Upgrade(head) => {
                socket.rewind(head);
                self.with_upgrades(socket, peer).await;
            }
        }
        None
    }

    /// HTTP/1.1 as hyper does it when requests may become something else: then it does not give the connection back before they do. So a request for an upgrade is
    /// served anew here.
    async fn with_upgrades(self: Arc<Self>, socket: Socket, peer: SocketAddr) {
        let line = Arc::new(Line::default());
        let io = TokioIo::new(Lent::new(socket, line.blocked()));
        let http = pin!(self.http1.serve_connection(io, self.service(&line, peer)).with_upgrades());
        self.drive(http, |http| http.graceful_shutdown(), peer, &line, None).await;
    }

    /// Answers every request as the application does.
    fn service(
        self: &Arc<Self>,
        line: &Arc<Line>,
        peer: SocketAddr,
    ) -> impl HttpService<Incoming, ResBody = Body, Error = Infallible, Future: Send> + use<> {
        let (this, line) = (self.clone(), line.clone());
        service_fn(move |request: Request<Incoming>| {
            line.has_spoken();
            this.answer(request.map(Body::new), peer)
        })
    }

    /// The application's answer to a request.
    fn answer(
        &self,
        mut request: Request<Body>,
        peer: SocketAddr,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<> {
        request.extensions_mut().insert(ConnectInfo(peer));
        let (response, alt_svc) = (self.router.clone().oneshot(request), self.options.alt_svc.clone());
        async move {
            let mut response = response.await?;
            if let Some(alt_svc) = alt_svc {
                response.headers_mut().insert(header::ALT_SVC, alt_svc);
            }
            Ok(response)
        }
    }

    /// Speaks HTTP until the connection has ended, or somebody wants it.
    async fn drive<H: Future<Output = hyper::Result<()>>>(
        &self,
        mut http: Pin<&mut H>,
        shut_down: impl Fn(Pin<&mut H>),
        peer: SocketAddr,
        line: &Line,
        mut silence: Option<Pin<Box<Sleep>>>,
    ) -> Option<Wish> {
        let mut is_stopping = false;
        loop {
            let served = poll_fn(|cx| match http.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(result.map(|()| None)),
                Poll::Pending => line.take_wish().map_or(Poll::Pending, |wish| Poll::Ready(Ok(Some(wish)))),
            });
            tokio::select! {
                () = self.cut.cancelled(), if is_stopping => return None,
                result = served => return result.unwrap_or_else(|error| {
                    tracing::debug!(%peer, %error, "HTTP connection failed");
                    None
                }),
                () = self.stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    shut_down(http.as_mut());
                }
                () = async { match &mut silence { Some(silence) => silence.await, None => pending().await } } => {
                    silence = None;
                    if !line.is_spoken_on() {
                        tracing::debug!(%peer, "no request came");
                        return None;
                    }
                }
            }
        }
    }
}

impl Origin for Serving {
    fn resume(self: Arc<Self>, mut socket: Socket, peer: SocketAddr, mut unwritten: Unwritten) {
        self.spawn(async move {
            let rest = poll_fn(|cx| unwritten.poll_write(&mut socket, cx));
            let is_written = matches!(timeout(REST_TIMEOUT, rest).await, Ok(Ok(())));
            is_written.then(|| Box::new(Waiting { socket, peer }))
        });
    }
}
