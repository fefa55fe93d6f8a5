//! Connections to one server, with or without TLS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use crate::idle::Failure;
use crate::trust;

/// Sessions of one address of this side. The kernel has 28,000 ports for each, and a session may need three at a time.
const SESSIONS_OF_ADDRESS: usize = 5_000;

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where to connect, and how.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Below which its routes are.
    pub(crate) base: Arc<str>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Server {
    pub(crate) fn new(address: SocketAddr, base: &str, tls: bool) -> Result<Self, Failure> {
        let tls = if tls { Some(Arc::new(trust::tls_config(b"http/1.1")?)) } else { None };
        Ok(Self { address, base: base.into(), tls })
    }

    /// A connection of the session with this number. A server on the loopback sees many addresses, so that ports suffice.
    pub(crate) async fn connect(&self, number: usize) -> Result<Box<dyn Io>, Failure> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if self.address.ip().is_loopback() && self.address.is_ipv4() {
            let last = u8::try_from(1 + number / SESSIONS_OF_ADDRESS)?;
            socket.bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0).into())?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from("localhost")?;
        Ok(Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?))
    }
}
