//! The load generator: one file for each protocol, as cheap as it can be, because it has one core, and must not be what is measured.

pub(crate) mod driven;
pub(crate) mod engineio;
pub(crate) mod open_loop;
pub(crate) mod payload;
pub(crate) mod poll;
pub(crate) mod quic;
pub(crate) mod sockjs;
pub(crate) mod sse;
pub(crate) mod throughline;
pub(crate) mod tls;
pub(crate) mod websocket;
pub(crate) mod webtransport;

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::Failure;

/// Runs a workload's clients on this thread, until `work` has ended, and at most for so long.
pub(crate) fn block_on<T>(limit: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let bounded = async { tokio::time::timeout(limit, work).await.map_err(|_| format!("not done within {limit:?}"))? };
    local.block_on(&runtime, bounded)
}
