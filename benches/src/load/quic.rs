//! Bare QUIC, as the limits speak it, and what every client of QUIC here shares: one socket for many connections, and no question about certificates.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, TokioRuntime};
use quinn_proto::RandomConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};

use super::tls;
use crate::Failure;

/// What bare connections agree on.
pub(crate) const ALPN: &[u8] = b"throughline-bench";

/// A thousand connections share a socket, and may all be sent something at once. The kernel grants what `rmem_max` allows.
const SOCKET_BUFFER: usize = 4 * 1_024 * 1_024;

/// A socket with room for bursts.
pub(crate) fn socket(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // Smaller buffers lose more; what is lost is counted.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// quinn's own connection ids have 24 random bits. With thousands of connections two of them are the same now and then, and a handshake is never heard of again.
pub(crate) fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CONNECTION_ID_LENGTH)));
    config
}

/// In bytes: quinn's default.
const CONNECTION_ID_LENGTH: usize = 8;

/// A client that speaks `alpn`. Must be called in a runtime.
pub(crate) fn endpoint(alpn: &[u8]) -> Result<Endpoint, Failure> {
    let socket = socket((Ipv4Addr::UNSPECIFIED, 0).into())?;
    let mut endpoint = Endpoint::new(endpoint_config(), None, socket, Arc::new(TokioRuntime))?;
    let tls = QuicClientConfig::try_from(tls::client_config(&[alpn]))?;
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(tls)));
    Ok(endpoint)
}

/// A bare connection.
pub(crate) async fn connect(endpoint: &Endpoint, to: SocketAddr) -> Result<Connection, Failure> {
    Ok(endpoint.connect(to, "localhost")?.await?)
}
