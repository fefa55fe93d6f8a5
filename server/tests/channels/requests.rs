//! What a client asks for, and what it is answered: what it may, at the edge of each limit and beyond, in whatever order.

use std::time::Duration;

use throughline::{Action, Denied, HistoryError, HistoryQuery, Identity, Position, PublishError, Transport};
use throughline_protocol::{ChannelCode, ChannelMessage, Code};

use crate::client::Channels;
use crate::common::{Client, Opening, Running, start};
use crate::{config, on_every_transport};

on_every_transport! {
    requests_in_one_go_are_answered_in_their_order,
    what_was_published_before_a_close_is_published,
}

const WS: Transport = Transport::WebSocket;

async fn requests_in_one_go_are_answered_in_their_order(transport: Transport) {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder).await;
    let client = Channels::connect(place, transport).await;
    let subscribe = client.ask_to_subscribe("room:a", None);
    let requests: Vec<_> = (0..200).map(|index: u64| client.ask_to_publish("room:a", index.to_string())).collect();
    let unsubscribe = client.ask(|request| ChannelMessage::Unsubscribe { request, channel: "room:a".into() });
    let late = client.ask_to_publish("room:a", "late");
    let ChannelMessage::Subscribed { number, .. } = client.answer(subscribe).await else { panic!("it may subscribe") };
    for (offset, request) in (1..).zip(requests) {
        let answer = client.answer(request).await;
        assert!(matches!(answer, ChannelMessage::Done { position, .. } if position.offset == offset), "{answer:?}");
        assert_eq!(client.publication().await, (number, offset, (offset - 1).to_string().into()));
    }
    assert!(matches!(client.answer(unsubscribe).await, ChannelMessage::Done { .. }));
    let answer = client.answer(late).await;
    assert!(matches!(answer, ChannelMessage::Done { position: Position { offset: 201, .. }, .. }), "{answer:?}");
}

async fn what_was_published_before_a_close_is_published(transport: Transport) {
    let Running { server, place, .. } = start(config(), |builder| builder).await;
    let client = Channels::connect(&place, transport).await;
    client.subscribe("room:a", None).await.unwrap();
    for _ in 0..20 {
        client.ask_to_publish("room:a", "x");
    }
    client.close(0, "bye");
    client.end().await;
    // Nothing of a session is left when the server has gone.
    let room = server.hub().channel("room:a");
    server.drain(Duration::from_secs(10)).await;
    assert_eq!(room.subscribers(), 0);
    let history = room.history(HistoryQuery::ALL).await.unwrap();
    assert_eq!((history.newest.offset, history.publications.len(), history.complete), (20, 20, true));
}

#[tokio::test]
async fn nothing_is_allowed_that_was_not_allowed() {
    let mut config = config();
    let mut namespace = config.channels.namespaces["room"].clone();
    namespace.publish = false;
    config.channels.namespaces.insert("news".into(), namespace.clone());
    (namespace.publish, namespace.subscribe) = (true, false);
    config.channels.namespaces.insert("box".into(), namespace.clone());
    config.channels.namespaces.insert(String::new(), namespace);
    let Running { server, place, .. } = &start(config, |builder| builder).await;
    let client = Channels::connect(place, WS).await;
    for (channel, may_subscribe, may_publish) in [
        ("room:a", true, true),
        ("room:", true, true),
        ("room:a:b", true, true),
        ("news:a", true, false),
        ("box:a", false, true),
        ("a", false, true),
        ("room", false, true), // in the namespace without a name
        ("rooms:a", false, false),
        ("Room:a", false, false),
        (":a", false, true),
    ] {
        let may = |may| if may { Ok(()) } else { Err(ChannelCode::NotAllowed) };
        assert_eq!(client.subscribe(channel, None).await.map(drop), may(may_subscribe), "subscribe to {channel}");
        assert_eq!(client.publish(channel, "x").await.map(drop), may(may_publish), "publish in {channel}");
    }
    // The server itself may.
    server.hub().channel("rooms:a").publish("x").await.unwrap();
}

#[tokio::test]
async fn the_application_decides_when_it_wants_to() {
    let running = start(config(), |builder| {
        builder
            .authenticate(|open| {
                let user = open.token.clone().unwrap_or_default();
                async { Ok(Identity::user(user)) }
            })
            .authorize(|who, action| match action {
                Action::Subscribe { channel: "panic" } => panic!("as it should"),
                Action::Subscribe { .. } => Ok(()),
                Action::Publish { channel } if who.user.as_deref() == Some(channel) => Ok(()),
                _ => Err(Denied::new("that is not yours")),
            })
    })
    .await;
    let opening = Opening { token: Some("ann".into()), ..Opening::default() };
    let ann = Channels::over(Client::open(&running.place, WS, &opening).await.unwrap());
    ann.subscribe("bob", None).await.unwrap();
    ann.publish("ann", "x").await.unwrap();
    let request = ann.ask_to_publish("room:a", "x");
    let expected = ChannelMessage::failed(request, ChannelCode::NotAllowed, "that is not yours");
    assert_eq!(ann.answer(request).await, expected, "whatever the namespace allows");
    ann.ask_to_subscribe("panic", None);
    assert_eq!(ann.closed().await.code, Code::InternalError as u32);
}

#[tokio::test]
async fn names_are_checked() {
    let mut config = config();
    config.channels.namespaces.insert(String::new(), config.channels.namespaces["room"].clone());
    let Running { server, place, .. } = &start(config, |builder| builder).await;
    let client = Channels::connect(place, WS).await;
    for name in ["a", " ", "räume €", &"a".repeat(255), &"é".repeat(127), "\u{80}"] {
        client.subscribe(name, None).await.unwrap();
        client.publish(name, "x").await.unwrap();
        client.unsubscribe(name).await.unwrap();
    }
    for name in ["", &"a".repeat(256), &"é".repeat(128), "a\nb", "\0", "\x1f", "\x7f"] {
        assert_eq!(client.subscribe(name, None).await.map(drop), Err(ChannelCode::BadChannel), "{name:?}");
        assert_eq!(client.publish(name, "x").await, Err(ChannelCode::BadChannel), "{name:?}");
        assert_eq!(client.unsubscribe(name).await, Err(ChannelCode::BadChannel), "{name:?}");
        let channel = server.hub().channel(name);
        assert_eq!(channel.publish("x").await, Err(PublishError::BadChannel));
        assert_eq!(channel.history(HistoryQuery::newest(1)).await, Err(HistoryError::BadChannel));
    }
}

#[tokio::test]
async fn a_session_has_so_many_subscriptions_and_no_more() {
    let mut config = config();
    config.channels.max_subscriptions = 3;
    let Running { server, place, .. } = &start(config, |builder| builder).await;
    let client = Channels::connect(place, WS).await;
    for channel in ["room:1", "room:2", "room:3"] {
        client.subscribe(channel, None).await.unwrap();
    }
    assert_eq!(client.subscribe("room:4", None).await, Err(ChannelCode::TooMany));
    assert_eq!(client.subscribe("room:1", None).await, Err(ChannelCode::AlreadySubscribed));
    assert_eq!(client.unsubscribe("room:4").await, Err(ChannelCode::NotSubscribed));
    client.unsubscribe("room:2").await.unwrap();
    assert_eq!(client.unsubscribe("room:2").await, Err(ChannelCode::NotSubscribed));
    client.subscribe("room:4", None).await.unwrap();
    assert_eq!(client.subscribe("room:2", None).await, Err(ChannelCode::TooMany));
    // However often it asks, and for whatever.
    for index in 0..2_000 {
        client.ask_to_subscribe(&format!("room:{}", index + 10), None);
    }
    let last = client.ask_to_subscribe("room:last", None);
    assert!(
        matches!(client.answer(last).await, ChannelMessage::Failed { code, .. } if code == ChannelCode::TooMany as u64)
    );
    assert_eq!(server.hub().channels("", None, usize::MAX).len(), 3);
    // Another session has its own.
    Channels::connect(place, WS).await.subscribe("room:2", None).await.unwrap();
}

#[tokio::test]
async fn a_server_has_so_many_channels_and_no_more() {
    let mut config = config();
    config.channels.max_channels = 2;
    let Running { server, place, .. } = &start(config, |builder| builder).await;
    let client = Channels::connect(place, WS).await;
    client.subscribe("room:1", None).await.unwrap();
    // One that nobody is subscribed to makes way.
    client.publish("room:2", "x").await.unwrap();
    client.subscribe("room:3", None).await.unwrap();
    assert_eq!(client.subscribe("room:4", None).await, Err(ChannelCode::TooMany));
    assert_eq!(client.publish("room:4", "x").await, Err(ChannelCode::TooMany));
    assert_eq!(server.hub().channel("room:4").publish("x").await, Err(PublishError::TooManyChannels));
    client.unsubscribe("room:3").await.unwrap();
    client.subscribe("room:4", None).await.unwrap();
    client.publish("room:1", "x").await.unwrap();
    assert_eq!(client.publication().await.1, 1);
}

#[tokio::test]
async fn a_publication_is_so_long_and_no_longer() {
    let mut config = config();
    config.channels.max_publication_bytes = 100;
    let Running { server: _server, place, .. } = &start(config, |builder| builder).await;
    let client = Channels::connect(place, WS).await;
    client.publish("room:a", vec![7; 100]).await.unwrap();
    assert_eq!(client.publish("room:a", vec![7; 101]).await, Err(ChannelCode::TooLarge));

    let mut config = self::config();
    config.limits.max_message_bytes = 2_000;
    assert!(config.channels.max_publication_bytes > 2_000, "what is longer than a message is no publication either");
    let Running { server, place, .. } = &start(config, |builder| builder).await;
    let client = Channels::connect(place, WS).await;
    let name = format!("room:{}", "a".repeat(250));
    let number = client.subscribe(&name, None).await.unwrap().number;
    client.publish(&name, vec![7; 2_000]).await.unwrap();
    assert_eq!(client.publication().await, (number, 1, vec![7; 2_000].into()));
    assert_eq!(client.publish(&name, vec![7; 2_001]).await, Err(ChannelCode::TooLarge));
    let published = server.hub().channel(&*name).publish(vec![7; 2_001]).await;
    assert_eq!(published, Err(PublishError::TooLarge { len: 2_001, max: 2_000 }));
}

#[tokio::test]
async fn a_client_that_breaks_the_rules_is_closed() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder).await;
    let position = Position { epoch: 1, offset: 1 };
    let subscribe =
        |request| ChannelMessage::Subscribe { request, channel: "room:a".into(), position: None, about: None };
    for (said, code) in [
        (vec![subscribe(0)], Code::ProtocolViolation),
        (vec![subscribe(2), subscribe(2)], Code::ProtocolViolation),
        (vec![subscribe(2), subscribe(1)], Code::ProtocolViolation),
        (vec![ChannelMessage::Done { request: 1, position }], Code::MalformedMessage),
        (vec![ChannelMessage::Skipped { number: 1, offset: 1 }], Code::MalformedMessage),
    ] {
        let client = Channels::connect(place, WS).await;
        said.iter().for_each(|message| client.say(message));
        assert_eq!(client.closed().await.code, code as u32, "{said:?}");
    }
}

#[tokio::test]
async fn the_server_reads_a_history_in_pieces() {
    let Running { server, .. } = &start(config(), |builder| builder).await;
    let room = server.hub().channel("room:a");
    assert_eq!(room.name(), "room:a");
    let nothing = room.history(HistoryQuery::ALL).await.unwrap();
    assert_eq!((nothing.newest, nothing.complete), (Position::default(), true));
    let mut newest = Position::default();
    for text in ["1", "2", "3", "4", "5"] {
        newest = room.publish(text).await.unwrap();
    }
    let piece = room.history(HistoryQuery::after(Position { offset: 1, ..newest }, 3)).await.unwrap();
    let texts: Vec<_> = piece.publications.iter().map(|publication| publication.message.as_text().unwrap()).collect();
    assert_eq!((texts, piece.newest, piece.complete), (vec!["2", "3", "4"], newest, true));
}

/// Its answers fill the session's buffer, and the 64 that may come on top: it is asked nothing further until it reads again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_and_does_not_read_is_answered_when_it_does() {
    let mut config = config();
    config.limits.session_buffer_bytes = 16_384;
    let Running { server, place, .. } = &start(config, |builder| builder).await;
    let client = Channels::connect(place, WS).await;
    client.pause();
    let requests: Vec<_> = (0..10_000).map(|_| client.ask_to_publish("room:a", "")).collect();
    client.resume();
    for (offset, request) in (1..).zip(requests) {
        let answer = client.answer(request).await;
        assert!(matches!(answer, ChannelMessage::Done { position, .. } if position.offset == offset), "{answer:?}");
    }
    assert_eq!(server.hub().channel("room:a").history(HistoryQuery::newest(0)).await.unwrap().newest.offset, 10_000);
}
