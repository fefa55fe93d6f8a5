//! Sessions that nobody says anything in, over QUIC: WebTransport's, and Throughline's on top of it. What they receive natively can be read.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use quinn::Endpoint;
use throughline_protocol::Decoder;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_local};

use super::webtransport::{self, Link, Session};
use crate::Failure;
use crate::catalogue::Protocol;
use crate::subject::App;

/// Handshakes at the same time: more would only wait for each other.
const HANDSHAKES: usize = 16;

/// A handshake that goes wrong among a thousand is tried again: what is measured comes afterwards.
const ATTEMPTS: usize = 4;
const ATTEMPT: Duration = Duration::from_secs(12);

/// Opens one. A session of Throughline goes on by itself as long as it is held.
pub(crate) async fn open(
    endpoint: &Endpoint,
    to: SocketAddr,
    protocol: Protocol,
    app: App,
) -> Result<Session, Failure> {
    let path = format!("/{}", app.name());
    if !matches!(protocol, Protocol::Throughline(_)) {
        return Session::open(endpoint, to, &path).await;
    }
    let mut link = Link::open(endpoint, to, &path).await?;
    let mut decoder = Decoder::new();
    link.begin(&mut decoder).await?;
    spawn_local(webtransport::keep(link.send, link.recv, decoder)); // ends with the connection
    Ok(link.session)
}

/// Opens many, each on a connection of its own, and hands each on as soon as it is open.
pub(crate) async fn open_many(
    endpoint: &Endpoint,
    to: SocketAddr,
    protocol: Protocol,
    app: App,
    count: usize,
    mut each: impl FnMut(Session),
) -> Result<(), Failure> {
    let handshakes = Rc::new(Semaphore::new(HANDSHAKES));
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let (endpoint, handshakes) = (endpoint.clone(), Rc::clone(&handshakes));
        opening.spawn_local(async move {
            let _one_of_few = handshakes.acquire().await?;
            let mut failure = Failure::from("nothing was tried");
            for _ in 0..ATTEMPTS {
                match tokio::time::timeout(ATTEMPT, open(&endpoint, to, protocol, app)).await {
                    Ok(Ok(session)) => return Ok(session),
                    Ok(Err(error)) => failure = error,
                    Err(late) => failure = late.into(),
                }
            }
            Err(failure)
        });
    }
    while let Some(opened) = opening.join_next().await {
        each(opened??);
    }
    Ok(())
}
