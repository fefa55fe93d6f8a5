//! SPEC section 7.2.

use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::{Ends, Incoming, Place, Resume};
use crate::Failure;
use crate::fault::{self, Fault};

pub(super) async fn open(place: &Place, resume: Option<&Resume>, fault: &Fault) -> Result<Ends, Failure> {
    let mut request = format!("ws://{}/rt/websocket", place.tcp).into_client_request()?;
    let mut offers = "throughline.v1".to_owned();
    if let Some(Resume { session, key, received }) = resume {
        let key = key.expose();
        offers += &format!(", throughline.session.{session}, throughline.key.{key}, throughline.received.0.{received}");
    }
    request.headers_mut().insert("sec-websocket-protocol", offers.parse()?);
    let stream = fault::connect(place.tcp, place.from, fault).await?;
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    let (mut sink, mut stream) = socket.split();
    let (incoming_tx, incoming) = mpsc::channel(1);
    let (outgoing, mut outgoing_rx) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let said = match stream.next().await {
                Some(Ok(Message::Binary(packet))) => Incoming::Bytes(packet),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(other)) => Incoming::Lost(other.to_string()),
                Some(Err(error)) => Incoming::Lost(error.to_string()),
                None => Incoming::Lost("the connection ended".into()),
            };
            let ended = matches!(said, Incoming::Lost(_));
            if incoming_tx.send(said).await.is_err() || ended {
                return;
            }
        }
    });
    tasks.spawn(async move {
        while let Some(packet) = outgoing_rx.recv().await {
            if sink.send(Message::Binary(packet)).await.is_err() {
                return; // the reader says how it ended
            }
        }
    });
    Ok(Ends { outgoing, incoming, natives: None, connected: None, tasks })
}
