//! An event stream as the body of a response: over HTTP/2, HTTP/3, HTTP/1.0 and other people's servers.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Source, retry_ms};
use crate::http::event;

/// A body, and what gives it its events.
pub(super) fn pair(source: Source, keep_alive: Duration, patience: Duration) -> (Feed, Body) {
    // One event deep: what comes after it stays where it can be read again.
    let (sender, mut receiver) = mpsc::channel(1);
    let events = stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|event| event.map(Ok::<Bytes, Infallible>)));
    (Feed { source, sender, keep_alive, patience }, Body::from_stream(events))
}

/// From the channel to the response.
pub(super) struct Feed {
    source: Source,
    sender: mpsc::Sender<Bytes>,
    /// Between two signs of life.
    keep_alive: Duration,
    /// How long the client may take nothing.
    patience: Duration,
}

impl Feed {
    /// Says what is read, until the client has gone or takes nothing.
    pub(super) async fn run(self) {
        let reader_left = self.sender.clone();
        tokio::select! {
            () = self.feed() => {}
            () = reader_left.closed() => {}
        }
    }

    async fn feed(mut self) {
        let mut next = Some(event::beginning(retry_ms(), self.source.position()));
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
