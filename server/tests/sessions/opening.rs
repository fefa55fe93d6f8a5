//! Who is let in, who is not, and how each is told (SPEC section 7).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use throughline::{Identity, Open, Rejection, Session, Transport};
use throughline_protocol::{Close, Code, Frame};
use tokio::sync::mpsc;

use crate::common::requests::{ask, headers, link_headers};
use crate::common::{Client, Opening, Refusal, Running, TRANSPORTS, Wire, config, echo, start, within};
use crate::on_every_transport;

on_every_transport! {
    a_version_that_is_not_spoken_is_refused,
    a_token_is_asked_about_before_the_link_opens,
    a_token_may_be_long_and_of_any_text,
    pages_of_other_sites_are_refused,
    pages_of_the_same_host_and_of_listed_origins_may_come,
    a_session_that_is_unknown_is_not_resumed,
    half_a_resumption_is_refused,
    an_authentication_that_hangs_is_cut,
    an_authentication_that_panics_is_an_error_of_the_server,
    a_client_that_says_nothing_is_closed_and_never_seen,
    a_link_that_lost_a_race_is_never_seen,
}

/// Counts the sessions that the application saw.
fn counting() -> (Arc<AtomicUsize>, impl Fn(Session) -> futures_util::future::BoxFuture<'static, ()>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let application = move |session: Session| {
        counter.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { drop(session.closed().await) }) as futures_util::future::BoxFuture<'static, ()>
    };
    (count, application)
}

fn authenticate(open: &Open) -> std::future::Ready<Result<Identity, Rejection>> {
    std::future::ready(match open.token.as_deref() {
        None => Ok(Identity::anonymous()),
        Some("refused") => Err(Rejection::unauthorized("this token is not good")),
        Some("forbidden") => Err(Rejection::forbidden("not you")),
        Some("busy") => Err(Rejection::too_many("come back later", Duration::from_millis(1_500))),
        Some(user) => Ok(Identity::user(user)),
    })
}

async fn refused(running: &Running, transport: Transport, opening: &Opening) -> Refusal {
    match Wire::open(&running.place, transport, opening).await {
        Ok(_) => panic!("{transport} was let in with {opening:?}"),
        Err(refusal) => refusal,
    }
}

fn assert_says(refusal: &Refusal, status: StatusCode, code: Code) {
    assert_eq!(refusal.status, status, "{:?}", refusal.body);
    assert_eq!(refusal.code(), code as u64);
    assert_eq!(refusal.field("name"), code.name());
    assert_eq!(refusal.field("retry"), code.retry());
    assert!(refusal.field("reason").as_str().is_some_and(|reason| !reason.is_empty()));
    assert_eq!(refusal.headers["cache-control"], "no-store");
}

async fn a_version_that_is_not_spoken_is_refused(transport: Transport) {
    let running = start(config(), |builder| builder.on_session(echo)).await;
    for version in ["2", "0", "11", "x"] {
        let opening = Opening { version: Some(version), ..Opening::default() };
        let refusal = refused(&running, transport, &opening).await;
        assert_says(&refusal, StatusCode::BAD_REQUEST, Code::UnsupportedVersion);
    }
    let refusal = refused(&running, transport, &Opening { version: None, ..Opening::default() }).await;
    assert_says(&refusal, StatusCode::BAD_REQUEST, Code::BadRequest);
}

async fn a_token_is_asked_about_before_the_link_opens(transport: Transport) {
    let (count, application) = counting();
    let running = start(config(), |builder| builder.authenticate(authenticate).on_session(application)).await;
    let refusal = refused(&running, transport, &Opening::with_token("refused")).await;
    assert_says(&refusal, StatusCode::UNAUTHORIZED, Code::Unauthorized);
    assert_eq!(refusal.field("reason"), "this token is not good");
    assert_eq!(refusal.headers["www-authenticate"], "Bearer");
    let refusal = refused(&running, transport, &Opening::with_token("forbidden")).await;
    assert_says(&refusal, StatusCode::FORBIDDEN, Code::Forbidden);
    let refusal = refused(&running, transport, &Opening::with_token("busy")).await;
    assert_says(&refusal, StatusCode::TOO_MANY_REQUESTS, Code::LimitReached);
    assert_eq!(refusal.retry_after(), Some(2), "whole seconds, rounded up");
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

async fn a_token_may_be_long_and_of_any_text(transport: Transport) {
    let (tell, mut told) = mpsc::channel(1);
    let application = move |session: Session| {
        let tell = tell.clone();
        async move { tell.send(session.identity().user.clone()).await.unwrap() }
    };
    let running = start(config(), |builder| builder.authenticate(authenticate).on_session(application)).await;
    let long = "x".repeat(4_096);
    let mut tokens = vec!["eyJhbGciOi.J9-_~+/=", &long];
    if matches!(transport, Transport::WebTransport | Transport::WebSocket) {
        tokens.push("Grüße & 100 % 漢字+ ="); // a header cannot carry it
    }
    for token in tokens {
        let client = Client::open(&running.place, transport, &Opening::with_token(token)).await.unwrap();
        assert_eq!(within("a session", told.recv()).await, Some(Some(token.to_owned())));
        drop(client);
    }
    let refusal = refused(&running, transport, &Opening::with_token(&"x".repeat(4_097))).await;
    assert_says(&refusal, StatusCode::BAD_REQUEST, Code::BadRequest);
}

async fn pages_of_other_sites_are_refused(transport: Transport) {
    let mut config = config();
    config.origins = vec!["https://app.example:8443".into()];
    let (count, application) = counting();
    let running = start(config, |builder| builder.on_session(application)).await;
    for origin in [
        "https://evil.example",
        "https://app.example",
        "http://app.example:8443",
        "null",
        "http://127.0.0.1.evil.example",
    ] {
        let refusal = refused(&running, transport, &Opening::with_origin(origin)).await;
        assert_says(&refusal, StatusCode::FORBIDDEN, Code::Forbidden);
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

async fn pages_of_the_same_host_and_of_listed_origins_may_come(transport: Transport) {
    let mut config = config();
    config.origins = vec!["https://app.example:8443".into()];
    let running = start(config, |builder| builder.on_session(echo)).await;
    for origin in ["http://127.0.0.1:1", "https://127.0.0.1", "http://localhost:3000", "https://app.example:8443"] {
        let client = Client::open(&running.place, transport, &Opening::with_origin(origin)).await;
        let client = client.unwrap_or_else(|refusal| panic!("{origin}: {refusal:?}"));
        client.send("hello").await.unwrap();
        client.message().await;
    }
}

async fn a_session_that_is_unknown_is_not_resumed(transport: Transport) {
    let running = start(config(), |builder| builder.on_session(echo)).await;
    let unknown = "AAECAwQFBgcICQoLDA0ODw";
    let resume = Some([unknown.to_owned(), unknown.to_owned(), "0.4711".to_owned()]);
    let client = Client::open(&running.place, transport, &Opening { resume, ..Opening::default() }).await.unwrap();
    assert!(!client.welcome.resumed);
    assert_ne!(client.id().to_string(), unknown);
    assert_eq!((client.welcome.link, client.welcome.received), (1, 0));
    client.send("from the start").await.unwrap();
    assert_eq!(client.message().await.as_text(), Some("from the start"));
}

async fn half_a_resumption_is_refused(transport: Transport) {
    let running = start(config(), |builder| builder.on_session(echo)).await;
    let id = "AAECAwQFBgcICQoLDA0ODw";
    for [session, key, received] in [[id, "short", "0.0"], ["", "", "0.0"], [id, id, "0"], [id, id, "0.x"]] {
        let resume = Some([session.to_owned(), key.to_owned(), received.to_owned()]);
        let refusal = refused(&running, transport, &Opening { resume, ..Opening::default() }).await;
        assert_says(&refusal, StatusCode::BAD_REQUEST, Code::BadRequest);
    }
}

async fn an_authentication_that_hangs_is_cut(transport: Transport) {
    let mut config = config();
    config.limits.open_timeout = Duration::from_millis(300);
    config.limits.max_sessions = 1;
    let hangs = |open: &Open| {
        let hangs = open.token.is_some();
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok(Identity::anonymous())
        }
    };
    let running = start(config, |builder| builder.authenticate(hangs).on_session(echo)).await;
    let started = Instant::now();
    let refusal = refused(&running, transport, &Opening::with_token("x")).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_says(&refusal, StatusCode::SERVICE_UNAVAILABLE, Code::InternalError);
    assert!(refusal.retry_after().is_some());
    // Its place is free again.
    let client = Client::connect(&running.place, transport).await;
    client.send("hello").await.unwrap();
    client.message().await;
}

/// It took the connection along, and everything else that was on it.
async fn an_authentication_that_panics_is_an_error_of_the_server(transport: Transport) {
    let panics = |open: &Open| {
        let token = open.token.clone();
        assert!(token.as_deref() != Some("at once"), "as the test wants it");
        async move {
            assert!(token.as_deref() != Some("later"), "as the test wants it");
            Ok(Identity::anonymous())
        }
    };
    let running = start(config(), |builder| builder.authenticate(panics).on_session(echo)).await;
    for token in ["at once", "later"] {
        let refusal = refused(&running, transport, &Opening::with_token(token)).await;
        assert_says(&refusal, StatusCode::SERVICE_UNAVAILABLE, Code::InternalError);
    }
    let client = Client::connect(&running.place, transport).await;
    client.send("hello").await.unwrap();
    client.message().await;
}

async fn a_client_that_says_nothing_is_closed_and_never_seen(transport: Transport) {
    let mut config = config();
    config.limits.open_timeout = Duration::from_millis(400);
    let (count, application) = counting();
    let running = start(config, |builder| builder.on_session(application)).await;
    let mut wire = Wire::connect(&running.place, transport).await;
    let started = Instant::now();
    let (code, reason) = wire.next_close().await;
    let waited = started.elapsed();
    assert_eq!(code, Code::OpenTimeout as u32, "{reason}");
    assert!(waited >= Duration::from_millis(300) && waited < Duration::from_secs(5), "{waited:?}");
    wire.end().await;
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

async fn a_link_that_lost_a_race_is_never_seen(transport: Transport) {
    let mut config = config();
    config.limits.max_sessions = 1;
    // A poll that is dropped is not noticed sooner.
    config.limits.open_timeout = Duration::from_millis(300);
    let (count, application) = counting();
    let running = start(config, |builder| builder.on_session(application)).await;
    let place = &running.place;
    // Its client closes it with CLOSE, or just goes.
    let mut wire = Wire::connect(place, transport).await;
    wire.send_frames(&[Frame::Close(Close::protocol(Code::Normal, "another one was faster"))]).await;
    wire.end().await;
    Wire::connect_when_free(place, transport).await.cut().await;
    // Both are gone when the one place is free again.
    let wire = Wire::connect_when_free(place, transport).await;
    assert_eq!(count.load(Ordering::SeqCst), 0);
    wire.send_frames(&[Frame::Ping { id: 1 }]).await;
    within("a session", async {
        while count.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_preflight_is_answered_for_the_origins_that_may_come() {
    let mut config = config();
    config.origins = vec!["https://app.example".into()];
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(echo)).await;
    for (route, method) in [("/sse", "GET"), ("/poll", "GET"), ("/send", "POST")] {
        let asked = |origin| {
            headers(&[
                ("origin", origin),
                ("access-control-request-method", method),
                (
                    "access-control-request-headers",
                    "throughline-version,throughline-session,throughline-key,throughline-link",
                ),
            ])
        };
        let answer = ask("OPTIONS", &place.url(route), asked("https://app.example"), Bytes::new()).await;
        assert_eq!(answer.status, StatusCode::OK, "{route}");
        assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
        let allowed = answer.headers["access-control-allow-headers"].to_str().unwrap().to_owned();
        for header in [
            "authorization",
            "content-type",
            "throughline-version",
            "throughline-session",
            "throughline-key",
            "throughline-received",
            "throughline-link",
        ] {
            assert!(allowed.contains(header), "{allowed}");
        }
        assert!(answer.headers["access-control-allow-methods"].to_str().unwrap().contains(method));
        let answer = ask("OPTIONS", &place.url(route), asked("https://evil.example"), Bytes::new()).await;
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{route}");
    }
}

#[tokio::test]
async fn answers_and_refusals_can_be_read_by_the_origins_that_may_come() {
    let mut config = config();
    config.origins = vec!["https://app.example".into()];
    let build = |builder: throughline::Builder| builder.authenticate(authenticate).on_session(echo);
    let Running { server: _server, place, .. } = &start(config, build).await;
    let opening = [("throughline-version", "1"), ("origin", "https://app.example")];
    let answer = ask("GET", &place.url("/poll"), headers(&opening), Bytes::new()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
    let busy = [opening[0], opening[1], ("authorization", "Bearer busy")];
    let answer = ask("GET", &place.url("/poll"), headers(&busy), Bytes::new()).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
    assert!(answer.headers["access-control-expose-headers"].to_str().unwrap().contains("retry-after"));
}

#[tokio::test]
async fn requests_of_an_open_link_are_held_to_their_origin_too() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let wire = Wire::connect(place, Transport::Poll).await;
    let mut names = link_headers(&wire.welcome);
    names.extend(headers(&[("origin", "https://evil.example")]));
    for (method, route) in [("POST", "/send"), ("GET", "/poll")] {
        let answer = ask(method, &place.url(route), names.clone(), Bytes::new()).await;
        assert_says(&answer, StatusCode::FORBIDDEN, Code::Forbidden);
    }
}

#[tokio::test]
async fn requests_that_are_no_opening_are_answered_in_words() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let answer = ask("GET", &place.url("/websocket"), headers(&[]), Bytes::new()).await;
    assert_says(&answer, StatusCode::UPGRADE_REQUIRED, Code::BadRequest);
    let answer = ask("GET", &place.url("/webtransport"), headers(&[]), Bytes::new()).await;
    assert_says(&answer, StatusCode::BAD_REQUEST, Code::BadRequest);
    let answer = ask("POST", &place.url("/sse"), headers(&[]), Bytes::new()).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    let answer = ask("GET", &place.url("/nothing"), headers(&[]), Bytes::new()).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn info_says_what_is_there() {
    let running = start(config(), |builder| builder.on_session(echo)).await;
    let place = &running.place;
    let answer = ask("GET", &place.url("/info"), headers(&[]), Bytes::new()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.field("versions"), serde_json::json!([1]));
    let names: Vec<_> = TRANSPORTS.iter().map(|transport| transport.name()).collect();
    assert_eq!(answer.field("transports"), serde_json::json!(names));
    let expected = serde_json::json!({ "port": place.quic.unwrap().port(), "path": "/rt/webtransport" });
    assert_eq!(answer.field("webtransport"), expected);
    let hashes: Vec<_> = place.hashes.iter().map(throughline_certs::base64).collect();
    assert!(!hashes.is_empty());
    assert_eq!(answer.field("certificateHashes"), serde_json::json!(hashes));
}
