//! The two transports that send by POST: an event stream, and long-polling.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming as Body;
use throughline_protocol::limits::MAX_PACKET;
use throughline_protocol::{Decoder, Frame, Welcome};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::requests::{self, Pool};
use super::server::Place;
use super::wire::{Ends, Incoming, Opening, Outgoing, Refusal};

/// SPEC section 7.3.
pub(crate) async fn open_sse(place: &Place, opening: &Opening) -> Result<Ends, Refusal> {
    let pool = requests::pool();
    let response = request(&pool, &place.url("/sse"), requests::opening_headers(opening)).await;
    if response.status() != StatusCode::OK {
        return Err(requests::whole(response).await.expect("a refusal has a body"));
    }
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut events = Events { body: response.into_body(), text: Vec::new(), last: 0 };
    let (incoming_tx, incoming) = mpsc::channel(1);
    let (outgoing, outgoing_rx) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    let first = events.next().await;
    let welcome = first.as_ref().ok().and_then(first_welcome);
    let posts = welcome.map(|welcome| post_all(place, &welcome, outgoing_rx, incoming_tx.clone()));
    tasks.spawn(async move {
        let mut packet = first;
        loop {
            let (incoming, ended) = match packet {
                Ok(packet) => (Incoming::Bytes(packet), false),
                Err(reason) => (Incoming::Lost(reason), true),
            };
            if incoming_tx.send(incoming).await.is_err() || ended {
                return;
            }
            packet = events.next().await;
        }
    });
    posts.map(|posts| tasks.spawn(posts));
    Ok(Ends { outgoing, incoming, native_datagrams: None, natives: None, tasks, connection: None })
}

/// SPEC section 7.4.
pub(crate) async fn open_poll(place: &Place, opening: &Opening) -> Result<Ends, Refusal> {
    let pool = requests::pool();
    let url = place.url("/poll");
    let response = request(&pool, &url, requests::opening_headers(opening)).await;
    let status = response.status();
    let first = requests::whole(response).await.expect("the answer has a body");
    if status != StatusCode::OK {
        return Err(first);
    }
    assert_eq!(first.headers["content-type"], "application/octet-stream");
    let (incoming_tx, incoming) = mpsc::channel(1);
    let (outgoing, outgoing_rx) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    let Some(welcome) = first_welcome(&first.body) else {
        drop(incoming_tx.try_send(Incoming::Bytes(first.body)));
        return Ok(Ends { outgoing, incoming, native_datagrams: None, natives: None, tasks, connection: None });
    };
    let names = requests::link_headers(&welcome);
    tasks.spawn(post_all(place, &welcome, outgoing_rx, incoming_tx.clone()));
    tasks.spawn(async move {
        drop(incoming_tx.send(Incoming::Bytes(first.body)).await);
        loop {
            let answer =
                async { requests::whole(requests::send(&pool, "GET", &url, names.clone(), Bytes::new()).await?).await };
            let incoming = match answer.await {
                Ok(answer) if answer.status == StatusCode::NO_CONTENT => continue,
                Ok(answer) if answer.status == StatusCode::OK => {
                    assert!(answer.body.len() <= MAX_PACKET, "a packet of {} bytes", answer.body.len());
                    Incoming::Bytes(answer.body)
                }
                Ok(answer) => Incoming::Lost(format!("a poll was answered {}", answer.status)),
                Err(error) => Incoming::Lost(error),
            };
            let ended = matches!(incoming, Incoming::Lost(_));
            if incoming_tx.send(incoming).await.is_err() || ended {
                return;
            }
        }
    });
    Ok(Ends { outgoing, incoming, native_datagrams: None, natives: None, tasks, connection: None })
}

async fn request(pool: &Pool, url: &str, headers: HeaderMap) -> Response<Body> {
    requests::send(pool, "GET", url, headers, Bytes::new()).await.unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// The WELCOME that a packet begins with.
pub(crate) fn welcome(packet: &Bytes) -> Welcome {
    first_welcome(packet).expect("WELCOME is the first frame")
}

fn first_welcome(packet: &Bytes) -> Option<Welcome> {
    let mut decoder = Decoder::new();
    decoder.push(packet.clone());
    match decoder.next_frame() {
        Ok(Some(Frame::Welcome(welcome))) => Some(welcome),
        _ => None,
    }
}

/// SPEC section 7.5: one POST after the other.
fn post_all(
    place: &Place,
    welcome: &Welcome,
    mut outgoing: mpsc::Receiver<Outgoing>,
    incoming: mpsc::Sender<Incoming>,
) -> impl Future<Output = ()> + Send + use<> {
    let (url, names) = (place.url("/send"), requests::link_headers(welcome));
    let pool = requests::pool();
    async move {
        while let Some(outgoing) = outgoing.recv().await {
            let Outgoing::Packet(packet) = outgoing else { continue };
            let answer =
                async { requests::whole(requests::send(&pool, "POST", &url, names.clone(), packet).await?).await };
            let refused = match answer.await {
                Ok(answer) if answer.status == StatusCode::NO_CONTENT => continue,
                Ok(answer) => Incoming::Post(answer),
                Err(error) => Incoming::Lost(format!("POST: {error}")),
            };
            if incoming.send(refused).await.is_err() {
                return;
            }
        }
    }
}

/// Takes an event stream apart, strictly as SPEC section 7.3 says it is.
struct Events {
    body: Body,
    text: Vec<u8>,
    last: u64,
}

impl Events {
    async fn next(&mut self) -> Result<Bytes, String> {
        let end = loop {
            if let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                break end;
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.text.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(error.to_string()),
                None if self.text.is_empty() => return Err("the event stream ended".into()),
                None => return Err("the event stream ended inside an event".into()),
            }
        };
        let event: Vec<u8> = self.text.drain(..end + 2).collect();
        let event = std::str::from_utf8(&event).map_err(|error| error.to_string())?;
        let mut packet = Vec::new();
        for line in event.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => {
                    self.last += 1;
                    assert_eq!(id, self.last.to_string(), "packets are numbered from 1");
                }
                Some(("data", piece)) => packet.extend(BASE64_STANDARD.decode(piece).expect("base64, padded")),
                _ if line.is_empty() || line.starts_with(':') => {}
                _ => panic!("{line:?} in an event"),
            }
        }
        Ok(packet.into())
    }
}
