//! SPEC section 7.2, over tokio-tungstenite.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::{SinkExt, StreamExt};
use http::HeaderValue;
use throughline_protocol::limits::MAX_PACKET;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tokio_tungstenite::tungstenite::{self};

use super::server::Place;
use super::wire::{Ends, Incoming, Opening, Outgoing, Refusal};

pub(crate) async fn open(place: &Place, opening: &Opening) -> Result<Ends, Refusal> {
    let url = place.url("/websocket").replacen("http", "ws", 1);
    let mut request = url.into_client_request().expect("a request");
    let offers = offers(opening).join(", ");
    request.headers_mut().insert("sec-websocket-protocol", offers.parse().expect("ASCII"));
    if let Some(origin) = &opening.origin {
        request.headers_mut().insert("origin", HeaderValue::from_str(origin).expect("a value"));
    }
    let socket = TcpStream::connect(place.tcp.expect("it listens on TCP")).await.expect("TCP connects");
    socket.set_nodelay(true).expect("a TCP socket");
    let (socket, response) = match tokio_tungstenite::client_async(request, socket).await {
        Ok(opened) => opened,
        Err(tungstenite::Error::Http(response)) => {
            let (parts, body) = response.into_parts();
            let body = body.unwrap_or_default().into();
            return Err(Refusal { status: parts.status, headers: parts.headers, body });
        }
        Err(error) => panic!("the upgrade failed: {error}"),
    };
    assert_eq!(response.headers()["sec-websocket-protocol"], "throughline.v1");

    let (mut sink, mut stream) = socket.split();
    let (incoming_tx, incoming) = mpsc::channel(1);
    let (outgoing, mut outgoing_rx) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let said = match stream.next().await {
                Some(Ok(Message::Binary(packet))) => {
                    assert!(packet.len() <= MAX_PACKET, "a packet of {} bytes", packet.len());
                    Incoming::Bytes(packet)
                }
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                    Incoming::Closed { code: u16::from(code).into(), reason: reason.to_string() }
                }
                Some(Ok(Message::Close(None))) => Incoming::Lost("a close frame without a code".into()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(other)) => panic!("{other:?} from the server"),
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
        while let Some(outgoing) = outgoing_rx.recv().await {
            let message = match outgoing {
                Outgoing::Packet(packet) => Message::Binary(packet),
                Outgoing::Text(text) => Message::Text(text.into()),
                Outgoing::Close { code, reason } => {
                    let code = u16::try_from(code).expect("a close code of a WebSocket").into();
                    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
                }
                Outgoing::Datagram(_) => panic!("a websocket has no native datagrams"),
            };
            if sink.send(message).await.is_err() {
                return;
            }
        }
    });
    Ok(Ends { outgoing, incoming, native_datagrams: None, natives: None, tasks, connection: None })
}

fn offers(opening: &Opening) -> Vec<String> {
    let mut offers = Vec::new();
    offers.extend(opening.version.map(|version| format!("throughline.v{version}")));
    if let Some([session, key, received]) = &opening.resume {
        offers.push(format!("throughline.session.{session}"));
        offers.push(format!("throughline.key.{key}"));
        offers.push(format!("throughline.received.{received}"));
    }
    if let Some(token) = &opening.token {
        offers.push(format!("throughline.token.{}", BASE64_URL_SAFE_NO_PAD.encode(token)));
    }
    if offers.is_empty() {
        offers.push("chat".to_owned()); // the header cannot be empty
    }
    offers
}
