//! A subscriber that takes nothing for a while, beside one that takes everything at once.

use throughline::{Position, Slow, Transport};
use throughline_protocol::{ChannelCode, ChannelMessage};

use crate::client::Channels;
use crate::common::{Running, start};
use crate::{config, on_every_transport};

on_every_transport! {
    a_slow_subscriber_delays_nobody_and_gets_everything_from_the_history,
    what_the_history_has_lost_meanwhile_is_skipped,
    or_the_subscription_ends,
}

/// Publications, and bytes of each: more together than a session's buffer and its client's window hold.
const COUNT: u64 = 700;
const SIZE: usize = 2_000;

fn data(offset: u64) -> Vec<u8> {
    let mut data = vec![offset as u8; SIZE];
    data[..8].copy_from_slice(&offset.to_be_bytes());
    data
}

/// A channel with so much history, of which one client has taken everything, and another nothing since it subscribed.
async fn stage(transport: Transport, history: usize, slow: Slow) -> (Running, Channels, Position) {
    let mut config = config();
    let namespace = config.channels.namespaces.get_mut("room").unwrap();
    (namespace.history_count, namespace.slow) = (history, slow);
    let running = start(config, |builder| builder).await;
    let [quick, slow] = [Transport::WebSocket, transport].map(|transport| Channels::connect(&running.place, transport));
    let (quick, slow) = tokio::join!(quick, slow);
    let start = slow.subscribe("room:a", None).await.unwrap().position;
    let number = quick.subscribe("room:a", None).await.unwrap().number;
    let room = running.server.hub().channel("room:a");
    for offset in 1..=COUNT {
        assert_eq!(room.publish(data(offset)).await.unwrap().offset, offset);
        // Each before the next one is published.
        assert!(quick.publication().await == (number, offset, data(offset).into()), "publication {offset}");
    }
    (running, slow, Position { offset: COUNT, ..start })
}

async fn a_slow_subscriber_delays_nobody_and_gets_everything_from_the_history(transport: Transport) {
    let (running, slow, newest) = stage(transport, 10_000, Slow::Disconnect).await;
    for offset in 1..=COUNT {
        let (_, came, message) = slow.publication().await;
        assert_eq!(came, offset);
        assert!(message == data(offset).into(), "publication {offset} is another one");
    }
    let room = running.server.hub().channel("room:a");
    assert_eq!(room.publish("at the head again").await.unwrap(), Position { offset: COUNT + 1, ..newest });
    assert_eq!(slow.publication().await.2.as_text(), Some("at the head again"));
}

async fn what_the_history_has_lost_meanwhile_is_skipped(transport: Transport) {
    let (running, slow, _) = stage(transport, 10, Slow::Skip).await;
    let (mut last, mut skipped) = (0, Vec::new());
    while last < COUNT {
        match slow.next().await {
            ChannelMessage::Publication { offset, data: came, .. } => {
                assert_eq!(offset, last + 1);
                assert!(came == data(offset).into(), "publication {offset} is another one");
                last = offset;
            }
            ChannelMessage::Skipped { offset, .. } => {
                assert!(offset > last, "{offset} was not lost: {last} came");
                skipped.push(last + 1..=offset);
                last = offset;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(!skipped.is_empty(), "{COUNT} publications were queued");
    assert!(skipped.iter().all(|lost| *lost.end() <= COUNT - 10), "{skipped:?}: the last ten are kept");
    running.server.hub().channel("room:a").publish("next").await.unwrap();
    assert_eq!(slow.publication().await.1, COUNT + 1);
}

async fn or_the_subscription_ends(transport: Transport) {
    let (running, slow, newest) = stage(transport, 10, Slow::Disconnect).await;
    let mut last = 0;
    let code = loop {
        match slow.next().await {
            ChannelMessage::Publication { offset, .. } => {
                assert_eq!(offset, last + 1);
                last = offset;
            }
            ChannelMessage::Unsubscribed { code, .. } => break code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, ChannelCode::TooSlow as u64);
    let room = running.server.hub().channel("room:a");
    assert_eq!(room.subscribers(), 1);
    assert_eq!(slow.unsubscribe("room:a").await, Err(ChannelCode::NotSubscribed));
    let again = slow.subscribe("room:a", Some(Position { offset: last, ..newest })).await.unwrap();
    assert_eq!((again.recovered, again.position), (false, newest));
    room.publish("next").await.unwrap();
    assert_eq!(slow.publication().await, (again.number, COUNT + 1, "next".into()));
}
