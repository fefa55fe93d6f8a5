//! Throughline: realtime sessions that move between transports.

#[allow(dead_code)]
mod admission;
#[allow(dead_code)]
mod client_ip;
mod config;
mod gateway;
#[allow(dead_code)]
mod origin;
mod session;
mod transport;

pub use config::{
    Application, CertificateConfig, Config, ConfigError, Limits, LogConfig, LogFormat, QuicConfig, TcpConfig,
};
pub use session::{Closed, Event, Identity, SendError, Session};
pub use throughline_protocol::{Datagram, Message, SendDatagramError, SessionId, Stats, TrySendError};
pub use transport::Transport;
pub use transport::open::{Open, Rejection, Resume};
