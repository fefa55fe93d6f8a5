use std::time::Duration;

use futures_util::FutureExt;
use throughline_protocol::Message;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{ChannelsConfig, Namespace};
use crate::engine::memory::{Bounds, MemoryEngine};
use crate::session::flusher::Flusher;

fn hub(history_count: usize) -> Hub {
    let mut config = ChannelsConfig::default();
    let namespace = Namespace { history_count, history_age: Duration::from_secs(60), ..Namespace::default() };
    config.namespaces.insert(String::new(), namespace);
    let bounds = Bounds { channels: 2, bytes: 1 << 24 };
    let ended = CancellationToken::new();
    Hub::new(config, 1 << 20, None, Flusher::start(&ended), ended, |sink| Arc::new(MemoryEngine::new(bounds, sink)))
}

async fn publish(hub: &Hub, count: usize) -> Position {
    let mut last = Position::default();
    for _ in 0..count {
        last = hub.channel("a").publish("x").await.expect("there is room");
    }
    last
}

/// The offsets of what can be read now; what is skipped as 0 and where it goes on.
async fn read(reader: &mut Reader) -> Vec<u64> {
    let mut offsets = Vec::new();
    // The memory engine never waits, so what does not come at once does not come.
    while let Some(item) = reader.next().now_or_never() {
        match item.expect("the engine is there") {
            Item::Publication(_, publication) => offsets.push(publication.offset),
            Item::Skipped(position) => offsets.extend([0, position.offset]),
        }
    }
    offsets
}

#[tokio::test]
async fn a_reader_begins_with_the_next_publication_or_after_a_position() {
    let hub = hub(100);
    let first = publish(&hub, 1).await;
    publish(&hub, 2).await;
    let mut newest = hub.reader("a", None).await.unwrap();
    let mut older = hub.reader("a", Some(first)).await.unwrap();
    assert_eq!((newest.position().offset, older.position()), (3, first));
    publish(&hub, 1).await;
    assert_eq!(read(&mut newest).await, [4]);
    assert_eq!(read(&mut older).await, [2, 3, 4]);
    let waiting = tokio::spawn(async move { newest.next().await });
    publish(&hub, 1).await;
    let Item::Publication(epoch, publication) = waiting.await.unwrap().unwrap() else { panic!("nothing was lost") };
    assert_eq!((epoch, publication.offset, &publication.message), (first.epoch, 5, &Message::from("x")));
}

#[tokio::test]
async fn a_slow_reader_reads_the_history_and_is_told_what_is_gone() {
    let hub = hub(200);
    let mut reader = hub.reader("a", None).await.unwrap();
    publish(&hub, 200).await;
    assert_eq!(read(&mut reader).await, (1..=200).collect::<Vec<_>>());
    publish(&hub, 201).await;
    let rest: Vec<_> = [0, 201].into_iter().chain(202..=401).collect();
    assert_eq!(read(&mut reader).await, rest);
}

#[tokio::test]
async fn where_nothing_is_kept_those_who_are_there_get_it() {
    let hub = hub(0);
    let mut reader = hub.reader("a", None).await.unwrap();
    publish(&hub, ARRIVALS).await;
    assert_eq!(read(&mut reader).await, (1..=ARRIVALS as u64).collect::<Vec<_>>());
    publish(&hub, ARRIVALS + 1).await;
    assert_eq!(read(&mut reader).await, [0, 2 * ARRIVALS as u64 + 1], "one more than may wait");
}

#[tokio::test]
async fn a_position_of_another_epoch_or_from_the_future_begins_with_the_oldest_that_is_kept() {
    let hub = hub(2);
    let newest = publish(&hub, 3).await;
    for after in [Position { epoch: newest.epoch + 1, offset: 1 }, Position { offset: 4, ..newest }] {
        let mut reader = hub.reader("a", Some(after)).await.unwrap();
        assert_eq!(read(&mut reader).await, [0, 1, 2, 3]);
        let page = hub.page("a", Some(after), 1).await.unwrap();
        assert_eq!((page.complete, page.publications[0].offset), (false, 2));
    }
    let page = hub.page("a", Some(Position { offset: 2, ..newest }), 10).await.unwrap();
    assert_eq!((page.complete, page.newest, page.publications.len()), (true, newest, 1));
}

#[tokio::test]
async fn readers_keep_their_channel_and_nothing_is_left_behind_them() {
    let hub = hub(10);
    let [first, second] = [hub.reader("a", None).await.unwrap(), hub.reader("b", None).await.unwrap()];
    assert_eq!(hub.reader("c", None).await.err(), Some(ReadError::TooManyChannels));
    assert_eq!(hub.reader("", None).await.err(), Some(ReadError::BadChannel));
    assert_eq!(hub.0.topics.read().len(), 2);
    drop((first, second));
    assert!(hub.0.topics.read().is_empty());
    drop(hub.reader("c", None).await.unwrap());
}
