//! Channels of state: everybody ends on the last value, whatever was lost, late or skipped on the way.

use std::collections::BTreeMap;

use throughline::{Kind, Message, Namespace, Position, Transport};
use throughline_protocol::ChannelCode;
use throughline_protocol::limits::MAX_DATAGRAM;

use crate::client::Channels;
use crate::common::{Running, start};
use crate::on_every_transport;
use crate::replica::Replica;

on_every_transport! {
    everybody_ends_on_the_last_value,
    who_looks_at_no_datagram_ends_on_the_last_value,
    a_slow_subscriber_delays_nobody_and_gets_fewer_values,
    a_subscription_survives_cuts_and_moves,
    a_snapshot_tells_what_is_not_there_any_more,
}

fn config() -> throughline::Config {
    let mut config = crate::config();
    let namespace = Namespace { kind: Kind::State, ..crate::open() };
    config.channels.namespaces.insert("state".into(), namespace);
    config
}

/// What was set, and what is to be seen in the end.
#[derive(Default)]
struct Script {
    expected: BTreeMap<String, Message>,
    count: usize,
}

impl Script {
    /// The next change: keys come and go, and some values are too long for a datagram.
    fn next(&mut self) -> (String, Option<Message>) {
        self.count += 1;
        let key = format!("k{}", self.count * 7 % 10);
        let data = match self.count % 9 {
            0 => None,
            5 => Some(Message::from(vec![self.count as u8; 3_000])),
            _ => Some(self.count.to_string().into()),
        };
        match &data {
            Some(data) => drop(self.expected.insert(key.clone(), data.clone())),
            None => drop(self.expected.remove(&key)),
        }
        (key, data)
    }
}

async fn everybody_ends_on_the_last_value(transport: Transport) {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let [writer, reader] = [Channels::connect(place, Transport::WebSocket), Channels::connect(place, transport)];
    let (writer, reader) = tokio::join!(writer, reader);
    let board = server.hub().channel("state:board");
    board.set("before", "x").await.unwrap();
    let mut replica = Replica::subscribe(&reader, "state:board").await;
    let mut script = Script::default();
    script.expected.insert("before".into(), "x".into());
    for _ in 0..200 {
        let (key, data) = script.next();
        writer.set("state:board", &key, data).await.unwrap();
    }
    replica.until_it_is(&script.expected).await;
    let values = board.values().await.unwrap();
    let kept: BTreeMap<_, _> = values.values.into_iter().map(|value| (value.key.to_string(), value.message)).collect();
    assert_eq!(kept, script.expected);
    assert_eq!(replica.snapshots, 1);
    board.set("last", "y").await.unwrap();
    script.expected.insert("last".into(), "y".into());
    replica.until_it_is(&script.expected).await;
    assert!(replica.came[1] > 0, "values that are short come as datagrams");
}

async fn who_looks_at_no_datagram_ends_on_the_last_value(transport: Transport) {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let reader = Channels::connect(place, transport).await;
    let mut replica = Replica::subscribe(&reader, "state:board").await;
    replica.takes_datagrams = false;
    let board = server.hub().channel("state:board");
    let mut script = Script::default();
    for _ in 0..50 {
        let (key, data) = script.next();
        match data {
            Some(data) => board.set(&key, data).await.unwrap(),
            None => board.remove(&key).await.unwrap(),
        };
    }
    replica.until_it_is(&script.expected).await;
    assert!(replica.came[0] < 50, "what was replaced is not made good");
}

async fn a_slow_subscriber_delays_nobody_and_gets_fewer_values(transport: Transport) {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let [quick, slow] = [Channels::connect(place, Transport::WebSocket), Channels::connect(place, transport)];
    let (quick, slow) = tokio::join!(quick, slow);
    let mut quick_one = Replica::subscribe(&quick, "state:board").await;
    let mut slow_one = Replica::subscribe(&slow, "state:board").await;
    slow_one.until_it_is(&BTreeMap::new()).await;
    slow.pause();
    let board = server.hub().channel("state:board");
    let mut expected = BTreeMap::new();
    for round in 0..30 {
        for key in 0..10_u8 {
            // Longer than what sockets and buffers on the way may hold of them.
            let value = Message::from(vec![round; if key % 2 == 0 { 20_000 } else { MAX_DATAGRAM - 10 }]);
            board.set(&key.to_string(), value.clone()).await.unwrap();
            expected.insert(key.to_string(), value);
        }
        // Each before the next round begins.
        quick_one.until(|replica| replica.values() == expected).await;
    }
    slow.resume();
    slow_one.until_it_is(&expected).await;
    // Native datagrams wait at the client, as those of the application do.
    let [came, datagrams] = slow_one.came;
    let messages = came - datagrams;
    assert!(messages < 60, "{transport}: {messages} of 300 values were queued");
    board.remove("0").await.unwrap();
    expected.remove("0");
    slow_one.until_it_is(&expected).await;
}

async fn a_subscription_survives_cuts_and_moves(transport: Transport) {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let client = Channels::connect(place, transport).await;
    let mut replica = Replica::subscribe(&client, "state:board").await;
    let board = server.hub().channel("state:board");
    let mut expected = BTreeMap::new();
    for (round, next) in [transport, Transport::WebSocket, Transport::Poll, transport].into_iter().enumerate() {
        client.cut().await;
        for (key, value) in [("long", "x".repeat(5_000)), ("short", round.to_string())] {
            board.set(key, value.clone()).await.unwrap();
            expected.insert(key.to_owned(), Message::from(value));
        }
        let gone = format!("gone {round}");
        board.set(&gone, "x").await.unwrap();
        board.remove(&gone).await.unwrap();
        client.move_to(place, next).await;
        replica.until_it_is(&expected).await;
    }
    assert_eq!(replica.snapshots, 1, "the session is the same");
}

async fn a_snapshot_tells_what_is_not_there_any_more(transport: Transport) {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let client = Channels::connect(place, transport).await;
    let board = server.hub().channel("state:board");
    for key in 0..300 {
        board.set(&key.to_string(), "x".repeat(500)).await.unwrap();
    }
    let mut replica = Replica::subscribe(&client, "state:board").await;
    replica.until(|replica| replica.is_settled).await;
    assert_eq!(replica.values().len(), 300);
    client.unsubscribe("state:board").await.unwrap();
    for key in 1..300 {
        board.remove(&key.to_string()).await.unwrap();
    }
    let position = board.set("1", "new").await.unwrap();
    let again = client.subscribe("state:board", Some(Position { offset: 300, ..position })).await.unwrap();
    assert_eq!((again.recovered, again.position), (false, position));
    let mut replica = Replica::of(&client, again.number);
    let expected = [("0", "x".repeat(500)), ("1", "new".into())];
    replica.until_it_is(&expected.map(|(key, value)| (key.to_owned(), Message::from(value))).into()).await;
}

#[tokio::test]
async fn every_limit_of_a_value_has_its_edge() {
    let mut config = config();
    config.channels.max_publication_bytes = 1_000;
    let namespace = config.channels.namespaces.get_mut("state").unwrap();
    (namespace.max_keys, namespace.history_bytes) = (2, 3_000);
    let Running { place, .. } = &start(config, |builder| builder).await;
    let client = Channels::connect(place, Transport::WebSocket).await;
    let set = async |key: &str, data: Option<Message>| client.set("state:a", key, data).await.map(|at| at.offset);
    let bytes = |len: usize| Some(Message::from(vec![0; len]));
    let longest = "é".repeat(127) + "x";
    assert_eq!(set(&longest, bytes(1_000)).await, Ok(1));
    assert_eq!(set("", bytes(1_001)).await, Err(ChannelCode::TooLarge));
    assert_eq!(set("", bytes(1_000)).await, Ok(2));
    assert_eq!(set("third", bytes(0)).await, Err(ChannelCode::TooManyKeys));
    assert_eq!(set("third", None).await, Ok(2), "what is not there need not be removed");
    assert_eq!(set("", None).await, Ok(3));
    assert_eq!(set("third", bytes(0)).await, Ok(4));
    assert_eq!(client.set("room:a", "x", Message::from("x")).await, Err(ChannelCode::WrongKind));
    assert_eq!(client.publish("state:a", "x").await, Err(ChannelCode::WrongKind));
    // A key that is longer than any may be is no message about channels.
    client.ask(|request| throughline_protocol::ChannelMessage::Set {
        request,
        channel: "state:a".into(),
        key: (longest + "x").into(),
        data: None,
    });
    assert_eq!(client.closed().await.code, throughline_protocol::Code::MalformedMessage as u32);
}
