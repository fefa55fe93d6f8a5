//! Connections that are taken in the middle of a request, and given back.

use axum::extract::Request;
use axum::response::Response;

use axum::routing::post;
use tokio::sync::watch;

use super::*;
use crate::socket::takeover::{Offer, Takeover};
use crate::socket::unwritten::Unwritten;

/// `/taken` answers on the socket itself, and gives it back; `/kept` reads on, and says what; `/early` answers before it has read the body, and `/heard` says how long that was.
pub(super) fn routes() -> Router {
    let taken = get(async |request: Request| {
        if request.extensions().get::<Offer>().is_none() {
            return "not on offer".into_response();
        }
        let mut response = Takeover::response(|taken| {
            let head = taken.head(StatusCode::OK, format_args!("content-length: 5\r\n"));
            let mut unwritten = Unwritten::default();
            unwritten.put(vec![head, "ta".into(), Bytes::new(), "ken".into()]);
            taken.give_back(unwritten);
        });
        response.headers_mut().insert("x-own", HeaderValue::from_static("yes"));
        response
    });
    let kept = get(async || -> Response {
        Takeover::response(|mut taken| {
            tokio::spawn(async move {
                let head = taken.head(StatusCode::OK, format_args!("connection: close\r\n"));
                taken.socket.write_all(&head).await.unwrap();
                let mut said = [0; 5];
                taken.socket.read_exact(&mut said).await.unwrap();
                taken.socket.write_all(&said).await.unwrap();
                taken.socket.shutdown().await.unwrap();
            });
        })
    });
    let length_heard = Arc::new(watch::Sender::new(None));
    let mut heard = length_heard.subscribe();
    let early = post(async move |request: Request| {
        tokio::spawn(async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            length_heard.send_replace(Some(body.len()));
        });
        "early"
    });
    let heard = get(async move || heard.wait_for(Option::is_some).await.unwrap().unwrap_or_default().to_string());
    Router::new()
        .route("/taken", taken)
        .route("/kept", kept)
        .route("/length", get(length).post(length))
        .route("/early", early)
        .route("/heard", heard)
}

async fn length(body: Bytes) -> String {
    body.len().to_string()
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// Reads until this has come.
async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let text = String::from_utf8_lossy(&read).into_owned();
        assert_ne!(timeout(SOON, stream.read_buf(&mut read)).await.expect(&text).unwrap(), 0, "{text}");
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn one_connection_is_taken_and_given_back_again_and_again() {
    let server = Running::start(options()).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        let answer = ask(&mut stream, "/taken").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\ndate: ") && answer.ends_with("\r\n\r\ntaken"), "{answer}");
        assert!(answer.contains("\r\nx-own: yes\r\n") && answer.contains("\r\nalt-svc: h3="), "{answer}");
        let own = stream.local_addr().unwrap().to_string();
        assert!(ask(&mut stream, "/whoami").await.ends_with(&own));
        write(&mut stream, "POST /length HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await;
        assert!(read_until(&mut stream, "\r\n\r\n3").await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn what_was_sent_ahead_is_answered_in_its_turn() {
    let server = Running::start(options()).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    let post = "POST /length HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nabcd";
    let requests = [&get("/whoami"), &get("/taken"), post, &get("/taken"), &get("/taken"), &get("/length")].concat();
    // In one piece, and byte by byte.
    for size in [requests.len(), 1, 7] {
        let mut stream = server.connect().await;
        stream.set_nodelay(true).unwrap();
        for piece in requests.as_bytes().chunks(size) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let answers = read_until(&mut stream, "\r\n\r\n0").await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 6, "{answers}");
        assert_eq!(answers.matches("\r\n\r\ntaken").count(), 3, "{answers}");
        assert!(answers.find("\r\n\r\n4").unwrap() > answers.find("\r\n\r\ntaken").unwrap(), "{answers}");
    }
}

#[tokio::test]
async fn a_connection_does_not_rest_before_a_body_is_read() {
    let server = Running::start(options()).await;
    let mut stream = server.connect().await;
    write(&mut stream, "POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nfirst").await;
    read_until(&mut stream, "\r\n\r\nearly").await;
    write(&mut stream, "end").await;
    assert!(ask(&mut server.connect().await, "/heard").await.ends_with("\r\n\r\n8"));
    // It was the last one of its connection.
    assert_eq!(rest(stream).await, "");
}

/// The answer came before the body, and what came of the body afterwards was taken for the next request.
#[tokio::test]
async fn a_body_that_nobody_reads_is_not_the_next_request() {
    let server = Running::start(options()).await;
    for body in ["0", "GET /length HTTP/1.1\r\nhost: a\r\n\r\n"] {
        let mut stream = server.connect().await;
        write(&mut stream, &format!("POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len()))
            .await;
        read_until(&mut stream, "\r\n\r\n").await;
        // The server may have closed the connection by now, or may do so while this is on its way.
        drop(
            stream
                .write_all(format!("{body}POST /length HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").as_bytes())
                .await,
        );
        let mut answers = Vec::new();
        drop(tokio::time::timeout(Duration::from_millis(300), stream.read_to_end(&mut answers)).await);
        let answers = String::from_utf8(answers).unwrap();
        assert!(!answers.contains("HTTP/1.1 4"), "{body:?}: {answers}");
        assert!(answers.matches("HTTP/1.1").count() <= 1, "{body:?}: {answers}");
    }
}

#[tokio::test]
async fn who_takes_a_connection_reads_what_came_after_the_request() {
    let server = Running::start(options()).await;
    let mut stream = server.connect().await;
    write(&mut stream, "GET /kept HTTP/1.1\r\nhost: a\r\n\r\nearly").await;
    assert!(rest(stream).await.ends_with("\r\n\r\nearly"));
}

#[tokio::test]
async fn what_might_go_wrong_is_not_on_offer() {
    let server = Running::start(options()).await;
    for request in [
        "GET /taken HTTP/1.0\r\nhost: a\r\n\r\n",
        "GET /taken HTTP/1.1\r\nhost: a\r\nconnection: foo, Close\r\n\r\n",
        "GET /taken HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
        "GET /taken HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut stream = server.connect().await;
        write(&mut stream, request).await;
        let answer = read_until(&mut stream, "not on offer").await;
        assert!(answer.starts_with("HTTP/1."), "{answer}");
    }
    let mut stream = server.connect().await;
    write(&mut stream, "HEAD /taken HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(read_until(&mut stream, "\r\n\r\n").await.contains("content-length: 12"));
    let mut http2 = http2_client(server.connect().await).await;
    let answer = http2.send_request(get_request("http://a.test/taken")).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "not on offer");
}

#[tokio::test]
async fn a_request_with_an_upgrade_loses_nothing() {
    let server = Running::start(options()).await;
    let mut stream = server.connect().await;
    ask(&mut stream, "/taken").await;
    // Nobody upgrades here: the body is the body, and further requests follow.
    let upgrade = "connection: upgrade\r\nupgrade: something\r\nx-Odd: \t a  b\r\n";
    write(
        &mut stream,
        &format!("POST /length?a=%20 HTTP/1.1\r\nhost: a\r\n{upgrade}content-length: 5\r\n\r\nabcdeGET /who"),
    )
    .await;
    assert!(read_until(&mut stream, "\r\n\r\n5").await.starts_with("HTTP/1.1 200"));
    write(&mut stream, "ami HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let own = stream.local_addr().unwrap().to_string();
    assert!(read_until(&mut stream, &own).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_connection_that_was_taken_keeps_its_place_and_outlives_the_stop() {
    let server = Running::start(Options { max_connections: 1, ..options() }).await;
    let mut stream = server.connect().await;
    write(&mut stream, "GET /kept HTTP/1.1\r\nhost: a\r\n\r\n").await;
    read_until(&mut stream, "\r\n\r\n").await;
    assert!(rest(server.connect().await).await.starts_with("HTTP/1.1 503"));
    assert!(server.stop_and_end().await < SOON / 2);
    write(&mut stream, "still").await;
    assert_eq!(rest(stream).await, "still");
}

#[tokio::test]
async fn who_gives_no_further_request_is_cut() {
    let short = Duration::from_millis(150);
    let server = Running::start(Options { header_read_timeout: short, ..options() }).await;
    let mut stream = server.connect().await;
    ask(&mut stream, "/taken").await;
    assert_eq!(rest(stream).await, "");
}

#[tokio::test]
async fn over_tls_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = DevCertificates::open(folder.path(), []).unwrap();
    let server = Running::start(Options { tls: Some(tls_config(certificates.resolver())), ..options() }).await;
    let mut roots = RootCertStore::empty();
    roots.add(certificates.current().certified_key().cert[0].clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, server.connect().await).await.unwrap();
    for _ in 0..3 {
        assert!(ask(&mut stream, "/taken").await.ends_with("\r\n\r\ntaken"));
    }
    write(&mut stream, "GET /taken HTTP/1.1\r\nhost: a\r\n\r\nGET /kept HTTP/1.1\r\nhost: a\r\n\r\nearly").await;
    let answers = read_until(&mut stream, "early").await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
}
