//! Channels of state: the newest wins, and everybody ends on the last value.

use std::collections::BTreeMap;

use super::*;
use crate::config::Kind;
use throughline_protocol::limits::MAX_DATAGRAM;

/// Above this a value has not changed for long enough to be sent once more.
const SETTLED: Duration = Duration::from_millis(300);

fn of_state() -> Namespace {
    Namespace { kind: Kind::State, ..Namespace::default() }
}

async fn subscribed(stage: &Stage, id: u8) -> Pair {
    let mut pair = Pair::new(id);
    pair.subscribe(stage, "a", None);
    pair.hear().await;
    pair
}

/// Lets simulated time pass.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_gets_all_values_and_then_what_changes() {
    let stage = Stage::new(of_state());
    stage.set("a", "x", "1").await;
    stage.set("a", "y", "2").await;
    stage.set("a", "x", "3").await;
    let mut pair = Pair::new(1);
    pair.subscribe(&stage, "a", Some(Position { epoch: 1, offset: 1 }));
    let expected = ["1 subscribed at 3", "snapshot", "y=2 at 2", "x=3 at 3", "settled at 3"];
    assert_eq!(pair.hears().await, expected, "a position is ignored");
    assert!(pair.states().is_empty());

    stage.set("a", "y", "4").await;
    assert_eq!(pair.hears().await, [""; 0]);
    assert_eq!(pair.states(), ["y=4 at 4"], "a change travels as a datagram");
    pass(SETTLED).await;
    assert_eq!(pair.hears().await, ["y=4 at 4"], "and once more when it has settled");
    stage.remove("a", "x").await;
    assert_eq!(pair.hears().await, [""; 0]);
    assert_eq!(pair.states(), ["x=removed at 5"]);
    pass(SETTLED).await;
    assert_eq!(pair.hears().await, ["x=removed at 5"]);
    pass(10 * SETTLED).await;
    assert_eq!((pair.hears().await, pair.states()), (vec![], vec![]), "that was all");

    let mut late = Pair::new(2);
    late.subscribe(&stage, "a", None);
    assert_eq!(late.hears().await, ["1 subscribed at 5", "snapshot", "y=4 at 4", "settled at 5"]);
}

#[tokio::test(start_paused = true)]
async fn a_datagram_that_is_lost_is_made_good() {
    let stage = Stage::new(of_state());
    let mut pair = subscribed(&stage, 1).await;
    pair.loses_states = true;
    for value in ["1", "2", "3"] {
        stage.set("a", "x", value).await;
        assert_eq!(pair.hears().await, [""; 0]);
    }
    stage.set("a", "y", "4").await;
    stage.remove("a", "x").await;
    pass(SETTLED).await;
    assert_eq!(pair.hears().await, ["y=4 at 4", "x=removed at 5"]);
    assert!(pair.states().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_changes_all_the_time_is_not_sent_twice() {
    let stage = Stage::new(of_state());
    let mut pair = subscribed(&stage, 1).await;
    stage.set("a", "still", "x").await;
    for value in 0..20 {
        stage.set("a", "moving", value.to_string()).await;
        pass(SETTLED / 3).await;
        let settled = pair.hears().await;
        assert!(settled.is_empty() || settled == ["still=x at 1"], "{settled:?}");
        assert_eq!(pair.states().last(), Some(&format!("moving={value} at {}", value + 2)));
    }
    pass(SETTLED).await;
    assert_eq!(pair.hears().await, ["moving=19 at 21"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_for_a_datagram_is_a_message_at_once() {
    let stage = Stage::new(of_state());
    let mut pair = subscribed(&stage, 1).await;
    // Around it there are number, offset, key and kind.
    let longest = MAX_DATAGRAM - 5;
    stage.set("a", "x", vec![1; longest]).await;
    assert_eq!((pair.hears().await, pair.states()), (vec![], vec!["x=bytes at 1".to_owned()]));
    stage.set("a", "x", vec![2; longest + 1]).await;
    assert_eq!((pair.hears().await, pair.states()), (vec!["x=bytes at 2".to_owned()], vec![]));
    pass(SETTLED).await;
    assert_eq!(pair.hears().await, [""; 0], "a message is not lost");
    stage.set("a", "x", "short").await;
    pass(SETTLED).await;
    assert_eq!((pair.hears().await, pair.states()), (vec!["x=short at 3".to_owned()], vec!["x=short at 3".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_gets_fewer_values_and_ends_on_the_last() {
    let stage = Stage::new(of_state());
    let (mut quick, mut slow) = (subscribed(&stage, 1).await, subscribed(&stage, 2).await);
    let mut newest = BTreeMap::new();
    for round in 0..10 {
        for key in 0..10 {
            let (key, value) = (format!("k{key}"), format!("{round}{}", "x".repeat(2_000)));
            let offset = stage.set("a", &key, value).await.offset;
            assert_eq!(quick.hear().await.len(), 1, "nobody waits for the slow one");
            newest.insert(key, offset);
        }
    }
    let mut had = BTreeMap::new();
    let heard = slow.hear().await;
    for message in &heard {
        let ChannelMessage::Value { offset, key, .. } = message else { panic!("{message:?}") };
        assert!(had.insert(key.to_string(), *offset).is_none_or(|before| before < *offset), "an older one came after");
    }
    assert_eq!(had, newest);
    assert!(heard.len() < 30, "{} values were queued", heard.len());
    stage.set("a", "k0", "short").await;
    pass(SETTLED).await;
    assert_eq!(slow.hears().await, ["k0=short at 101"], "it is as quick as the others again");
    assert_eq!(slow.states(), ["k0=short at 101"]);
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_turn_while_all_of_them_change() {
    let stage = Stage::new(of_state());
    let mut pair = subscribed(&stage, 1).await;
    let mut had = BTreeMap::<String, u32>::new();
    for _ in 0..40 {
        // More at once than there is room for, always in the same order.
        for key in 0..20 {
            stage.set("a", &format!("k{key}"), "x".repeat(2_000)).await;
        }
        pair.talk();
        settle().await;
        while let Some(body) = pair.client.poll_channel() {
            if let Ok(ChannelMessage::Value { key, .. }) = channel::decode(body) {
                *had.entry(key.to_string()).or_default() += 1;
            }
        }
    }
    assert_eq!(had.len(), 20, "{had:?}");
    let (least, most) = (had.values().min().expect("20"), had.values().max().expect("20"));
    assert!(most - least <= 3, "{had:?}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_comes_in_pieces_and_has_every_key_once() {
    let stage = Stage::new(of_state());
    for key in 0..100 {
        stage.set("a", &format!("k{key}"), "x".repeat(1_000)).await;
    }
    let mut pair = Pair::new(1);
    pair.subscribe(&stage, "a", None);
    settle().await;
    // While it lies there, half of the values change, and one goes.
    for key in 0..50 {
        stage.set("a", &format!("k{key}"), "new").await;
    }
    stage.remove("a", "k99").await;
    let heard = pair.hears().await;
    assert_eq!(heard[..2], ["1 subscribed at 100", "snapshot"]);
    assert_eq!(heard.last().expect("there is an end"), "settled at 100");
    let keys: Vec<_> = heard.iter().filter_map(|value| value.split_once('=').map(|(key, _)| key)).collect();
    assert_eq!((keys.len(), keys.contains(&"k99")), (99, false));
    assert!(heard.iter().filter(|value| value.contains("=new at")).count() > 20, "what is sent is what there is then");
    assert!(pair.states().is_empty(), "no change goes by beside it");
    pass(SETTLED).await;
    let heard = pair.hears().await;
    assert_eq!(heard.len(), 51, "{heard:?}");
    assert_eq!(heard.last().expect("51"), "k99=removed at 151");
}

#[tokio::test(start_paused = true)]
async fn who_has_missed_removals_that_are_forgotten_gets_everything_once_more() {
    let stage = Stage::new(Namespace { max_keys: 4, ..of_state() });
    let (mut quick, mut slow) = (subscribed(&stage, 1).await, subscribed(&stage, 2).await);
    stage.set("a", "stays", "1").await;
    for key in 0..4 {
        stage.set("a", &key.to_string(), "x".repeat(20_000)).await;
        quick.hear().await;
        stage.remove("a", &key.to_string()).await;
        pass(SETTLED).await;
        quick.hear().await;
    }
    stage.set("a", "last", "2").await;
    slow.loses_states = true;
    let heard = slow.hears().await;
    assert!(!heard.contains(&"snapshot".to_owned()), "four removals are remembered: {heard:?}");

    let (mut quick, mut slow) = (subscribed(&stage, 3).await, subscribed(&stage, 4).await);
    for key in 0..12 {
        stage.set("a", &key.to_string(), "x".repeat(20_000)).await;
        quick.hear().await;
        stage.remove("a", &key.to_string()).await;
        quick.hear().await;
    }
    stage.set("a", "stays", "3").await;
    let heard = slow.hears().await;
    let snapshot = heard.iter().position(|message| message == "snapshot").expect("it needs one");
    assert_eq!(heard[snapshot + 1..], ["last=2 at 10", "stays=3 at 35", "settled at 35"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_hub_has_missed_is_read_from_the_engine() {
    let stage = Stage::new(of_state());
    let mut pair = subscribed(&stage, 1).await;
    stage.set("a", "x", "1").await;
    stage.set("a", "y", "1").await;
    pass(SETTLED).await;
    pair.hear().await;
    pair.states();
    stage.deliver(0);
    stage.set("a", "x", "2").await;
    stage.set("a", "long", "x".repeat(2_000)).await;
    stage.deliver(2);
    stage.set("a", "z", "x".repeat(2_000)).await;
    let heard = pair.hears().await;
    let snapshot = heard.iter().position(|message| message == "snapshot").expect("it lacks something");
    let keys: Vec<_> = heard[snapshot..].iter().map(|message| message.split('=').next().unwrap_or_default()).collect();
    assert_eq!(keys, ["snapshot", "y", "x", "long", "z", "settled at 5"], "{heard:?}");
    pass(SETTLED).await;
    assert_eq!((pair.hears().await, pair.states()), (vec![], vec![]));

    stage.deliver(0);
    stage.remove("a", "y").await;
    stage.deliver(1);
    stage.set("a", "z", "2").await;
    let heard = pair.hears().await;
    assert_eq!((&*heard[0], &*heard[heard.len() - 1]), ("snapshot", "settled at 7"), "{heard:?}");
    assert!(!heard.iter().any(|message| message.starts_with("y=")), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn values_that_cannot_be_read_end_the_subscription() {
    let stage = Stage::new(of_state());
    let mut pair = subscribed(&stage, 1).await;
    stage.deliver(0);
    stage.set("a", "x", "1").await;
    stage.deliver(1);
    stage.set("a", "x", "2").await;
    stage.is_down(true); // before the hub reads what it has missed
    assert_eq!(pair.hears().await, ["UNAVAILABLE"]);
    pair.subscribe(&stage, "a", None);
    assert_eq!(pair.hears().await, ["2 UNAVAILABLE"]);
    assert_eq!(stage.held(), [0, 1, 0]);
    stage.is_down(false);
    pair.subscribe(&stage, "a", None);
    assert_eq!(pair.hears().await, ["3 subscribed at 2", "snapshot", "x=2 at 2", "settled at 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_count_that_begins_anew_ends_the_subscriptions() {
    let stage = Stage::new(of_state());
    let mut pair = subscribed(&stage, 1).await;
    let position = stage.set("a", "x", "1").await;
    pair.hear().await;
    let change = Change { key: "x".into(), offset: 1, message: Some("2".into()) };
    stage.engine.delivery.hub.change("a", position.epoch ^ 1, &change);
    assert_eq!(pair.hears().await, ["UNAVAILABLE"]);
    assert_eq!(stage.held()[2], 0);
    pair.subscribe(&stage, "a", None);
    assert_eq!(pair.hears().await, ["2 subscribed at 1", "snapshot", "x=1 at 1", "settled at 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_encoded_once_for_all() {
    let stage = Stage::new(of_state());
    let mut pairs = Vec::new();
    for id in 1..=20 {
        pairs.push(subscribed(&stage, id).await);
    }
    stage.set("a", "x", "1").await;
    assert_eq!(stage.hub.stats().encoded, 1);
    pass(SETTLED).await;
    assert_eq!(stage.hub.stats().encoded, 2, "once more as a message");
    stage.set("a", "x", "x".repeat(2_000)).await;
    pass(SETTLED).await;
    let stats = stage.hub.stats();
    assert_eq!((stats.encoded, stats.publications, stats.subscriptions), (3, 2, 20));
    for pair in &mut pairs {
        assert_eq!(pair.hear().await.len(), 2);
        pair.end(&stage);
    }
    assert_eq!((stage.hub.stats().subscriptions, stage.held()), (0, [0, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn who_unsubscribes_hears_no_more_and_begins_anew() {
    let stage = Stage::new(of_state());
    let mut pair = subscribed(&stage, 1).await;
    stage.set("a", "x", "1").await;
    pair.unsubscribe(&stage, "a");
    assert_eq!(pair.hears().await, ["2 done 0"]);
    stage.set("a", "x", "2").await;
    pass(SETTLED).await;
    assert_eq!(pair.hears().await, [""; 0]);
    pair.subscribe(&stage, "a", None);
    assert_eq!(pair.hears().await, ["3 subscribed at 2", "snapshot", "x=2 at 2", "settled at 2"]);
}
