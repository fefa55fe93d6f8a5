//! `GET /channels/{name}/events`.

use std::time::Duration;

use http::StatusCode;
use throughline::{Message, Position};

use crate::common::requests::headers;
use crate::common::{Running, start, within};
use crate::config;
use crate::plain::{VERSIONS, Version, ask, get};

const PATH: &str = "/channels/room:1/events";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_arrives_as_it_was() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    for version in VERSIONS {
        let path = format!("/channels/room%3A{version:?}%2F%C3%BC/events");
        let answer = get(place, version, &path).await;
        assert_eq!(answer.headers["cache-control"], "no-store, no-transform");
        assert_eq!(answer.headers["x-accel-buffering"], "no");
        let mut events = answer.events();
        assert_eq!(events.begun().await.split_once('-').unwrap().1, "0");
        assert!((1_000..=3_000).contains(&events.retry.unwrap()));
        let room = server.hub().channel(format!("room:{version:?}/ü"));
        for text in ["one", "", " two\n\nlines ", "data: x\n: y", "üñ\u{0}\u{2028}", "\u{feff}", "\n"] {
            let Position { epoch, offset } = room.publish(text).await.unwrap();
            let said = events.next().await.unwrap();
            assert_eq!((&*said.kind, &*said.data), ("message", text), "{version:?}");
            assert_eq!(said.id, format!("{epoch}-{offset}"));
        }
        for text in ["a\rb", "\r\n", "\r"] {
            room.publish(text).await.unwrap();
            let data = events.data("text").await;
            assert_eq!(serde_json::from_str::<String>(&data).unwrap(), text);
        }
        room.publish(Message::from(vec![0, 255, 10])).await.unwrap();
        assert_eq!(events.data("binary").await, "AP8K");
        room.publish("x".repeat(65_536)).await.unwrap();
        assert_eq!(events.data("message").await.len(), 65_536, "the longest");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_gets_what_was_missed() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let room = server.hub().channel("room:1");
    for version in VERSIONS {
        let mut events = get(place, version, PATH).await.events();
        let begun = events.begun().await;
        drop(events); // nothing had come yet
        for text in ["one", "two", "three"] {
            room.publish(text).await.unwrap();
        }
        let again = headers(&[("last-event-id", &begun)]);
        let mut events = ask(place, version, "GET", &format!("{PATH}?since=1-1"), again, "").await.events();
        assert_eq!(events.data("message").await, "one");
        let two = events.next().await.unwrap();
        drop(events);
        for query in ["since", "last_event_id"] {
            let mut events = get(place, version, &format!("{PATH}?{query}={}", two.id)).await.events();
            assert_eq!(events.data("message").await, "three");
            assert!(events.last_id != two.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_is_never_passed_over_in_silence() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let few = server.hub().channel("few:1");
    for text in ["1", "2", "3", "4"] {
        few.publish(text).await.unwrap();
    }
    let epoch = few.publish("5").await.unwrap().epoch;
    for (since, kept) in [(format!("{epoch}-1"), 3), ("7-4711".into(), 3), (format!("{epoch}-6"), 3)] {
        let path = format!("/channels/few:1/events?since={since}");
        let mut events = get(place, Version::Http1, &path).await.events();
        let skipped = events.next().await.unwrap();
        let expected = format!(r#"{{"epoch":{epoch},"offset":{kept},"recovered":false}}"#);
        assert_eq!((&*skipped.kind, &*skipped.data), ("skipped", &*expected));
        assert_eq!(skipped.id, format!("{epoch}-{kept}"));
        assert_eq!([events.data("message").await, events.data("message").await], ["4", "5"]);
    }
    let mut events = get(place, Version::Http1, &format!("/channels/few:1/events?since={epoch}-3")).await.events();
    assert_eq!(events.data("message").await, "4", "the history reaches back to it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_delays_nobody_and_goes_on_where_it_was() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let room = server.hub().channel("room:1");
    for version in VERSIONS {
        let mut slow = get(place, version, PATH).await.events();
        let mut fast = get(place, version, PATH).await.events();
        slow.begun().await;
        fast.begun().await;
        // Beyond every buffer in between.
        let long = "x".repeat(60_000);
        for number in 0..100 {
            room.publish(format!("{number} {long}")).await.unwrap();
            let data = fast.data("message").await;
            assert_eq!(data.split_once(' ').unwrap().0, number.to_string());
        }
        for number in 0..100 {
            let data = slow.data("message").await;
            assert_eq!(data.split_once(' ').unwrap().0, number.to_string(), "{version:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_publications_shows_that_it_lives() {
    let mut config = config();
    config.limits.heartbeat_interval = Duration::from_millis(100);
    let Running { server, place, .. } = &start(config, |builder| builder).await;
    let mut events = get(place, Version::Http1, PATH).await.events();
    events.begun().await;
    let publish = async {
        tokio::time::sleep(Duration::from_millis(350)).await; // for comments to come
        server.hub().channel("room:1").publish("x").await.unwrap();
    };
    let (data, ()) = tokio::join!(events.data("message"), publish);
    assert_eq!(data, "x");
    assert!((1..=4).contains(&events.comments), "{} comments", events.comments);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_take_places_and_give_them_back() {
    let mut config = config();
    config.limits.max_sessions = 2;
    let Running { server, place, .. } = &start(config, |builder| builder).await;
    let first = get(place, Version::Http1, PATH).await.events();
    let second = get(place, Version::Http3, PATH).await.events();
    let refused = get(place, Version::Http2, PATH).await;
    assert_eq!(
        (refused.status, refused.headers["retry-after"].to_str().unwrap()),
        (StatusCode::SERVICE_UNAVAILABLE, "5")
    );
    assert_eq!(refused.json().await["name"], "LIMIT_REACHED");
    drop((first, second));
    let free = async {
        while get(place, Version::Http1, PATH).await.status != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    within("their places", free).await;
    assert_eq!(server.hub().channel("room:1").subscribers(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_nothing_loses_its_place() {
    let mut config = config();
    config.limits.max_sessions = 1;
    config.limits.idle_timeout = Duration::from_secs(1);
    config.limits.heartbeat_interval = Duration::from_millis(500);
    config.limits.poll_hold = Duration::from_secs(1);
    let Running { server, place, .. } = &start(config, |builder| builder).await;
    let room = server.hub().channel("room:1");
    let mut stalled = get(place, Version::Http1, PATH).await.events();
    stalled.begun().await;
    for _ in 0..100 {
        room.publish("x".repeat(60_000)).await.unwrap();
    }
    let free = async {
        while get(place, Version::Http1, PATH).await.status != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("its place", free).await;
    let mut taken = 0;
    while stalled.next().await.is_some() {
        taken += 1;
    }
    assert!(taken < 100, "the stream has ended, and its client comes back for the rest");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_away_ends_its_streams() {
    for version in VERSIONS {
        let Running { server, place, .. } = start(config(), |builder| builder).await;
        let mut events = get(&place, version, PATH).await.events();
        events.begun().await;
        let room = server.hub().channel("room:1");
        room.publish("last").await.unwrap();
        assert_eq!(events.data("message").await, "last");
        let ((), end) = tokio::join!(server.drain(Duration::from_secs(20)), events.next());
        assert_eq!(end, None, "{version:?}");
    }
}
