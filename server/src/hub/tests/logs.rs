//! Logs: repeats, holes, slow subscribers, and engines that hesitate.

use super::*;

#[tokio::test]
async fn an_engine_that_is_down_fails_what_needs_it_and_nothing_else() {
    let stage = Stage::new(Namespace::default());
    let mut pair = Pair::new(1);
    stage.is_down(true);
    pair.subscribe(&stage, "a", None);
    pair.publish(&stage, "a");
    pair.unsubscribe(&stage, "a");
    assert_eq!(short(&pair.hear().await), ["1 UNAVAILABLE", "2 UNAVAILABLE", "3 NOT_SUBSCRIBED"]);
    assert_eq!(stage.held(), [0, 1, 0]);
    let room = stage.hub.channel("a");
    assert!(matches!(room.publish("x").await, Err(PublishError::Unavailable(_))));
    assert!(matches!(room.history(HistoryQuery::ALL).await, Err(HistoryError::Unavailable(_))));
    stage.is_down(false);
    pair.subscribe(&stage, "a", None);
    pair.publish(&stage, "a");
    assert_eq!(short(&pair.hear().await), ["4 subscribed at 0", "5 done 1", "1"]);
    assert_eq!(stage.held(), [1, 1, 1]);
}

#[tokio::test]
async fn a_repeat_is_dropped_and_a_hole_is_filled() {
    let stage = Stage::new(Namespace::default());
    let mut pair = Pair::new(1);
    pair.subscribe(&stage, "a", None);
    settle().await;
    stage.deliver(2);
    stage.publish("a", 1).await;
    stage.deliver(0);
    stage.publish("a", 1).await;
    settle().await;
    stage.publish("a", 1).await;
    assert_eq!(short(&pair.hear().await), ["1 subscribed at 0", "1"], "it cannot know of more yet");
    stage.deliver(1);
    let fourth = stage.publish("a", 1).await;
    stage.publish("a", 1).await;
    assert_eq!(short(&pair.hear().await), ["2", "3", "4", "5"]);
    let late = Publication { offset: 4, message: "x".into() };
    stage.engine.delivery.hub.publication("a", fourth.epoch, &late);
    let mut other = Pair::new(2);
    other.subscribe(&stage, "a", None);
    assert_eq!(short(&other.hear().await), ["1 subscribed at 5"]);
    assert!(pair.hear().await.is_empty());
}

#[tokio::test]
async fn what_the_history_knows_and_the_hub_does_not_is_not_waited_for() {
    let stage = Stage::new(Namespace::default());
    let [mut pair, mut other] = [1, 2].map(Pair::new);
    other.subscribe(&stage, "a", None);
    settle().await;
    let first = stage.publish("a", 1).await;
    stage.deliver(0);
    stage.publish("a", 1).await;
    stage.publish("a", 1).await;
    pair.subscribe(&stage, "a", Some(first));
    assert_eq!(short(&pair.hear().await), ["1 subscribed at 1, recovered", "2", "3"]);
    stage.deliver(1);
    stage.publish("a", 1).await;
    assert_eq!(short(&pair.hear().await), ["4"]);
    assert_eq!(short(&other.hear().await), ["1 subscribed at 0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_channel_whose_last_subscriber_leaves_while_another_comes_stays() {
    let stage = Stage::new(Namespace::default());
    let [mut leaves, mut comes] = [1, 2].map(Pair::new);
    leaves.subscribe(&stage, "a", None);
    settle().await;
    let first = stage.publish("a", 1).await;
    stage.hold(true);
    comes.subscribe(&stage, "a", Some(first));
    settle().await;
    leaves.unsubscribe(&stage, "a");
    assert_eq!(short(&leaves.hear().await), ["1 subscribed at 0", "1", "2 done 0"]);
    stage.hold(false);
    settle().await;
    stage.publish("a", 1).await;
    assert_eq!(short(&comes.hear().await), ["1 subscribed at 1, recovered", "2"]);
    assert_eq!(stage.held(), [1, 2, 1]);
    comes.unsubscribe(&stage, "a");
    settle().await;
    assert_eq!(stage.held(), [0, 2, 0]);
}

#[tokio::test]
async fn a_count_that_begins_anew_ends_the_subscriptions() {
    let stage = Stage::new(Namespace::default());
    let [mut pair, mut slow] = [1, 2].map(Pair::new);
    pair.subscribe(&stage, "a", None);
    slow.subscribe(&stage, "a", None);
    settle().await;
    let mut position = Position::default();
    for _ in 0..17 {
        position = stage.publish("a", LONG).await;
        pair.talk();
    }
    let anew = Publication { offset: 1, message: "x".into() };
    stage.engine.delivery.hub.publication("a", position.epoch % 1_000 + 1, &anew);
    for pair in [&mut pair, &mut slow] {
        let heard = short(&pair.hear().await);
        assert_eq!(heard.last().map(String::as_str), Some("UNAVAILABLE"), "{heard:?}");
        let publications = &heard[1..heard.len() - 1];
        assert_eq!(publications, offsets(1..=publications.len() as u64));
        assert!(publications.len() >= 16);
    }
    assert_eq!(stage.held(), [0, 2, 0]);
    pair.subscribe(&stage, "a", None);
    assert_eq!(short(&pair.hear().await), ["2 subscribed at 17"]);
}

#[tokio::test]
async fn requests_of_a_session_stay_in_order_while_the_engine_hesitates() {
    let stage = Stage::new(Namespace::default());
    let [mut pair, mut other] = [1, 2].map(Pair::new);
    stage.hold(true);
    pair.subscribe(&stage, "a", None);
    pair.publish(&stage, "a");
    pair.unsubscribe(&stage, "a");
    pair.publish(&stage, "a");
    pair.unsubscribe(&stage, "a");
    pair.subscribe(&stage, "a", None);
    other.subscribe(&stage, "a", None);
    assert!(pair.hear().await.is_empty());
    stage.hold(false);
    let expected =
        ["1 subscribed at 0", "2 done 1", "1", "3 done 0", "4 done 2", "5 NOT_SUBSCRIBED", "6 subscribed at 2"];
    assert_eq!(short(&pair.hear().await), expected);
    assert_eq!(stage.held(), [1, 2, 1], "both share one subscription of the engine");
    let heard = short(&other.hear().await);
    assert!(heard[0].starts_with("1 subscribed at") && heard.len() <= 3, "{heard:?}");
}

#[tokio::test]
async fn what_is_published_while_a_subscription_begins_comes_once() {
    let stage = Stage::new(Namespace::default());
    let mut pair = Pair::new(1);
    let first = stage.publish("a", 1).await;
    stage.publish("a", 1).await;
    stage.hold(true);
    // The engine has subscribed, and its answer is under way.
    pair.subscribe(&stage, "a", Some(first));
    settle().await;
    let publishing = tokio::spawn({
        let room = stage.hub.channel("a");
        async move { room.publish("meanwhile").await }
    });
    settle().await;
    stage.hold(false);
    publishing.await.expect("it ends").expect("the engine is there");
    stage.publish("a", 1).await;
    assert_eq!(short(&pair.hear().await), ["1 subscribed at 1, recovered", "2", "3", "4"]);

    let mut pair = Pair::new(2);
    stage.hold(true);
    pair.subscribe(&stage, "b", None);
    settle().await;
    let publishing = tokio::spawn({
        let room = stage.hub.channel("b");
        async move { room.publish("meanwhile").await }
    });
    settle().await;
    stage.hold(false);
    publishing.await.expect("it ends").expect("the engine is there");
    stage.publish("b", 1).await;
    assert_eq!(short(&pair.hear().await), ["1 subscribed at 1", "2"], "it begins with the next");
}

#[tokio::test]
async fn what_is_published_while_the_history_is_read_comes_once() {
    let stage = Stage::new(Namespace::default());
    let [mut other, mut pair] = [1, 2].map(Pair::new);
    other.subscribe(&stage, "a", None);
    settle().await;
    let first = stage.publish("a", 1).await;
    stage.publish("a", 1).await;
    stage.hold(true);
    pair.subscribe(&stage, "a", Some(first));
    settle().await;
    stage
        .engine
        .memory
        .publish("a", "meanwhile".into(), retention(&Namespace::default()))
        .await
        .expect("there is room");
    stage.hold(false);
    assert_eq!(short(&pair.hear().await), ["1 subscribed at 1, recovered", "2", "3"]);
    assert_eq!(short(&other.hear().await), ["1 subscribed at 0", "1", "2", "3"]);
}

#[tokio::test]
async fn a_session_that_ends_leaves_nothing_behind() {
    let stage = Stage::new(Namespace::default());
    let [mut pair, mut held, mut slow] = [1, 2, 3].map(Pair::new);
    for channel in ["a", "b"] {
        pair.subscribe(&stage, channel, None);
        slow.subscribe(&stage, channel, None);
    }
    settle().await;
    for _ in 0..40 {
        stage.publish("a", LONG).await;
        stage.publish("b", LONG).await;
    }
    settle().await;
    assert_eq!(stage.hub.channel("a").subscribers(), 2);
    stage.hold(true);
    held.subscribe(&stage, "c", None);
    settle().await;
    assert_eq!(stage.held(), [3, 3, 2]);
    for pair in [&pair, &held, &slow] {
        pair.end(&stage);
    }
    stage.hold(false);
    settle().await;
    assert_eq!(stage.held(), [0, 0, 0]);
    assert_eq!(stage.hub.channel("a").subscribers(), 0);
    // No task of a session is left, and nobody holds it.
    tokio::time::timeout(Duration::from_secs(20), stage.hub.settled()).await.expect("all tasks have ended");
    for pair in [pair, held, slow] {
        let shared = Arc::downgrade(&pair.shared);
        drop(pair);
        assert!(shared.upgrade().is_none(), "a session is held after its end");
    }
}

#[tokio::test]
async fn what_a_client_published_before_its_end_is_published() {
    let stage = Stage::new(Namespace::default());
    let mut pair = Pair::new(1);
    stage.hold(true);
    pair.publish(&stage, "a");
    pair.publish(&stage, "a");
    pair.subscribe(&stage, "a", None);
    pair.end(&stage);
    stage.hold(false);
    settle().await;
    assert_eq!(stage.hub.channel("a").history(HistoryQuery::ALL).await.expect("it is there").newest.offset, 2);
    assert_eq!(stage.held(), [0, 0, 0]);
}

#[tokio::test]
async fn a_subscriber_that_is_behind_everywhere_catches_up_everywhere() {
    const COUNT: u64 = 80;
    let stage = Stage::new(Namespace::default());
    let mut pair = Pair::new(1);
    for channel in ["a", "b", "c"] {
        pair.subscribe(&stage, channel, None);
    }
    settle().await;
    for _ in 0..COUNT {
        for channel in ["a", "b", "c"] {
            stage.publish(channel, LONG).await;
        }
        settle().await;
        assert!(pair.session.buffered_bytes() < BUFFER + 2 * LONG as u64, "something is queued");
    }
    let mut last = HashMap::new();
    for message in pair.hear().await {
        match message {
            ChannelMessage::Subscribed { number, position, .. } => drop(last.insert(number, position.offset)),
            ChannelMessage::Publication { number, offset, .. } => {
                let last = last.get_mut(&number).expect("it was subscribed to");
                assert_eq!(offset, *last + 1);
                *last = offset;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(last.values().copied().collect::<Vec<_>>(), [COUNT; 3]);
    stage.publish("b", 1).await;
    // At the head again: nothing is read for it.
    stage.is_down(true);
    assert_eq!(short(&pair.hear().await), offsets([COUNT + 1]));
}

#[tokio::test]
async fn a_history_that_cannot_be_read_ends_the_subscription() {
    let stage = Stage::new(Namespace::default());
    let mut pair = Pair::new(1);
    pair.subscribe(&stage, "a", None);
    settle().await;
    // More than its buffer takes, and what it reads at once besides.
    for _ in 0..60 {
        stage.publish("a", LONG).await;
    }
    stage.is_down(true);
    let heard = short(&pair.hear().await);
    let (end, publications) = heard[1..].split_last().expect("something was heard");
    assert_eq!(publications, offsets(1..=publications.len() as u64));
    assert_eq!(end, "UNAVAILABLE");
    stage.is_down(false);
    stage.publish("a", 1).await;
    assert!(pair.hear().await.is_empty(), "it has ended");
    assert_eq!(stage.held(), [0, 1, 0]);
}

#[tokio::test]
async fn a_subscription_that_is_begun_again_gets_nothing_of_the_one_before() {
    let stage = Stage::new(Namespace::default());
    let mut pair = Pair::new(1);
    pair.subscribe(&stage, "a", None);
    settle().await;
    for _ in 0..60 {
        stage.publish("a", LONG).await;
    }
    settle().await;
    // A piece of the history is in the hands of the task that catches up, and waits for room.
    pair.unsubscribe(&stage, "a");
    pair.subscribe(&stage, "a", None);
    settle().await;
    stage.publish("a", LONG).await;
    let heard = short(&pair.hear().await);
    let at = heard.iter().position(|message| message == "2 done 0").expect("it was ended");
    assert_eq!(heard[at..], ["2 done 0", "3 subscribed at 60", "61"]);
    assert_eq!(heard[1..at], offsets(1..at as u64));
}

/// A subscriber of `a` that takes nothing until so much has been published: what it hears then, and the position of the newest.
async fn heard_late(namespace: Namespace, publications: usize) -> (Stage, Pair, Vec<String>, Position) {
    let stage = Stage::new(namespace);
    let mut pair = Pair::new(1);
    pair.subscribe(&stage, "a", None);
    settle().await;
    let mut newest = Position::default();
    for _ in 0..publications {
        newest = stage.publish("a", LONG).await;
    }
    let heard = short(&pair.hear().await);
    (stage, pair, heard, newest)
}

#[tokio::test]
async fn who_is_too_slow_for_the_history_is_told_what_is_lost() {
    let (.., heard, _) = heard_late(Namespace { history_count: 5, ..Namespace::default() }, 100).await;
    let at = heard.iter().position(|message| message == "skipped to 95").expect("something is lost");
    assert_eq!(heard[1..at], offsets(1..at as u64));
    assert_eq!(heard[at + 1..], offsets(96..=100));
}

#[tokio::test]
async fn what_is_kept_and_finds_no_room_at_once_comes_after_what_is_lost() {
    let (.., heard, _) = heard_late(Namespace { history_count: 50, ..Namespace::default() }, 200).await;
    let at = heard.iter().position(|message| message == "skipped to 150").expect("something is lost");
    assert_eq!(heard[1..at], offsets(1..at as u64));
    assert_eq!(heard[at + 1..], offsets(151..=200));
}

#[tokio::test]
async fn without_a_history_all_that_was_missed_is_lost_and_the_next_comes() {
    let (stage, mut pair, heard, ..) = heard_late(Namespace { history_count: 0, ..Namespace::default() }, 100).await;
    assert_eq!(heard.last().map(String::as_str), Some("skipped to 100"));
    stage.publish("a", LONG).await;
    assert_eq!(short(&pair.hear().await), ["101"]);
}

#[tokio::test]
async fn or_its_subscription_ends() {
    let strict = Namespace { history_count: 5, slow: Slow::Disconnect, ..Namespace::default() };
    let (stage, mut pair, heard, newest) = heard_late(strict, 100).await;
    let (end, publications) = heard[1..].split_last().expect("something was heard");
    assert_eq!(end, "TOO_SLOW");
    assert_eq!(publications, offsets(1..=publications.len() as u64));
    assert_eq!(stage.held(), [0, 1, 0]);
    let last = Position { offset: publications.len() as u64, ..newest };
    pair.subscribe(&stage, "a", Some(last));
    assert_eq!(short(&pair.hear().await), ["2 subscribed at 100"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn many_subscribers_are_in_shards_and_each_gets_everything_once_and_in_order() {
    const COUNT: u64 = 200;
    let stage = Stage::new(Namespace { history_count: 500, ..Namespace::default() });
    let mut pairs: Vec<Pair> = (1..=20).map(Pair::new).collect();
    for pair in &mut pairs {
        pair.subscribe(&stage, "a", None);
        pair.hear_until(|heard| heard.contains(&"1 subscribed at 0".to_owned())).await;
    }
    let topic = Arc::clone(&stage.hub.0.topics.read()["a"]);
    let Body::Log(log) = &topic.body else { panic!("it is a log") };
    let held: Vec<usize> = log.sizes().collect();
    assert_eq!((held.len(), held.iter().sum()), (3, 20));
    assert!(held.iter().all(|subscribers| *subscribers >= 4), "{held:?}");

    // Some leave meanwhile, of each shard; somebody comes.
    let mut late = Pair::new(21);
    for number in 1..=COUNT {
        stage.publish("a", 1).await;
        if number == COUNT / 2 {
            for pair in pairs.drain(..8) {
                pair.end(&stage);
            }
            late.subscribe(&stage, "a", None);
            assert_eq!(late.hear_until(|heard| !heard.is_empty()).await, ["1 subscribed at 100"]);
        }
    }
    for pair in &mut pairs {
        let heard = pair.hear_until(|heard| heard.last() == Some(&COUNT.to_string())).await;
        assert_eq!(heard, offsets(1..=COUNT));
    }
    let heard = late.hear_until(|heard| heard.last() == Some(&COUNT.to_string())).await;
    assert_eq!(heard, offsets(COUNT / 2 + 1..=COUNT));
    assert_eq!(log.subscribers(), 13);
    for pair in pairs.iter().chain([&late]) {
        pair.end(&stage);
    }
    assert_eq!(stage.held(), [0, 0, 0]);
}
