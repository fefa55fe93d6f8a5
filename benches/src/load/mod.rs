//! The load generator: one file for each protocol, as cheap as it can be, because it has one core, and must not be what is measured.

pub(crate) mod client;
pub(crate) mod driven;
pub(crate) mod engineio;
mod http;
pub(crate) mod open_loop;
pub(crate) mod payload;
pub(crate) mod poll;
pub(crate) mod quic;
pub(crate) mod sessions;
pub(crate) mod sockjs;
pub(crate) mod sse;
pub(crate) mod throughline;
pub(crate) mod tls;
pub(crate) mod websocket;
pub(crate) mod webtransport;
pub(crate) mod wire;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;

use self::client::Target;
use self::wire::Wire;
use crate::catalogue::{Protocol, Transport};
use crate::subject::{App, Subject};
use crate::{Failure, machine};

/// Runs a workload's clients on this thread, until `work` has ended, and at most for so long.
pub(crate) fn block_on<T>(limit: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let bounded = async { tokio::time::timeout(limit, work).await.map_err(|_| format!("not done within {limit:?}"))? };
    local.block_on(&runtime, bounded)
}

/// A client's side of a protocol that stands on TCP, for this application. `number` distinguishes clients of one server.
pub(crate) fn wire(protocol: Protocol, app: App, number: usize) -> Result<Box<dyn Wire>, Failure> {
    let path = format!("/{}", app.name());
    Ok(match protocol {
        Protocol::WebSocket => Box::new(websocket::WebSocket::new(path)),
        Protocol::Sse => Box::new(sse::Sse::new(path)),
        Protocol::Events => Box::new(sse::Sse::new(format!("/channels{path}/events"))),
        Protocol::Poll => Box::new(poll::Poll::new(path)),
        Protocol::SocketIo => Box::new(engineio::SocketIo::new(path)),
        Protocol::SockJs => Box::new(sockjs::SockJs::new(&path, number)),
        Protocol::Throughline(transport) if transport != Transport::WebTransport => {
            Box::new(throughline::Session::new(path, transport))
        }
        other => return Err(format!("{} has no wire over TCP", other.name()).into()),
    })
}

/// As many clients as were asked for, or as this machine lets a process have connections for: some clients have two.
pub(crate) fn clients_at_most(wanted: usize, protocol: Protocol) -> usize {
    let lanes = match protocol {
        Protocol::Throughline(Transport::Sse | Transport::Poll) => 2,
        _ => 1,
    };
    wanted.min(machine::sockets() / lanes)
}

/// The same for who publishes to subscribers of that protocol, which may have one direction only.
pub(crate) fn publisher(protocol: Protocol, app: App) -> Result<Box<dyn Wire>, Failure> {
    match protocol {
        Protocol::Sse | Protocol::Poll => Ok(Box::new(poll::Post::new(format!("/{}", app.name())))),
        Protocol::Throughline(_) => wire(Protocol::Throughline(Transport::WebSocket), app, 0),
        other => wire(other, app, 0),
    }
}

/// Whether messages travel as text, and their numbers in hexadecimal.
pub(crate) fn is_text(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::SocketIo | Protocol::SockJs | Protocol::Sse | Protocol::Events)
}

/// Where the subject listens for TCP, or for TLS.
pub(crate) fn target(subject: &Subject, over_tls: bool) -> Result<Target, Failure> {
    if !over_tls {
        return Ok(Target { address: subject.tcp()?, tls: None });
    }
    let config = Arc::new(tls::client_config(&[b"http/1.1"]));
    Ok(Target { address: subject.tls()?, tls: Some(TlsConnector::from(config)) })
}
