//! `GET …/{name}/events`: an event stream that `EventSource` and `curl -N` read.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use throughline_protocol::channel::Position;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::event;
use crate::gateway::{Gateway, Visitor, random_below};
use crate::hub::{Item, ReadError, Reader, ValueItem, ValueReader};

/// How long a client is told to wait before it comes back: between this and three times as much, so that a server that starts anew is not met by all of them at once.
const RETRY_MS: u64 = 1_000;

/// What is read.
pub(super) enum Source {
    Log(Reader),
    State(ValueReader),
}

/// Answers with what is read, for as long as somebody takes it.
pub(super) fn open(gateway: &Arc<Gateway>, source: Source, visitor: Visitor) -> Response {
    // One event deep: what comes after it stays where it can be read again.
    let (sender, mut receiver) = mpsc::channel(1);
    let events = stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|event| event.map(Ok::<Bytes, Infallible>)));
    let feed =
        Feed { source, sender, keep_alive: gateway.limits.heartbeat_interval, patience: gateway.limits.idle_timeout };
    let (leaving, expired, ended) = (gateway.leaving(), visitor.expired(), gateway.ended.clone());
    gateway.sessions.spawn(async move {
        let _visitor = visitor; // its place
        let left = feed.sender.clone();
        tokio::select! {
            () = feed.run() => {}
            () = left.closed() => {}
            () = leaving => {}
            () = expired => {}
            () = ended.cancelled() => {}
        }
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // Asks nginx not to collect the events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// From the channel to the response.
struct Feed {
    source: Source,
    sender: mpsc::Sender<Bytes>,
    /// Between two signs of life.
    keep_alive: Duration,
    /// How long the client may take nothing.
    patience: Duration,
}

impl Feed {
    async fn run(mut self) {
        let retry_ms = RETRY_MS + random_below(2 * RETRY_MS);
        let mut next = Some(event::beginning(retry_ms, self.source.position()));
        while let Ok(Ok(room)) = timeout(self.patience, self.sender.reserve()).await {
            let event = match next.take() {
                Some(event) => event,
                None => match timeout(self.keep_alive, self.source.next()).await {
                    Ok(Ok(event)) => event,
                    // It comes back with its position, and finds the channel again, or is told why not.
                    Ok(Err(_)) => return,
                    Err(_) => event::KEEP_ALIVE,
                },
            };
            room.send(event);
        }
    }
}

impl Source {
    /// The client's own position, or that of the newest publication. A channel of state begins with all of it.
    fn position(&self) -> Option<Position> {
        match self {
            Self::Log(reader) => Some(reader.position()),
            Self::State(_) => None,
        }
    }

    /// What is said next. Cancel-safe.
    async fn next(&mut self) -> Result<Bytes, ReadError> {
        Ok(match self {
            Self::Log(reader) => match reader.next().await? {
                Item::Publication(epoch, publication) => {
                    event::publication(Position { epoch, offset: publication.offset }, &publication.message)
                }
                Item::Skipped(to) => event::skipped(to),
            },
            Self::State(reader) => match reader.next().await? {
                ValueItem::Snapshot(at) => event::snapshot(at),
                ValueItem::Change(epoch, change) => {
                    let stands = Position { epoch, offset: change.offset };
                    event::value(stands, &change.key, change.message.as_ref())
                }
                ValueItem::Settled(at) => event::settled(at),
            },
        })
    }
}
