//! SPEC section 7.1: h3's client makes the CONNECT, quinn the rest. Takes any certificate: it is for a server on this machine.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{Method, Request, StatusCode};
use parking_lot::Mutex;
use throughline_protocol::varint;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Ends, Incoming, Place, Resume, udp};
use crate::Failure;
use crate::fault::{Fault, How};
use crate::trust;

/// What a bidirectional stream of a session begins with (draft-ietf-webtrans-http3, section 4.3).
const STREAM_SIGNAL: u64 = 0x41;

/// Read at once, in bytes.
const READ_CHUNK: usize = 64 * 1_024;

pub(super) async fn open(place: &Place, resume: Option<&Resume>, fault: &Fault) -> Result<Ends, Failure> {
    let socket = udp::bind(place.from, fault)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = quinn::Endpoint::new_with_abstract_socket(quinn::EndpointConfig::default(), None, socket, runtime)?;
    let connection = endpoint.connect_with(client_config()?, place.quic, "localhost")?.await?;
    let connected = Connected { endpoint: endpoint.clone(), connection: connection.clone() };
    // h3's driver would take a stream of the server's for a mistake. It is kept, and never polled.
    let (driver, mut requests) = h3::client::builder()
        .enable_extended_connect(true)
        .enable_datagram(true)
        .send_grease(false)
        .build::<_, _, Bytes>(h3_quinn::Connection::new(connection.clone()))
        .await?;
    let mut query = "v=1".to_owned();
    if let Some(Resume { session, key, received }) = resume {
        query += &format!("&session={session}&key={}&received=0.{received}", key.expose());
    }
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://{}/rt/webtransport?{query}", place.quic))
        .extension(h3::ext::Protocol::WEB_TRANSPORT)
        .body(())?;
    let mut stream = requests.send_request(request).await?;
    let status = stream.recv_response().await?.status();
    if status != StatusCode::OK {
        return Err(format!("webtransport was answered {status}").into());
    }
    let session = stream.id().into_inner();
    let (mut link_send, mut link_recv) = connection.accept_bi().await?;
    read_header(&mut link_recv, session).await?;

    let (incoming_tx, incoming) = mpsc::channel(1);
    let (outgoing, mut outgoing_rx) = mpsc::channel::<Bytes>(1);
    let mut tasks = JoinSet::new();
    let natives = Natives {
        connection: connection.clone(),
        session,
        incoming: incoming_tx.clone(),
        open: Arc::default(),
        fault: fault.clone(),
    };
    tasks.spawn(natives.clone().accept());
    let reading = fault.clone();
    tasks.spawn(async move {
        let lost = loop {
            let bytes = match link_recv.read_chunk(READ_CHUNK, true).await {
                Ok(Some(chunk)) => chunk.bytes,
                Ok(None) => break "the link stream ended".to_owned(),
                Err(error) => break error.to_string(),
            };
            let passed = bytes.slice(..reading.pass(bytes.len()));
            if incoming_tx.send(Incoming::Bytes(passed)).await.is_err() {
                return;
            }
        };
        drop(incoming_tx.send(Incoming::Lost(lost)).await);
    });
    let writing = fault.clone();
    tasks.spawn(async move {
        while let Some(packet) = outgoing_rx.recv().await {
            let passed = writing.pass(packet.len());
            if link_send.write_chunk(packet.slice(..passed)).await.is_err() || passed < packet.len() {
                break; // the reader says how it ended
            }
        }
        // For as long as the link lives: a stream that is dropped is finished.
        let _kept = (link_send, driver, requests, stream);
        std::future::pending::<()>().await;
    });
    let (fault, resetting) = (fault.clone(), connection.clone());
    tasks.spawn(async move {
        fault.broken().await;
        if fault.how() == Some(How::Reset) {
            drop(Connected { endpoint, connection: resetting });
        }
    });
    Ok(Ends { outgoing, incoming, natives: Some(natives), connected: Some(connected), tasks })
}

/// A QUIC connection, which is closed when this is dropped: quinn would end its streams first, and the server take that for a word of ours.
pub(crate) struct Connected {
    pub(crate) endpoint: quinn::Endpoint,
    connection: quinn::Connection,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.connection.close(0x0100_u32.into(), b""); // H3_NO_ERROR
    }
}

/// Bidirectional streams beside the link stream, of both sides. What arrives on them comes as [`Incoming::Native`].
#[derive(Clone)]
pub(crate) struct Natives {
    connection: quinn::Connection,
    session: u64,
    incoming: mpsc::Sender<Incoming>,
    open: Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Bytes>>>>,
    fault: Fault,
}

impl Natives {
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
            drop(stream.send(bytes)); // the link is gone, and says so itself
        }
    }

    /// Nothing more will be sent on it.
    pub(crate) fn finish(&self, number: u64) {
        self.open.lock().remove(&number);
    }

    async fn accept(self) {
        while let Ok((send, mut recv)) = self.connection.accept_bi().await {
            if read_header(&mut recv, self.session).await.is_ok() {
                self.enter(send.id().into(), send, recv);
            }
        }
    }

    fn enter(&self, number: u64, mut send: quinn::SendStream, mut recv: quinn::RecvStream) {
        let (sender, mut outgoing) = mpsc::unbounded_channel::<Bytes>();
        self.open.lock().insert(number, sender);
        let fault = self.fault.clone();
        tokio::spawn(async move {
            while let Some(bytes) = outgoing.recv().await {
                let passed = fault.pass(bytes.len());
                if send.write_chunk(bytes.slice(..passed)).await.is_err() || passed < bytes.len() {
                    return;
                }
            }
            drop(send.finish()); // it may be reset
        });
        let (incoming, fault) = (self.incoming.clone(), self.fault.clone());
        tokio::spawn(async move {
            while let Ok(Some(chunk)) = recv.read_chunk(READ_CHUNK, true).await {
                let passed = chunk.bytes.slice(..fault.pass(chunk.bytes.len()));
                if incoming.send(Incoming::Native(number, Some(passed))).await.is_err() {
                    return;
                }
            }
            drop(incoming.send(Incoming::Native(number, None)).await);
        });
    }
}

/// Reads what stands before the first frame.
async fn read_header(stream: &mut quinn::RecvStream, session: u64) -> Result<(), Failure> {
    for expected in [STREAM_SIGNAL, session] {
        let mut bytes = BytesMut::new();
        let found = loop {
            let mut byte = [0];
            stream.read_exact(&mut byte).await?;
            bytes.extend_from_slice(&byte);
            if let Some(number) = varint::take(&mut bytes.clone().freeze()) {
                break number;
            }
        };
        if found != expected {
            return Err(format!("a stream begins with {found} instead of {expected}").into());
        }
    }
    Ok(())
}

/// One for all connections: building it is half the work of a handshake.
fn client_config() -> Result<quinn::ClientConfig, Failure> {
    static CONFIG: OnceLock<quinn::ClientConfig> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let config = trust::client_config()?;
    Ok(CONFIG.get_or_init(|| config).clone())
}
