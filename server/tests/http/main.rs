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

use std::time::Duration;

use throughline::{Config, Namespace};

/// A server's configuration, with namespaces that everybody may read: `room` keeps a lot, `few` two publications.
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
    config.channels.namespaces = [("room".to_owned(), room), ("few".to_owned(), few)].into();
    config
}
