//! Limits hold, say so, and are given back.

use std::time::Duration;

use http::StatusCode;
use throughline::{Session, Transport};
use throughline_protocol::{Code, Frame};
use tokio::sync::mpsc;

use crate::common::{Client, Opening, Place, Refusal, Running, Wire, config, echo, start, within};
use crate::on_every_transport;

on_every_transport! {
    sessions_in_all_are_limited,
    sessions_of_one_address_are_limited,
    openings_of_one_address_are_limited,
    a_client_that_falls_silent_has_lost_its_link,
    a_quiet_session_stays_open,
    places_come_back_however_sessions_end,
}

async fn refused(place: &Place, transport: Transport) -> Refusal {
    match Wire::open(place, transport, &Opening::default()).await {
        Ok(_) => panic!("{transport} was let in"),
        Err(refusal) => refusal,
    }
}

async fn hello(client: &Client) {
    client.send("hello").await.unwrap();
    client.message().await;
}

async fn sessions_in_all_are_limited(transport: Transport) {
    let mut config = config();
    config.limits.max_sessions = 2;
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(echo)).await;
    let clients = [Client::connect(place, transport).await, Client::connect(place, transport).await];
    let refusal = refused(place, transport).await;
    assert_eq!((refusal.status, refusal.code()), (StatusCode::SERVICE_UNAVAILABLE, Code::LimitReached as u64));
    assert!(refusal.retry_after().is_some_and(|seconds| seconds >= 1));
    // Whoever is there does not notice.
    for client in &clients {
        hello(client).await;
    }
    clients[0].close(0, "");
    clients[0].end().await;
    hello(&Client::over(Wire::connect_when_free(place, transport).await).await).await;
}

async fn sessions_of_one_address_are_limited(transport: Transport) {
    let mut config = config();
    config.limits.max_sessions_per_ip = 1;
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, transport).await;
    let refusal = refused(place, transport).await;
    assert_eq!((refusal.status, refusal.code()), (StatusCode::TOO_MANY_REQUESTS, Code::LimitReached as u64));
    assert!(refusal.retry_after().is_some_and(|seconds| seconds >= 1));
    client.close(0, "");
    client.end().await;
    hello(&Client::over(Wire::connect_when_free(place, transport).await).await).await;
}

async fn openings_of_one_address_are_limited(transport: Transport) {
    let mut config = config();
    config.limits.opens_per_ip_burst = 3;
    config.limits.opens_per_ip_per_second = 1;
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(echo)).await;
    let clients = [
        Client::connect(place, transport).await,
        Client::connect(place, transport).await,
        Client::connect(place, transport).await,
    ];
    let refusal = refused(place, transport).await;
    assert_eq!((refusal.status, refusal.code()), (StatusCode::TOO_MANY_REQUESTS, Code::LimitReached as u64));
    assert_eq!(refusal.retry_after(), Some(1));
    // Further polls and POSTs are no openings.
    for client in &clients {
        for _ in 0..5 {
            hello(client).await;
        }
    }
}

async fn a_client_that_falls_silent_has_lost_its_link(transport: Transport) {
    let (tell, mut told) = mpsc::channel(1);
    let application = move |session: Session| {
        let tell = tell.clone();
        async move { tell.send((session.closed().await, session.transport())).await.unwrap() }
    };
    let mut config = config();
    config.limits.idle_timeout = Duration::from_secs(1);
    config.limits.heartbeat_interval = Duration::from_millis(200);
    config.limits.poll_hold = Duration::from_millis(300);
    config.limits.resume_window = Duration::from_millis(500);
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(application)).await;
    let mut wire = Wire::connect(place, transport).await;
    let started = std::time::Instant::now();
    wire.send_frames(&[Frame::Ping { id: 1 }]).await;
    // It leaves the server's PINGs where they are: with polls, it stops to ask for them.
    let (closed, carrier) = within("the end of the session", told.recv()).await.unwrap();
    assert_eq!((closed.code, closed.application), (Code::LinkLost as u32, false), "{closed:?}");
    assert_eq!(carrier, None);
    assert!(started.elapsed() >= Duration::from_millis(1_400), "{:?}", started.elapsed());
    if transport != Transport::Poll {
        assert!(matches!(wire.end().await, crate::common::Incoming::Lost(_)), "nothing is said to who is silent");
    }
}

async fn a_quiet_session_stays_open(transport: Transport) {
    let mut config = config();
    config.limits.idle_timeout = Duration::from_secs(1);
    config.limits.heartbeat_interval = Duration::from_millis(300);
    config.limits.poll_hold = Duration::from_millis(300);
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, transport).await;
    hello(&client).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    hello(&client).await;
}

/// Counts that are not given back add up: with two places, the third round would find none.
async fn places_come_back_however_sessions_end(transport: Transport) {
    let application = |session: Session| async move {
        match session.recv().await {
            Some(throughline::Event::Message(message)) => match message.as_text() {
                Some("close") => session.close(1, "as asked"),
                Some("panic") => panic!("as the test wants it"),
                Some("return") => return,
                _ => {}
            },
            _ => return,
        }
        session.closed().await;
    };
    let authenticate = |open: &throughline::Open| {
        let refused = open.token.is_some();
        async move {
            if refused {
                Err(throughline::Rejection::unauthorized("no"))
            } else {
                Ok(throughline::Identity::anonymous())
            }
        }
    };
    let mut config = config();
    config.limits.max_sessions = 2;
    config.limits.open_timeout = Duration::from_millis(500);
    config.limits.idle_timeout = Duration::from_secs(1);
    config.limits.heartbeat_interval = Duration::from_millis(500);
    config.limits.poll_hold = Duration::from_millis(500);
    // A session that was cut keeps its place for so long: its client may come back to it.
    config.limits.resume_window = Duration::from_millis(500);
    let build = |builder: throughline::Builder| builder.authenticate(authenticate).on_session(application);
    let Running { server: _server, place, .. } = &start(config, build).await;
    for _ in 0..3 {
        for how in ["close", "panic", "return"] {
            let client = Client::over(Wire::connect_when_free(place, transport).await).await;
            client.send(how).await.unwrap();
            client.closed().await;
        }
        // The client's CLOSE; a violation; a cut, before and after it has said something; a refusal.
        let client = Client::over(Wire::connect_when_free(place, transport).await).await;
        client.close(0, "");
        client.end().await;
        let mut wire = Wire::connect_when_free(place, transport).await;
        wire.send(crate::common::Outgoing::Packet(bytes::Bytes::from_static(&[0x3f, 0]))).await;
        wire.next_close().await;
        Wire::connect_when_free(place, transport).await.cut().await;
        let wire = Wire::connect_when_free(place, transport).await;
        wire.send_frames(&[Frame::Ping { id: 1 }]).await;
        wire.cut().await;
        assert!(Wire::open_when_free(place, transport, &Opening::with_token("x")).await.is_err());
    }
    let first = Wire::connect_when_free(place, transport).await;
    let second = Wire::connect_when_free(place, transport).await;
    drop((first, second));
}
