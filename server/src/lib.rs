//! Throughline: realtime sessions that move between transports.

mod admission;
mod certificates;
mod client_ip;
mod config;
pub mod demo;
mod gateway;
mod listener;
mod origin;
mod server;
mod session;
mod transport;

pub use certificates::CertificateError;
pub use config::{
    Application, CertificateConfig, Config, ConfigError, Limits, LogConfig, LogFormat, QuicConfig, TcpConfig,
};
pub use listener::ListenError;
pub use server::{Builder, Server, StartError};
pub use session::{Closed, Event, Identity, SendError, Session};
pub use throughline_protocol::{Datagram, Message, SendDatagramError, SessionId, Stats, TrySendError};
pub use transport::Transport;
pub use transport::open::{Open, Rejection, Resume};
