//! SPEC section 7.1: h3's own client makes the CONNECT, quinn the rest.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use http::{Method, Request, StatusCode};
use parking_lot::Mutex;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use throughline_protocol::varint;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::server::Place;
use super::wire::{Ends, Incoming, Opening, Outgoing, Refusal};

/// CLOSE_WEBTRANSPORT_SESSION (draft-ietf-webtrans-http3, section 5).
const CLOSE_CAPSULE: u64 = 0x2843;

/// What a bidirectional stream of a session begins with.
const STREAM_SIGNAL: u64 = 0x41;

pub(crate) async fn open(place: &Place, opening: &Opening) -> Result<Ends, Refusal> {
    let address = place.quic.expect("it listens on QUIC");
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a UDP socket");
    let connecting = endpoint.connect_with(client_config(place), address, "localhost").expect("a valid configuration");
    let connection = connecting.await.expect("QUIC connects");
    // h3's driver would take a stream of the server's for a mistake. It is kept, and never polled.
    let (driver, mut requests) = h3::client::builder()
        .enable_extended_connect(true)
        .enable_datagram(true)
        .send_grease(false)
        .build::<_, _, Bytes>(h3_quinn::Connection::new(connection.clone()))
        .await
        .expect("HTTP/3 is set up");

    let mut stream = requests.send_request(connect_request(place, address, opening)).await.expect("CONNECT is sent");
    let response = stream.recv_response().await.expect("CONNECT is answered");
    if response.status() != StatusCode::OK {
        let mut body = BytesMut::new();
        while let Some(data) = stream.recv_data().await.expect("a refusal has a body") {
            body.extend_from_slice(data.chunk());
        }
        let (parts, ()) = response.into_parts();
        return Err(Refusal { status: parts.status, headers: parts.headers, body: body.freeze() });
    }
    let session = stream.id().into_inner();
    let (mut connect_send, mut connect_recv) = stream.split();
    let (mut link_send, mut link_recv) = connection.accept_bi().await.expect("the server opens the link stream");
    assert_eq!(read_varint(&mut link_recv).await, STREAM_SIGNAL);
    assert_eq!(read_varint(&mut link_recv).await, session);

    let (incoming_tx, incoming) = mpsc::channel(1);
    let (outgoing, mut outgoing_rx) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    let natives = Natives::new(connection.clone(), session, incoming_tx.clone());
    tasks.spawn(natives.clone().accept());
    let datagrams = incoming_tx.clone();
    tasks.spawn(async move {
        // Everything is kept for as long as the wire is.
        let _kept = (driver, requests, endpoint);
        let capsule = async {
            let mut capsules = BytesMut::new();
            while let Ok(Some(data)) = connect_recv.recv_data().await {
                capsules.extend_from_slice(data.chunk());
                if let Some(closed) = close_capsule(&mut capsules) {
                    return closed;
                }
            }
            Incoming::Lost("the CONNECT stream ended".into())
        };
        let frames = async {
            while let Ok(Some(chunk)) = link_recv.read_chunk(usize::MAX, true).await {
                drop(incoming_tx.send(Incoming::Bytes(chunk.bytes)).await);
            }
        };
        // Frames are dropped when their time is over: a send that waits and is not polled would keep its place in the queue.
        let (mut capsule, mut frames) = (std::pin::pin!(capsule), Box::pin(frames));
        let end = tokio::select! {
            end = &mut capsule => {
                // What stands on the link stream came before it.
                drop(tokio::time::timeout(Duration::from_secs(1), frames).await);
                end
            }
            () = &mut frames => capsule.await,
        };
        drop(incoming_tx.send(end).await);
    });
    let (to_session, kept) = (connection.clone(), connection.clone());
    tasks.spawn(async move {
        while let Ok(mut datagram) = connection.read_datagram().await {
            assert_eq!(varint::take(&mut datagram), Some(session / 4));
            if datagrams.send(Incoming::Datagram(datagram)).await.is_err() {
                return;
            }
        }
    });
    let native_datagrams = to_session.max_datagram_size().map(|size| size - varint::len(session / 4));
    tasks.spawn(async move {
        while let Some(outgoing) = outgoing_rx.recv().await {
            match outgoing {
                Outgoing::Packet(packet) => {
                    if link_send.write_chunk(packet).await.is_err() {
                        return std::future::pending().await; // the other task says how it ended
                    }
                }
                Outgoing::Datagram(payload) => {
                    let mut datagram = BytesMut::new();
                    varint::encode(session / 4, &mut datagram);
                    datagram.extend_from_slice(&payload);
                    drop(to_session.send_datagram(datagram.freeze()));
                }
                Outgoing::Close { code, reason } => {
                    let mut capsule = BytesMut::new();
                    varint::encode(CLOSE_CAPSULE, &mut capsule);
                    varint::encode(4 + reason.len() as u64, &mut capsule);
                    capsule.extend_from_slice(&code.to_be_bytes());
                    capsule.extend_from_slice(reason.as_bytes());
                    drop(connect_send.send_data(capsule.freeze()).await);
                    drop(connect_send.finish().await);
                }
                Outgoing::Text(_) => panic!("webtransport has no text messages"),
            }
        }
        std::future::pending::<()>().await; // a dropped stream would end it
        drop(connect_send);
    });
    Ok(Ends { outgoing, incoming, native_datagrams, natives: Some(natives), tasks, connection: Some(kept) })
}

/// Bidirectional streams beside the link stream, of both sides. What arrives on them comes as [`Incoming::Native`].
#[derive(Clone)]
pub(crate) struct Natives {
    connection: quinn::Connection,
    session: u64,
    incoming: mpsc::Sender<Incoming>,
    open: Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Bytes>>>>,
}

impl Natives {
    fn new(connection: quinn::Connection, session: u64, incoming: mpsc::Sender<Incoming>) -> Self {
        Self { connection, session, incoming, open: Arc::default() }
    }

    /// Opens a stream, if the server allows one now, and returns its number.
    pub(crate) fn open(&self) -> Option<u64> {
        let (send, recv) = self.connection.open_bi().now_or_never()?.ok()?;
        let number = send.id().into();
        let mut header = BytesMut::new();
        varint::encode(STREAM_SIGNAL, &mut header);
        varint::encode(self.session, &mut header);
        self.enter(number, send, recv);
        self.send(number, header.freeze());
        Some(number)
    }

    /// Bytes for a stream. The session's credit bounds them.
    pub(crate) fn send(&self, number: u64, bytes: Bytes) {
        if let Some(stream) = self.open.lock().get(&number) {
            drop(stream.send(bytes));
        }
    }

    /// Nothing more will be sent on it.
    pub(crate) fn finish(&self, number: u64) {
        self.open.lock().remove(&number);
    }

    async fn accept(self) {
        while let Ok((send, mut recv)) = self.connection.accept_bi().await {
            assert_eq!(read_varint(&mut recv).await, STREAM_SIGNAL);
            assert_eq!(read_varint(&mut recv).await, self.session);
            self.enter(send.id().into(), send, recv);
        }
    }

    fn enter(&self, number: u64, mut send: quinn::SendStream, mut recv: quinn::RecvStream) {
        let (sender, mut outgoing) = mpsc::unbounded_channel::<Bytes>();
        self.open.lock().insert(number, sender);
        tokio::spawn(async move {
            while let Some(bytes) = outgoing.recv().await {
                if send.write_chunk(bytes).await.is_err() {
                    return;
                }
            }
            drop(send.finish());
        });
        let incoming = self.incoming.clone();
        tokio::spawn(async move {
            while let Ok(Some(chunk)) = recv.read_chunk(usize::MAX, true).await {
                if incoming.send(Incoming::Native(number, Some(chunk.bytes))).await.is_err() {
                    return;
                }
            }
            drop(incoming.send(Incoming::Native(number, None)).await);
        });
    }
}

fn connect_request(place: &Place, address: SocketAddr, opening: &Opening) -> Request<()> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(version) = opening.version {
        query.append_pair("v", version);
    }
    if let Some([session, key, received]) = &opening.resume {
        query.append_pair("session", session).append_pair("key", key).append_pair("received", received);
    }
    if let Some(token) = &opening.token {
        query.append_pair("token", token);
    }
    if opening.marks {
        query.append_pair("marks", "1");
    }
    let uri = format!("https://{address}{}/webtransport?{}", place.base, query.finish());
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(uri)
        .extension(h3::ext::Protocol::WEB_TRANSPORT)
        .header("wt-available-protocols", "\"throughline.v1\"");
    if let Some(origin) = &opening.origin {
        request = request.header("origin", origin);
    }
    request.body(()).expect("a request")
}

/// The code and reason, once the capsule is complete. Other capsules are skipped.
fn close_capsule(bytes: &mut BytesMut) -> Option<Incoming> {
    loop {
        let mut rest = bytes.clone().freeze();
        let kind = varint::take(&mut rest)?;
        let length = varint::take(&mut rest)? as usize;
        if rest.len() < length {
            return None;
        }
        bytes.advance(bytes.len() - rest.len() + length);
        if kind == CLOSE_CAPSULE {
            let code = rest.get_u32();
            let reason = String::from_utf8(rest[..length - 4].to_vec()).expect("a reason is UTF-8");
            return Some(Incoming::Closed { code, reason });
        }
    }
}

async fn read_varint(stream: &mut quinn::RecvStream) -> u64 {
    let mut bytes = BytesMut::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("a varint");
        bytes.extend_from_slice(&byte);
        if let Some(number) = varint::take(&mut bytes.clone().freeze()) {
            return number;
        }
    }
}

pub(crate) fn client_config(place: &Place) -> quinn::ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("aws-lc-rs speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ByHash { hashes: place.hashes.clone(), provider }))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")))
}

/// Accepts what the server published, as a browser does with `serverCertificateHashes`.
#[derive(Debug)]
struct ByHash {
    hashes: Vec<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByHash {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut suites = self.provider.cipher_suites.iter().filter_map(|suite| suite.tls13());
        let sha256 = suites.find(|suite| suite.common.hash_provider.output_len() == 32).expect("a suite with SHA-256");
        let hash = sha256.common.hash_provider.hash(certificate);
        if self.hashes.iter().any(|known| known[..] == *hash.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("its hash was not published".into()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
