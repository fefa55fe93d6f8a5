//! WebTransport, plain ([`Session`]) and as the carrier of Throughline sessions ([`Link`]): quinn, and of HTTP/3 the handshake only.
//!
//! One task less per connection than a whole HTTP/3 client has, so that the load generator can hold a thousand sessions on one core. It answers
//! nothing that servers ask of HTTP/3: what stands on their control streams is not read.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use throughline_protocol::{Decoder, Frame, Welcome, varint};
use web_transport_proto::{ConnectRequest, ConnectResponse, Settings};

use super::quic;
use crate::Failure;

/// What a bidirectional stream of a session begins with (draft-ietf-webtrans-http3, section 4.3).
const STREAM_SIGNAL: u64 = 0x41;

/// Read at once, in bytes.
pub(crate) const CHUNK: usize = 64 * 1_024;

/// H3_NO_ERROR.
const NO_ERROR: VarInt = VarInt::from_u32(0x0100);

/// An endpoint for any number of [`Session`]s. Must be called in a runtime.
pub(crate) fn endpoint() -> Result<Endpoint, Failure> {
    quic::endpoint(b"h3")
}

/// An open session on a connection of its own, which ends when this is dropped.
pub(crate) struct Session {
    connection: Connection,
    /// What every datagram begins with: the number of the session's request, divided by four.
    datagram_prefix: Bytes,
    /// What every stream begins with.
    stream_header: Bytes,
    /// The settings, and the request: when they end, so does the session.
    _http: (SendStream, SendStream, RecvStream),
}

impl Session {
    /// CONNECTs to `path`, a query included, and waits for the answer.
    pub(crate) async fn open(endpoint: &Endpoint, to: SocketAddr, path: &str) -> Result<Self, Failure> {
        let connection = endpoint.connect(to, "localhost")?.await?;
        let mut control = connection.open_uni().await?;
        let mut settings = Settings::default();
        settings.enable_webtransport(1);
        settings.write(&mut control).await?;
        let (mut request, mut response) = connection.open_bi().await?;
        let url: url::Url = format!("https://{to}{path}").parse()?;
        ConnectRequest::new(url).write(&mut request).await?;
        ConnectResponse::read(&mut response).await?;
        let id = u64::from(request.id());
        Ok(Self {
            connection,
            datagram_prefix: numbers([id / 4]),
            stream_header: numbers([STREAM_SIGNAL, id]),
            _http: (control, request, response),
        })
    }

    /// Sends a datagram; one that does not fit the path, or finds the buffer full, is lost.
    pub(crate) fn send_datagram(&self, data: &[u8]) {
        let mut bytes = BytesMut::with_capacity(self.datagram_prefix.len() + data.len());
        bytes.put_slice(&self.datagram_prefix);
        bytes.put_slice(data);
        drop(self.connection.send_datagram(bytes.freeze()));
    }

    /// The next datagram.
    pub(crate) async fn recv_datagram(&self) -> Result<Bytes, Failure> {
        let mut bytes = self.connection.read_datagram().await?;
        varint::take(&mut bytes).ok_or("a datagram without a session")?;
        Ok(bytes)
    }

    /// Opens a stream.
    pub(crate) async fn open_bi(&self) -> Result<(SendStream, RecvStream), Failure> {
        let (mut send, recv) = self.connection.open_bi().await?;
        send.write_chunk(self.stream_header.clone()).await?;
        Ok((send, recv))
    }

    /// The next stream that the server opens.
    pub(crate) async fn accept_bi(&self) -> Result<(SendStream, RecvStream), Failure> {
        let (send, mut recv) = self.connection.accept_bi().await?;
        let mut header = vec![0; self.stream_header.len()];
        recv.read_exact(&mut header).await?;
        if header != self.stream_header {
            return Err("a stream that is not the session's".into());
        }
        Ok((send, recv))
    }

    /// The connection below it.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// What carries a Throughline session (SPEC section 7.1): a session of WebTransport, and the stream that the server opens in it.
pub(crate) struct Link {
    pub(crate) session: Session,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

impl Link {
    /// CONNECTs below `base`, such as `/state`, for a new session. What comes first on the stream is WELCOME.
    pub(crate) async fn open(endpoint: &Endpoint, to: SocketAddr, base: &str) -> Result<Self, Failure> {
        let session = Session::open(endpoint, to, &format!("{base}/webtransport?v=1")).await?;
        let (send, recv) = session.accept_bi().await?;
        Ok(Self { session, send, recv })
    }

    /// Waits for WELCOME, and chooses this link for its session.
    pub(crate) async fn begin(&mut self, decoder: &mut Decoder) -> Result<Welcome, Failure> {
        let Frame::Welcome(welcome) = next_frame(&mut self.recv, decoder).await? else {
            return Err("something else came before WELCOME".into());
        };
        self.send.write_all(&encoded(&Frame::Ping { id: 1 })).await?;
        Ok(welcome)
    }
}

/// Answers PINGs, and nothing else, until the link ends: what a session needs to go on whose application says nothing.
pub(crate) async fn keep(
    mut send: SendStream,
    mut recv: RecvStream,
    mut decoder: Decoder,
) -> Result<Infallible, Failure> {
    loop {
        if let Frame::Ping { id } = next_frame(&mut recv, &mut decoder).await? {
            send.write_all(&encoded(&Frame::Pong { id, time_us: 0 })).await?;
        }
    }
}

async fn next_frame(recv: &mut RecvStream, decoder: &mut Decoder) -> Result<Frame, Failure> {
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return Ok(frame);
        }
        decoder.push(recv.read_chunk(CHUNK, true).await?.ok_or("the server ended the link stream")?.bytes);
    }
}

fn encoded(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    bytes
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.close(NO_ERROR, b"");
    }
}

fn numbers<const N: usize>(numbers: [u64; N]) -> Bytes {
    let mut bytes = BytesMut::new();
    for number in numbers {
        varint::encode(number, &mut bytes);
    }
    bytes.freeze()
}
