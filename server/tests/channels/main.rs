//! What channels promise, on every transport: the server, through its public interface, and a client on the other end of loopback.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "../common/mod.rs"]
#[expect(dead_code, unused_imports, reason = "it is made for the tests of sessions, too")]
mod common;

mod added;
mod chance;
mod client;
mod delivery;
mod history;
mod presence;
mod recovery;
mod replica;
mod requests;
mod slow;
mod state;

use std::time::Duration;

use throughline::{Config, Namespace};

/// A server's configuration, with a namespace `room` where everything is allowed.
fn config() -> Config {
    let mut config = common::config();
    config.channels.namespaces = [("room".to_owned(), open())].into();
    // Most tests are about something else than how fast one may publish.
    config.channels.publish_burst = 1_000_000;
    config
}

/// Clients may do everything, and a lot is kept.
fn open() -> Namespace {
    Namespace {
        subscribe: true,
        publish: true,
        history: true,
        history_count: 10_000,
        history_bytes: 64 << 20,
        history_age: Duration::from_secs(3_600),
        ..Namespace::default()
    }
}
