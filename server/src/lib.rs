//! Throughline keeps one session open between a browser and this server, carried by the best transport that the network
//! allows: WebTransport, then WebSocket, then Server-Sent Events, then long-polling. Messages are ordered and reliable,
//! datagrams are unreliable and the newest wins, on all of them.
//!
//! ```no_run
//! use throughline::{Event, Server, Session};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder()
//!     .on_session(|session: Session| async move {
//!         while let Some(event) = session.recv().await {
//!             if let Event::Message(message) = event {
//!                 let _ = session.send(message).await; // fails when the session has ended
//!             }
//!         }
//!     })
//!     .start()
//!     .await?;
//! println!("listening on {:?} and {:?}", server.tcp_addr(), server.quic_addr());
//! # tokio::signal::ctrl_c().await?;
//! # server.drain(std::time::Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! [`Server`] owns the listeners; [`Server::router`] mounts the transports in an axum application of one's own. [`Session`] is
//! what an application holds; [`Server::hub`] has the [`Channel`]s that sessions subscribe to. The wire is specified in `protocol/SPEC.md`.

mod admission;
mod api;
pub mod auth;
mod certificates;
mod client_ip;
mod config;
pub mod demo;
mod engine;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod http;
mod hub;
mod listener;
mod origin;
mod server;
mod session;
mod socket;
mod transport;

pub use certificates::CertificateError;
pub use config::{
    ApiConfig, Application, CertificateConfig, ChannelsConfig, Config, ConfigError, HttpConfig, Kind, Limits,
    LogConfig, LogFormat, Namespace, QuicConfig, Slow, TcpConfig,
};
pub use engine::{History, Publication, State, Value};
pub use hub::{
    Action, Channel, ChannelInfo, Denied, HistoryError, HistoryQuery, Hub, HubStats, Member, PublishError,
    SubscribeError,
};
pub use listener::ListenError;
pub use server::{Builder, Server, StartError};
pub use session::{
    Answer, ChunkError, Closed, Event, Identity, OpenStreamError, Request, RequestError, SendError, Session, Stream,
    StreamError, StreamReader, StreamWriter,
};
pub use throughline_protocol::channel::Position;
pub use throughline_protocol::{Datagram, Message, RequestCode, SendDatagramError, SessionId, Stats, TrySendError};
pub use transport::Transport;
pub use transport::open::{Open, Rejection, Resume};

/// The README's program must compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
