//! What clients ask for beside subscriptions, and what the server does to them by itself.

use super::*;
use crate::config::Kind;

fn history(pair: &mut Pair, stage: &Stage, after: Option<Position>, newest: bool, limit: u64) -> u64 {
    pair.ask(stage, |request| ChannelMessage::History { request, channel: "a".into(), after, newest, limit })
}

fn set(pair: &mut Pair, stage: &Stage, key: &str, data: Option<Message>) -> u64 {
    let key = key.into();
    pair.ask(stage, |request| ChannelMessage::Set { request, channel: "a".into(), key, data })
}

#[tokio::test]
async fn a_history_is_given_in_pages() {
    let stage = Stage::new(Namespace { history_count: 2_000, history_bytes: 1 << 24, ..Namespace::default() });
    let mut pair = Pair::new(1);
    history(&mut pair, &stage, None, false, 5);
    assert_eq!(pair.hears().await, ["1 [] of 0"], "nothing is known");
    let mut newest = Position::default();
    for _ in 0..8 {
        newest = stage.publish("a", 1).await;
    }
    let at = |offset| Some(Position { offset, ..newest });
    for (after, last, limit, expected) in [
        (None, false, 3, "[1, 2, 3] of 8, more"),
        (None, true, 3, "[6, 7, 8] of 8, not complete"),
        (at(6), false, 3, "[7, 8] of 8"),
        (at(4), true, 3, "[6, 7, 8] of 8, not complete"),
        (at(5), true, 3, "[6, 7, 8] of 8"),
        (at(8), false, 3, "[] of 8"),
        (at(9), false, 3, "[] of 8, not complete"),
        (Some(Position { epoch: newest.epoch ^ 1, offset: 1 }), true, 3, "[] of 8, not complete"),
    ] {
        let request = history(&mut pair, &stage, after, last, limit);
        assert_eq!(pair.hears().await, [format!("{request} {expected}")], "after {after:?}, {last}, {limit}");
    }
}

#[tokio::test]
async fn a_page_has_its_limits() {
    let stage = Stage::new(Namespace { history_count: 2_000, history_bytes: 1 << 24, ..Namespace::default() });
    let mut pair = Pair::new(1);
    for _ in 0..1_001 {
        stage.publish("a", 1).await;
    }
    let mut page = async |newest, limit| {
        history(&mut pair, &stage, None, newest, limit);
        let heard = pair.hear().await;
        let [ChannelMessage::Page { complete, more, publications, .. }] = &heard[..] else { panic!("{heard:?}") };
        (publications.len(), publications[0].0, *complete, *more, heard[0].encode().len())
    };
    for limit in [1_000, 1_001, u64::MAX >> 11] {
        assert_eq!(page(false, limit).await.0, 1_000, "{limit}");
    }
    assert_eq!(page(false, 999).await.0, 999);
    // By its bytes, with what is around each publication.
    for _ in 0..200 {
        stage.publish("a", 1_000).await;
    }
    let (count, first, complete, more, len) = page(true, 1_000).await;
    assert_eq!((first, complete, more), (1_202 - count as u64, false, false));
    assert!((64_000..65_536).contains(&len), "{len} bytes");
    stage.publish("a", 65_536).await;
    let (count, first, .., len) = page(true, 1_000).await;
    assert_eq!((count, first), (1, 1_202), "one at least");
    assert!(len > 65_536);
}

#[tokio::test]
async fn a_page_waits_for_room_and_what_was_asked_after_it_too() {
    let stage = Stage::new(Namespace::default());
    let mut pair = Pair::new(1);
    for _ in 0..5 {
        stage.publish("a", 10_000).await;
    }
    for _ in 0..10 {
        history(&mut pair, &stage, None, false, 5);
    }
    settle().await;
    assert!(pair.session.buffered_bytes() < BUFFER + 65_536, "{} bytes", pair.session.buffered_bytes());
    let heard = pair.hears().await;
    let expected: Vec<_> = (1..=10).map(|request| format!("{request} [1, 2, 3, 4, 5] of 5")).collect();
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn a_kind_of_channel_takes_what_is_its_own() {
    let stage = Stage::new(Namespace::default());
    let mut pair = Pair::new(1);
    set(&mut pair, &stage, "x", Some("1".into()));
    pair.publish(&stage, "a");
    assert_eq!(pair.hears().await, ["1 WRONG_KIND", "2 done 1"]);
    let log = stage.hub.channel("a");
    assert!(matches!(log.set("x", "1").await, Err(PublishError::WrongKind(_))));
    assert!(matches!(log.values().await, Err(HistoryError::WrongKind(_))));
    assert_eq!(log.kind(), Kind::Log);

    let stage = Stage::new(Namespace { kind: Kind::State, max_keys: 2, history_bytes: 2_000, ..Namespace::default() });
    let mut pair = Pair::new(1);
    pair.publish(&stage, "a");
    history(&mut pair, &stage, None, false, 1);
    for (key, data) in [("x", Some("1".into())), ("y", Some("".into())), ("z", Some("1".into())), ("x", None)] {
        set(&mut pair, &stage, key, data);
    }
    set(&mut pair, &stage, "z", Some(vec![0; 1_500].into()));
    set(&mut pair, &stage, "z", Some(vec![0; 65_537].into()));
    set(&mut pair, &stage, "gone", None);
    let expected = [
        "1 WRONG_KIND",
        "2 WRONG_KIND",
        "3 done 1",
        "4 done 2",
        "5 TOO_MANY_KEYS",
        "6 done 3",
        "7 TOO_LARGE",
        "8 TOO_LARGE",
        "9 done 3",
    ];
    assert_eq!(pair.hears().await, expected);
    let state = stage.hub.channel("a");
    assert!(matches!(state.publish("1").await, Err(PublishError::WrongKind(_))));
    assert!(matches!(state.history(HistoryQuery::ALL).await, Err(HistoryError::WrongKind(_))));
    assert_eq!(state.set(&"x".repeat(256), "1").await, Err(PublishError::BadKey(256)));
    state.set(&"x".repeat(255), "1").await.expect("as long as a key may be");
    let values = state.values().await.expect("the engine is there").values;
    assert_eq!(values.iter().map(|value| value.key.len()).collect::<Vec<_>>(), [1, 255]);
}

#[tokio::test]
async fn who_publishes_too_fast_is_told() {
    let stage = Stage::with(Namespace::default(), |config| {
        (config.publishes_per_second, config.publish_burst) = (1, 3);
        None
    });
    let (mut pair, mut other) = (Pair::new(1), Pair::new(2));
    for _ in 0..4 {
        pair.publish(&stage, "a");
    }
    pair.subscribe(&stage, "a", None);
    other.publish(&stage, "a");
    assert_eq!(other.hears().await, ["1 done 4"], "others do not pay for it");
    let mut heard = pair.hears().await;
    heard.sort_unstable();
    assert_eq!(heard, ["1 done 1", "2 done 2", "3 done 3", "4", "4 TOO_FAST", "5 subscribed at 3"]);
    assert_eq!(stage.hub.stats().too_fast, 1);
}

#[tokio::test]
async fn the_servers_own_names_are_not_written() {
    let stage = Stage::new(Namespace { presence: true, ..Namespace::default() });
    let mut pair = Pair::new(1);
    for name in ["$presence:a", "$", "$a"] {
        let publish = pair.publish(&stage, name);
        assert_eq!(pair.hears().await, [format!("{publish} NOT_ALLOWED")], "{name}");
        let channel = stage.hub.channel(name);
        assert_eq!(channel.publish("x").await, Err(PublishError::Reserved));
        assert_eq!(channel.set("x", "x").await, Err(PublishError::Reserved));
        assert_eq!(channel.remove("x").await, Err(PublishError::Reserved));
    }
}

// ---- by the server ----

#[tokio::test]
async fn the_server_subscribes_and_unsubscribes() {
    let stage = Stage::new(Namespace { subscribe: false, ..Namespace::default() });
    let mut pair = Pair::new(1);
    stage.publish("a", 1).await;
    let room = stage.hub.channel("a");
    room.subscribe(&pair.session).await.expect("there is room");
    room.subscribe(&pair.session).await.expect("it is subscribed");
    stage.publish("a", 1).await;
    assert_eq!(pair.hears().await, ["added to a at 1", "2"]);
    pair.subscribe(&stage, "a", None);
    assert_eq!(pair.hears().await, ["1 ALREADY_SUBSCRIBED"]);
    room.unsubscribe(&pair.session, "that was it");
    let heard = pair.hear().await;
    let expected = ChannelMessage::unsubscribed(1, ChannelCode::Normal, "that was it");
    assert_eq!(heard, [expected]);
    stage.publish("a", 1).await;
    assert!(pair.hear().await.is_empty());
    room.unsubscribe(&pair.session, "nothing to end");
    assert!(pair.hear().await.is_empty());
    assert_eq!(stage.held(), [0, 1, 0]);
    assert_eq!(stage.hub.channel("\n").subscribe(&pair.session).await, Err(SubscribeError::BadChannel));
    pair.end(&stage);
    assert_eq!(stage.held(), [0, 0, 0]);
}

#[tokio::test]
async fn who_has_asked_is_not_added_as_well() {
    let stage = Stage::new(Namespace::default());
    let mut pair = Pair::new(1);
    let session = pair.session.clone();
    stage.hold(true);
    pair.subscribe(&stage, "a", None);
    let room = stage.hub.channel("a");
    let mut adding = std::pin::pin!(room.subscribe(&session));
    assert!(adding.as_mut().now_or_never().is_none(), "it comes after what was asked for");
    stage.hold(false);
    adding.await.expect("it is subscribed");
    assert_eq!(pair.hears().await, ["1 subscribed at 0"]);
}

#[tokio::test]
async fn adding_waits_for_room_and_has_its_limits() {
    let stage = Stage::with(Namespace::default(), |config| {
        config.max_subscriptions = 2;
        None
    });
    let mut pair = Pair::new(1);
    let session = pair.session.clone();
    session.try_send(vec![0; BUFFER as usize]).expect("there is room");
    let [a, b, c] = ["a", "b", "c"].map(|name| stage.hub.channel(name));
    let mut adding = std::pin::pin!(a.subscribe(&session));
    assert!(adding.as_mut().now_or_never().is_none());
    settle().await;
    assert!(adding.as_mut().now_or_never().is_none());
    pair.talk();
    adding.await.expect("there is room");
    b.subscribe(&pair.session).await.expect("the second");
    assert_eq!(c.subscribe(&pair.session).await, Err(SubscribeError::TooMany));
    assert_eq!(pair.hears().await, ["added to a at 0", "added to b at 0"]);
    stage.is_down(true);
    a.unsubscribe(&pair.session, "");
    pair.hear().await;
    assert!(matches!(c.subscribe(&pair.session).await, Err(SubscribeError::Unavailable(_))));
}

#[tokio::test]
async fn a_session_that_has_ended_is_not_added() {
    let stage = Stage::new(Namespace::default());
    let pair = Pair::new(1);
    pair.shared.cut("the server is gone");
    let room = stage.hub.channel("a");
    assert_eq!(room.subscribe(&pair.session).await, Err(SubscribeError::Ended));
    assert_eq!(stage.held(), [0, 0, 0]);
}

#[tokio::test]
async fn subscriptions_that_are_not_allowed_any_more_end() {
    let allowed = Arc::new(AtomicBool::new(true));
    let is_allowed = Arc::clone(&allowed);
    let stage = Stage::with(Namespace::default(), move |_| {
        Some(Box::new(move |_: &Identity, action: Action<'_>| match action {
            Action::Subscribe { channel: "b" } => Ok(()),
            _ if is_allowed.load(Ordering::SeqCst) => Ok(()),
            _ => Err(Denied::new("not any more")),
        }))
    });
    let mut pair = Pair::new(1);
    for name in ["a", "b"] {
        pair.subscribe(&stage, name, None);
    }
    pair.hear().await;
    stage.hub.refreshed(&pair.session);
    assert!(pair.hear().await.is_empty());
    // Also what is under way when the rights change.
    stage.hold(true);
    pair.subscribe(&stage, "c", None);
    allowed.store(false, Ordering::SeqCst);
    stage.hub.refreshed(&pair.session);
    stage.hold(false);
    let heard = pair.hear().await;
    assert_eq!(short(&heard), ["3 subscribed at 0", "NOT_ALLOWED", "NOT_ALLOWED"]);
    let ChannelMessage::Unsubscribed { reason, .. } = &heard[2] else { panic!("{heard:?}") };
    assert_eq!(reason, "not any more");
    stage.publish("b", 1).await;
    assert_eq!(pair.hears().await, ["1"]);
}
