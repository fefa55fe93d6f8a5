//! The QUIC and TLS side of the configuration.

use std::{sync::Arc, time::Duration};

use quinn::{IdleTimeout, TransportConfig, VarInt, crypto::rustls::QuicServerConfig};
use rustls::server::ResolvesServerCert;
use thiserror::Error;

use super::{crypto, limits::Limits};

/// The longest idle timeout that is asked for: far below what QUIC can express, and longer than anyone waits.
const MAX_IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Why there is no QUIC configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// rustls refused its configuration.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// No cipher suite with which QUIC begins.
    #[error("TLS: {0}")]
    InitialCipherSuite(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// A server configuration for HTTP/3 and WebTransport. `certificates` is asked at each handshake, so
/// that certificates can be renewed while the server runs.
///
/// There is no 0-RTT (an early CONNECT could be replayed), and there are no session tickets (each would
/// cost memory to save a handshake that happens once).
///
/// # Errors
/// When rustls cannot be configured so, which does not depend on what a client does.
pub(crate) fn quic_config(
    certificates: Arc<dyn ResolvesServerCert>,
    limits: &Limits,
) -> Result<quinn::ServerConfig, ConfigError> {
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(crypto::provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    tls.alpn_protocols = vec![b"h3".to_vec()];
    tls.ignore_client_order = true;
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        .transport_config(Arc::new(transport(limits)))
        .max_incoming(limits.max_incoming)
        // A handshake's first flight; connections are accepted as they come, so none waits long.
        .incoming_buffer_size(16 * 1024)
        .incoming_buffer_size_total(4 * 1024 * 1024);
    Ok(config)
}

fn transport(limits: &Limits) -> TransportConfig {
    // Capped above, so it is in QUIC's range.
    let idle = IdleTimeout::try_from(limits.max_idle_timeout.min(MAX_IDLE_TIMEOUT)).ok();
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(idle)
        .keep_alive_interval(limits.keep_alive)
        .max_concurrent_bidi_streams(limits.max_bidi_streams.into())
        .max_concurrent_uni_streams(limits.max_uni_streams.into())
        .stream_receive_window(VarInt::from_u32(limits.stream_receive_window))
        .receive_window(VarInt::from_u32(limits.receive_window))
        .send_window(limits.send_window)
        .datagram_send_buffer_size(limits.datagram_send_buffer)
        .datagram_receive_buffer_size(Some(limits.datagram_receive_buffer));
    if !limits.mtu_discovery {
        transport.mtu_discovery_config(None);
    }
    transport
}
