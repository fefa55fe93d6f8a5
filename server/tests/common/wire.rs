//! What carries packets between a test and a server: the same for all transports.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use throughline::Transport;
use throughline_protocol::{Decoder, Frame, Welcome};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::server::Place;
use super::webtransport::Natives;
use super::{sse, websocket, webtransport, within};

/// The fields of an opening, in no carrier yet.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    pub(crate) version: Option<&'static str>,
    pub(crate) token: Option<String>,
    /// Session, key and received, as text.
    pub(crate) resume: Option<[String; 3]>,
    pub(crate) origin: Option<String>,
    /// Over webtransport: whether native datagrams may have marks.
    pub(crate) marks: bool,
}

impl Default for Opening {
    fn default() -> Self {
        Self { version: Some("1"), token: None, resume: None, origin: None, marks: false }
    }
}

impl Opening {
    pub(crate) fn with_token(token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..Self::default() }
    }

    /// For a further link of the session, of which so much has been received.
    pub(crate) fn resuming(welcome: &Welcome, received: u64) -> Self {
        let resume = [welcome.session.to_string(), welcome.key.expose(), format!("0.{received}")];
        Self { resume: Some(resume), ..Self::default() }
    }

    pub(crate) fn with_origin(origin: &str) -> Self {
        Self { origin: Some(origin.to_owned()), ..Self::default() }
    }
}

/// An answer that is no link.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Refusal {
    /// A field of the JSON body.
    pub(crate) fn field(&self, name: &str) -> serde_json::Value {
        let body: serde_json::Value = serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("the body of {} is not JSON ({error}): {:?}", self.status, self.body));
        body[name].clone()
    }

    pub(crate) fn code(&self) -> u64 {
        self.field("code").as_u64().expect("the body has a code")
    }

    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.headers.get("retry-after")?.to_str().ok()?.parse().ok()
    }
}

/// What comes from the server.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A packet, or a part of one on webtransport.
    Bytes(Bytes),
    /// A native datagram.
    Datagram(Bytes),
    /// Bytes of a native stream beside the link stream, by the number that [`Natives`] gave it; none at its end.
    Native(u64, Option<Bytes>),
    /// A POST was not answered 204.
    Post(Refusal),
    /// The carrier was closed in its own way.
    Closed { code: u32, reason: String },
    /// The carrier ended in another way.
    Lost(String),
}

/// What goes to the server.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Packet(Bytes),
    Datagram(Bytes),
    /// A text message, on a websocket.
    Text(String),
    /// Closes the carrier in its own way.
    Close {
        code: u32,
        reason: String,
    },
}

/// One link. Both directions are one packet deep: who does not take from it makes the server wait. Dropping it cuts the connection.
pub(crate) struct Wire {
    pub(crate) transport: Transport,
    pub(crate) welcome: Welcome,
    /// Longest native datagram, where there are any.
    pub(crate) native_datagrams: Option<usize>,
    /// Streams beside the link stream, where there are any.
    pub(crate) natives: Option<Natives>,
    outgoing: mpsc::Sender<Outgoing>,
    incoming: mpsc::Receiver<Incoming>,
    /// What came with WELCOME, itself included.
    first: Option<Bytes>,
    tasks: JoinSet<()>,
    connection: Option<quinn::Connection>,
}

/// What a transport gives a wire to work with.
pub(crate) struct Ends {
    pub(crate) outgoing: mpsc::Sender<Outgoing>,
    pub(crate) incoming: mpsc::Receiver<Incoming>,
    pub(crate) native_datagrams: Option<usize>,
    pub(crate) natives: Option<Natives>,
    pub(crate) tasks: JoinSet<()>,
    /// What is left of a connection when its tasks have ended: a QUIC connection ends its streams first otherwise, which is a word of its own.
    pub(crate) connection: Option<quinn::Connection>,
}

impl Wire {
    async fn ends(place: &Place, transport: Transport, opening: &Opening) -> Result<Ends, Refusal> {
        let opened = async {
            match transport {
                Transport::WebTransport => webtransport::open(place, opening).await,
                Transport::WebSocket => websocket::open(place, opening).await,
                Transport::Sse => sse::open_sse(place, opening).await,
                _ => sse::open_poll(place, opening).await,
            }
        };
        within("the answer to an opening", opened).await
    }

    /// Opens a link and waits for its WELCOME.
    pub(crate) async fn open(place: &Place, transport: Transport, opening: &Opening) -> Result<Self, Refusal> {
        let mut ends = Self::ends(place, transport, opening).await?;
        let mut first = BytesMut::new();
        let welcome = loop {
            match within("WELCOME", ends.incoming.recv()).await {
                Some(Incoming::Bytes(bytes)) => first.extend_from_slice(&bytes),
                other => panic!("{transport}: {other:?} instead of WELCOME"),
            }
            let mut decoder = Decoder::new();
            decoder.push(first.clone().freeze());
            match decoder.next_frame().expect("the first frame can be read") {
                Some(Frame::Welcome(welcome)) => break welcome,
                Some(other) => panic!("{transport}: {other:?} instead of WELCOME"),
                None => {}
            }
        };
        let Ends { outgoing, incoming, native_datagrams, natives, tasks, connection } = ends;
        let first = Some(first.freeze());
        Ok(Self { transport, welcome, native_datagrams, natives, outgoing, incoming, first, tasks, connection })
    }

    /// Opens a link and leaves it at once.
    pub(crate) async fn knock(place: &Place, transport: Transport, opening: &Opening) -> Result<(), Refusal> {
        Self::ends(place, transport, opening).await.map(drop)
    }

    /// Opens a link on which the server says CLOSE instead of WELCOME, and returns its code and reason.
    pub(crate) async fn first_close(place: &Place, transport: Transport, opening: &Opening) -> (u32, String) {
        let mut ends = Self::ends(place, transport, opening).await.expect("it is let in");
        let mut decoder = Decoder::new();
        loop {
            match within("CLOSE", ends.incoming.recv()).await {
                Some(Incoming::Bytes(bytes)) => decoder.push(bytes),
                other => panic!("{transport}: {other:?} instead of CLOSE"),
            }
            match decoder.next_frame().expect("the first frame can be read") {
                Some(Frame::Close(close)) => return (close.code, close.reason),
                Some(other) => panic!("{transport}: {other:?} instead of CLOSE"),
                None => {}
            }
        }
    }

    /// Opens a link that the server has to accept.
    pub(crate) async fn connect(place: &Place, transport: Transport) -> Self {
        match Self::open(place, transport, &Opening::default()).await {
            Ok(wire) => wire,
            Err(refusal) => panic!("{transport} was refused: {refusal:?}"),
        }
    }

    /// Opens a link as soon as the server has a place for it.
    pub(crate) async fn connect_when_free(place: &Place, transport: Transport) -> Self {
        match Self::open_when_free(place, transport, &Opening::default()).await {
            Ok(wire) => wire,
            Err(refusal) => panic!("{transport} was refused: {refusal:?}"),
        }
    }

    /// Opens a link, or is refused for another reason than a lack of places.
    pub(crate) async fn open_when_free(
        place: &Place,
        transport: Transport,
        opening: &Opening,
    ) -> Result<Self, Refusal> {
        let opened = async {
            loop {
                match Self::open(place, transport, opening).await {
                    Err(refusal) if refusal.retry_after().is_some() => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    other => return other,
                }
            }
        };
        within("a free place", opened).await
    }

    /// What came with WELCOME, itself included, for who does not ask for it by [`Wire::next`].
    pub(crate) fn take_first(&mut self) -> Bytes {
        self.first.take().unwrap_or_default()
    }

    /// The server's next word. WELCOME is the first.
    pub(crate) async fn next(&mut self) -> Incoming {
        if let Some(first) = self.first.take() {
            return Incoming::Bytes(first);
        }
        let gone = || Incoming::Lost("the connection ended".into());
        self.incoming.recv().await.unwrap_or_else(gone)
    }

    pub(crate) async fn send(&self, outgoing: Outgoing) {
        // When it is gone, `next` says how.
        drop(self.outgoing.send(outgoing).await);
    }

    pub(crate) fn sender(&self) -> mpsc::Sender<Outgoing> {
        self.outgoing.clone()
    }

    /// Sends a packet of these frames.
    pub(crate) async fn send_frames(&self, frames: &[Frame]) {
        self.send(Outgoing::Packet(encode(frames))).await;
    }

    /// Waits for the CLOSE frame, or for the answer to a POST that stands for it, and returns its code and reason.
    pub(crate) async fn next_close(&mut self) -> (u32, String) {
        let mut decoder = Decoder::new();
        let transport = self.transport;
        let close = async {
            loop {
                match self.next().await {
                    Incoming::Bytes(bytes) => decoder.push(bytes),
                    Incoming::Datagram(_) | Incoming::Native(..) => {}
                    Incoming::Post(refusal) if refusal.status == StatusCode::BAD_REQUEST => {}
                    other => panic!("{transport}: {other:?} instead of CLOSE"),
                }
                while let Some(frame) = decoder.next_frame().expect("the server's frames can be read") {
                    if let Frame::Close(close) = frame {
                        return (close.code, close.reason);
                    }
                }
            }
        };
        within("CLOSE", close).await
    }

    /// Waits for the end of the carrier.
    pub(crate) async fn end(&mut self) -> Incoming {
        let end = async {
            loop {
                if let end @ (Incoming::Closed { .. } | Incoming::Lost(_)) = self.next().await {
                    return end;
                }
            }
        };
        within("the end of the carrier", end).await
    }

    /// Cuts the connection, and waits until its sockets are closed.
    pub(crate) async fn cut(mut self) {
        self.close_connection();
        self.tasks.shutdown().await;
    }

    fn close_connection(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close(0x0100_u32.into(), b""); // H3_NO_ERROR
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.close_connection();
    }
}

/// A packet of these frames.
pub(crate) fn encode(frames: &[Frame]) -> Bytes {
    let mut packet = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut packet));
    packet.freeze()
}
