//! The limit of an echo over TCP: tokio, and nothing between two bytes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Arguments, Ports};
use crate::Failure;

/// Read at once, in bytes.
const CHUNK: usize = 64 * 1_024;

pub(super) async fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let listener = TcpListener::bind(arguments.tcp).await?;
    Ports { tcp: Some(listener.local_addr()?.port()), ..Ports::default() }.announce()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(echo(stream));
    }
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut bytes = vec![0; CHUNK];
    loop {
        match stream.read(&mut bytes).await? {
            0 => return Ok(()),
            length => stream.write_all(&bytes[..length]).await?,
        }
    }
}
