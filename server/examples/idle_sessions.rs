//! Opens WebTransport sessions that say nothing but what keeps them alive, and holds them: what a server needs for each can then be read off
//! its memory. `tests/memory.test.mjs` does that.
//!
//! `idle_sessions ADDRESS COUNT` opens them one connection each, as browsers do, prints `{"event":"open","sessions":COUNT}`, and ends
//! them when its standard input ends. Takes any certificate: it is for a server on this machine.

#[path = "common/trust.rs"]
mod trust;

use std::error::Error;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use throughline_protocol::{Decoder, Frame};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Handshakes at the same time: more would only wait for each other.
const HANDSHAKES: usize = 32;

/// Bytes before the first frame: 0x41 in two, and the session's id, 0, in one (draft-ietf-webtrans-http3, section 4.3).
const STREAM_HEADER: usize = 3;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: idle_sessions ADDRESS COUNT";
    let address: SocketAddr = arguments.next().ok_or(usage)?.parse()?;
    let count: usize = arguments.next().ok_or(usage)?.parse()?;

    let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    endpoint.set_default_client_config(trust::client_config()?);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let (endpoint, handshakes) = (endpoint.clone(), Arc::clone(&handshakes));
        opening.spawn(async move {
            let _one_of_few = handshakes.acquire().await?;
            open(&endpoint, address).await
        });
    }
    let mut holding = JoinSet::new();
    while let Some(opened) = opening.join_next().await {
        holding.spawn(hold(opened??));
    }
    writeln!(std::io::stdout(), r#"{{"event":"open","sessions":{count}}}"#)?;

    // A thread, and not one of the runtime's: that would be waited for when a session fails first.
    let (ending, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || ending.send(std::io::copy(&mut std::io::stdin(), &mut std::io::sink())));
    tokio::select! {
        ended = ended => drop(ended??),
        Some(failed) = holding.join_next() => failed??,
    }
    Ok(())
}

/// What must be kept for a session to go on, and its link stream.
struct Open {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    decoder: Decoder,
    _http: Box<dyn Send>,
}

async fn open(endpoint: &quinn::Endpoint, address: SocketAddr) -> Result<Open, Failure> {
    let connection = endpoint.connect(address, "localhost")?.await?;
    // h3's driver would take the server's link stream for a mistake. It is kept, and never polled.
    let (driver, mut requests) = h3::client::builder()
        .enable_extended_connect(true)
        .enable_datagram(true)
        .send_grease(false)
        .build::<_, _, Bytes>(h3_quinn::Connection::new(connection.clone()))
        .await?;
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://{address}/rt/webtransport?v=1"))
        .extension(h3::ext::Protocol::WEB_TRANSPORT)
        .body(())?;
    let mut stream = requests.send_request(request).await?;
    let status = stream.recv_response().await?.status();
    if status != StatusCode::OK {
        return Err(format!("the server answered {status}").into());
    }
    let (mut send, mut recv) = connection.accept_bi().await?;
    recv.read_exact(&mut [0; STREAM_HEADER]).await?;
    let mut decoder = Decoder::new();
    while !matches!(next_frame(&mut decoder, &mut recv).await?, Frame::Welcome(_)) {}
    send.write_all(&encoded(&Frame::Ping { id: 1 })).await?;
    Ok(Open { send, recv, decoder, _http: Box::new((driver, requests, stream)) })
}

/// Answers PINGs, so that the server keeps the session.
async fn hold(mut open: Open) -> Result<(), Failure> {
    loop {
        if let Frame::Ping { id } = next_frame(&mut open.decoder, &mut open.recv).await? {
            open.send.write_all(&encoded(&Frame::Pong { id, time_us: 0 })).await?;
        }
    }
}

async fn next_frame(decoder: &mut Decoder, recv: &mut quinn::RecvStream) -> Result<Frame, Failure> {
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return Ok(frame);
        }
        decoder.push(recv.read_chunk(4_096, true).await?.ok_or("the server ended the link stream")?.bytes);
    }
}

fn encoded(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    bytes
}
