//! Who is subscribed.

use serde_json::json;

use super::*;
use crate::config::Kind;

fn kept() -> Namespace {
    Namespace { presence: true, ..Namespace::default() }
}

fn who(user: &str) -> Identity {
    Identity { info: json!({ "name": user.to_uppercase() }), ..Identity::user(user) }
}

fn subscribe(pair: &mut Pair, stage: &Stage, channel: &str, about: Option<&str>) {
    let (channel, about) = (channel.into(), about.map(Into::into));
    pair.ask(stage, |request| ChannelMessage::Subscribe { request, channel, position: None, about });
}

/// User, and what was said about him, of everybody in the channel `a`.
async fn members(stage: &Stage) -> Vec<(Option<String>, Option<String>)> {
    settle().await;
    let members = stage.hub.channel("a").presence().await.expect("it is kept");
    members.into_iter().map(|member| (member.user, member.about)).collect()
}

fn named(user: &str, about: Option<&str>) -> (Option<String>, Option<String>) {
    (Some(user.to_owned()), about.map(str::to_owned))
}

#[tokio::test]
async fn a_member_is_there_for_as_long_as_its_subscription() {
    let stage = Stage::new(kept());
    let (mut ann, mut bob) = (Pair::of(1, who("ann")), Pair::of(2, who("bob")));
    subscribe(&mut ann, &stage, "$presence:a", None);
    assert_eq!(ann.hears().await, ["1 subscribed at 0", "snapshot", "settled at 0"]);
    subscribe(&mut ann, &stage, "a", Some("here"));
    subscribe(&mut bob, &stage, "a", None);
    assert_eq!(members(&stage).await, [named("ann", Some("here")), named("bob", None)]);
    let members_now = stage.hub.channel("a").presence().await.expect("it is kept");
    assert_eq!(members_now[0].info, json!({ "name": "ANN" }));
    assert!(members_now[0].id != members_now[1].id && members_now[0].id != ann.session.id().to_string());
    ann.hear().await;
    let key = &members_now[1].id;
    assert_eq!(
        ann.states()[1],
        format!("{key}={} at 2", json!({ "user": "bob", "info": { "name": "BOB" }, "about": null }))
    );

    bob.unsubscribe(&stage, "a");
    assert_eq!(members(&stage).await, [named("ann", Some("here"))]);
    ann.hear().await;
    assert_eq!(ann.states(), [format!("{key}=removed at 3")]);
    subscribe(&mut bob, &stage, "a", None);
    let again = members(&stage).await;
    assert_eq!(again.len(), 2);
    bob.end(&stage);
    assert_eq!(members(&stage).await, [named("ann", Some("here"))]);
    stage.hub.channel("a").unsubscribe(&ann.session, "enough");
    ann.hear().await;
    assert_eq!(members(&stage).await, []);
    ann.end(&stage);
    assert_eq!(stage.held(), [0, 0, 0]);
}

#[tokio::test]
async fn nobody_sees_what_is_not_kept_or_not_allowed() {
    let stage = Stage::new(Namespace::default());
    let mut pair = Pair::new(1);
    subscribe(&mut pair, &stage, "$presence:a", None);
    assert_eq!(pair.hears().await, ["1 NOT_ALLOWED"]);
    assert_eq!(stage.hub.channel("a").presence().await, Err(HistoryError::NoPresence));

    let stage = Stage::with(kept(), |config| {
        config.namespaces.insert("closed".into(), Namespace { presence: true, ..Namespace::default() });
        config.namespaces.insert("x".into(), Namespace { subscribe: true, ..Namespace::default() });
        None
    });
    let mut pair = Pair::new(1);
    let long = "a".repeat(246);
    for (request, (name, expected)) in (1..).zip([
        ("a", "subscribed"),
        ("closed:a", "NOT_ALLOWED"),
        ("x:a", "NOT_ALLOWED"),
        ("$presence:a", "NOT_ALLOWED"),
        ("", "NOT_ALLOWED"),
        (&long, "BAD_CHANNEL"),
        (&long[1..], "subscribed"),
    ]) {
        subscribe(&mut pair, &stage, &format!("$presence:{name}"), None);
        let heard = pair.hears().await;
        assert!(heard[0].starts_with(&format!("{request} {expected}")), "{name}: {heard:?}");
    }
    // A name that is too long to be told of is a channel all the same.
    subscribe(&mut pair, &stage, &long, None);
    assert_eq!(pair.hears().await, ["8 subscribed at 0"]);
    assert_eq!(stage.hub.channel(long).presence().await, Err(HistoryError::NoPresence));
}

#[tokio::test]
async fn an_application_decides_who_may_see_it() {
    let stage = Stage::with(kept(), |_| {
        Some(Box::new(|who: &Identity, action: Action<'_>| match action {
            Action::Presence { channel: "a" } if who.user.as_deref() == Some("ann") => Ok(()),
            Action::Subscribe { channel: "a" } => Ok(()),
            _ => Err(Denied::new("no")),
        }))
    });
    let (mut ann, mut bob) = (Pair::of(1, who("ann")), Pair::of(2, who("bob")));
    subscribe(&mut ann, &stage, "$presence:a", None);
    subscribe(&mut bob, &stage, "$presence:a", None);
    assert_eq!((&*ann.hears().await[0], &*bob.hears().await[0]), ("1 subscribed at 0", "1 NOT_ALLOWED"));
}

#[tokio::test]
async fn the_list_is_cut_and_refuses_nobody() {
    let stage = Stage::new(Namespace { max_keys: 2, ..kept() });
    let mut pairs: Vec<_> = (1..=3).map(|id| Pair::of(id, who(&id.to_string()))).collect();
    for pair in &mut pairs {
        subscribe(pair, &stage, "a", None);
        assert_eq!(pair.hears().await, ["1 subscribed at 0"]);
    }
    assert_eq!(members(&stage).await, [named("1", None), named("2", None)]);
    pairs[0].end(&stage);
    pairs[2].end(&stage);
    assert_eq!(members(&stage).await, [named("2", None)]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_and_goes_while_the_engine_is_away_is_told_later() {
    let stage = Stage::new(kept());
    let mut pairs: Vec<_> = (1..=3).map(|id| Pair::of(id, who(&id.to_string()))).collect();
    subscribe(&mut pairs[0], &stage, "a", None);
    assert_eq!(members(&stage).await, [named("1", None)]);
    // The last look at the engine was a moment before.
    stage.hold(true);
    subscribe(&mut pairs[1], &stage, "a", None);
    subscribe(&mut pairs[2], &stage, "a", None);
    settle().await;
    stage.is_down(true);
    stage.hold(false);
    settle().await;
    pairs[0].end(&stage);
    pairs[2].end(&stage);
    settle().await;
    stage.is_down(false);
    tokio::time::sleep(Duration::from_secs(2)).await; // simulated
    assert_eq!(members(&stage).await, [named("2", None)]);
}

#[tokio::test]
async fn values_of_presence_do_not_age_while_somebody_is_there() {
    let stage = Stage::new(Namespace { history_age: Duration::from_secs(1), kind: Kind::State, ..kept() });
    let mut pair = Pair::of(1, who("ann"));
    subscribe(&mut pair, &stage, "a", None);
    assert_eq!(members(&stage).await.len(), 1);
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(100)).await; // simulated
    stage.set("a", "x", "makes the engine look for what is old").await;
    assert_eq!(members(&stage).await.len(), 1);
}

#[tokio::test]
async fn others_see_what_a_new_credential_says() {
    let stage = Stage::new(kept());
    let mut ann = Pair::of(1, who("ann"));
    subscribe(&mut ann, &stage, "a", Some("here"));
    assert_eq!(members(&stage).await, [named("ann", Some("here"))]);
    ann.shared.lock().credentials.identity = Arc::new(Identity { info: json!("new"), ..Identity::user("ann") });
    stage.hub.refreshed(&ann.session);
    settle().await;
    let members = stage.hub.channel("a").presence().await.expect("it is kept");
    assert_eq!((members.len(), &members[0].info, members[0].about.as_deref()), (1, &json!("new"), Some("here")));
}
