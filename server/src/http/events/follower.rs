//! An event stream that has its connection for itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::time::timeout;

use super::audience::{Audiences, Ticket};
use super::line::{Line, Over};
use super::{Source, retry_ms};
use crate::http::event;
use crate::hub::{Hub, ReadError, Reader, ValueReader};
use crate::socket::endless::chunk;

/// From a channel to a connection.
pub(super) struct Follower {
    pub(super) hub: Hub,
    pub(super) channel: Arc<str>,
    pub(super) line: Arc<Line>,
    pub(super) audiences: Arc<Audiences>,
    pub(super) ticket: Ticket,
    /// Between two signs of life, at its own pace.
    pub(super) keep_alive: Duration,
    /// How long the client may take nothing.
    pub(super) patience: Duration,
}

impl Follower {
    /// Says what is read, until the client has gone or takes nothing.
    pub(super) async fn follow(&self, source: Source) {
        let begins = event::beginning(retry_ms(), source.position());
        let _: Result<(), Over> = match source {
            Source::State(reader) => Box::pin(self.values(begins, reader)).await,
            Source::Log(reader) => self.publications(begins, reader).await,
        };
    }

    async fn publications(&self, begins: Bytes, reader: Reader) -> Result<(), Over> {
        self.say(&begins).await?;
        // Boxed, so that what it needs is gone while it sits in an audience.
        Box::pin(self.catch_up(reader)).await?;
        loop {
            self.line.unseated().await?;
            Box::pin(async {
                let reader = self.hub.reader(&self.channel, Some(self.line.at())).await.map_err(over)?;
                self.catch_up(reader).await
            })
            .await?;
        }
    }

    /// Goes on at its own pace until it has all that was published, and sits in an audience then.
    async fn catch_up(&self, mut reader: Reader) -> Result<(), Over> {
        loop {
            let item = match reader.next().now_or_never() {
                Some(item) => Some(item.map_err(over)?),
                None => {
                    self.line.written(self.patience).await?;
                    let joined = self.audiences.join(self.ticket, &self.channel, &self.line, reader);
                    let Err(behind) = joined else { return Ok(()) };
                    reader = behind;
                    self.next(reader.next()).await?
                }
            };
            self.say(&item.map_or(event::KEEP_ALIVE, |item| event::item(&item))).await?;
        }
    }

    /// All of it at its own pace: what has changed since is not the same for everybody.
    async fn values(&self, begins: Bytes, mut reader: ValueReader) -> Result<(), Over> {
        self.say(&begins).await?;
        loop {
            let item = self.next(reader.next()).await?;
            self.say(&item.map_or(event::KEEP_ALIVE, |item| event::value_item(&item))).await?;
        }
    }

    /// Waits for what comes next; `None` when nothing did for so long that it is time for a sign of life.
    async fn next<T>(&self, next: impl Future<Output = Result<T, ReadError>>) -> Result<Option<T>, Over> {
        self.line.written(self.patience).await?;
        tokio::select! {
            next = timeout(self.keep_alive, next) => next.ok().transpose().map_err(over),
            () = self.line.abandoned() => Err(Over),
        }
    }

    async fn say(&self, event: &Bytes) -> Result<(), Over> {
        self.line.say(chunk(event), self.patience).await
    }
}

/// It comes back with its position, and finds the channel again, or is told why not.
fn over(_: ReadError) -> Over {
    Over
}
