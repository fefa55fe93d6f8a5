//! `GET …/{name}/events`: an event stream that `EventSource` and `curl -N` read.

mod audience;
mod body;
mod follower;
mod line;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};
use throughline_protocol::channel::Position;

use super::{Site, event};
use crate::gateway::{Gateway, Visitor, random_below};
use crate::hub::{ReadError, Reader, ValueReader};
use crate::socket::endless::Endless;
use crate::socket::takeover::{Offer, Takeover};
pub(super) use audience::Audiences;
use follower::Follower;
use line::Line;

/// How long a client is told to wait before it comes back: between this and three times as much, so that a server that starts anew is not met by all of them at once.
const RETRY_MS: u64 = 1_000;

fn retry_ms() -> u64 {
    RETRY_MS + random_below(2 * RETRY_MS)
}

/// What is read.
pub(super) enum Source {
    Log(Reader),
    State(ValueReader),
}

/// Answers with what is read, for as long as somebody takes it: on the connection itself, if that is on offer.
pub(super) fn open(site: &Site, channel: String, source: Source, visitor: Visitor, offer: Option<Offer>) -> Response {
    let Site { gateway, hub, audiences } = site.clone();
    let (keep_alive, patience) = (gateway.limits.heartbeat_interval, gateway.limits.idle_timeout);
    let mut response = match offer {
        Some(Offer) => Takeover::response(move |taken| {
            let (line, ticket) = (Line::new(Endless::new(taken)), audiences.ticket());
            let channel = channel.into();
            let follower = Follower { hub, channel, line, audiences, ticket, keep_alive, patience };
            gateway.clone().sessions.spawn(async move {
                until_it_has_to_leave(&gateway, visitor, follower.follow(source)).await;
                follower.line.close(&gateway.ended).await;
            });
        }),
        None => {
            let (feed, body) = body::pair(source, keep_alive, patience);
            gateway.clone().sessions.spawn(async move { until_it_has_to_leave(&gateway, visitor, feed.run()).await });
            Response::new(body)
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // Asks nginx not to collect the events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The visitor keeps his place for as long as this.
async fn until_it_has_to_leave(gateway: &Gateway, visitor: Visitor, stream: impl Future<Output = ()>) {
    tokio::select! {
        () = stream => {}
        () = gateway.leaving() => {}
        () = visitor.expired() => {}
        () = gateway.ended.cancelled() => {}
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
            Self::Log(reader) => event::item(&reader.next().await?),
            Self::State(reader) => event::value_item(&reader.next().await?),
        })
    }
}
