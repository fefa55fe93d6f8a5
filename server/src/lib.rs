//! Throughline: realtime sessions that move between transports.

#[allow(dead_code)]
mod admission;
#[allow(dead_code)]
mod client_ip;
mod config;
#[allow(dead_code)]
mod origin;

pub use config::{
    Application, CertificateConfig, Config, ConfigError, Limits, LogConfig, LogFormat, QuicConfig, TcpConfig,
};
