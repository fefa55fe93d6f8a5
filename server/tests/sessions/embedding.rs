//! Throughline inside an axum application of somebody else.

use std::net::{Ipv4Addr, SocketAddr};

use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use http::StatusCode;
use throughline::{Hub, Session, Transport};
use throughline_protocol::Code;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::common::requests::{ask, headers};
use crate::common::{Client, Opening, Place, Running, TRANSPORTS, Wire, config, echo, start};

const OVER_TCP: [Transport; 3] = [Transport::WebSocket, Transport::Sse, Transport::Poll];

/// An application with its own listener and routes, and Throughline below `/live`.
async fn serve(running: &Running) -> (Place, JoinHandle<()>) {
    let application = Router::new().route("/", get(|| async { "its own page" })).nest("/live", running.server.router());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let place = Place { tcp: Some(listener.local_addr().unwrap()), base: "/live/rt".into(), ..running.place.clone() };
    let service = application.into_make_service_with_connect_info::<SocketAddr>();
    let serving = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    (place, serving)
}

fn without_tcp() -> throughline::Config {
    let mut config = config();
    config.tcp.listen = None;
    config
}

#[tokio::test]
async fn an_application_of_its_own_mounts_it_under_another_path() {
    let running = start(without_tcp(), |builder| builder.on_session(echo)).await;
    assert_eq!(running.server.tcp_addr(), None);
    let (place, serving) = serve(&running).await;
    for transport in OVER_TCP {
        let client = Client::connect(&place, transport).await;
        for text in ["one", "two"] {
            client.send(text).await.unwrap();
            assert_eq!(client.message().await.as_text(), Some(text), "{transport}");
        }
        client.close(3, "bye");
        client.end().await;
    }
    // WebTransport stays with the server's own QUIC listener, and the routes tell where.
    let client = Client::connect(&running.place, Transport::WebTransport).await;
    client.send("over QUIC").await.unwrap();
    client.message().await;
    let info = ask("GET", &place.url("/info"), headers(&[]), Bytes::new()).await;
    assert_eq!(info.field("webtransport")["port"], running.place.quic.unwrap().port());

    let own = Place { base: String::new(), ..place.clone() };
    let page = ask("GET", &own.url("/"), headers(&[]), Bytes::new()).await;
    assert_eq!(&page.body[..], b"its own page");
    assert_eq!(ask("GET", &own.url("/rt/info"), headers(&[]), Bytes::new()).await.status, StatusCode::NOT_FOUND);
    serving.abort();
}

#[tokio::test]
async fn limits_per_address_hold_there_too() {
    let mut config = without_tcp();
    config.limits.max_sessions_per_ip = 1;
    let running = start(config, |builder| builder.on_session(echo)).await;
    let (place, serving) = serve(&running).await;
    let client = Client::connect(&place, Transport::WebSocket).await;
    for transport in OVER_TCP {
        let refusal = Wire::open(&place, transport, &Opening::default()).await.err().expect("there is no place");
        assert_eq!(refusal.status, StatusCode::TOO_MANY_REQUESTS);
    }
    drop(client);
    serving.abort();
}

/// The routes outlive the server, since the application owns them: they say that it has gone.
#[tokio::test]
async fn after_a_drain_the_routes_refuse() {
    let running = start(without_tcp(), |builder| builder.on_session(echo)).await;
    let (place, serving) = serve(&running).await;
    let client = Client::connect(&place, Transport::WebSocket).await;
    running.server.drain(std::time::Duration::from_secs(5)).await;
    assert_eq!(client.closed().await.code, Code::ShuttingDown as u32);
    assert_refuses(&place).await;
    serving.abort();
}

#[tokio::test]
async fn after_the_server_was_dropped_the_routes_refuse() {
    let running = start(without_tcp(), |builder| builder.on_session(echo)).await;
    let (place, serving) = serve(&running).await;
    drop(running);
    assert_refuses(&place).await;
    serving.abort();
}

async fn assert_refuses(place: &Place) {
    for transport in OVER_TCP {
        let refusal = Wire::open(place, transport, &Opening::default()).await.err().expect("it is refused");
        assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE, "{transport}");
        assert_eq!(refusal.code(), Code::ShuttingDown as u64);
        assert_eq!(refusal.field("retry"), true);
        assert_eq!(refusal.retry_after(), Some(1));
    }
}

#[tokio::test]
async fn routes_of_its_own_are_served_beside_the_transports() {
    let publish = |Extension(hub): Extension<Hub>| async move {
        hub.channel("news").publish("new").await.map(|position| position.offset.to_string()).map_err(|e| e.to_string())
    };
    let routes = Router::new().route("/hello", get(|| async { "hello" })).route("/publish", get(publish));
    let running = start(config(), |builder| builder.on_session(echo).routes(routes)).await;
    let place = Place { base: String::new(), ..running.place.clone() };
    assert_eq!(&ask("GET", &place.url("/hello"), headers(&[]), Bytes::new()).await.body[..], b"hello");
    assert_eq!(&ask("GET", &place.url("/publish"), headers(&[]), Bytes::new()).await.body[..], b"1");
    assert_eq!(ask("GET", &place.url("/other"), headers(&[]), Bytes::new()).await.status, StatusCode::NOT_FOUND);
    for transport in TRANSPORTS {
        let client = Client::connect(&running.place, transport).await;
        client.send("x").await.unwrap();
        client.message().await;
    }
}

#[tokio::test]
async fn the_base_can_be_another() {
    let mut config = config();
    config.base = "/a/b".into();
    let running = start(config, |builder| builder.on_session(echo)).await;
    for transport in TRANSPORTS {
        let client = Client::connect(&running.place, transport).await;
        client.send("x").await.unwrap();
        client.message().await;
    }
}

/// The address that was asked for, not what is left of it below the base.
#[tokio::test]
async fn authentication_sees_the_address_that_was_asked_for() {
    let (tell, told) = std::sync::mpsc::channel();
    let authenticate = move |open: &throughline::Open| {
        tell.send((open.transport, open.uri.path().to_owned())).unwrap();
        async { Ok(throughline::Identity::anonymous()) }
    };
    let application = |session: Session| async move { drop(session.closed().await) };
    let running = start(config(), |builder| builder.authenticate(authenticate).on_session(application)).await;
    let (place, serving) = serve(&running).await;
    for transport in OVER_TCP {
        drop(Client::connect(&place, transport).await);
        assert_eq!(told.recv().unwrap(), (transport, format!("/live/rt/{transport}")));
    }
    for transport in TRANSPORTS {
        drop(Client::connect(&running.place, transport).await);
        assert_eq!(told.recv().unwrap(), (transport, format!("/rt/{transport}")));
    }
    serving.abort();
}
