//! A native client of the protocol, over each of the four transports, and servers for it to talk to.
//!
//! [`Wire`] carries packets and knows nothing of sessions: tests that break the rules write to it themselves. [`Client`] drives
//! the protocol crate's machine over a wire, as a well-behaved client does.

mod client;
pub(crate) mod requests;
mod server;
mod sse;
mod websocket;
pub(crate) mod webtransport;
mod wire;

use std::future::Future;
use std::time::Duration;

pub(crate) use client::{Client, now};
pub(crate) use server::{Place, Running, config, echo, start};
pub(crate) use sse::welcome;
pub(crate) use wire::{Incoming, Opening, Outgoing, Refusal, Wire, encode};

use throughline::Transport;

/// All of them, from the best to the one that always works.
pub(crate) const TRANSPORTS: [Transport; 4] =
    [Transport::WebTransport, Transport::WebSocket, Transport::Sse, Transport::Poll];

/// Nothing here takes this long: who waits for longer waits for something that never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits what has to happen, and fails instead of hanging when it does not.
#[track_caller]
pub(crate) fn within<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("{caller}: waited for {what} in vain"),
        }
    }
}

/// Makes a test of each scenario for each transport, so that a failure names both.
#[macro_export]
macro_rules! on_every_transport {
    ($($scenario:ident),* $(,)?) => {
        $crate::on_every_transport!(@ webtransport WebTransport $($scenario),*);
        $crate::on_every_transport!(@ websocket WebSocket $($scenario),*);
        $crate::on_every_transport!(@ sse Sse $($scenario),*);
        $crate::on_every_transport!(@ poll Poll $($scenario),*);
    };
    (@ $module:ident $transport:ident $($scenario:ident),*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    super::$scenario(throughline::Transport::$transport).await;
                }
            )*
        }
    };
}
