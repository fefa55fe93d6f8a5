//! What every engine has to pass.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use throughline_protocol::channel::Position;
use throughline_protocol::{Message, varint};
use tokio::sync::Notify;

use super::{
    Change, Engine, EngineError, History, PUBLICATION_OVERHEAD, Page, Publication, Retention, Sink, State, Value,
};

const ROOMY: Retention = Retention { count: 1_000, bytes: 1 << 20, age: Duration::from_secs(3_600), keys: 1_000 };
const ALL: Page = Page { publications: 1_000, bytes: 1 << 20, newest: false };

/// Nothing here takes this long, wherever the engine keeps its channels.
const PATIENCE: Duration = Duration::from_secs(20);

/// A sink that keeps what it is given.
#[derive(Default)]
pub(crate) struct Taken {
    publications: Mutex<Vec<(String, u64, Publication)>>,
    changes: Mutex<Vec<(String, u64, Change)>>,
    changed: Notify,
}

impl Sink for Taken {
    fn publication(&self, channel: &str, epoch: u64, publication: &Publication) {
        self.publications.lock().push((channel.to_owned(), epoch, publication.clone()));
        self.changed.notify_waiters();
    }

    fn change(&self, channel: &str, epoch: u64, change: &Change) {
        self.changes.lock().push((channel.to_owned(), epoch, change.clone()));
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

    /// Waits until it was given the change at this position, and returns all that it was given of the channel until then.
    async fn changes_through(&self, channel: &str, position: Position) -> Vec<Change> {
        let taken = async {
            loop {
                let changed = self.changed.notified();
                let all = self.changes.lock().clone();
                let of_channel = all.into_iter().filter(|(name, of, _)| name == channel && *of == position.epoch);
                let of_channel: Vec<_> = of_channel.map(|(_, _, change)| change).collect();
                if of_channel.iter().any(|change| change.offset == position.offset) {
                    return of_channel;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.expect("what was changed reaches the sink")
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
        the_newest_of_a_history_are_read_from_its_end(engine).await;
        a_key_has_its_newest_value(engine).await;
        what_is_not_there_cannot_be_removed(engine).await;
        keys_and_their_bytes_are_bounded(engine).await;
        after_its_position_a_subscription_gets_every_change(engine, &sink).await;
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

async fn the_newest_of_a_history_are_read_from_its_end(engine: &dyn Engine) {
    let mut newest = Position::default();
    for _ in 0..10 {
        newest = publish(engine, "the end", vec![0; 100]).await;
    }
    let at = |offset| Some(Position { offset, ..newest });
    let last = |publications| Page { publications, newest: true, ..ALL };
    for (after, page, expected, complete) in [
        (None, last(1_000), 1..11, true),
        (None, last(10), 1..11, true),
        (None, last(9), 2..11, false),
        (at(6), last(5), 7..11, true),
        (at(6), last(4), 7..11, true),
        (at(6), last(3), 8..11, false),
        (at(6), last(0), 11..11, false),
        (at(10), last(3), 11..11, true),
        (at(6), Page { bytes: 299, ..last(1_000) }, 9..11, false),
        (at(6), Page { bytes: 300, ..last(1_000) }, 8..11, false),
        (at(6), Page { bytes: 0, ..last(1_000) }, 10..11, false),
    ] {
        let read = history(engine, "the end", after, page).await;
        let came = offsets(&read);
        assert!(came.iter().copied().eq(expected.clone()), "after {after:?}, {page:?}: {came:?}, not {expected:?}");
        assert_eq!((read.complete, read.newest), (complete, newest), "after {after:?}, {page:?}");
    }
}

async fn set(engine: &dyn Engine, channel: &str, key: &str, message: impl Into<Message>) -> Position {
    engine.set(channel, key, Some(message.into()), ROOMY).await.expect("there is room")
}

async fn remove(engine: &dyn Engine, channel: &str, key: &str) -> Position {
    engine.set(channel, key, None, ROOMY).await.expect("there is always room for less")
}

/// Keys, offsets and texts.
async fn values(engine: &dyn Engine, channel: &str) -> (Position, Vec<(String, u64, String)>) {
    let State { position, values } = engine.values(channel).await.expect("it can be reached");
    let text = |message: &Message| message.as_text().unwrap_or("no text").to_owned();
    let values = values.into_iter().map(|Value { key, offset, message }| (key.to_string(), offset, text(&message)));
    (position, values.collect())
}

fn value(key: &str, offset: u64, text: &str) -> (String, u64, String) {
    (key.to_owned(), offset, text.to_owned())
}

async fn a_key_has_its_newest_value(engine: &dyn Engine) {
    let start = set(engine, "state:a", "x", "1").await;
    assert_eq!(start.offset, 1);
    set(engine, "state:b", "x", "another channel").await;
    for (offset, key, text) in [(2, "", "2"), (3, "räume €", "3"), (4, "x", "4"), (5, "", "")] {
        assert_eq!(set(engine, "state:a", key, text).await, Position { offset, ..start });
    }
    let newest = Position { offset: 5, ..start };
    let expected = vec![value("räume €", 3, "3"), value("x", 4, "4"), value("", 5, "")];
    assert_eq!(values(engine, "state:a").await, (newest, expected), "in the order of their changes");
    assert_eq!(remove(engine, "state:a", "x").await, Position { offset: 6, ..start }, "a removal counts");
    let expected = vec![value("räume €", 3, "3"), value("", 5, "")];
    assert_eq!(values(engine, "state:a").await, (Position { offset: 6, ..start }, expected));
    assert_eq!(set(engine, "state:a", "x", "again").await, Position { offset: 7, ..start });
    for key in ["x", "", "räume €"] {
        remove(engine, "state:a", key).await;
    }
    assert_eq!(values(engine, "state:a").await, (Position { offset: 10, ..start }, vec![]), "it goes on counting");
}

async fn what_is_not_there_cannot_be_removed(engine: &dyn Engine) {
    assert_eq!(remove(engine, "state:nothing", "x").await, Position::default());
    assert_eq!(values(engine, "state:nothing").await, (Position::default(), vec![]));
    let newest = set(engine, "state:something", "x", "1").await;
    assert_eq!(remove(engine, "state:something", "y").await, newest);
    assert_eq!(values(engine, "state:something").await, (newest, vec![value("x", 1, "1")]));
}

async fn keys_and_their_bytes_are_bounded(engine: &dyn Engine) {
    let three = Retention { keys: 3, ..ROOMY };
    for key in ["a", "b", "c"] {
        engine.set("state:keys", key, Some("x".into()), three).await.unwrap();
    }
    let refused = engine.set("state:keys", "d", Some("x".into()), three).await;
    assert_eq!(refused, Err(EngineError::TooManyKeys));
    engine.set("state:keys", "c", Some("y".into()), three).await.expect("it has a place");
    engine.set("state:keys", "a", None, three).await.expect("there is always room for less");
    let newest = engine.set("state:keys", "d", Some("x".into()), three).await.expect("a has left its place");
    assert_eq!(newest.offset, 6, "what was refused does not count");

    let bytes = Retention { bytes: 2 * (100 + 1 + PUBLICATION_OVERHEAD), ..ROOMY };
    for key in ["a", "b"] {
        engine.set("state:bytes", key, Some(vec![0; 100].into()), bytes).await.unwrap();
    }
    for (key, len) in [("c", 0), ("b", 101)] {
        let refused = engine.set("state:bytes", key, Some(vec![0; len].into()), bytes).await;
        assert_eq!(refused, Err(EngineError::TooLarge), "{key}");
    }
    engine.set("state:bytes", "b", Some(vec![0; 99].into()), bytes).await.expect("it has a place");
    engine.set("state:bytes", "a", Some(vec![0; 101].into()), bytes).await.expect("up to the last byte");
}

async fn after_its_position_a_subscription_gets_every_change(engine: &dyn Engine, sink: &Taken) {
    let changing = async {
        let mut last = Position::default();
        for round in 0..50 {
            last = set(engine, "state:meanwhile", if round % 2 == 0 { "a" } else { "b" }, round.to_string()).await;
            tokio::task::yield_now().await;
        }
        remove(engine, "state:meanwhile", "a").await;
        assert_eq!(remove(engine, "state:meanwhile", "a").await.offset, last.offset + 1);
        set(engine, "state:meanwhile", "b", "last").await
    };
    let subscribing = async {
        tokio::task::yield_now().await;
        let position = engine.subscribe("state:meanwhile", ROOMY).await.unwrap();
        (position, engine.values("state:meanwhile").await.unwrap())
    };
    let (last, (position, state)) = tokio::join!(changing, subscribing);
    assert_eq!((position.epoch, last.offset), (last.epoch, 52));
    let taken = sink.changes_through("state:meanwhile", last).await;
    let after: BTreeSet<_> = taken.iter().map(|change| change.offset).collect();
    let missing: Vec<_> = (position.offset + 1..=last.offset).filter(|offset| !after.contains(offset)).collect();
    assert!(missing.is_empty(), "subscribed at {}, and never given {missing:?}", position.offset);
    assert!(state.position.offset >= position.offset && state.values.len() <= 2);
    let removal = taken.iter().find(|change| change.offset == 51).expect("it was given");
    assert_eq!((&*removal.key, &removal.message), ("a", &None));
    engine.unsubscribe("state:meanwhile");
}
