//! Several things at once.

use serde_json::json;

use crate::common::{Running, start};
use crate::plain::{VERSIONS, Version};
use crate::{call, call_once, config, done, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_has_its_own_result_in_order() {
    let Running { place, .. } = &start(config(), |builder| builder).await;
    for version in VERSIONS {
        let channel = format!("room:{version:?}");
        let commands = json!({ "commands": [
            { "publish": { "channel": channel, "text": "one" } },
            { "publish": { "channel": channel, "text": "x".repeat(65_537) } },
            { "set": { "channel": channel, "key": "k", "text": "v" } },
            { "publish": { "channel": channel, "text": "two" } },
            { "history": { "channel": channel } },
            { "info": {} },
        ]});
        let answer = done(place, version, "batch", commands).await;
        let results = answer["results"].as_array().unwrap();
        let statuses: Vec<_> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
        assert_eq!(statuses, [200, 413, 409, 200, 200, 200]);
        assert_eq!(results[1]["problem"]["name"], "TOO_LARGE");
        assert_eq!(results[2]["problem"]["name"], "WRONG_KIND");
        assert_eq!(results[3]["answer"]["offset"], 2);
        assert_eq!(results[4]["answer"]["publications"][1], json!({ "offset": 2, "text": "two" }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_be_understood_stops_all_before_anything_is_done() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    for (second, at) in [
        (json!({ "publish": { "channel": "", "text": "x" } }), "commands[1].publish.channel"),
        (json!({ "publish": { "channel": "a", "txt": "x" } }), "commands[1].publish.txt"),
        (json!({ "publish": { "channel": "a" } }), "commands[1].publish.text"),
        (json!({ "set": { "channel": "a", "key": "k", "text": "x", "base64": "" } }), "commands[1].set.text"),
        (json!({ "broadcast": { "channels": ["a"], "base64": "?" } }), "commands[1].broadcast.base64"),
        (json!({ "unsubscribe": { "channel": "a" } }), "commands[1].unsubscribe.user"),
        (json!({ "forget": {} }), "commands[1]"),
        (json!({}), "commands[1]"),
        (json!({ "info": {}, "publish": {} }), "commands[1]"),
    ] {
        let first = json!({ "publish": { "channel": "room:1", "text": "x" } });
        let answer = call(place, Version::Http1, "batch", json!({ "commands": [first, second] })).await;
        let (status, name, found) = refused(answer).await;
        assert_eq!((status, &*name), (422, "INVALID"));
        assert!(found.as_ref().is_some_and(|found| found.starts_with(at)), "{found:?} instead of {at}");
    }
    for count in [0, 101] {
        let commands = vec![json!({ "info": {} }); count];
        let answer = call(place, Version::Http1, "batch", json!({ "commands": commands })).await;
        assert_eq!(refused(answer).await, (422, "INVALID".into(), Some("commands".into())));
    }
    assert_eq!(server.hub().channel("room:1").publish("x").await.unwrap().offset, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_sent_again_does_nothing_again() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let publish = |text: &str| json!({ "publish": { "channel": "room:1", "text": text } });
    let own = json!({ "publish": { "channel": "room:1", "text": "own", "idempotency_key": "own" } });
    let batch = json!({ "commands": [publish("a"), publish("a"), own.clone()] });
    let first = call_once(place, "batch", "k", &batch).await.json().await;
    assert_eq!(call_once(place, "batch", "k", &batch).await.json().await, first);
    assert_eq!(first["results"][1]["answer"]["offset"], 2);
    let other = json!({ "commands": [publish("a")] });
    assert_eq!(refused(call_once(place, "batch", "k", &other).await).await.1, "IDEMPOTENCY_KEY_REUSED");
    let again = done(place, Version::Http1, "batch", json!({ "commands": [own] })).await;
    assert_eq!(again["results"][0], first["results"][2]);
    assert_eq!(server.hub().channel("room:1").publish("x").await.unwrap().offset, 4);
}
