//! The limit of openings over TLS: TCP, a handshake of TLS 1.3, and the end.

use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{Arguments, Ports, credentials};
use crate::Failure;

pub(super) async fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let acceptor = TlsAcceptor::from(Arc::new(credentials::config(arguments, &[])?));
    let listener = TcpListener::bind(arguments.tcp).await?;
    Ports { tls: Some(listener.local_addr()?.port()), ..Ports::default() }.announce()?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(hold(acceptor.clone(), stream));
    }
}

/// Until the client goes.
async fn hold(acceptor: TlsAcceptor, stream: TcpStream) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    while stream.read(&mut [0; 64]).await? > 0 {}
    Ok(())
}
