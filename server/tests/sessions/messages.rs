//! Messages and datagrams, both ways.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use throughline::{Event, Message, SendDatagramError, SendError, Session, Transport, TrySendError};
use tokio::sync::{mpsc, oneshot};

use crate::common::{Client, Opening, Running, config, echo, start, within};
use crate::on_every_transport;

on_every_transport! {
    messages_of_every_kind_come_back,
    ten_thousand_messages_each_way_arrive_once_and_in_order,
    datagrams_go_both_ways,
    the_newest_datagram_of_a_key_wins_while_the_client_does_not_read,
    a_datagram_of_1101_bytes_is_refused_where_it_is_sent,
    a_message_over_the_limit_is_refused_where_it_is_sent,
    the_session_knows_its_transport_and_client,
    the_clocks_of_both_sides_agree,
}

/// The message at `index`, of a size that follows from it; some are empty, some need several packets.
fn numbered(index: u32) -> Message {
    if index % 1_000 == 999 {
        return Message::from(vec![index as u8; 300_000]);
    }
    match index % 4 {
        0 => Message::from(format!("{index} äöü 漢字 🎈")),
        1 => Message::from(String::new()),
        _ => {
            let mut bytes = vec![index as u8; 4 + (index.wrapping_mul(2_654_435_761) >> 8) as usize % 2_000];
            bytes[..4].copy_from_slice(&index.to_be_bytes());
            Message::from(bytes)
        }
    }
}

async fn messages_of_every_kind_come_back(transport: Transport) {
    let Running { server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, transport).await;
    assert!(!client.welcome.resumed);
    let messages = [
        Message::from("text"),
        Message::from(""),
        Message::from(Bytes::new()),
        Message::from("Grüße, 漢字, 🎈"),
        Message::from(vec![0, 255, 10, 13]),
        Message::from(vec![7; 1 << 20]),
        Message::from("ü".repeat(1 << 19)), // cut somewhere inside a character
    ];
    for message in &messages {
        client.send(message.clone()).await.unwrap();
    }
    for message in messages {
        assert!(client.message().await == message, "{} bytes came back as something else", message.len());
    }
    assert!(server.tcp_addr().is_some());
}

async fn ten_thousand_messages_each_way_arrive_once_and_in_order(transport: Transport) {
    const COUNT: u32 = 10_000;
    let (verdict, mut received) = mpsc::channel(1);
    let application = move |session: Session| {
        let verdict = verdict.clone();
        async move {
            let sending = async {
                for index in 0..COUNT {
                    session.send(numbered(index)).await.unwrap();
                }
            };
            let receiving = async {
                for index in 0..COUNT {
                    match session.recv().await {
                        Some(Event::Message(message)) if message == numbered(index) => {}
                        other => return verdict.send(Err(format!("{index}: {other:?}"))).await.unwrap(),
                    }
                }
                verdict.send(Ok(())).await.unwrap();
            };
            tokio::join!(sending, receiving);
            session.closed().await;
        }
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    let sending = async {
        for index in 0..COUNT {
            client.send(numbered(index)).await.unwrap();
        }
    };
    let receiving = async {
        for index in 0..COUNT {
            assert!(client.message().await == numbered(index), "message {index} is another one");
        }
    };
    tokio::join!(sending, receiving);
    assert_eq!(within("the server's verdict", received.recv()).await, Some(Ok(())));
    assert_eq!(client.stats().messages_in, u64::from(COUNT));
}

async fn datagrams_go_both_ways(transport: Transport) {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, transport).await;
    // A first message, so that the session is there: before it datagrams may be lost.
    client.send("hello").await.unwrap();
    assert_eq!(client.message().await, Message::from("hello"));
    for len in [0, 1, 1_000, 1_100] {
        let datagram = Bytes::from(vec![len as u8; len]);
        client.send_datagram(datagram.clone(), None).unwrap();
        assert_eq!(client.datagram().await, datagram);
    }
}

async fn the_newest_datagram_of_a_key_wins_while_the_client_does_not_read(transport: Transport) {
    const LAST: u32 = 20_000;
    let (go, wait) = oneshot::channel::<()>();
    let (done, all_sent) = oneshot::channel();
    let once = Arc::new(Mutex::new(Some((wait, done))));
    let application = move |session: Session| {
        let (wait, done) = once.lock().unwrap().take().expect("one session");
        async move {
            session.send("ready").await.unwrap();
            wait.await.unwrap();
            let mut last_state = Vec::new();
            for number in 0..=LAST {
                last_state = vec![0; 1_000];
                last_state[..4].copy_from_slice(&number.to_be_bytes());
                session.send_datagram(last_state.clone(), 7).unwrap();
                if number % 100 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            done.send(session.stats()).unwrap();
            // Native datagrams can be lost, the last one as well.
            while session.send_datagram(last_state.clone(), 7).is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    assert_eq!(client.message().await, Message::from("ready"));
    client.pause();
    go.send(()).unwrap();
    let stats = within("20 MB of datagrams", all_sent).await.unwrap();
    client.resume();
    let mut seen = Vec::new();
    while seen.last() != Some(&LAST) {
        let datagram = client.datagram().await;
        seen.push(u32::from_be_bytes(datagram[..4].try_into().unwrap()));
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "a datagram came twice, or late");
    // What waits in kernels and connections is all that may be old; 20 MB do not fit there.
    assert!(seen.len() < LAST as usize / 2, "{} datagrams were queued", seen.len());
    if transport != Transport::WebTransport {
        assert!(stats.datagrams_dropped > u64::from(LAST) / 2, "{stats:?}");
    }
}

async fn a_datagram_of_1101_bytes_is_refused_where_it_is_sent(transport: Transport) {
    let (tell, mut told) = mpsc::channel(1);
    let application = move |session: Session| {
        let tell = tell.clone();
        async move {
            tell.send(session.send_datagram(vec![0; 1_101], None)).await.unwrap();
            tell.send(session.send_datagram(vec![0; 1_100], None)).await.unwrap();
            session.closed().await;
        }
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    assert!(matches!(client.send_datagram(vec![0; 1_101], None), Err(SendDatagramError::TooLarge(_))));
    assert!(matches!(within("an answer", told.recv()).await, Some(Err(SendDatagramError::TooLarge(_)))));
    assert_eq!(within("an answer", told.recv()).await, Some(Ok(())));
    assert_eq!(client.datagram().await.len(), 1_100);
}

async fn a_message_over_the_limit_is_refused_where_it_is_sent(transport: Transport) {
    let (tell, mut told) = mpsc::channel(1);
    let application = move |session: Session| {
        let tell = tell.clone();
        async move {
            tell.send(session.send(vec![0; 2_049]).await).await.unwrap();
            session.send(vec![0; 2_048]).await.unwrap();
            session.closed().await;
        }
    };
    let mut config = config();
    config.limits.max_message_bytes = 2_048;
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    assert_eq!(client.message().await.len(), 2_048);
    assert_eq!(client.try_send(vec![0; 2_049]), Err(TrySendError::TooLarge { len: 2_049, max: 2_048 }));
    let refused = within("an answer", told.recv()).await;
    assert_eq!(refused, Some(Err(SendError::TooLarge { len: 2_049, max: 2_048 })));
}

async fn the_session_knows_its_transport_and_client(transport: Transport) {
    let (tell, mut told) = mpsc::channel(1);
    let application = move |session: Session| {
        let tell = tell.clone();
        async move {
            let known = (session.id(), session.transport(), session.remote_addr(), session.identity().user.clone());
            tell.send(known).await.unwrap();
        }
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    let (id, carried_by, remote, user) = within("a session", told.recv()).await.unwrap();
    assert_eq!(id, client.id());
    assert_eq!(carried_by, Some(transport));
    assert!(remote.is_some_and(|address| address.is_loopback()));
    assert_eq!(user, None);
}

async fn the_clocks_of_both_sides_agree(transport: Transport) {
    let mut config = config();
    config.limits.heartbeat_interval = Duration::from_millis(100);
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, transport).await;
    within("a PONG", async {
        while client.stats().rtt_us == 0 {
            client.send("ping").await.unwrap();
            client.message().await;
        }
    })
    .await;
    assert!(client.stats().rtt_us < 5_000_000);
}

#[tokio::test]
async fn native_datagrams_have_marks_where_the_client_wants_them() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    for (transport, marks) in [
        (Transport::WebTransport, true),
        (Transport::WebTransport, false),
        (Transport::WebSocket, true), // which has no native ones
    ] {
        let opening = Opening { marks, ..Opening::default() };
        let client = Client::open(place, transport, &opening).await.unwrap();
        assert_eq!(client.welcome.marked, marks && transport == Transport::WebTransport);
        client.send("hello").await.unwrap();
        client.message().await;
        for len in [0, 1, 1_000, 1_100] {
            let datagram = Bytes::from(vec![len as u8; len]);
            client.send_datagram(datagram.clone(), None).unwrap();
            assert_eq!(client.datagram().await, datagram);
        }
    }
}

#[tokio::test]
async fn a_datagram_that_waited_for_a_link_goes_natively_on_it() {
    // It stayed in its slot: nobody looked there on a link with datagrams of its own.
    let (tell, mut sessions) = mpsc::unbounded_channel();
    let build = |builder: throughline::Builder| {
        builder.on_session(move |session: Session| {
            tell.send(session.clone()).unwrap();
            echo(session)
        })
    };
    let Running { server: _server, place, .. } = &start(config(), build).await;
    let client = Client::connect(place, Transport::WebTransport).await;
    let session = within("the session", sessions.recv()).await.unwrap();
    client.cut().await;
    let lost = async {
        while session.transport().is_some() {
            tokio::task::yield_now().await;
        }
    };
    within("the end of the link", lost).await;
    session.send_datagram(&b"older"[..], 1).unwrap();
    session.send_datagram(&b"newer"[..], 1).unwrap();
    client.move_to(place, Transport::WebTransport).await;
    assert_eq!(client.datagram().await, &b"newer"[..]);
}
