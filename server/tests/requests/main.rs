//! What requests promise, in both directions and on every transport: the server, through its public interface, and a client on the other end of loopback.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "../common/mod.rs"]
#[expect(dead_code, unused_imports, reason = "it is made for the tests of sessions, too")]
mod common;

mod asked;
mod asking;
mod client;

use throughline::{Config, Event, Request, Session};
use tokio::sync::mpsc;

use common::{Running, start, within};

/// A server whose sessions are the test's own to drive.
struct Driven {
    running: Running,
    sessions: mpsc::UnboundedReceiver<Session>,
}

impl Driven {
    async fn start() -> Self {
        Self::with(common::config()).await
    }

    async fn with(config: Config) -> Self {
        let (tell, sessions) = mpsc::unbounded_channel();
        let running = start(config, |builder| {
            builder.on_session(move |session: Session| {
                tell.send(session.clone()).unwrap();
                async move { drop(session.closed().await) }
            })
        })
        .await;
        Self { running, sessions }
    }

    /// The next session.
    async fn session(&mut self) -> Session {
        within("a session", self.sessions.recv()).await.unwrap()
    }
}

/// The next request that the session has received. Nothing else may come.
async fn request(session: &Session) -> Request {
    match within("a request", session.recv()).await {
        Some(Event::Request(request)) => request,
        other => panic!("{other:?} instead of a request"),
    }
}
