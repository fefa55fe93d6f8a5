//! Over real sockets, since that is what a listener is about.

mod takeover;

use std::{convert::Infallible, net::Ipv4Addr, time::Instant};

use axum::{
    body::{Body, Bytes},
    extract::ConnectInfo,
    extract::ws::{Message, WebSocketUpgrade},
    response::IntoResponse as _,
    routing::{any, get},
};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use throughline_certs::DevCertificates;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{WebSocketStream, tungstenite};

use super::connection::HTTP1_BUFFER_BYTES;
use super::*;

/// What a test waits at most for what should happen at once.
const SOON: Duration = Duration::from_secs(5);

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(options: Options) -> Self {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let (address, stop) = (listener.local_addr(), CancellationToken::new());
        let task = tokio::spawn(listener.serve(router(), options, stop.clone()));
        Self { address, stop, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop_and_end(self) -> Duration {
        let began = Instant::now();
        self.stop.cancel();
        timeout(SOON, self.task).await.unwrap().unwrap();
        began.elapsed()
    }
}

fn options() -> Options {
    Options {
        tls: None,
        alt_svc: Some(alt_svc(4433)),
        max_connections: 100,
        header_read_timeout: SOON,
        tls_handshake_timeout: SOON,
        linger: Duration::from_millis(100),
    }
}

fn router() -> Router {
    let endless = get(async || Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>()));
    let echo = any(async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                if matches!(message, Message::Close(_)) || socket.send(message).await.is_err() {
                    return;
                }
            }
        })
    });
    Router::new()
        .merge(takeover::routes())
        .route("/whoami", get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string().into_response()))
        .route("/endless", endless)
        .route("/echo", echo)
}

/// One request on a connection that stays open: status line and headers, and the body by its length.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        assert_ne!(timeout(SOON, stream.read_buf(&mut answer)).await.unwrap().unwrap(), 0, "{text}");
    }
}

/// What still comes until the other side closes.
async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ = timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("the connection should end");
    String::from_utf8(bytes).unwrap()
}

async fn http2_client(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> http2::SendRequest<Empty<Bytes>> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get_request(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn http1_is_answered_with_the_peer_and_alt_svc() {
    let server = Running::start(options()).await;
    let mut stream = server.connect().await;
    for _ in 0..2 {
        let answer = ask(&mut stream, "/whoami").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("alt-svc: h3=\":4433\"; ma=86400"), "{answer}");
        assert!(answer.ends_with(&stream.local_addr().unwrap().to_string()), "{answer}");
    }
    assert!(ask(&mut stream, "/nothing").await.contains("alt-svc: "));
}

#[tokio::test]
async fn http2_is_spoken_to_those_who_begin_with_it() {
    let server = Running::start(options()).await;
    let stream = server.connect().await;
    let own = stream.local_addr().unwrap().to_string();
    let mut client = http2_client(stream).await;
    let answer = client.send_request(get_request("http://a.test/whoami")).await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
    assert!(answer.headers().contains_key(header::ALT_SVC));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), own);
}

#[tokio::test]
async fn websocket_over_http2() {
    let server = Running::start(options()).await;
    let mut client = http2_client(server.connect().await).await;
    // The peer's SETTINGS say that it may; they come before any answer.
    client.send_request(get_request("http://a.test/whoami")).await.unwrap();
    let mut request = get_request("http://a.test/echo");
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    request.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    let answer = client.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let socket = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    let mut socket = WebSocketStream::from_raw_socket(socket, tungstenite::protocol::Role::Client, None).await;
    socket.send("hello".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), "hello".into());
}

#[tokio::test]
async fn websocket_over_http1_counts_as_a_connection_until_it_ends() {
    let server = Running::start(Options { max_connections: 1, ..options() }).await;
    let url = format!("ws://{}/echo", server.address);
    let (mut socket, _) = tokio_tungstenite::client_async(url, server.connect().await).await.unwrap();
    socket.send("hello".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), "hello".into());
    assert!(rest(server.connect().await).await.starts_with("HTTP/1.1 503"));
    drop(socket);
    admitted_again(&server).await;
}

#[tokio::test]
async fn tls_chooses_the_protocol_by_alpn() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = DevCertificates::open(folder.path(), []).unwrap();
    let server = Running::start(Options { tls: Some(tls_config(certificates.resolver())), ..options() }).await;
    let mut roots = RootCertStore::empty();
    roots.add(certificates.current().certified_key().cert[0].clone()).unwrap();
    for (offer, chosen) in [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)] {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = offer.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, server.connect().await).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes));
        if chosen == Some("h2") {
            let answer = http2_client(stream).await.send_request(get_request("https://a.test/whoami")).await;
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
        } else {
            assert!(ask(&mut stream, "/whoami").await.starts_with("HTTP/1.1 200"));
        }
    }
}

#[tokio::test]
async fn who_is_slow_or_says_nothing_is_cut() {
    let short = Duration::from_millis(150);
    let server = Running::start(Options { header_read_timeout: short, ..options() }).await;
    for beginning in ["", "G", "GET / HTTP/1.1\r\nhost: a.t", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let began = Instant::now();
        let mut stream = server.connect().await;
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("it should be cut");
        assert!(began.elapsed() >= short, "{beginning:?} was cut early");
    }
    // Idle keep-alive, after a request.
    let mut stream = server.connect().await;
    ask(&mut stream, "/whoami").await;
    rest(stream).await;
}

#[tokio::test]
async fn a_response_may_last_longer_than_the_time_for_a_request() {
    let short = Duration::from_millis(100);
    let server = Running::start(Options { header_read_timeout: short, ..options() }).await;
    let mut stream = server.connect().await;
    assert!(ask(&mut stream, "/endless").await.starts_with("HTTP/1.1 200"));
    assert!(timeout(short * 4, stream.read_u8()).await.is_err(), "it should still be open and silent");
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_come_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = DevCertificates::open(folder.path(), []).unwrap();
    let tls = Some(tls_config(certificates.resolver()));
    let server = Running::start(Options { tls, tls_handshake_timeout: Duration::from_millis(100), ..options() }).await;
    rest(server.connect().await).await;
}

#[tokio::test]
async fn beyond_the_limit_there_is_an_answer_and_an_end() {
    let server = Running::start(Options { max_connections: 2, ..options() }).await;
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    ask(&mut one, "/whoami").await;
    ask(&mut two, "/whoami").await;
    let refused = rest(server.connect().await).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 5"), "{refused}");
    assert!(ask(&mut one, "/whoami").await.starts_with("HTTP/1.1 200"));
    drop(two);
    admitted_again(&server).await;
}

/// The server notices a closed connection soon, but not at once.
async fn admitted_again(server: &Running) {
    let admitted = async {
        loop {
            let mut stream = server.connect().await;
            let asked = stream.write_all(b"GET /whoami HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            if asked.is_ok() && rest(stream).await.starts_with("HTTP/1.1 200") {
                return;
            }
        }
    };
    timeout(SOON, admitted).await.expect("a place should have become free");
}

#[tokio::test]
async fn an_oversized_request_head_is_refused() {
    let server = Running::start(options()).await;
    let mut stream = server.connect().await;
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "y".repeat(2 * HTTP1_BUFFER_BYTES));
    let _ = stream.write_all(head.as_bytes()).await; // it may be cut while we write
    let answer = rest(stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn stopping_closes_idle_connections_at_once() {
    let server = Running::start(Options { linger: SOON, ..options() }).await;
    let mut idle = server.connect().await;
    ask(&mut idle, "/whoami").await;
    let silent = server.connect().await;
    let mut http2 = http2_client(server.connect().await).await;
    http2.send_request(get_request("http://a.test/whoami")).await.unwrap();
    let address = server.address;
    assert!(server.stop_and_end().await < SOON / 2);
    assert_eq!(rest(idle).await, "");
    assert_eq!(rest(silent).await, "");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn stopping_is_not_put_off_by_a_response_without_end() {
    let server = Running::start(options()).await;
    let (mut one, two) = (server.connect().await, server.connect().await);
    ask(&mut one, "/endless").await;
    let mut http2 = http2_client(two).await;
    let endless = http2.send_request(get_request("http://a.test/endless")).await.unwrap();
    let took = server.stop_and_end().await;
    assert!(took >= Duration::from_millis(100) && took < SOON / 2, "{took:?}");
    rest(one).await;
    assert!(endless.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_busy_port_and_a_foreign_address_are_named() {
    let first = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let error = Listener::bind(first.local_addr()).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "cannot listen on TCP {}: the port is busy; stop what uses it, or choose another one",
            first.local_addr()
        )
    );
    let error = Listener::bind("192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();
    assert_eq!(error, "cannot listen on TCP 192.0.2.1:0: this machine has no such address");
}

#[test]
fn only_errors_of_one_connection_are_passed_over() {
    assert!(concerns_one_connection(&io::ErrorKind::ConnectionAborted.into()));
    #[cfg(unix)]
    for number in [23, 24, 105] {
        // ENFILE, EMFILE, ENOBUFS
        assert!(!concerns_one_connection(&io::Error::from_raw_os_error(number)));
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_kernels_queue_is_shallow() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    tune(&stream).unwrap();
    assert!(stream.nodelay().unwrap());
    assert_eq!(SockRef::from(&stream).tcp_notsent_lowat().unwrap(), NOTSENT_LOWAT_BYTES);
}
