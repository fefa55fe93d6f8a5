//! What back ends do with channels.

use serde_json::json;
use throughline::Message;

use crate::common::{Running, start};
use crate::plain::{VERSIONS, Version};
use crate::{call, call_once, config, done, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_stands_in_the_history() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    for version in VERSIONS {
        let channel = format!("room:{version:?}");
        let first = done(place, version, "publish", json!({ "channel": channel, "text": "one" })).await;
        let epoch = first["epoch"].as_u64().unwrap();
        assert_eq!(first, json!({ "epoch": epoch, "offset": 1 }));
        done(place, version, "publish", json!({ "channel": channel, "base64": "AP8=" })).await;
        done(place, version, "publish", json!({ "channel": channel, "text": "" })).await;
        let history = done(place, version, "history", json!({ "channel": channel, "limit": 2 })).await;
        let publications = json!([{ "offset": 1, "text": "one" }, { "offset": 2, "base64": "AP8=" }]);
        let next = format!("{epoch}-2");
        assert_eq!(
            history,
            json!({ "epoch": epoch, "offset": 3, "complete": true, "publications": publications, "next": next })
        );
        let rest = done(place, version, "history", json!({ "channel": channel, "since": next })).await;
        assert_eq!(rest["publications"], json!([{ "offset": 3, "text": "" }]));
        let lost = done(place, version, "history", json!({ "channel": channel, "since": "7-1" })).await;
        assert_eq!((&lost["complete"], lost["publications"].as_array().unwrap().len()), (&json!(false), 3));
        let nothing = done(place, version, "history", json!({ "channel": format!("{channel}/") })).await;
        assert_eq!(nothing["next"], "0-0");
        assert_eq!(server.hub().channel(&*channel).publish("x").await.unwrap().offset, 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_reaches_many_and_says_what_became_of_each() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let channels: Vec<_> = (0..1_000).map(|number| format!("room:{number}")).collect();
    let answer = done(place, Version::Http1, "broadcast", json!({ "channels": channels, "text": "all" })).await;
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 1_000);
    for (result, channel) in results.iter().zip(&channels) {
        assert_eq!((&result["channel"], &result["offset"]), (&json!(channel), &json!(1)));
        assert!(result.get("problem").is_none());
    }
    assert_eq!(server.hub().channel("room:999").publish(Message::from("x")).await.unwrap().offset, 2);
    let too_long = "x".repeat(65_537);
    let answer = done(place, Version::Http1, "broadcast", json!({ "channels": ["a"], "text": too_long })).await;
    assert_eq!(answer["results"][0]["problem"]["name"], "TOO_LARGE");
    let channels: Vec<_> = (0..1_001).map(|number| number.to_string()).collect();
    let answer = call(place, Version::Http1, "broadcast", json!({ "channels": channels, "text": "x" })).await;
    assert_eq!(refused(answer).await, (422, "INVALID".into(), Some("channels".into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_publishes_once() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let body = json!({ "channel": "room:1", "text": "once" });
    let first = call_once(place, "publish", "k", &body).await.json().await;
    for _ in 0..3 {
        assert_eq!(call_once(place, "publish", "k", &body).await.json().await, first);
    }
    let stated = json!({ "channel": "room:1", "text": "once", "idempotency_key": "k" });
    assert_eq!(done(place, Version::Http2, "publish", stated).await, first, "in the header or in the body");
    let other = json!({ "channel": "room:1", "text": "twice" });
    let reused = (422, "IDEMPOTENCY_KEY_REUSED".into(), None);
    assert_eq!(refused(call_once(place, "publish", "k", &other).await).await, reused);
    let broadcast = json!({ "channels": ["room:1"], "text": "once" });
    assert_eq!(refused(call_once(place, "broadcast", "k", &broadcast).await).await, reused);
    let both = json!({ "channel": "room:1", "text": "once", "idempotency_key": "l" });
    let differs = (422, "INVALID".into(), Some("idempotency_key".into()));
    assert_eq!(refused(call_once(place, "publish", "k", &both).await).await, differs);
    let at_once = (0..20).map(|_| call_once(place, "publish", "at once", &body));
    let mut answers = Vec::new();
    for answer in futures_util::future::join_all(at_once).await {
        answers.push(answer.json().await);
    }
    assert!(answers.iter().all(|answer| answer["offset"] == 2), "{answers:?}");
    assert_eq!(server.hub().channel("room:1").publish("x").await.unwrap().offset, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_not_remembered_as_an_answer() {
    let mut config = config();
    config.channels.max_channels = 1;
    let Running { server, place, .. } = &start(config, |builder| builder).await;
    let events = crate::plain::get(place, Version::Http1, "/channels/room:1/events").await;
    let body = json!({ "channel": "room:2", "text": "x" });
    let answer = call_once(place, "publish", "k", &body).await;
    assert_eq!(answer.headers["retry-after"], "5");
    assert_eq!(refused(answer).await, (503, "TOO_MANY_CHANNELS".into(), None));
    drop(events);
    let channel = server.hub().channel("room:3");
    let free = async {
        while channel.publish("x").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    crate::common::within("room", free).await;
    assert_eq!(call_once(place, "publish", "k", &body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_set_and_removed() {
    let Running { place, .. } = &start(config(), |builder| builder).await;
    for version in VERSIONS {
        let channel = format!("cursors:{version:?}");
        let set = |key: &str, text: &str| json!({ "channel": channel, "key": key, "text": text });
        let epoch = done(place, version, "set", set("a", "1")).await["epoch"].as_u64().unwrap();
        done(place, version, "set", json!({ "channel": channel, "key": "", "base64": "AP8=" })).await;
        assert_eq!(done(place, version, "set", set("a", "2")).await, json!({ "epoch": epoch, "offset": 3 }));
        let values = json!([{ "key": "", "offset": 2, "base64": "AP8=" }, { "key": "a", "offset": 3, "text": "2" }]);
        let expected = json!({ "epoch": epoch, "offset": 3, "values": values });
        assert_eq!(done(place, version, "values", json!({ "channel": channel })).await, expected);
        let full = call(place, version, "set", set("c", "3")).await;
        assert_eq!(refused(full).await, (409, "TOO_MANY_KEYS".into(), None));
        done(place, version, "remove", json!({ "channel": channel, "key": "" })).await;
        let left = done(place, version, "values", json!({ "channel": channel })).await;
        assert_eq!(left["values"], json!([{ "key": "a", "offset": 3, "text": "2" }]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_channel_is_decides_what_can_be_done_with_it() {
    let Running { place, .. } = &start(config(), |builder| builder).await;
    for (command, body) in [
        ("publish", json!({ "channel": "cursors:1", "text": "x" })),
        ("history", json!({ "channel": "cursors:1" })),
        ("set", json!({ "channel": "room:1", "key": "a", "text": "x" })),
        ("remove", json!({ "channel": "room:1", "key": "a" })),
        ("values", json!({ "channel": "room:1" })),
    ] {
        let answer = call(place, Version::Http1, command, body).await;
        assert_eq!(refused(answer).await, (409, "WRONG_KIND".into(), None), "{command}");
    }
    let answer = call(place, Version::Http1, "presence", json!({ "channel": "room:1" })).await;
    assert_eq!(refused(answer).await, (409, "NO_PRESENCE".into(), None));
    for (command, body) in [
        ("publish", json!({ "channel": "$presence:room:1", "text": "x" })),
        ("set", json!({ "channel": "$presence:room:1", "key": "a", "text": "x" })),
    ] {
        let answer = call(place, Version::Http1, command, body).await;
        assert_eq!(refused(answer).await, (403, "RESERVED".into(), None));
    }
    let body = json!({ "channel": "cursors:1", "key": "k".repeat(256), "text": "x" });
    assert_eq!(
        refused(call(place, Version::Http1, "set", body).await).await,
        (422, "INVALID".into(), Some("key".into()))
    );
}
