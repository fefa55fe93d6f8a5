//! The layer as clients see it: a server on port 0, and a client that speaks raw QUIC, so that it can
//! break every rule. Browsers and aioquic try it from outside.

mod hostile;
mod requests;
mod sessions;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use quinn::{VarInt, crypto::rustls::QuicClientConfig};
use rustls::{
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;

/// Long enough for anything on loopback, short enough to fail a test.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fails a test that would hang.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing came of it in time")
}

struct Server {
    addr: SocketAddr,
    endpoint: quinn::Endpoint,
    /// The sessions that were established at `/wt`.
    sessions: mpsc::UnboundedReceiver<WebTransport>,
    /// Bodies of `/endless` that are alive.
    bodies: Arc<AtomicUsize>,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

impl Server {
    fn start(limits: Limits) -> Self {
        let config = quic_config(Arc::new(certificate()), &limits).expect("a configuration");
        let endpoint = bind(([127, 0, 0, 1], 0).into(), config, &limits).expect("a port");
        let (established, sessions) = mpsc::unbounded_channel();
        let bodies = Arc::new(AtomicUsize::new(0));
        let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
        let router = router(established, Arc::clone(&bodies));
        tokio::spawn(serve(endpoint.clone(), router, limits, shutdown.clone(), tracker.clone()));
        let addr = endpoint.local_addr().expect("bound");
        Self { addr, endpoint, sessions, bodies, shutdown, tracker }
    }

    async fn session(&mut self) -> WebTransport {
        soon(self.sessions.recv()).await.expect("a session")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.endpoint.close(VarInt::from_u32(0), b"");
    }
}

fn router(established: mpsc::UnboundedSender<WebTransport>, bodies: Arc<AtomicUsize>) -> Router {
    let wt = move |mut request: Request| async move {
        let upgrade = request.extensions_mut().remove::<Upgrade>().expect("a CONNECT for WebTransport");
        tokio::spawn(async move {
            if let Ok(session) = upgrade.await {
                let _ = established.send(session);
            }
        });
        [("wt-protocol", "\"b\"")]
    };
    let count = |request: Request| async move {
        match request.into_body().collect().await {
            Ok(body) => body.to_bytes().len().to_string(),
            Err(error) => format!("error: {error}"),
        }
    };
    let endless = move || async move {
        bodies.fetch_add(1, Ordering::SeqCst);
        ([("connection", "keep-alive")], Body::new(Endless(bodies, true)))
    };
    Router::new()
        .route("/wt", any(wt))
        .route("/reject", any(|| async { (StatusCode::FORBIDDEN, [("retry-after", "7")], "not you") }))
        .route("/ignore", any(|| async { StatusCode::OK }))
        .route("/slow", any(std::future::pending::<()>))
        .route("/get", get(|| async { "ok" }))
        .route("/large", get(|| async { Bytes::from(vec![7; 3_000_000]) }))
        .route("/count", post(count))
        .route("/endless", get(endless))
        .route("/cookie", get(|request: Request| async move { cookie(request) }))
}

fn cookie(request: Request) -> Response {
    let cookies: Vec<&HeaderValue> = request.headers().get_all("cookie").iter().collect();
    format!("{cookies:?}").into_response()
}

/// A body that says one thing and then waits for ever, and is counted.
struct Endless(Arc<AtomicUsize>, bool);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        if std::mem::take(&mut self.1) {
            return std::task::Poll::Ready(Some(Ok(http_body::Frame::data("one".into()))));
        }
        std::task::Poll::Pending
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A client that writes what it is told.
struct Client {
    conn: quinn::Connection,
    control: quinn::SendStream,
    _endpoint: quinn::Endpoint,
}

impl Client {
    async fn connect(server: &Server) -> Self {
        Self::try_connect(server.addr).await.expect("connected")
    }

    async fn try_connect(addr: SocketAddr) -> Result<Self, quinn::ConnectionError> {
        let (endpoint, conn) = quic(addr).await?;
        let mut control = conn.open_uni().await?;
        // SETTINGS with H3_DATAGRAM and the draft-02 ENABLE_WEBTRANSPORT.
        let settings = [0x00, 0x04, 0x07, 0x33, 0x01, 0xab, 0x60, 0x37, 0x42, 0x01];
        control.write_all(&settings).await.expect("written");
        Ok(Self { conn, control, _endpoint: endpoint })
    }

    async fn request(&self, headers: &[(&str, &str)]) -> (quinn::SendStream, quinn::RecvStream) {
        let (mut send, recv) = soon(self.conn.open_bi()).await.expect("a stream");
        send.write_all(&frame(0x01, &qpack(headers))).await.expect("written");
        (send, recv)
    }

    async fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let (mut send, mut recv) = self.request(&plain("GET", path)).await;
        send.finish().expect("open");
        let status = status(&mut recv).await;
        (status, body(&mut recv).await)
    }

    /// Opens a session at `/wt`; what is returned is the CONNECT stream.
    async fn open(&self, server: &mut Server) -> (WebTransport, quinn::SendStream, quinn::RecvStream) {
        let (send, mut recv) = self.request(&connect("/wt")).await;
        assert_eq!(status(&mut recv).await, 200);
        (server.session().await, send, recv)
    }

    /// How the server closed the connection.
    async fn closed(&self) -> Option<VarInt> {
        match soon(self.conn.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => Some(close.error_code),
            _ => None,
        }
    }
}

async fn quic(addr: SocketAddr) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = QuicClientConfig::try_from(tls).expect("a configuration");
    let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a port");
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let conn = soon(endpoint.connect(addr, "localhost").expect("a connection")).await?;
    Ok((endpoint, conn))
}

fn plain<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
}

fn connect(path: &str) -> Vec<(&str, &str)> {
    let mut headers = plain("CONNECT", path);
    headers.push((":protocol", "webtransport"));
    headers
}

fn integer(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint::encode(value, &mut out);
    out
}

fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [&integer(kind)[..], &integer(payload.len() as u64), payload].concat()
}

/// Literal names and values only (RFC 9204, section 4.5.6).
fn qpack(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0, 0];
    let mut string = |bits: u8, prefix: u8, text: &str| {
        let max = (1 << prefix) - 1;
        if text.len() < max {
            out.push(bits | text.len() as u8);
        } else {
            out.push(bits | max as u8);
            let mut left = text.len() - max;
            while left >= 128 {
                out.push(left as u8 | 0x80);
                left >>= 7;
            }
            out.push(left as u8);
        }
        out.extend_from_slice(text.as_bytes());
    };
    for (name, value) in headers {
        string(0x20, 3, name);
        string(0x00, 7, value);
    }
    out
}

/// Reads one frame.
async fn read_frame(recv: &mut quinn::RecvStream) -> (u64, Vec<u8>) {
    let kind = soon(read_integer(recv)).await.expect("a frame");
    let len = soon(read_integer(recv)).await.expect("a length");
    let mut payload = vec![0; len as usize];
    soon(recv.read_exact(&mut payload)).await.expect("a payload");
    (kind, payload)
}

/// Reads one integer; `None` at the end of the stream.
async fn read_integer(recv: &mut quinn::RecvStream) -> Option<u64> {
    let mut bytes = [0; 8];
    recv.read_exact(&mut bytes[..1]).await.ok()?;
    let len = varint::len_from_first(bytes[0]);
    recv.read_exact(&mut bytes[1..len]).await.ok()?;
    Some(varint::decode(&bytes[..len])?.0)
}

/// Reads a response's HEADERS frame as far as the status, which comes first.
async fn status(recv: &mut quinn::RecvStream) -> u16 {
    let (kind, block) = read_frame(recv).await;
    assert_eq!(kind, 0x01, "HEADERS");
    match block[2..] {
        [0xd9, ..] => 200,
        [0xdb, ..] => 404,
        [0xff, more, ..] => [100, 204, 206, 302, 400, 403, 421, 425, 500][usize::from(more)],
        // A literal with the name of static entry 24, its value Huffman coded: digits have 5 or 6 bits.
        [0x5f, 0x09, len, ref value @ ..] if len & 0x80 != 0 => huffman_digits(&value[..usize::from(len & 0x7f)]),
        [0x5f, 0x09, 3, a, b, c, ..] => [a, b, c].iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0')),
        ref other => panic!("unexpected status {other:x?}"),
    }
}

fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut rest, mut number) = (&bits[..], 0);
    for _ in 0..3 {
        let short = u16::from_str_radix(&rest[..5], 2).expect("bits");
        let (digit, len) =
            if short < 3 { (short, 5) } else { (u16::from_str_radix(&rest[..6], 2).expect("bits") - 0b01_1001 + 3, 6) };
        number = number * 10 + digit;
        rest = &rest[len..];
    }
    number
}

/// Reads what remains of a response.
async fn body(recv: &mut quinn::RecvStream) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(kind) = soon(read_integer(recv)).await {
        assert_eq!(kind, 0x00, "DATA");
        let len = read_integer(recv).await.expect("a length") as usize;
        let start = body.len();
        body.resize(start + len, 0);
        soon(recv.read_exact(&mut body[start..])).await.expect("a payload");
    }
    body
}

/// The code with which the server reset the stream.
async fn reset(recv: &mut quinn::RecvStream) -> VarInt {
    soon(async {
        loop {
            match recv.read_chunk(usize::MAX, true).await {
                Ok(Some(_)) => {}
                Err(quinn::ReadError::Reset(code)) => return code,
                other => panic!("not reset, but {other:?}"),
            }
        }
    })
    .await
}

/// The code with which the server stopped the stream.
async fn stop(send: &quinn::SendStream) -> VarInt {
    soon(send.stopped()).await.expect("connected").expect("stopped")
}

#[derive(Debug)]
struct OneCertificate(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for OneCertificate {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn certificate() -> OneCertificate {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).expect("a P-256 key");
    OneCertificate(Arc::new(rustls::sign::CertifiedKey::new(vec![certificate.der().clone()], key)))
}

/// The client's part of TLS is not what is tested.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
