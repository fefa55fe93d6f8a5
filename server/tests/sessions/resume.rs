//! A session outlives its links: it goes on over another, of whatever kind, and nobody else can have it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use throughline::{Closed, Config, Event, Identity, Message, Session, Transport, TrySendError};
use throughline_protocol::{Close, Code, Frame, ResumeKey, Welcome};
use tokio::sync::mpsc;

use crate::common::requests::{ask, link_headers};
use crate::common::{
    Client, Incoming, Opening, Outgoing, Place, Running, TRANSPORTS, Wire, config, echo, start, within,
};
use crate::on_every_transport;

on_every_transport! {
    nothing_is_lost_by_moves_to_every_transport,
    nothing_is_lost_by_cuts_and_resumption_over_every_transport,
    a_session_is_resumed_before_its_first_message,
    a_session_whose_window_has_passed_is_gone,
    nobody_else_can_resume_a_session,
    the_key_of_a_session_that_was_closed_is_worth_nothing,
    more_received_than_was_sent_is_a_mistake_of_that_link_only,
    a_full_buffer_makes_send_wait_while_there_is_no_link,
    of_two_links_that_are_chosen_at_once_one_wins,
    a_candidate_that_says_nothing_is_closed_and_the_session_goes_on,
    a_candidate_that_says_something_wrong_is_closed_and_the_session_goes_on,
    a_fifth_candidate_takes_the_place_of_the_oldest,
    a_session_that_is_closed_without_a_link_says_so_to_the_next,
    a_window_of_zero_ends_a_session_with_its_link,
    the_handle_follows_the_link,
}

/// The message at `index`, of a size that follows from it.
fn numbered(index: u32) -> Message {
    let mut bytes = vec![index as u8; 4 + (index.wrapping_mul(2_654_435_761) >> 8) as usize % 6_000];
    bytes[..4].copy_from_slice(&index.to_be_bytes());
    Message::from(bytes)
}

/// An application that sends `count` messages while it receives as many, and tells what was wrong.
fn both_ways(count: u32, verdict: mpsc::Sender<Result<(), String>>) -> impl Fn(Session) -> Handler {
    move |session| {
        let verdict = verdict.clone();
        Box::pin(async move {
            let sending = async {
                for index in 0..count {
                    if let Err(error) = session.send(numbered(index)).await {
                        return Err(format!("sending {index}: {error}"));
                    }
                }
                Ok(())
            };
            let receiving = async {
                for index in 0..count {
                    match session.recv().await {
                        Some(Event::Message(message)) if message == numbered(index) => {}
                        other => return Err(format!("{index}: {other:?}, {:?}", session.closed().await)),
                    }
                }
                Ok(())
            };
            let result = tokio::try_join!(sending, receiving).map(drop);
            drop(verdict.send(result).await);
            session.closed().await;
        })
    }
}

type Handler = futures_util::future::BoxFuture<'static, ()>;

/// Messages both ways, while `moves` are made.
async fn under_traffic(transport: Transport, moves: impl AsyncFn(&Client, &Place)) {
    const COUNT: u32 = 3_000;
    let (verdict, mut received) = mpsc::channel(1);
    let build = |builder: throughline::Builder| builder.on_session(both_ways(COUNT, verdict));
    let Running { server: _server, place, .. } = &start(config(), build).await;
    let client = Client::connect(place, transport).await;
    let sending = async {
        for index in 0..COUNT {
            client.send(numbered(index)).await.unwrap();
            if index % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    let receiving = async {
        for index in 0..COUNT {
            assert!(client.message().await == numbered(index), "message {index} is another one");
        }
    };
    tokio::join!(sending, receiving, moves(&client, place));
    assert_eq!(within("the server's verdict", received.recv()).await, Some(Ok(())));
    assert_eq!(client.stats().messages_in, u64::from(COUNT));
}

/// A server that soon notices silence, which is all that shows of a poll that was cut.
fn attentive() -> Config {
    let mut config = config();
    config.limits.idle_timeout = Duration::from_secs(1);
    config.limits.heartbeat_interval = Duration::from_millis(300);
    config.limits.poll_hold = Duration::from_millis(300);
    config
}

/// Waits until nothing carries the session. There is no event for that.
async fn no_link(session: &Session) {
    while session.transport().is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn nothing_is_lost_by_moves_to_every_transport(transport: Transport) {
    under_traffic(transport, async |client, place| {
        for to in TRANSPORTS {
            // There and back again: every ordered pair, and each to another link of its own kind.
            client.move_to(place, to).await;
            tokio::time::sleep(Duration::from_millis(15)).await;
            client.move_to(place, transport).await;
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    })
    .await;
}

async fn nothing_is_lost_by_cuts_and_resumption_over_every_transport(transport: Transport) {
    under_traffic(transport, async |client, place| {
        for to in TRANSPORTS {
            client.cut().await;
            client.move_to(place, to).await;
            tokio::time::sleep(Duration::from_millis(15)).await;
            client.cut().await;
            client.move_to(place, transport).await;
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    })
    .await;
}

/// Its first frame was lost with the link, or never sent.
async fn a_session_is_resumed_before_its_first_message(transport: Transport) {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let wire = Wire::connect(place, transport).await;
    let welcome = wire.welcome.clone();
    wire.cut().await;
    for to in TRANSPORTS {
        let wire = resume(place, to, &welcome).await;
        assert!(wire.welcome.resumed, "{to}");
        wire.cut().await;
    }
    let client = Client::over(resume(place, transport, &welcome).await).await;
    client.send("hello").await.unwrap();
    assert_eq!(client.message().await, Message::from("hello"));
}

async fn resume(place: &Place, transport: Transport, welcome: &Welcome) -> Wire {
    let wire = Wire::open(place, transport, &Opening::resuming(welcome, 0)).await;
    wire.unwrap_or_else(|refusal| panic!("{transport} was refused: {refusal:?}"))
}

/// Tells how its sessions end.
fn telling(tell: mpsc::Sender<Closed>) -> impl Fn(Session) -> Handler {
    move |session| {
        let tell = tell.clone();
        Box::pin(async move {
            echo(session.clone()).await;
            drop(tell.send(session.closed().await).await);
        })
    }
}

async fn hello(client: &Client) {
    client.send("hello").await.unwrap();
    assert_eq!(client.message().await, Message::from("hello"));
}

async fn a_session_whose_window_has_passed_is_gone(transport: Transport) {
    let (tell, mut told) = mpsc::channel(1);
    let mut config = config();
    config.limits.resume_window = Duration::from_millis(300);
    // A poll that is cut shows as silence only.
    config.limits.idle_timeout = Duration::from_secs(1);
    config.limits.heartbeat_interval = Duration::from_millis(300);
    config.limits.poll_hold = Duration::from_millis(300);
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(telling(tell))).await;
    let client = Client::connect(place, transport).await;
    assert_eq!(client.welcome.window_ms, 300);
    hello(&client).await;
    client.cut().await;
    let closed = within("the end of the session", told.recv()).await.unwrap();
    assert_eq!((closed.code, closed.application), (Code::LinkLost as u32, false), "{closed:?}");
    let wire = resume(place, transport, &client.welcome).await;
    assert!(!wire.welcome.resumed && wire.welcome.session != client.id());
    // The client is told, too.
    client.take(wire).await;
    assert_eq!(client.closed().await.code, Code::UnknownSession as u32);
}

async fn nobody_else_can_resume_a_session(transport: Transport) {
    let authenticate = |open: &throughline::Open| {
        let user = open.token.clone();
        async move { Ok(Identity { user, ..Identity::default() }) }
    };
    let build = |builder: throughline::Builder| builder.authenticate(authenticate).on_session(echo);
    let Running { server: _server, place, .. } = &start(config(), build).await;
    let client = Client::open(place, transport, &Opening::with_token("anna")).await.unwrap();
    hello(&client).await;
    let own = Opening { token: Some("anna".into()), ..Opening::resuming(&client.welcome, client.received()) };
    let wrong_key = Welcome { key: ResumeKey([7; 16]), ..client.welcome.clone() };
    let forged = [
        ("a wrong key", Opening { token: Some("anna".into()), ..Opening::resuming(&wrong_key, 0) }),
        ("another user", Opening { token: Some("berta".into()), ..own.clone() }),
        ("nobody", Opening { token: None, ..own.clone() }),
    ];
    for (what, opening) in forged {
        let wire = Wire::open(place, transport, &opening).await.unwrap();
        // The answer to all of them is a session of their own.
        assert!(!wire.welcome.resumed && wire.welcome.session != client.id(), "{what}");
        hello(&Client::over(wire).await).await;
        hello(&client).await;
    }
    client.take(Wire::open(place, transport, &own).await.unwrap()).await;
    hello(&client).await;
}

async fn the_key_of_a_session_that_was_closed_is_worth_nothing(transport: Transport) {
    let (tell, mut told) = mpsc::channel(1);
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(telling(tell))).await;
    let client = Client::connect(place, transport).await;
    hello(&client).await;
    client.close(3, "enough");
    within("the end of the session", told.recv()).await.unwrap();
    for to in TRANSPORTS {
        assert!(!resume(place, to, &client.welcome).await.welcome.resumed, "{to}");
    }
}

async fn more_received_than_was_sent_is_a_mistake_of_that_link_only(transport: Transport) {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, TRANSPORTS[1]).await;
    hello(&client).await;
    let opening = Opening::resuming(&client.welcome, 8);
    // No WELCOME: CLOSE is the first frame.
    let (code, reason) = Wire::first_close(place, transport, &opening).await;
    assert_eq!(code, Code::ProtocolViolation as u32, "{reason}");
    hello(&client).await;
    // What was acknowledged already says nothing new.
    let wire = Wire::open(place, transport, &Opening::resuming(&client.welcome, 0)).await.unwrap();
    assert!(wire.welcome.resumed);
    client.take(wire).await;
    hello(&client).await;
}

async fn a_full_buffer_makes_send_wait_while_there_is_no_link(transport: Transport) {
    const SIZE: usize = 20_000;
    let (tell, mut told) = mpsc::channel::<usize>(64);
    let application = move |session: Session| {
        let tell = tell.clone();
        async move {
            session.recv().await;
            // Until the client is cut, it takes what comes; then the buffer fills.
            no_link(&session).await;
            let mut sent = 0;
            loop {
                match session.try_send(vec![sent as u8; SIZE]) {
                    Ok(()) => sent += 1,
                    Err(TrySendError::Full) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            tell.send(sent).await.unwrap();
            session.send(vec![sent as u8; SIZE]).await.unwrap();
            tell.send(sent + 1).await.unwrap();
            session.closed().await;
        }
    };
    let Running { server: _server, place, .. } = &start(attentive(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    client.send("go").await.unwrap();
    client.until("an acknowledgement", |machine| machine.is_drained().then_some(())).await;
    client.cut().await;
    let sent = within("a full buffer", told.recv()).await.unwrap();
    assert!((262_144 / SIZE..=262_144 / SIZE + 1).contains(&sent), "{sent}");
    assert!(told.try_recv().is_err(), "the next one waits");
    client.move_to(place, transport).await;
    assert_eq!(within("room", told.recv()).await, Some(sent + 1));
    for index in 0..=sent {
        assert!(client.message().await.as_bytes() == &vec![index as u8; SIZE][..], "message {index}");
    }
}

async fn of_two_links_that_are_chosen_at_once_one_wins(transport: Transport) {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, Transport::WebSocket).await;
    hello(&client).await;
    for round in 0..6 {
        let mut wires = [client.further(place, transport).await, client.further(place, Transport::WebSocket).await];
        let id = 1_000 + 2 * round;
        let (first, second) = ([Frame::Ping { id }], [Frame::Ping { id: id + 1 }]);
        tokio::join!(wires[0].send_frames(&first), wires[1].send_frames(&second));
        // The higher PING wins, whichever of them comes first: its link answers.
        assert_eq!(next_pong(&mut wires[1]).await, id + 1, "round {round}");
        let [mut loser, winner] = wires;
        replaced(&mut loser).await;
        winner.cut().await;
    }
}

async fn next_pong(wire: &mut Wire) -> u64 {
    let mut decoder = throughline_protocol::Decoder::new();
    let pong = async {
        loop {
            match wire.next().await {
                Incoming::Bytes(bytes) => decoder.push(bytes),
                other => panic!("{other:?}"),
            }
            while let Some(frame) = decoder.next_frame().expect("the server's frames can be read") {
                if let Frame::Pong { id, .. } = frame {
                    return id;
                }
            }
        }
    };
    within("a PONG", pong).await
}

/// The carrier is closed with 4021 where it can, and without CLOSE.
async fn replaced(wire: &mut Wire) {
    let transport = wire.transport;
    match wire.end().await {
        Incoming::Closed { code, .. } => assert_eq!(code, 4_000 + Code::LinkReplaced as u32, "{transport}"),
        Incoming::Lost(_) if matches!(transport, Transport::Sse | Transport::Poll) => {}
        other => panic!("{transport}: {other:?}"),
    }
}

async fn a_candidate_that_says_nothing_is_closed_and_the_session_goes_on(transport: Transport) {
    let mut config = config();
    config.limits.open_timeout = Duration::from_millis(500);
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, transport).await;
    hello(&client).await;
    let mut silent = client.further(place, transport).await;
    assert_eq!(silent.welcome.link, 2);
    assert_eq!(silent.next_close().await.0, Code::OpenTimeout as u32);
    hello(&client).await;
    client.move_to(place, transport).await;
    hello(&client).await;
}

async fn a_candidate_that_says_something_wrong_is_closed_and_the_session_goes_on(transport: Transport) {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, transport).await;
    hello(&client).await;
    for (what, packet, expected) in [
        (
            "an ACK first",
            crate::common::encode(&[Frame::Ack { stream: 0, received: 0, limit: 0 }]),
            Code::ProtocolViolation,
        ),
        ("a frame that cannot be read", Bytes::from_static(&[0x3f, 0]), Code::UnknownFrame),
    ] {
        let mut wire = client.further(place, transport).await;
        wire.send(Outgoing::Packet(packet)).await;
        assert_eq!(wire.next_close().await.0, expected as u32, "{what}");
        hello(&client).await;
    }
    // CLOSE on a link that carries nothing ends that link.
    let wire = client.further(place, transport).await;
    wire.send_frames(&[Frame::Close(Close::application(9, "not this one"))]).await;
    hello(&client).await;
    // And so does its end, as deliberate as it may be.
    let wire = client.further(place, transport).await;
    if transport == Transport::WebSocket {
        wire.send(Outgoing::Close { code: 3_000, reason: "not this one".into() }).await;
    }
    wire.cut().await;
    hello(&client).await;
    client.move_to(place, transport).await;
    hello(&client).await;
}

async fn a_fifth_candidate_takes_the_place_of_the_oldest(transport: Transport) {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, transport).await;
    hello(&client).await;
    let mut oldest = client.further(place, transport).await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(client.further(place, transport).await);
    }
    replaced(&mut oldest).await;
    client.take(others.remove(0)).await;
    hello(&client).await;
}

/// SPEC section 6: whoever closed it must not be asked to resume.
async fn a_session_that_is_closed_without_a_link_says_so_to_the_next(transport: Transport) {
    let (tell, mut told) = mpsc::channel(1);
    let application = move |session: Session| {
        let tell = tell.clone();
        async move {
            session.recv().await;
            no_link(&session).await;
            session.send("before the end").await.unwrap();
            session.close(7, "while you were away");
            tell.send(()).await.unwrap();
            session.closed().await;
        }
    };
    let Running { server: _server, place, .. } = &start(attentive(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    client.send("go").await.unwrap();
    client.until("an acknowledgement", |machine| machine.is_drained().then_some(())).await;
    client.cut().await;
    within("the close", told.recv()).await.unwrap();
    client.move_to(place, transport).await;
    assert_eq!(client.message().await, Message::from("before the end"));
    assert_eq!(client.closed().await, Close::application(7, "while you were away"));
}

async fn a_window_of_zero_ends_a_session_with_its_link(transport: Transport) {
    let (tell, mut told) = mpsc::channel(1);
    let mut config = attentive();
    config.limits.resume_window = Duration::ZERO;
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(telling(tell))).await;
    let client = Client::connect(place, transport).await;
    assert_eq!(client.welcome.window_ms, 0);
    hello(&client).await;
    // A move is no loss.
    client.move_to(place, transport).await;
    hello(&client).await;
    client.cut().await;
    let closed = within("the end of the session", told.recv()).await.unwrap();
    assert_eq!(closed.code, Code::LinkLost as u32);
}

async fn the_handle_follows_the_link(transport: Transport) {
    let (give, mut given) = mpsc::channel(1);
    let application = move |session: Session| {
        let give = give.clone();
        async move {
            give.send(session.clone()).await.unwrap();
            echo(session).await;
        }
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    hello(&client).await;
    let session = within("a session", given.recv()).await.unwrap();
    for to in TRANSPORTS {
        client.move_to(place, to).await;
        hello(&client).await;
        assert_eq!(session.transport(), Some(to));
        assert!(session.remote_addr().is_some_and(|address| address.is_loopback()));
        // Datagrams go over the link that is there.
        within("a datagram", async {
            loop {
                drop(client.send_datagram(vec![7; 100], 0.into()));
                tokio::select! {
                    datagram = client.datagram() => return assert_eq!(datagram[..], [7; 100]),
                    () = tokio::time::sleep(Duration::from_millis(50)) => {}
                }
            }
        })
        .await;
    }
    if transport != Transport::Poll {
        client.move_to(place, transport).await;
        hello(&client).await;
        client.cut().await;
        within("the loss of the link", async {
            while session.transport().is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert!(session.remote_addr().is_some());
    }
}

/// A POST that crosses a move would otherwise bring bytes of the old link to the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_for_a_link_that_was_replaced_are_answered_410() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    for transport in [Transport::Sse, Transport::Poll] {
        let client = Client::connect(place, transport).await;
        hello(&client).await;
        client.move_to(place, Transport::WebSocket).await;
        hello(&client).await;
        let ping = crate::common::encode(&[Frame::Ping { id: 99 }]);
        for (method, route) in [("POST", "/send"), ("GET", "/poll")] {
            if (method, transport) == ("GET", Transport::Sse) {
                continue;
            }
            let answer = ask(method, &place.url(route), link_headers(&client.welcome), ping.clone()).await;
            assert_eq!(answer.status, http::StatusCode::GONE, "{transport} {method}");
            assert_eq!(answer.code(), Code::LinkReplaced as u64, "{transport} {method}");
        }
        hello(&client).await;
    }
}

/// A page that goes away stops reading at once; its CLOSE may come later, over another connection. The session waited for two minutes then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_by_post_counts_when_the_event_stream_has_ended() {
    let (tell, mut told) = mpsc::channel(1);
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(telling(tell))).await;
    let client = Client::connect(place, Transport::Sse).await;
    hello(&client).await;
    let names = link_headers(&client.welcome);
    client.cut().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Nothing else does.
    let ping = crate::common::encode(&[Frame::Ping { id: 99 }]);
    assert_eq!(ask("POST", &place.url("/send"), names.clone(), ping).await.status, http::StatusCode::GONE);
    let close = crate::common::encode(&[Frame::Close(Close::protocol(Code::Normal, "page closed"))]);
    assert_eq!(ask("POST", &place.url("/send"), names.clone(), close).await.status, http::StatusCode::NO_CONTENT);
    let closed = within("the end of the session", told.recv()).await.unwrap();
    assert_eq!((closed.code, closed.reason.as_str()), (Code::Normal as u32, "page closed"));
    // It is over for later requests, too.
    let ping = crate::common::encode(&[Frame::Ping { id: 100 }]);
    assert_eq!(ask("POST", &place.url("/send"), names, ping).await.status, http::StatusCode::GONE);
}

/// Half a frame is of no use to anybody: the stream goes on from what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_ends_in_the_middle_of_a_frame_is_no_harm() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    for to in TRANSPORTS {
        let mut wire = Wire::connect(place, Transport::WebTransport).await;
        wire.send_frames(&[Frame::Ping { id: 1 }]).await;
        assert_eq!(next_pong(&mut wire).await, 1);
        let message = [&[0, 0x80, 0, 0x40, 0][..], &[7; 0x4000]].concat();
        let frame = crate::common::encode(&[Frame::Stream { stream: 0, offset: 0, data: message.clone().into() }]);
        wire.send(Outgoing::Packet(frame.slice(..9_000))).await;
        wire.send(Outgoing::Packet(Bytes::new())).await; // the first is written when this is taken
        let welcome = wire.welcome.clone();
        wire.cut().await;
        let mut wire = resume(place, to, &welcome).await;
        assert!(wire.welcome.resumed && wire.welcome.received == 0, "{to}: {}", wire.welcome.received);
        wire.send_frames(&[Frame::Ping { id: 2 }]).await;
        wire.send(Outgoing::Packet(frame)).await;
        let echoed = async {
            let (mut decoder, mut echoed) = (throughline_protocol::Decoder::new(), Vec::new());
            while echoed.len() < message.len() {
                let Incoming::Bytes(bytes) = wire.next().await else { panic!("{to}: it ended") };
                decoder.push(bytes);
                while let Some(frame) = decoder.next_frame().expect("the server's frames can be read") {
                    if let Frame::Stream { stream: 0, data, .. } = frame {
                        echoed.extend_from_slice(&data);
                    }
                }
            }
            echoed
        };
        assert!(within("the echo", echoed).await == message, "{to}");
    }
}

/// The rate of openings bounds them, and the owner of the session does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_resumptions_disturbs_nobody() {
    let mut config = config();
    config.limits.opens_per_ip_per_second = 10;
    config.limits.opens_per_ip_burst = 300;
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(echo)).await;
    let client = Arc::new(Client::connect(place, Transport::WebSocket).await);
    hello(&client).await;
    let flooding = (0..8).map(|_| {
        let (place, opening) = (place.clone(), Opening::resuming(&client.welcome, 0));
        tokio::spawn(async move {
            let mut refused = 0;
            for _ in 0..100 {
                match Wire::knock(&place, Transport::WebSocket, &opening).await {
                    Ok(()) => {}
                    Err(refusal) => {
                        assert_eq!(refusal.status, http::StatusCode::TOO_MANY_REQUESTS);
                        refused += 1;
                    }
                }
            }
            refused
        })
    });
    let flooding: Vec<_> = flooding.collect();
    for _ in 0..50 {
        hello(&client).await;
    }
    let mut refused = 0;
    for flood in flooding {
        refused += within("the flood", flood).await.unwrap();
    }
    assert!(refused > 0, "the rate of openings bounds them");
    hello(&client).await;
}
