//! `GET /channels/{name}/poll`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use throughline::Message;

use crate::common::{Place, Running, start};
use crate::config;
use crate::plain::{VERSIONS, Version, get};

async fn poll(place: &Place, version: Version, rest: &str) -> Value {
    let answer = get(place, version, &format!("/channels/{rest}")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers["cache-control"].to_str().unwrap()),
        (200, "no-store"),
        "{rest}"
    );
    answer.json().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_is_read_page_by_page() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let room = server.hub().channel("room:1");
    for version in VERSIONS {
        let nothing = poll(place, version, &format!("room:{version:?}/poll").replace("/poll", "%2F/poll")).await;
        assert_eq!(nothing, json!({"epoch": 0, "offset": 0, "complete": true, "publications": [], "next": "0-0"}));
    }
    let epoch = room.publish("one\r\n").await.unwrap().epoch;
    room.publish(Message::from(vec![0, 255])).await.unwrap();
    room.publish("three").await.unwrap();
    for version in VERSIONS {
        for since in ["", "&since=0-0"] {
            let page = poll(place, version, &format!("room:1/poll?limit=2{since}")).await;
            let publications = json!([{"offset": 1, "text": "one\r\n"}, {"offset": 2, "base64": "AP8="}]);
            let next = format!("{epoch}-2");
            assert_eq!(
                page,
                json!({"epoch": epoch, "offset": 3, "complete": true, "publications": publications, "next": next})
            );
            let page = poll(place, version, &format!("room:1/poll?since={next}")).await;
            assert_eq!(page["publications"], json!([{"offset": 3, "text": "three"}]));
            let next = page["next"].as_str().unwrap();
            let page = poll(place, version, &format!("room:1/poll?since={next}")).await;
            assert_eq!((&page["publications"], page["next"].as_str()), (&json!([]), Some(next)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_waits_for_what_comes_and_no_longer_than_it_should() {
    let mut config = config();
    config.limits.poll_hold = Duration::from_millis(200);
    let Running { server, place, .. } = &start(config, |builder| builder).await;
    for version in VERSIONS {
        let name = format!("room:{version:?}");
        let room = server.hub().channel(&*name);
        let path = format!("{name}/poll?wait=10");
        // Held or not yet: either way it gets what is published.
        let (first, _) = tokio::join!(poll(place, version, &path), async { room.publish("one").await.unwrap() });
        assert_eq!(first["publications"], json!([{"offset": 1, "text": "one"}]));
        let since = first["next"].as_str().unwrap();
        let began = Instant::now();
        let nothing = poll(place, version, &format!("{path}&since={since}")).await;
        assert!(began.elapsed() >= Duration::from_millis(200), "it was held, for as long as the server allows");
        assert_eq!((&nothing["publications"], nothing["next"].as_str()), (&json!([]), Some(since)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_is_said() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let few = server.hub().channel("few:1");
    let mut epoch = 0;
    for text in ["1", "2", "3", "4"] {
        epoch = few.publish(text).await.unwrap().epoch;
    }
    for since in ["".to_owned(), format!("since={epoch}-1"), "since=7-4".into(), format!("since={epoch}-5&wait=9")] {
        let page = poll(place, Version::Http1, &format!("few:1/poll?{since}")).await;
        assert_eq!(page["complete"], false, "{since}");
        assert_eq!(page["publications"], json!([{"offset": 3, "text": "3"}, {"offset": 4, "text": "4"}]), "{since}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_one_after_the_other_miss_nothing() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let room = server.hub().channel("room:1");
    for version in VERSIONS {
        let mut next = poll(place, version, "room:1/poll?limit=1000").await["next"].as_str().unwrap().to_owned();
        let publish = async {
            for number in 0..200 {
                room.publish(number.to_string()).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let read = async {
            let mut texts = Vec::new();
            while texts.len() < 200 {
                let page = poll(place, version, &format!("room:1/poll?since={next}&wait=20&limit=70")).await;
                assert_eq!(page["complete"], true);
                let publications = page["publications"].as_array().unwrap();
                texts.extend(publications.iter().map(|one| one["text"].as_str().unwrap().to_owned()));
                page["next"].as_str().unwrap().clone_into(&mut next);
            }
            texts
        };
        let ((), texts) = tokio::join!(publish, read);
        assert_eq!(texts, (0..200).map(|number| number.to_string()).collect::<Vec<_>>(), "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_of_state_answers_with_all_that_it_holds_when_it_has_changed() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    for version in VERSIONS {
        let name = format!("state:{version:?}");
        let channel = server.hub().channel(&*name);
        let epoch = channel.set("a", "1").await.unwrap().epoch;
        channel.set("b", vec![0, 255]).await.unwrap();
        let (a, b) =
            (json!({"key": "a", "offset": 1, "text": "1"}), json!({"key": "b", "offset": 2, "base64": "AP8="}));
        let next = format!("{epoch}-2");
        let page = poll(place, version, &format!("{name}/poll?wait=10")).await;
        assert_eq!(page, json!({"epoch": epoch, "offset": 2, "values": [a, b], "next": next}));
        // Held or not yet: either way it gets what has changed.
        let path = format!("{name}/poll?wait=10&since={next}");
        let (page, _) = tokio::join!(poll(place, version, &path), channel.remove("b"));
        assert_eq!(page, json!({"epoch": epoch, "offset": 3, "values": [a], "next": format!("{epoch}-3")}));
        let old = poll(place, version, &path).await;
        assert_eq!(old, page, "at once: it has changed since");
        let began = Instant::now();
        let same = poll(place, version, &format!("{name}/poll?wait=1&since={epoch}-3")).await;
        assert!(same == page && began.elapsed() >= Duration::from_secs(1), "held in vain");
    }
}
