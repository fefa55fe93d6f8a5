//! The QUIC side of the WebTransport subjects, the same for all: they differ in what is above it.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Protocol, Socket, Type};

use crate::contract::{Arguments, Failure};

/// What a thousand clients send at once has to fit.
const SOCKET_BUFFER: usize = 4 * 1_048_576;

/// Nobody is given up while something is measured.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// quinn reserves room for each stream that may come.
const STREAMS: u32 = 16;

/// A few ticks: what waits longer is stale.
const DATAGRAM_BUFFER: usize = 64 * 1_024;

/// A socket with room.
pub fn socket(arguments: &Arguments) -> Result<UdpSocket, Failure> {
    let socket = Socket::new(Domain::for_address(arguments.quic), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&arguments.quic.into())?;
    Ok(socket.into())
}

/// TLS 1.3 without session tickets: nobody comes back.
pub fn tls(arguments: &Arguments) -> Result<rustls::ServerConfig, Failure> {
    let (cert, key) = arguments.cert.as_ref().zip(arguments.key.as_ref()).ok_or("--cert and --key are needed")?;
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h3".to_vec()];
    tls.send_tls13_tickets = 0;
    Ok(tls)
}

pub fn transport() -> Result<quinn::TransportConfig, Failure> {
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_idle_timeout(Some(IDLE_TIMEOUT.try_into()?))
        .max_concurrent_bidi_streams(STREAMS.into())
        .max_concurrent_uni_streams(STREAMS.into())
        .datagram_send_buffer_size(DATAGRAM_BUFFER);
    Ok(transport)
}

/// An endpoint of quinn's own, for the libraries that take one.
pub fn endpoint(arguments: &Arguments) -> Result<quinn::Endpoint, Failure> {
    let tls = QuicServerConfig::try_from(tls(arguments)?)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(Arc::new(transport()?));
    let (socket, runtime) = (socket(arguments)?, Arc::new(quinn::TokioRuntime));
    Ok(quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(config), socket, runtime)?)
}
