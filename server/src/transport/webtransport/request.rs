//! One HTTP/3 request: through the router, and back.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{Router, body::Body, extract::ConnectInfo};
use bytes::{Buf, Bytes};
use h3::{
    error::StreamError,
    ext::Protocol,
    server::{RequestResolver, RequestStream},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use thiserror::Error;
use tower::ServiceExt;

use super::{
    adapter::{Adapter, H3Recv, H3Send},
    session::WebTransport,
    table::{Stopped, Table},
    upgrade::Upgrade,
};

/// The most that one DATA frame carries, in bytes. The frame is copied once when it is written: a body
/// that is one large piece should not be there twice.
const MAX_DATA: usize = 32 * 1024;

/// Headers that speak about an HTTP/1 connection; they make an HTTP/3 message malformed
/// (RFC 9114, section 4.2).
const CONNECTION_HEADERS: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What a request needs of its connection.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) conn: quinn::Connection,
    pub(super) table: Arc<Table>,
    pub(super) router: Router,
}

/// Why a request got no whole answer. The stream is reset; nobody else is concerned.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    #[error("the headers did not come in time")]
    HeadersTimeout,
    #[error("the client went away")]
    Gone,
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the response body failed: {0}")]
    Body(axum::Error),
}

/// Reads a request's headers and answers it.
pub(super) async fn serve(
    site: Site,
    resolver: RequestResolver<Adapter, Bytes>,
    stopped: Stopped,
) -> Result<(), RequestError> {
    let _active = site.table.activate();
    let headers = tokio::time::timeout(site.table.limits.headers_timeout, resolver.resolve_request());
    let (request, stream) = headers.await.map_err(|_| RequestError::HeadersTimeout)??;
    let id = stream.id().into_inner();
    let (send, recv) = stream.split();
    let reply = Reply { send, stopped };
    if request.method() != Method::CONNECT {
        return answer(&site, request, reply, recv).await;
    }
    match request.extensions().get::<Protocol>() {
        Some(protocol) if *protocol == Protocol::WEB_TRANSPORT => connect(&site, request, reply, recv, id).await,
        // There is no tunnel here, of whatever kind (RFC 9220, section 3).
        _ => reply.send(status(StatusCode::NOT_IMPLEMENTED), false).await,
    }
}

/// Any request but CONNECT.
async fn answer(
    site: &Site,
    request: Request<()>,
    mut reply: Reply,
    recv: RequestStream<H3Recv, Bytes>,
) -> Result<(), RequestError> {
    let head = request.method() == Method::HEAD;
    let body = RequestBody::new(recv, request.headers());
    let response = reply.call(site, request, Body::new(body)).await?;
    reply.send(response, head).await
}

/// An extended CONNECT for WebTransport.
async fn connect(
    site: &Site,
    mut request: Request<()>,
    mut reply: Reply,
    recv: RequestStream<H3Recv, Bytes>,
    id: u64,
) -> Result<(), RequestError> {
    if !site.table.opening(id) {
        return reply.send(status(StatusCode::TOO_MANY_REQUESTS), false).await;
    }
    let opening = Opening { table: &site.table, id };
    let (established, upgrade) = Upgrade::pair();
    request.extensions_mut().insert(upgrade);
    let response = reply.call(site, request, Body::empty()).await?;
    if response.status() != StatusCode::OK {
        drop(opening);
        return reply.send(response, false).await;
    }
    let inbox = site.table.open(id);
    reply.send_headers(response.map(|_| ())).await?;
    std::mem::forget(opening);
    let streams = (reply.send, reply.stopped, recv);
    let session = WebTransport::new(site.conn.clone(), Arc::clone(&site.table), inbox, id, streams);
    if let Err(mut unwanted) = established.send(session) {
        unwanted.close(0, "").await;
    }
    Ok(())
}

/// A session that was asked for and is not yet open; dropped, it is over.
struct Opening<'a> {
    table: &'a Table,
    id: u64,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.table.end(self.id);
    }
}

/// The way back.
struct Reply {
    send: RequestStream<H3Send, Bytes>,
    stopped: Stopped,
}

impl Reply {
    /// Calls the router, unless the client goes away meanwhile.
    async fn call(&mut self, site: &Site, request: Request<()>, body: Body) -> Result<Response<Body>, RequestError> {
        let mut request = request.map(|()| body);
        join_cookies(request.headers_mut());
        let remote: SocketAddr = site.conn.remote_address();
        request.extensions_mut().insert(ConnectInfo(remote));
        let response = site.router.clone().oneshot(request);
        tokio::select! {
            response = response => Ok(response.unwrap_or_else(|never| match never {})),
            () = &mut self.stopped => Err(RequestError::Gone),
        }
    }

    async fn send(mut self, mut response: Response<Body>, head: bool) -> Result<(), RequestError> {
        let without_body = head || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if let Some(len) = response.body().size_hint().exact()
            && (!without_body || len > 0)
        {
            response.headers_mut().entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(len));
        }
        let (parts, mut body) = response.into_parts();
        self.send_headers(Response::from_parts(parts, ())).await?;
        while !without_body && !body.is_end_stream() {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = &mut self.stopped => return Err(RequestError::Gone),
            };
            let Some(frame) = frame else { break };
            match frame.map_err(RequestError::Body)?.into_data() {
                Ok(mut data) => {
                    while data.has_remaining() {
                        let piece = data.split_to(data.len().min(MAX_DATA));
                        self.send.send_data(piece).await?;
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.send.send_trailers(trailers).await?;
                        break;
                    }
                }
            }
        }
        self.send.finish().await?;
        Ok(())
    }

    async fn send_headers(&mut self, mut response: Response<()>) -> Result<(), RequestError> {
        for name in CONNECTION_HEADERS {
            response.headers_mut().remove(name);
        }
        self.send.send_response(response).await?;
        Ok(())
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// HTTP/3 may send a cookie in pieces; everyone above expects one header (RFC 9114, section 4.2.1).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if cookies.nth(1).is_none() {
        return;
    }
    let pieces: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Pieces of valid values, joined by valid characters, are a valid value.
    if let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// A request's body, streamed, with backpressure by QUIC's flow control.
struct RequestBody {
    recv: RequestStream<H3Recv, Bytes>,
    /// What is left of the announced length.
    left: Option<u64>,
    ended: bool,
}

/// Why a request's body broke off.
#[derive(Debug, Error)]
enum BodyError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the body is not as long as its content-length says")]
    Length,
}

impl RequestBody {
    fn new(recv: RequestStream<H3Recv, Bytes>, headers: &HeaderMap) -> Self {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        Self { recv, left: announced, ended: false }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let read = ready!(self.recv.poll_recv_data(cx));
        let data = read.map(|data| data.map(|mut data| data.copy_to_bytes(data.remaining())));
        let left = self.left;
        let frame = match (data, left) {
            (Err(error), _) => Some(Err(error.into())),
            (Ok(Some(data)), None) => Some(Ok(data)),
            (Ok(Some(data)), Some(left)) => match left.checked_sub(data.len() as u64) {
                Some(left) => {
                    self.left = Some(left);
                    Some(Ok(data))
                }
                None => Some(Err(BodyError::Length)),
            },
            (Ok(None), Some(1..)) => Some(Err(BodyError::Length)),
            (Ok(None), _) => None,
        };
        self.ended = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
