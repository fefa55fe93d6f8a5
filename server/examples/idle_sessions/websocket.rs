//! SPEC section 7.2.

use futures_util::{SinkExt as _, StreamExt as _};
use throughline_protocol::Decoder;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

use crate::idle::{Failure, Holding, answer, first_ping, welcome};
use crate::tcp::Server;

/// The default of 128 KiB would be a gigabyte for ten thousand sessions.
const READ_BUFFER: usize = 512;

pub(crate) async fn open(server: &Server, number: usize) -> Result<Holding, Failure> {
    let mut request = format!("ws://{}{}/websocket", server.address, server.base).into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("throughline.v1"));
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER).write_buffer_size(0);
    let io = server.connect(number).await?;
    let (mut socket, _) = tokio_tungstenite::client_async_with_config(request, io, Some(config)).await?;
    let mut decoder = Decoder::new();
    while welcome(&mut decoder)?.is_none() {
        decoder.push(socket.next().await.ok_or("the server ended a connection")??.into_data());
    }
    socket.send(Message::Binary(first_ping())).await?;
    Ok(Box::pin(async move {
        loop {
            let said = answer(&mut decoder)?;
            if !said.is_empty() {
                socket.send(Message::Binary(said)).await?;
            }
            match socket.next().await.ok_or("the server ended a connection")?? {
                Message::Binary(packet) => decoder.push(packet),
                Message::Close(frame) => return Err(format!("the server closed a WebSocket: {frame:?}").into()),
                _ => {}
            }
        }
    }))
}
