//! Who is subscribed gets every publication, once and in order.

use throughline::{Message, Position, Transport};
use throughline_protocol::ChannelMessage;

use crate::client::{Channels, Subscribed};
use crate::common::{Running, start};
use crate::{config, on_every_transport};

on_every_transport! {
    publications_of_clients_and_server_reach_every_subscriber_in_order,
    after_the_end_of_a_subscription_nothing_comes,
    a_subscription_moves_with_its_session,
}

async fn publications_of_clients_and_server_reach_every_subscriber_in_order(transport: Transport) {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let [one, two] = [Channels::connect(place, transport).await, Channels::connect(place, Transport::WebSocket).await];
    let room = server.hub().channel("room:42");
    let before = room.publish("before anybody came").await.unwrap();
    assert_eq!(before.offset, 1);
    let first = one.subscribe("room:42", None).await.unwrap();
    assert_eq!((first.recovered, first.position), (false, before));
    assert_eq!(two.subscribe("room:42", None).await, Ok(first), "the number is the same for all sessions");
    assert_eq!(room.subscribers(), 2);
    let messages: [Message; 5] =
        ["text".into(), "".into(), vec![].into(), vec![0, 255, 10, 13].into(), vec![7; 65_536].into()];
    for (index, message) in messages.iter().enumerate() {
        let position = match index % 3 {
            0 => one.publish("room:42", message.clone()).await.unwrap(),
            1 => two.publish("room:42", message.clone()).await.unwrap(),
            _ => room.publish(message.clone()).await.unwrap(),
        };
        assert_eq!(position, Position { offset: 2 + index as u64, ..before });
    }
    for client in [&one, &two] {
        for (offset, message) in (2..).zip(&messages) {
            let publication = client.publication().await;
            assert!(publication == (first.number, offset, message.clone()), "publication {offset} is another one");
        }
    }
}

async fn after_the_end_of_a_subscription_nothing_comes(transport: Transport) {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let client = Channels::connect(place, transport).await;
    let left = client.subscribe("room:left", None).await.unwrap();
    let stays = client.subscribe("room:stays", None).await.unwrap();
    assert_ne!(left.number, stays.number);
    client.publish("room:left", "one").await.unwrap();
    client.unsubscribe("room:left").await.unwrap();
    assert_eq!(server.hub().channel("room:left").subscribers(), 0);
    client.publish("room:left", "two").await.unwrap();
    client.publish("room:stays", "three").await.unwrap();
    assert_eq!(client.publication().await, (left.number, 1, "one".into()));
    assert_eq!(client.publication().await, (stays.number, 1, "three".into()));
    let again = client.subscribe("room:left", None).await.unwrap();
    assert_eq!((again.recovered, again.position.offset), (false, 2));
    client.publish("room:left", "four").await.unwrap();
    assert_eq!(client.publication().await, (again.number, 3, "four".into()));
}

async fn a_subscription_moves_with_its_session(transport: Transport) {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let client = Channels::connect(place, transport).await;
    let Subscribed { number, .. } = client.subscribe("room:a", None).await.unwrap();
    let room = server.hub().channel("room:a");
    client.cut().await;
    for text in ["one", "two"] {
        room.publish(text).await.unwrap();
    }
    client.move_to(place, Transport::Poll).await;
    room.publish("three").await.unwrap();
    for (offset, text) in (1..).zip(["one", "two", "three"]) {
        let expected = ChannelMessage::Publication { number, offset, data: text.into() };
        assert_eq!(client.next().await, expected);
    }
}
