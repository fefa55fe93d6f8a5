//! The limit of everything over QUIC: bare quinn, which sends datagrams and streams back as they come.

use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig, TokioRuntime};

use super::{Arguments, Ports, credentials};
use crate::Failure;
use crate::load::quic::{ALPN, endpoint_config, socket};

/// Read at once, in bytes.
const CHUNK: usize = 64 * 1_024;

pub(super) async fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let tls = QuicServerConfig::try_from(credentials::config(arguments, &[ALPN])?)?;
    let config = ServerConfig::with_crypto(Arc::new(tls));
    let socket = socket(arguments.quic)?;
    let endpoint = Endpoint::new(endpoint_config(), Some(config), socket, Arc::new(TokioRuntime))?;
    Ports { quic: Some(endpoint.local_addr()?.port()), ..Ports::default() }.announce()?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = incoming.await?;
            tokio::spawn(echo_streams(connection.clone()));
            echo_datagrams(connection).await
        });
    }
    Ok(())
}

async fn echo_datagrams(connection: Connection) -> Result<(), quinn::ConnectionError> {
    loop {
        let datagram = connection.read_datagram().await?;
        drop(connection.send_datagram(datagram)); // one that cannot go is lost, as datagrams may be
    }
}

async fn echo_streams(connection: Connection) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        tokio::spawn(echo_stream(send, recv));
    }
}

async fn echo_stream(mut send: SendStream, mut recv: RecvStream) -> Result<(), Failure> {
    while let Some(chunk) = recv.read_chunk(CHUNK, true).await? {
        send.write_chunk(chunk.bytes).await?;
    }
    Ok(send.finish()?)
}
