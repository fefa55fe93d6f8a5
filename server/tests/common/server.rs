//! Servers on ports that the system chooses.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tempfile::TempDir;
use throughline::{Builder, CertificateConfig, Config, Event, Server, Session, Stream};
use tokio::io::AsyncWriteExt;

/// Where a server is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) tcp: Option<SocketAddr>,
    pub(crate) quic: Option<SocketAddr>,
    pub(crate) hashes: Vec<[u8; 32]>,
    pub(crate) base: String,
}

impl Place {
    /// The address of a route over TCP.
    pub(crate) fn url(&self, route: &str) -> String {
        format!("http://{}{}{route}", self.tcp.expect("it listens on TCP"), self.base)
    }
}

/// A server under test.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) place: Place,
    pub(crate) _certificates: TempDir,
}

/// The defaults, on free ports of the loopback address.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.tcp.listen = Some((Ipv4Addr::LOCALHOST, 0).into());
    config.quic.listen = Some((Ipv4Addr::LOCALHOST, 0).into());
    // Tests that are about time choose their own; no other may fail because a machine is slow.
    config.limits.drain_timeout = Duration::from_secs(5);
    config.limits.drain_spread = Duration::ZERO;
    config
}

/// Starts a server with this configuration.
pub(crate) async fn start(mut config: Config, build: impl FnOnce(Builder) -> Builder) -> Running {
    let certificates = tempfile::tempdir().expect("a temporary folder");
    config.certificate =
        CertificateConfig::Development { dir: Some(certificates.path().to_path_buf()), names: Vec::new() };
    let base = config.base.clone();
    let server = build(Server::builder().config(config)).start().await.expect("the server starts");
    let place = Place { tcp: server.tcp_addr(), quic: server.quic_addr(), hashes: server.certificate_hashes(), base };
    Running { server, place, _certificates: certificates }
}

/// Sends back what comes on a stream, its end included.
async fn echo_stream(stream: Stream) {
    let (mut reader, mut writer) = stream.into_split();
    if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
        drop(writer.shutdown().await);
    }
}

/// An application that sends everything back.
pub(crate) async fn echo(session: Session) {
    while let Some(event) = session.recv().await {
        match event {
            Event::Message(message) => drop(session.send(message).await),
            Event::Datagram(datagram) => drop(session.send_datagram(datagram, None)),
            Event::Stream(stream) => drop(tokio::spawn(echo_stream(stream))),
            _ => {}
        }
    }
}
