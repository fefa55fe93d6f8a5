//! Channels over plain HTTP, as clients without our library have them: HTTP/1.1, HTTP/2 and HTTP/3.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "../common/mod.rs"]
#[expect(dead_code, unused_imports, reason = "it is made for the tests of sessions, too")]
mod common;
#[path = "../common/plain.rs"]
mod plain;

mod events;
mod poll;
mod refusals;
mod values;

use std::time::Duration;

use throughline::{Config, Kind, Namespace};

/// A server's configuration, with namespaces that everybody may read: `room` keeps a lot, `few` two publications; `state` has values.
fn config() -> Config {
    let mut config = common::config();
    let room = Namespace {
        subscribe: true,
        history_count: 10_000,
        history_bytes: 64 << 20,
        history_age: Duration::from_secs(3_600),
        ..Namespace::default()
    };
    let few = Namespace { history_count: 2, ..room.clone() };
    let state = Namespace { kind: Kind::State, ..room.clone() };
    let all = [("room", room), ("few", few), ("state", state)];
    config.channels.namespaces = all.map(|(name, namespace)| (name.to_owned(), namespace)).into();
    config
}
