//! How a server ends.

use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use throughline::{Session, Transport};
use throughline_protocol::{Code, Origin};
use tokio::net::TcpStream;

use crate::common::{Client, Incoming, Opening, Running, TRANSPORTS, Wire, config, echo, start, within};
use crate::on_every_transport;

on_every_transport! {
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
        assert_eq!(refusal.status, http::StatusCode::SERVICE_UNAVAILABLE, "{transport}");
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
