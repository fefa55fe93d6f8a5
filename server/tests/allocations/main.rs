//! What a publication and a change of a value cost the server in allocations, counted: one encoding for all, and one allocation per subscriber at most.
//!
//! A test binary of its own, because it counts those of the whole process.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "../channels/client.rs"]
#[expect(dead_code, reason = "it is made for the tests of channels")]
mod client;
#[path = "../common/mod.rs"]
#[expect(dead_code, unused_imports, reason = "it is made for the tests of sessions, too")]
mod common;

use std::alloc::System;

use futures_util::future::join_all;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use throughline::{Kind, Namespace, Transport};
use throughline_protocol::ChannelMessage;
use tokio::sync::mpsc;

use client::Channels;
use common::within;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SUBSCRIBERS: usize = 1_000;

/// Few enough for the buffers of sessions whose clients have gone.
const PUBLICATIONS: usize = 100;

/// Their clients are gone, and the sessions wait for them: nothing allocates but the publishing, and the sessions that keep what is published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_and_a_change_are_one_allocation_for_each_of_a_thousand_subscribers_at_most() {
    let mut config = common::config();
    config.limits.max_sessions_per_ip = SUBSCRIBERS + 1;
    config.limits.opens_per_ip_burst = 2 * SUBSCRIBERS as u32;
    let log = Namespace { subscribe: true, ..Namespace::default() };
    let state = Namespace { kind: Kind::State, ..log.clone() };
    config.channels.namespaces = [("room".to_owned(), log), ("state".to_owned(), state)].into();
    let (opened, mut sessions) = mpsc::unbounded_channel();
    let running = common::start(config, |builder| {
        builder.on_session(move |session| {
            let _ = opened.send(session.clone());
            async move { drop(session.closed().await) }
        })
    })
    .await;
    let subscribe = || async {
        let client = Channels::connect(&running.place, Transport::WebSocket).await;
        client.subscribe("room:a", None).await.unwrap();
        client.subscribe("state:a", None).await.unwrap();
        while !matches!(client.next().await, ChannelMessage::Settled { .. }) {}
        client
    };
    drop(join_all((0..SUBSCRIBERS).map(|_| subscribe())).await);
    for _ in 0..SUBSCRIBERS {
        let session = within("a session", sessions.recv()).await.unwrap();
        within("the end of its link", async {
            while session.transport().is_some() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let hub = running.server.hub();
    let (room, board) = (hub.channel("room:a"), hub.channel("state:a"));
    let text = "a hundred bytes of text, or so: what a chat message or a token of a language model has";
    let warm = PUBLICATIONS / 2;
    for _ in 0..warm {
        room.publish(text).await.unwrap();
        board.set("x", text).await.unwrap();
    }
    let before = hub.stats();
    let deliveries = (SUBSCRIBERS * (PUBLICATIONS - warm)) as f64;
    let region = Region::new(ALLOCATOR);
    for _ in warm..PUBLICATIONS {
        room.publish(text).await.unwrap();
    }
    let counted = region.change();
    let each = (counted.allocations + counted.reallocations) as f64 / deliveries;
    assert!(each <= 1.0, "{each:.2} allocations per subscriber and publication: {counted:?}");
    let region = Region::new(ALLOCATOR);
    for _ in warm..PUBLICATIONS {
        board.set("x", text).await.unwrap();
    }
    let counted = region.change();
    let each = (counted.allocations + counted.reallocations) as f64 / deliveries;
    assert!(each <= 1.0, "{each:.2} allocations per subscriber and change: {counted:?}");
    let encoded = hub.stats().encoded - before.encoded;
    // What has settled meanwhile is encoded once more.
    let once = 2 * (PUBLICATIONS - warm) as u64;
    assert!((once..once + 10).contains(&encoded), "{encoded} encodings of {once} publications and changes");
    assert_eq!((room.subscribers(), board.subscribers()), (SUBSCRIBERS, SUBSCRIBERS));
}
