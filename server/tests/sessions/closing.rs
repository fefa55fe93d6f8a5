//! How sessions end, and what both sides are told.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use throughline::{Closed, Event, Message, SendDatagramError, SendError, Session, Transport, TrySendError};
use throughline_protocol::{Close, Code, Frame, Origin};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::common::{Client, Incoming, Outgoing, Running, TRANSPORTS, Wire, config, start, within};
use crate::on_every_transport;

on_every_transport! {
    the_client_closes_with_a_code_and_a_reason,
    the_server_closes_with_a_code_and_a_reason,
    what_the_server_sent_before_its_close_arrives_first,
    what_the_client_sent_before_its_close_arrives_first,
    the_end_of_the_handler_is_the_end_of_the_session,
    a_handler_that_panics_ends_its_own_session_only,
    sending_on_a_closed_session_says_that_it_is_closed,
    a_waiting_send_is_told_of_the_close_at_once,
    a_connection_that_is_cut_ends_the_session_as_lost_when_its_window_has_passed,
}

/// An application that tells how its session ended, after taking everything.
fn watching(
    tell: mpsc::Sender<(Vec<Message>, Closed)>,
) -> impl Fn(Session) -> futures_util::future::BoxFuture<'static, ()> {
    move |session| {
        let tell = tell.clone();
        Box::pin(async move {
            let mut messages = Vec::new();
            while let Some(event) = session.recv().await {
                if let Event::Message(message) = event {
                    messages.push(message);
                }
            }
            drop(tell.send((messages, session.closed().await)).await);
        })
    }
}

fn by_application(code: u32, reason: &str) -> Closed {
    Closed { code, reason: reason.to_owned(), application: true }
}

async fn the_client_closes_with_a_code_and_a_reason(transport: Transport) {
    let (tell, mut told) = mpsc::channel(1);
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(watching(tell))).await;
    for (code, reason) in [(0, ""), (4_321, "Schluß für heute"), (u32::MAX, "x")] {
        let client = Client::connect(place, transport).await;
        client.send("hello").await.unwrap();
        client.close(code, reason);
        assert_eq!(client.closed().await, Close::application(code, reason));
        let (messages, closed) = within("the end", told.recv()).await.unwrap();
        assert_eq!(closed, by_application(code, reason));
        assert_eq!(messages, [Message::from("hello")]);
        client.end().await;
    }
}

async fn the_server_closes_with_a_code_and_a_reason(transport: Transport) {
    let application = |session: Session| async move {
        session.close(77, "Feierabend ü");
        let closed = session.closed().await;
        assert_eq!(closed, by_application(77, "Feierabend ü"));
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    assert_eq!(client.closed().await, Close::application(77, "Feierabend ü"));
    match (transport, client.end().await) {
        (Transport::WebTransport, Incoming::Closed { code: 77, reason }) => assert_eq!(reason, "Feierabend ü"),
        (Transport::WebSocket, Incoming::Closed { code: 1_000, reason }) => assert_eq!(reason, "Feierabend ü"),
        (Transport::Sse, Incoming::Lost(reason)) => assert_eq!(reason, "the event stream ended"),
        (Transport::Poll, Incoming::Lost(reason)) => assert!(reason.contains("410"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

async fn what_the_server_sent_before_its_close_arrives_first(transport: Transport) {
    const COUNT: usize = 300;
    let application = |session: Session| async move {
        for index in 0..COUNT {
            session.send(vec![index as u8; 3_000]).await.unwrap();
        }
        session.close(5, "done");
        session.closed().await;
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    for index in 0..COUNT {
        assert!(client.message().await == Message::from(vec![index as u8; 3_000]), "message {index}");
    }
    assert_eq!(within("the end", client.recv()).await, None);
    assert_eq!(client.closed().await, Close::application(5, "done"));
}

async fn what_the_client_sent_before_its_close_arrives_first(transport: Transport) {
    const COUNT: usize = 300;
    let (tell, mut told) = mpsc::channel(1);
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(watching(tell))).await;
    let client = Client::connect(place, transport).await;
    for index in 0..COUNT {
        client.send(vec![index as u8; 3_000]).await.unwrap();
    }
    client.close(6, "done");
    let (messages, closed) = within("the end", told.recv()).await.unwrap();
    assert_eq!(closed, by_application(6, "done"));
    assert_eq!(messages.len(), COUNT);
    for (index, message) in messages.into_iter().enumerate() {
        assert!(message == Message::from(vec![index as u8; 3_000]), "message {index}");
    }
}

async fn the_end_of_the_handler_is_the_end_of_the_session(transport: Transport) {
    let application = |session: Session| async move { session.send("that is all").await.unwrap() };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    assert_eq!(client.message().await, Message::from("that is all"));
    let close = client.closed().await;
    assert_eq!((close.code, close.origin), (Code::Normal as u32, Origin::Protocol));
    match (transport, client.end().await) {
        (Transport::WebTransport, Incoming::Closed { code: 0, .. }) => {}
        (Transport::WebSocket, Incoming::Closed { code: 1_000, .. }) => {}
        (Transport::Sse | Transport::Poll, Incoming::Lost(_)) => {}
        other => panic!("{other:?}"),
    }
}

async fn a_handler_that_panics_ends_its_own_session_only(transport: Transport) {
    let application = |session: Session| async move {
        while let Some(event) = session.recv().await {
            match event {
                Event::Message(Message::Text(text)) if &*text == "panic" => panic!("as the test wants it"),
                Event::Message(message) => session.send(message).await.unwrap(),
                _ => {}
            }
        }
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let other = Client::connect(place, transport).await;
    other.send("before").await.unwrap();
    assert_eq!(other.message().await, Message::from("before"));
    let client = Client::connect(place, transport).await;
    client.send("panic").await.unwrap();
    let close = client.closed().await;
    assert_eq!((close.code, close.origin), (Code::InternalError as u32, Origin::Protocol));
    assert!(!close.reason.is_empty() && !close.reason.contains("as the test"), "{close:?}");
    other.send("after").await.unwrap();
    assert_eq!(other.message().await, Message::from("after"));
}

/// The call that makes the handler's future ran in the session's own task, and took it along.
#[tokio::test]
async fn a_handler_that_panics_before_its_first_await_ends_its_session_with_a_code() {
    let application = |session: Session| {
        assert!(session.transport() == Some(Transport::Poll), "as the test wants it");
        async move { drop(session.recv().await) }
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    for transport in TRANSPORTS {
        let client = Client::connect(place, transport).await;
        if transport != Transport::Poll {
            assert_eq!(client.closed().await.code, Code::InternalError as u32, "{transport}");
        }
    }
}

async fn sending_on_a_closed_session_says_that_it_is_closed(transport: Transport) {
    let (tell, told) = oneshot::channel();
    let tell = Arc::new(Mutex::new(Some(tell)));
    let application = move |session: Session| {
        let tell = tell.lock().unwrap().take().expect("one session");
        async move {
            session.close(9, "enough");
            // Not only when it has ended: from the close on.
            let at_once = session.send("too late").await;
            session.closed().await;
            let later = session.send("too late").await;
            let attempt = session.try_send("too late");
            let datagram = session.send_datagram(vec![1], None);
            drop(tell.send((at_once, later, attempt, datagram)));
        }
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    let close = Close::application(9, "enough");
    assert_eq!(client.closed().await, close);
    let (at_once, later, attempt, datagram) = within("the server's errors", told).await.unwrap();
    assert_eq!(at_once, Err(SendError::Closed(close.clone())));
    let error = later.unwrap_err();
    assert!(error.to_string().contains("closed") && error.to_string().contains("enough"), "{error}");
    assert_eq!(attempt, Err(TrySendError::Closed(close.clone())));
    assert_eq!(datagram, Err(SendDatagramError::Closed(close.clone())));
    assert_eq!(client.try_send("too late"), Err(TrySendError::Closed(close.clone())));
    assert_eq!(client.send_datagram(vec![1], None), Err(SendDatagramError::Closed(close)));
}

/// It was told when the session had ended, up to six seconds later when its client takes nothing.
async fn a_waiting_send_is_told_of_the_close_at_once(transport: Transport) {
    let (tell, mut told) = mpsc::channel(2);
    let application = move |session: Session| {
        let tell = tell.clone();
        async move {
            let closer = session.clone();
            session.send("ready").await.unwrap();
            let ready = session.recv().await;
            assert!(matches!(ready, Some(Event::Message(_))), "{ready:?}");
            while session.try_send(vec![0; 50_000]).is_ok() {}
            let (waiting, ()) = tokio::join!(session.send(vec![0; 50_000]), async {
                tokio::task::yield_now().await;
                closer.close(3, "now");
            });
            let has_ended = futures_util::FutureExt::now_or_never(session.closed()).is_some();
            tell.send((waiting, has_ended)).await.unwrap();
        }
    };
    let mut config = config();
    config.limits.session_buffer_bytes = 2_000_000;
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    client.message().await;
    client.send("ready").await.unwrap();
    // From now on it reads nothing, and says nothing.
    client.pause();
    let (waiting, has_ended) = within("the server's error", told.recv()).await.unwrap();
    assert_eq!(waiting, Err(SendError::Closed(Close::application(3, "now"))));
    assert!(!has_ended, "the messages before it are still on their way");
    drop(client);
}

async fn a_connection_that_is_cut_ends_the_session_as_lost_when_its_window_has_passed(transport: Transport) {
    let (tell, mut told) = mpsc::channel(1);
    let mut config = config();
    config.limits.resume_window = Duration::from_millis(300);
    // A poll that is cut shows as silence only.
    config.limits.idle_timeout = Duration::from_secs(1);
    config.limits.heartbeat_interval = Duration::from_millis(500);
    config.limits.poll_hold = Duration::from_millis(500);
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(watching(tell))).await;
    let wire = Wire::connect(place, transport).await;
    wire.send_frames(&[Frame::Ping { id: 1 }]).await;
    // When PING was answered, the session is there.
    let mut wire = wire;
    within("an answer", async {
        wire.next().await; // WELCOME
        wire.next().await;
    })
    .await;
    wire.cut().await;
    let (_, closed) = within("the end", told.recv()).await.unwrap();
    assert_eq!((closed.code, closed.application), (Code::LinkLost as u32, false), "{closed:?}");
    assert!(!closed.reason.is_empty());
}

/// SPEC section 8, the last paragraph.
#[tokio::test]
async fn a_carrier_that_its_client_closes_by_itself_ends_the_session() {
    let (tell, mut told) = mpsc::channel(1);
    let mut config = config();
    config.limits.resume_window = Duration::ZERO;
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(watching(tell))).await;
    for (transport, code, expected) in [
        (Transport::WebTransport, 0, by_application(0, "bye")),
        (Transport::WebTransport, 123_456, by_application(123_456, "bye")),
        (Transport::WebSocket, 1_000, by_application(0, "bye")),
        (Transport::WebSocket, 3_000, by_application(3_000, "bye")),
        (Transport::WebSocket, 4_999, by_application(4_999, "bye")),
    ] {
        let wire = Wire::connect(place, transport).await;
        wire.send_frames(&[Frame::Ping { id: 1 }]).await;
        wire.send(Outgoing::Close { code, reason: "bye".into() }).await;
        let (_, closed) = within("the end", told.recv()).await.unwrap();
        assert_eq!(closed, expected, "{transport} {code}");
    }
    // A page that goes away says 1001, and one that only leaves the link 4021.
    for (transport, code) in [
        (Transport::WebSocket, 1_001),
        (Transport::WebSocket, 4_000 + Code::LinkReplaced as u32),
        (Transport::WebTransport, 4_000 + Code::LinkReplaced as u32),
    ] {
        let wire = Wire::connect(place, transport).await;
        wire.send_frames(&[Frame::Ping { id: 1 }]).await;
        wire.send(Outgoing::Close { code, reason: String::new() }).await;
        let (_, closed) = within("the end", told.recv()).await.unwrap();
        assert_eq!((closed.code, closed.application), (Code::LinkLost as u32, false), "{transport} {code}");
    }
}

/// Whatever it sends, the goodbye has an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_floods_instead_of_saying_goodbye_is_cut() {
    let mut config = config();
    config.limits.max_sessions = 1;
    let application = |session: Session| async move { session.close(1, "go") };
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(application)).await;
    let mut socket = TcpStream::connect(place.tcp.unwrap()).await.unwrap();
    let upgrade = "GET /rt/websocket HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
        sec-websocket-protocol: throughline.v1\r\n\r\n";
    socket.write_all(upgrade.as_bytes()).await.unwrap();
    // A binary message of one PING, masked with zeros; many of them.
    let ping = [0x82, 0x83, 0, 0, 0, 0, 0x06, 0x01, 0x01];
    let flood = tokio::spawn(async move {
        let pings = ping.repeat(10_000);
        while socket.write_all(&pings).await.is_ok() {}
    });
    let started = Instant::now();
    within("the end of the flood", flood).await.unwrap();
    let took = started.elapsed();
    assert!(took < Duration::from_secs(8), "its connection was kept for {took:?}");
    Wire::connect_when_free(place, Transport::WebSocket).await.cut().await;
}
