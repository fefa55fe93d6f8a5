//! A client whose session is gone subscribes in another one, with the position that it has reached.

use throughline::{Position, Transport};

use crate::client::Channels;
use crate::common::{Running, start};
use crate::{config, on_every_transport};

on_every_transport! {
    a_new_session_gets_what_was_missed,
    what_the_history_does_not_have_is_not_recovered,
}

async fn a_new_session_gets_what_was_missed(transport: Transport) {
    const COUNT: u64 = 500;
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let client = Channels::connect(place, transport).await;
    let start = client.subscribe("room:a", None).await.unwrap().position;
    client.publish("room:a", "1").await.unwrap();
    let (_, offset, _) = client.publication().await;
    let reached = Position { offset, ..start };
    drop(client);
    let room = server.hub().channel("room:a");
    for offset in 2..=COUNT {
        room.publish(offset.to_string()).await.unwrap();
    }
    let client = Channels::connect(place, transport).await;
    let subscribed = client.subscribe("room:a", Some(reached)).await.unwrap();
    assert_eq!((subscribed.recovered, subscribed.position), (true, reached));
    // What is published meanwhile comes after it.
    for offset in COUNT + 1..=2 * COUNT {
        room.publish(offset.to_string()).await.unwrap();
    }
    for offset in 2..=2 * COUNT {
        assert_eq!(client.publication().await, (subscribed.number, offset, offset.to_string().into()));
    }
    // Who has everything has recovered, too.
    let newest = Position { offset: 2 * COUNT, ..start };
    let client = Channels::connect(place, transport).await;
    let subscribed = client.subscribe("room:a", Some(newest)).await.unwrap();
    assert_eq!((subscribed.recovered, subscribed.position), (true, newest));
    room.publish("next").await.unwrap();
    assert_eq!(client.publication().await, (subscribed.number, 2 * COUNT + 1, "next".into()));
}

async fn what_the_history_does_not_have_is_not_recovered(transport: Transport) {
    let mut config = config();
    config.channels.namespaces.get_mut("room").unwrap().history_count = 3;
    let Running { server, place, .. } = &start(config, |builder| builder).await;
    let client = Channels::connect(place, transport).await;
    for (offset, other_epoch, recovered) in [(7, 0, true), (6, 0, false), (0, 0, false), (11, 0, false), (10, 1, false)]
    {
        let room = server.hub().channel(format!("room:{offset}"));
        let mut newest = Position::default();
        for _ in 0..10 {
            newest = room.publish("x").await.unwrap();
        }
        let since = Position { epoch: newest.epoch - other_epoch, offset };
        let subscribed = client.subscribe(room.name(), Some(since)).await.unwrap();
        let position = if recovered { since } else { newest };
        assert_eq!((subscribed.recovered, subscribed.position), (recovered, position), "since {since:?}");
        room.publish("next").await.unwrap();
        for offset in position.offset + 1..=11 {
            let data = if offset == 11 { "next" } else { "x" };
            assert_eq!(client.publication().await, (subscribed.number, offset, data.into()), "since {since:?}");
        }
    }
}
