//! Subscriptions that the server begins and ends by itself.

use throughline::{Message, Session, SubscribeError, Transport};
use throughline_protocol::{ChannelCode, ChannelMessage};

use crate::client::Channels;
use crate::common::{Running, start};
use crate::{config, on_every_transport};

on_every_transport! {
    a_session_is_subscribed_before_it_asks,
}

/// Subscribes every session to `room:all`, and lets it go when it says so.
async fn hand_out(session: Session) {
    let all = session.hub().channel("room:all");
    all.subscribe(&session).await.expect("there is room");
    while session.recv().await.is_some() {
        all.unsubscribe(&session, "as you wish");
    }
}

async fn a_session_is_subscribed_before_it_asks(transport: Transport) {
    let Running { server, place, .. } = &start(config(), |builder| builder.on_session(hand_out)).await;
    let all = server.hub().channel("room:all");
    let before = all.publish("before").await.unwrap();
    let client = Channels::connect(place, transport).await;
    let ChannelMessage::Added { number, channel, state, position } = client.next().await else {
        panic!("{transport}: ADDED comes first");
    };
    assert_eq!((&*channel, state, position), ("room:all", false, before));
    all.publish("to all").await.unwrap();
    assert_eq!(client.publication().await, (number, 2, "to all".into()));
    assert_eq!(client.subscribe("room:all", None).await, Err(ChannelCode::AlreadySubscribed));
    let infos = server.hub().channels("room:", None, 10);
    assert_eq!((infos.len(), &*infos[0].name, infos[0].subscribers), (1, "room:all", 1));
    client.send(Message::from("let me go")).await.unwrap();
    let expected = ChannelMessage::unsubscribed(number, ChannelCode::Normal, "as you wish");
    assert_eq!(client.next().await, expected);
    // What it has unsubscribed from by itself, it may ask for again.
    client.subscribe("room:all", None).await.unwrap();
    client.unsubscribe("room:all").await.unwrap();
    assert_eq!(all.subscribers(), 0);
}

#[tokio::test]
async fn a_session_that_has_ended_cannot_be_subscribed() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let running = start(config(), |builder| {
        builder.on_session(move |session| {
            let tell = tell.clone();
            async move {
                session.closed().await;
                let result = session.hub().channel("room:all").subscribe(&session).await;
                drop(tell.send(result).await);
            }
        })
    })
    .await;
    let client = Channels::connect(&running.place, Transport::WebSocket).await;
    client.close(0, "bye");
    assert_eq!(told.recv().await, Some(Err(SubscribeError::Ended)));
    assert_eq!(running.server.hub().channel("room:all").subscribers(), 0);
    assert_eq!(running.server.hub().stats().subscriptions, 0);
}

#[tokio::test]
async fn channels_are_listed_by_name_and_in_pages() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let client = Channels::connect(place, Transport::WebSocket).await;
    for name in ["room:b", "room:c", "room:a", "room:"] {
        client.subscribe(name, None).await.unwrap();
    }
    let hub = server.hub();
    let names = |prefix: &str, after: Option<&str>, limit: usize| {
        let infos = hub.channels(prefix, after, limit).into_iter();
        infos.map(|info| info.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names("", None, 9), ["room:", "room:a", "room:b", "room:c"]);
    assert_eq!(names("room:", Some("room:a"), 1), ["room:b"]);
    assert_eq!(names("room:b", None, 9), ["room:b"]);
    assert_eq!(names("x", None, 9), [""; 0]);
    assert_eq!(names("", None, 0), [""; 0]);
}
