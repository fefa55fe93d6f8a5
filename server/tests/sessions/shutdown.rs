//! How a server ends.

use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use throughline::{Event, Session, Transport};
use throughline_protocol::{Code, Origin, TrySendError};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::common::requests::{ask, headers};
use crate::common::{Client, Incoming, Opening, Place, Running, TRANSPORTS, Wire, config, echo, start, within};
use crate::on_every_transport;

on_every_transport! {
    a_drain_loses_nothing_that_was_sent,
    a_draining_server_takes_further_links_of_its_sessions,
    a_drain_closes_sessions_and_ends_as_soon_as_they_have,
    a_drain_cuts_a_client_that_takes_nothing,
    a_server_that_is_dropped_ends_its_sessions,
}

/// Tells how many of it there are.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn none_left(alive: &AtomicUsize) {
    within("the end of all handlers", async {
        while alive.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn a_drain_closes_sessions_and_ends_as_soon_as_they_have(transport: Transport) {
    let Running { server, place, _certificates } = start(config(), |builder| builder.on_session(echo)).await;
    let client = Client::connect(&place, transport).await;
    client.send("hello").await.unwrap();
    client.message().await;
    let started = Instant::now();
    within("the drain", server.drain(Duration::from_secs(15))).await;
    let took = started.elapsed();
    let close = client.closed().await;
    assert_eq!((close.code, close.origin), (Code::ShuttingDown as u32, Origin::Protocol));
    assert!(close.retry() && !close.reason.is_empty());
    match (transport, client.end().await) {
        (Transport::WebTransport | Transport::WebSocket, Incoming::Closed { code, .. }) => assert_eq!(code, 4_018),
        (Transport::Sse | Transport::Poll, Incoming::Lost(_)) => {}
        other => panic!("{other:?}"),
    }
    assert!(took < Duration::from_secs(2), "the drain took {took:?} though nobody was slow");
    // Both ports are free again.
    TcpListener::bind(place.tcp.unwrap()).unwrap();
    within("the UDP port", async {
        while UdpSocket::bind(place.quic.unwrap()).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn a_drain_cuts_a_client_that_takes_nothing(transport: Transport) {
    let alive = Arc::new(AtomicUsize::new(0));
    let application = {
        let alive = Arc::clone(&alive);
        move |session: Session| {
            let alive = Alive::new(&alive);
            async move {
                while session.send(vec![7; 100_000]).await.is_ok() {}
                // It does not care.
                std::future::pending::<()>().await;
                drop(alive);
            }
        }
    };
    let running = start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(&running.place, transport).await;
    client.message().await;
    client.pause();
    let started = Instant::now();
    within("the drain", running.server.drain(Duration::from_secs(1))).await;
    let took = started.elapsed();
    assert!(took < Duration::from_millis(2_500), "the drain took {took:?}");
    none_left(&alive).await;
    client.resume();
    client.has_no_link().await;
}

/// The sockets of sessions that had left HTTP behind stayed open, and their handlers waiting.
async fn a_server_that_is_dropped_ends_its_sessions(transport: Transport) {
    let alive = Arc::new(AtomicUsize::new(0));
    let application = {
        let alive = Arc::clone(&alive);
        move |session: Session| {
            let alive = Alive::new(&alive);
            async move {
                echo(session).await;
                drop(alive);
            }
        }
    };
    let Running { server, place, .. } = start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(&place, transport).await;
    client.send("hello").await.unwrap();
    client.message().await;
    drop(server);
    none_left(&alive).await;
    client.has_no_link().await;
    within("the TCP port", async {
        while TcpListener::bind(place.tcp.unwrap()).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Both sides send all the time, and nobody is told to stop before he has to.
async fn a_drain_loses_nothing_that_was_sent(transport: Transport) {
    const BODY: usize = 1_000;
    const HEADER: u64 = 3;
    let (tell, mut told) = mpsc::channel(1);
    let application = move |session: Session| {
        let tell = tell.clone();
        async move {
            let (mut sent, mut received) = (0_u64, 0_u64);
            let sending = async {
                while session.send(vec![sent as u8; BODY]).await.is_ok() {
                    sent += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let receiving = async {
                while let Some(event) = session.recv().await {
                    if let Event::Message(message) = event {
                        assert!(message.as_bytes() == &vec![received as u8; BODY][..]);
                        received += 1;
                    }
                }
            };
            tokio::join!(sending, receiving);
            tell.send((sent, received, session.closed().await)).await.unwrap();
        }
    };
    let mut config = config();
    config.limits.drain_spread = Duration::from_millis(500);
    let Running { server, place, _certificates } = start(config, |builder| builder.on_session(application)).await;
    let client = Client::connect(&place, transport).await;
    client.send(vec![0; BODY]).await.unwrap();
    client.message().await;
    let drain = tokio::spawn(server.drain(Duration::from_secs(15)));
    let (mut sent, mut received) = (1_u64, 1_u64);
    let sending = async {
        loop {
            match client.try_send(vec![sent as u8; BODY]) {
                Ok(()) => sent += 1,
                Err(TrySendError::Full) => {}
                Err(_) => break,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let receiving = async {
        while let Some(event) = client.recv().await {
            if let throughline_protocol::Event::Message(message) = event {
                assert!(message.as_bytes() == &vec![received as u8; BODY][..]);
                received += 1;
            }
        }
    };
    within("the end of the session", async { tokio::join!(sending, receiving) }).await;
    let close = client.closed().await;
    assert_eq!((close.code, close.origin), (Code::ShuttingDown as u32, Origin::Protocol));
    let (server_sent, server_received, closed) = within("the server's counts", told.recv()).await.unwrap();
    assert_eq!(closed.code, Code::ShuttingDown as u32);
    assert_eq!(received, server_sent, "all that the server's application has sent");
    // What the client held back is still its own, whole: for the next session.
    let held = client.buffered_bytes();
    assert_eq!(held % (BODY as u64 + HEADER), 0);
    assert_eq!(server_received, sent - held / (BODY as u64 + HEADER), "{sent} were sent, {held} bytes held back");
    within("the drain", drain).await.unwrap();
}

async fn a_draining_server_takes_further_links_of_its_sessions(transport: Transport) {
    let mut config = config();
    config.limits.drain_spread = Duration::from_secs(2);
    let Running { server, place, _certificates } = start(config, |builder| builder.on_session(echo)).await;
    let clients = [Client::connect(&place, transport).await, Client::connect(&place, transport).await];
    for client in &clients {
        client.send("hello").await.unwrap();
        client.message().await;
    }
    let drain = tokio::spawn(server.drain(Duration::from_secs(15)));
    within("readiness to end", async {
        while ask("GET", &health(&place, "/readyz"), headers(&[]), "").await.status == StatusCode::OK {}
    })
    .await;
    // Each is asked at a moment of its own: as long as the session is there, it can move.
    for client in &clients {
        let opening = Opening::resuming(&client.welcome, client.received());
        match Wire::open(&place, transport, &opening).await {
            Ok(wire) => client.take(wire).await,
            Err(refusal) => {
                assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
                assert_eq!(client.closed().await.code, Code::ShuttingDown as u32, "only when it is over");
            }
        }
        assert!(Wire::open(&place, transport, &Opening::default()).await.is_err_and(|refusal| {
            (refusal.status, refusal.retry_after()) == (StatusCode::SERVICE_UNAVAILABLE, Some(1))
        }));
    }
    for client in &clients {
        assert_eq!(client.closed().await.code, Code::ShuttingDown as u32);
    }
    within("the drain", drain).await.unwrap();
}

fn health(place: &Place, path: &str) -> String {
    format!("http://{}{path}", place.tcp.unwrap())
}

#[tokio::test]
async fn clients_leave_at_moments_of_their_own() {
    const CLIENTS: usize = 30;
    let mut config = config();
    config.limits.drain_spread = Duration::from_secs(2);
    let Running { server, place, _certificates } = start(config, |builder| builder.on_session(echo)).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = Client::connect(&place, Transport::WebSocket).await;
        client.send("hello").await.unwrap();
        client.message().await;
        clients.push(client);
    }
    let started = Instant::now();
    let drain = tokio::spawn(server.drain(Duration::from_secs(15)));
    let ends = clients.iter().map(|client| async {
        assert_eq!(client.closed().await.code, Code::ShuttingDown as u32);
        started.elapsed()
    });
    let mut ends = futures_util::future::join_all(ends).await;
    ends.sort();
    // Of 30 even the tenth and the twentieth are far apart.
    assert!(ends[CLIENTS - 1] < Duration::from_millis(3_500), "{ends:?}");
    assert!(ends[20] - ends[9] > Duration::from_millis(150), "{ends:?}");
    within("the drain", drain).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(4), "nobody is left");
}

#[tokio::test]
async fn whoever_starts_and_stops_servers_is_told() {
    let running = start(config(), |builder| builder.on_session(echo)).await;
    for (path, words) in [("/livez", "alive\n"), ("/readyz", "ready\n")] {
        let answer = ask("GET", &health(&running.place, path), headers(&[]), "").await;
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, words.as_bytes()), "{path}");
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
}

/// While somebody is slow to go, others are refused in words; then the listeners close.
#[tokio::test]
async fn a_draining_server_refuses_who_is_new() {
    let application = |session: Session| async move { while session.send(vec![7; 100_000]).await.is_ok() {} };
    let running = start(config(), |builder| builder.on_session(application)).await;
    let place = running.place;
    let slow = Client::connect(&place, Transport::WebSocket).await;
    slow.message().await;
    slow.pause();
    let drain = tokio::spawn(running.server.drain(Duration::from_secs(3)));
    for transport in TRANSPORTS {
        let refusal = within("a refusal", async {
            loop {
                match Wire::open(&place, transport, &Opening::default()).await {
                    Err(refusal) => return refusal,
                    Ok(wire) => wire.cut().await, // the drain had not begun
                }
            }
        })
        .await;
        assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE, "{transport}");
        assert_eq!(refusal.code(), Code::ShuttingDown as u64);
        assert_eq!(refusal.retry_after(), Some(1));
    }
    assert!(!drain.is_finished());
    within("the drain", drain).await.unwrap();
    assert!(TcpStream::connect(place.tcp.unwrap()).await.is_err());
    slow.resume();
    slow.has_no_link().await;
}

#[tokio::test]
async fn a_drain_without_sessions_ends_at_once() {
    let running = start(config(), |builder| builder.on_session(echo)).await;
    let started = Instant::now();
    within("the drain", running.server.drain(Duration::from_secs(10))).await;
    assert!(started.elapsed() < Duration::from_secs(1));
}
