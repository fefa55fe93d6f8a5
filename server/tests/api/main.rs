//! The API for back ends, over HTTP/1.1, HTTP/2 and HTTP/3.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "../common/mod.rs"]
#[expect(dead_code, unused_imports, reason = "it is made for the tests of sessions, too")]
mod common;
#[path = "../common/plain.rs"]
#[expect(dead_code, reason = "it is made for the tests of event streams, too")]
mod plain;

mod batch;
mod channels;
mod document;
mod refusals;
mod sessions;

use http::HeaderMap;
use serde_json::Value;
use throughline::auth::Secret;
use throughline::{Config, Kind, Namespace};

use common::Place;
use common::requests::headers;
use plain::{Answer, Version, ask};

const KEY: &str = "a-key-for-the-tests";

/// A server's configuration, with an API, a log `room` and a state `cursors` that clients may read, and `secret`, which they may not.
fn config() -> Config {
    let mut config = common::config();
    config.api.keys = vec![Secret::new(KEY), Secret::new("another-key-for-the-tests")];
    let room = Namespace { subscribe: true, history_count: 1_000, ..Namespace::default() };
    let cursors = Namespace { kind: Kind::State, max_keys: 2, ..room.clone() };
    let secret = Namespace { subscribe: false, presence: true, ..room.clone() };
    let all = [("room", room), ("cursors", cursors), ("secret", secret)];
    config.channels.namespaces = all.map(|(name, namespace)| (name.to_owned(), namespace)).into();
    config
}

fn with_key() -> HeaderMap {
    headers(&[("authorization", &format!("Bearer {KEY}")), ("content-type", "application/json")])
}

/// Asks for a command; `body` is JSON.
async fn call(place: &Place, version: Version, command: &str, body: impl ToString) -> Answer {
    ask(place, version, "POST", &format!("/api/{command}"), with_key(), body.to_string()).await
}

/// Asks for a command with an idempotency key.
async fn call_once(place: &Place, command: &str, key: &str, body: impl ToString) -> Answer {
    let mut headers = with_key();
    headers.insert("idempotency-key", key.parse().unwrap());
    ask(place, Version::Http1, "POST", &format!("/api/{command}"), headers, body.to_string()).await
}

/// The answer to a command that is done.
async fn done(place: &Place, version: Version, command: &str, body: impl ToString) -> Value {
    let answer = call(place, version, command, body).await;
    let status = answer.status.as_u16();
    let answer = answer.json().await;
    assert_eq!(status, 200, "{command}: {answer}");
    answer
}

/// Status, name and place of what is refused.
async fn refused(answer: Answer) -> (u16, String, Option<String>) {
    let status = answer.status.as_u16();
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
    let problem = answer.json().await;
    assert_eq!(problem["status"], status);
    assert!(problem["reason"].as_str().is_some_and(|reason| reason.len() > 5), "{problem}");
    (status, problem["name"].as_str().unwrap().to_owned(), problem["at"].as_str().map(str::to_owned))
}
