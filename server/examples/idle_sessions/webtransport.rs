//! SPEC section 7.1.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use throughline_protocol::Decoder;

use crate::idle::{Failure, Holding, answer, first_ping, welcome};
use crate::trust;

/// Bytes before the first frame: 0x41 in two, and the session's id, 0, in one (draft-ietf-webtrans-http3, section 4.3).
const STREAM_HEADER: usize = 3;

/// Most that is read of the link stream at once, in bytes.
const READ_CHUNK: usize = 4_096;

/// Where to connect, and from where.
pub(crate) struct Server {
    address: SocketAddr,
    url: String,
    endpoint: quinn::Endpoint,
}

impl Server {
    pub(crate) fn new(address: SocketAddr, base: &str) -> Result<Self, Failure> {
        let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
        endpoint.set_default_client_config(trust::client_config()?);
        Ok(Self { address, url: format!("https://{address}{base}/webtransport?v=1"), endpoint })
    }
}

pub(crate) async fn open(server: &Server) -> Result<Holding, Failure> {
    let Server { address, url, endpoint } = server;
    let connection = endpoint.connect(*address, "localhost")?.await?;
    // h3's driver would take the server's link stream for a mistake. It is kept, and never polled.
    let (driver, mut requests) = h3::client::builder()
        .enable_extended_connect(true)
        .enable_datagram(true)
        .send_grease(false)
        .build::<_, _, Bytes>(h3_quinn::Connection::new(connection.clone()))
        .await?;
    let request =
        Request::builder().method(Method::CONNECT).uri(url).extension(h3::ext::Protocol::WEB_TRANSPORT).body(())?;
    let mut stream = requests.send_request(request).await?;
    let status = stream.recv_response().await?.status();
    if status != StatusCode::OK {
        return Err(format!("the server answered {status}").into());
    }
    let (mut send, mut recv) = connection.accept_bi().await?;
    recv.read_exact(&mut [0; STREAM_HEADER]).await?;
    let mut decoder = Decoder::new();
    while welcome(&mut decoder)?.is_none() {
        decoder.push(read(&mut recv).await?);
    }
    send.write_all(&first_ping()).await?;
    let http = (driver, requests, stream);
    Ok(Box::pin(async move {
        let _kept = http;
        loop {
            let said = answer(&mut decoder)?;
            if !said.is_empty() {
                send.write_all(&said).await?;
            }
            decoder.push(read(&mut recv).await?);
        }
    }))
}

async fn read(recv: &mut quinn::RecvStream) -> Result<Bytes, Failure> {
    Ok(recv.read_chunk(READ_CHUNK, true).await?.ok_or("the server ended the link stream")?.bytes)
}
