//! Channels of state as event streams.

use serde_json::{Value, json};

use crate::common::{Running, start};
use crate::config;
use crate::plain::{Events, VERSIONS, get};

async fn value(events: &mut Events) -> Value {
    serde_json::from_str(&events.data("value").await).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_values_come_first_and_then_what_changes() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    for version in VERSIONS {
        let name = format!("state:{version:?}");
        let channel = server.hub().channel(&*name);
        channel.set("a", "1").await.unwrap();
        channel.set("b", vec![0, 255]).await.unwrap();
        channel.set("a", "2").await.unwrap();
        let mut events = get(place, version, &format!("/channels/{name}/events")).await.events();
        events.data("snapshot").await;
        assert_eq!(value(&mut events).await, json!({ "key": "b", "offset": 2, "base64": "AP8=" }));
        assert_eq!(value(&mut events).await, json!({ "key": "a", "offset": 3, "text": "2" }));
        let settled = events.next().await.unwrap();
        assert_eq!((&*settled.kind, settled.id.split_once('-').unwrap().1), ("settled", "3"));
        channel.remove("b").await.unwrap();
        assert_eq!(value(&mut events).await, json!({ "key": "b", "offset": 4, "removed": true }));
        channel.set("a", "3").await.unwrap();
        assert_eq!(value(&mut events).await, json!({ "key": "a", "offset": 5, "text": "3" }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_fewer_values_and_ends_on_the_last() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    for version in VERSIONS {
        let name = format!("state:{version:?}");
        let channel = server.hub().channel(&*name);
        let mut events = get(place, version, &format!("/channels/{name}/events")).await.events();
        events.data("snapshot").await;
        let long = "x".repeat(30_000);
        for number in 0..300 {
            for key in ["a", "b"] {
                channel.set(key, format!("{number} {long}")).await.unwrap();
            }
        }
        let (mut count, mut newest) = (0, [0; 2]);
        while newest != [299; 2] {
            let said = events.next().await.unwrap();
            if said.kind == "value" {
                let said: Value = serde_json::from_str(&said.data).unwrap();
                let number: u64 = said["text"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
                newest[usize::from(said["key"] == "b")] = number;
                count += 1;
            }
        }
        assert!(count < 600, "{version:?}: {count} values");
    }
}
