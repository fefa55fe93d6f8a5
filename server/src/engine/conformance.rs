//! What every engine has to pass.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use throughline_protocol::channel::Position;
use throughline_protocol::{Message, varint};
use tokio::sync::Notify;

use super::{Engine, History, PUBLICATION_OVERHEAD, Page, Publication, Retention, Sink};

const ROOMY: Retention = Retention { count: 1_000, bytes: 1 << 20, age: Duration::from_secs(3_600) };
const ALL: Page = Page { publications: 1_000, bytes: 1 << 20 };

/// Nothing here takes this long, wherever the engine keeps its channels.
const PATIENCE: Duration = Duration::from_secs(20);

/// A sink that keeps what it is given.
#[derive(Default)]
pub(crate) struct Taken {
    publications: Mutex<Vec<(String, u64, Publication)>>,
    changed: Notify,
}

impl Sink for Taken {
    fn publication(&self, channel: &str, epoch: u64, publication: &Publication) {
        self.publications.lock().push((channel.to_owned(), epoch, publication.clone()));
        self.changed.notify_waiters();
    }
}

impl Taken {
    /// Waits until it was given this publication of a channel, and returns all that it was given of it until then.
    async fn through(&self, channel: &str, position: Position) -> Vec<Publication> {
        let taken = async {
            loop {
                let changed = self.changed.notified();
                let of_channel: Vec<_> = self.of(channel, position.epoch);
                if of_channel.iter().any(|publication| publication.offset == position.offset) {
                    return of_channel;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.expect("what was published reaches the sink")
    }

    fn of(&self, channel: &str, epoch: u64) -> Vec<Publication> {
        let all = self.publications.lock();
        let of_channel = all.iter().filter(|(name, of, _)| name == channel && *of == epoch);
        of_channel.map(|(_, _, publication)| publication.clone()).collect()
    }
}

/// Checks an engine that `make` makes for a sink. Each check has channels of its own.
pub(crate) async fn conformance<F: Future<Output = Arc<dyn Engine>>>(make: impl Fn(Arc<dyn Sink>) -> F) {
    let sink = Arc::new(Taken::default());
    let engine = &*make(Arc::clone(&sink) as Arc<dyn Sink>).await;
    let checks = async {
        offsets_count_up_in_one_epoch(engine).await;
        what_is_published_comes_back_as_it_was(engine).await;
        publications_at_once_get_an_offset_each(engine, &sink).await;
        a_history_is_read_from_a_position_and_in_pages(engine).await;
        a_position_that_is_not_there_is_not_complete(engine).await;
        no_more_is_kept_than_was_asked_for(engine).await;
        nothing_is_known_of_an_unused_channel(engine).await;
        after_its_position_a_subscription_gets_everything(engine, &sink).await;
        subscriptions_are_counted(engine, &sink).await;
    };
    tokio::select! {
        () = checks => {}
        () = engine.run() => panic!("an engine runs for as long as its node"),
    }
}

async fn publish(engine: &dyn Engine, channel: &str, message: impl Into<Message>) -> Position {
    engine.publish(channel, message.into(), ROOMY).await.expect("there is room")
}

async fn history(engine: &dyn Engine, channel: &str, after: Option<Position>, page: Page) -> History {
    engine.history(channel, after, page).await.expect("it can be reached")
}

fn offsets(history: &History) -> Vec<u64> {
    history.publications.iter().map(|publication| publication.offset).collect()
}

async fn offsets_count_up_in_one_epoch(engine: &dyn Engine) {
    let first = publish(engine, "count:a", "x").await;
    assert_eq!(first.offset, 1);
    assert!((1..=varint::MAX).contains(&first.epoch), "{} is no epoch", first.epoch);
    for offset in 2..=20 {
        assert_eq!(publish(engine, "count:a", "x").await, Position { offset, ..first });
        assert_eq!(publish(engine, "count:b", "x").await.offset, offset - 1, "channels count by themselves");
    }
}

async fn what_is_published_comes_back_as_it_was(engine: &dyn Engine) {
    let messages =
        ["".into(), "Grüße, 漢字, 🎈".into(), vec![].into(), vec![0, 255, 10, 13].into(), vec![7; 60_000].into()];
    for message in &messages {
        publish(engine, "as:it was €", Message::clone(message)).await;
    }
    let history = history(engine, "as:it was €", None, ALL).await;
    let published: Vec<_> = history.publications.iter().map(|publication| publication.message.clone()).collect();
    assert!(published == messages, "something came back as something else");
    assert!(history.complete);
}

async fn publications_at_once_get_an_offset_each(engine: &dyn Engine, sink: &Taken) {
    let start = engine.subscribe("at once", ROOMY).await.unwrap();
    let positions = join_all((0..100).map(|_| publish(engine, "at once", "x"))).await;
    let offsets: BTreeSet<_> = positions.iter().map(|position| position.offset).collect();
    assert!(offsets.into_iter().eq(1..=100));
    assert!(positions.iter().all(|position| position.epoch == start.epoch));
    let taken = sink.through("at once", Position { offset: 100, ..start }).await;
    let taken: BTreeSet<_> = taken.iter().map(|publication| publication.offset).collect();
    assert!(taken.into_iter().eq(1..=100));
    engine.unsubscribe("at once");
}

async fn a_history_is_read_from_a_position_and_in_pages(engine: &dyn Engine) {
    let mut newest = Position::default();
    for _ in 0..10 {
        newest = publish(engine, "pages", vec![0; 100]).await;
    }
    let at = |offset| Some(Position { offset, ..newest });
    for (after, page, expected) in [
        (None, ALL, 1..11),
        (at(0), ALL, 1..11),
        (at(7), ALL, 8..11),
        (at(10), ALL, 11..11),
        (at(3), Page { publications: 4, ..ALL }, 4..8),
        (at(3), Page { publications: 0, ..ALL }, 4..4),
        (at(3), Page { bytes: 299, ..ALL }, 4..6),
        (at(3), Page { bytes: 300, ..ALL }, 4..7),
        (at(3), Page { bytes: 0, ..ALL }, 4..5),
    ] {
        let read = history(engine, "pages", after, page).await;
        assert!(
            offsets(&read).into_iter().eq(expected.clone()),
            "after {after:?}: {:?}, not {expected:?}",
            offsets(&read)
        );
        assert!(read.complete);
        assert_eq!(read.newest, newest);
    }
}

async fn a_position_that_is_not_there_is_not_complete(engine: &dyn Engine) {
    let newest = publish(engine, "not there", "x").await;
    let another_epoch = Position { epoch: newest.epoch % varint::MAX + 1, offset: 0 };
    for after in [another_epoch, Position { offset: 2, ..newest }, Position { offset: varint::MAX, ..newest }] {
        let read = history(engine, "not there", Some(after), ALL).await;
        assert_eq!(read, History { newest, complete: false, publications: Vec::new() }, "after {after:?}");
    }
}

async fn no_more_is_kept_than_was_asked_for(engine: &dyn Engine) {
    let five = Retention { count: 5, ..ROOMY };
    let bytes = Retention { bytes: 5 * (100 + PUBLICATION_OVERHEAD), ..ROOMY };
    for (channel, retention) in [("kept:five", five), ("kept:bytes", bytes)] {
        let mut newest = Position::default();
        for _ in 0..12 {
            newest = engine.publish(channel, vec![0; 100].into(), retention).await.unwrap();
        }
        let at = |offset| Some(Position { offset, ..newest });
        for (after, complete) in [(None, false), (at(6), false), (at(7), true)] {
            let read = history(engine, channel, after, ALL).await;
            assert_eq!(
                (offsets(&read), read.complete),
                (vec![8, 9, 10, 11, 12], complete),
                "{channel} after {after:?}"
            );
        }
        let read = history(engine, channel, at(1), Page { publications: 2, ..ALL }).await;
        assert_eq!((offsets(&read), read.complete), (vec![8, 9], false), "from the oldest on");
    }
    let nothing = Retention { count: 0, ..ROOMY };
    engine.publish("kept:nothing", "x".into(), nothing).await.unwrap();
    let newest = engine.publish("kept:nothing", "x".into(), nothing).await.unwrap();
    assert_eq!(newest.offset, 2, "it counts all the same");
    let read = history(engine, "kept:nothing", Some(newest), ALL).await;
    assert_eq!(read, History { newest, complete: true, publications: Vec::new() });
    let read = history(engine, "kept:nothing", Some(Position { offset: 1, ..newest }), ALL).await;
    assert_eq!(read, History { newest, complete: false, publications: Vec::new() });
}

async fn nothing_is_known_of_an_unused_channel(engine: &dyn Engine) {
    let newest = Position::default();
    let read = history(engine, "unused", None, ALL).await;
    assert_eq!(read, History { newest, complete: true, publications: Vec::new() });
    let read = history(engine, "unused", Some(Position { epoch: 7, offset: 0 }), ALL).await;
    assert_eq!(read, History { newest, complete: false, publications: Vec::new() });
}

async fn after_its_position_a_subscription_gets_everything(engine: &dyn Engine, sink: &Taken) {
    let publishing = async {
        let mut last = publish(engine, "meanwhile", "x").await;
        for _ in 0..100 {
            last = publish(engine, "meanwhile", "x").await;
            tokio::task::yield_now().await;
        }
        last
    };
    let subscribing = async {
        tokio::task::yield_now().await;
        engine.subscribe("meanwhile", ROOMY).await.unwrap()
    };
    let (last, position) = tokio::join!(publishing, subscribing);
    assert_eq!(position.epoch, last.epoch, "it does not begin anew");
    let taken = sink.through("meanwhile", last).await;
    let taken: BTreeSet<_> = taken.iter().map(|publication| publication.offset).collect();
    let missing: Vec<_> = (position.offset + 1..=last.offset).filter(|offset| !taken.contains(offset)).collect();
    assert!(missing.is_empty(), "subscribed at {}, and never given {missing:?}", position.offset);
    engine.unsubscribe("meanwhile");
}

async fn subscriptions_are_counted(engine: &dyn Engine, sink: &Taken) {
    let start = engine.subscribe("counted", ROOMY).await.unwrap();
    assert_eq!(engine.subscribe("counted", ROOMY).await.unwrap(), start);
    assert!((1..=varint::MAX).contains(&start.epoch) && start.offset == 0, "{start:?}");
    engine.unsubscribe("counted");
    let position = publish(engine, "counted", "x").await;
    assert_eq!(position, Position { offset: 1, ..start }, "a subscription begins the count");
    sink.through("counted", position).await;
    engine.unsubscribe("counted");
}
