//! Stock `h3-webtransport`, on h3-quinn.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use clap::Parser;
use h3::ext::Protocol;
use h3::quic::BidiStream;
use h3_datagram::datagram_handler::{DatagramReader, DatagramSender};
use h3_quinn::datagram::{RecvDatagramHandler, SendDatagramHandler};
use h3_webtransport::server::{AcceptedBi, WebTransportSession};
use throughline_bench_subjects::contract::{Arguments, Failure, Listens, ready, terminated};
use throughline_bench_subjects::quic;
use throughline_bench_subjects::webtransport::{Behaviours, Session, echo};

struct Held {
    session: WebTransportSession<h3_quinn::Connection, Bytes>,
    sender: Mutex<DatagramSender<SendDatagramHandler, Bytes>>,
    reader: tokio::sync::Mutex<DatagramReader<RecvDatagramHandler>>,
}

impl Session for Held {
    fn send(&self, datagram: Bytes) {
        let _ = self.sender.lock().unwrap_or_else(PoisonError::into_inner).send_datagram(datagram);
    }

    async fn receive(&self) -> Option<Bytes> {
        Some(self.reader.lock().await.read_datagram().await.ok()?.into_payload())
    }

    async fn streams(&self, is_echo: bool) {
        while let Ok(Some(accepted)) = self.session.accept_bi().await {
            if let AcceptedBi::BidiStream(_, stream) = accepted
                && is_echo
            {
                let (writer, reader) = stream.split();
                echo(reader, writer);
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let endpoint = quic::endpoint(&Arguments::parse())?;
    ready(Listens::Quic(endpoint.local_addr()?.port()), "h3-webtransport");
    let behaviours = Arc::new(Behaviours::default());
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(serve(incoming, Arc::clone(&behaviours)));
        }
    });
    terminated().await
}

/// The first request of a connection that asks for WebTransport becomes its session: no other could have datagrams.
async fn serve(incoming: quinn::Incoming, behaviours: Arc<Behaviours>) -> Result<(), Failure> {
    let mut connection = h3::server::builder()
        .enable_webtransport(true)
        .enable_extended_connect(true)
        .enable_datagram(true)
        .max_webtransport_sessions(1)
        .send_grease(false)
        .build(h3_quinn::Connection::new(incoming.await?))
        .await?;
    while let Some(resolver) = connection.accept().await? {
        let (request, stream) = resolver.resolve_request().await?;
        if request.extensions().get::<Protocol>() == Some(&Protocol::WEB_TRANSPORT) {
            let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
            let session = WebTransportSession::accept(request, stream, connection).await?;
            let (sender, reader) = (Mutex::new(session.datagram_sender()), session.datagram_reader().into());
            behaviours.run(&target, Held { session, sender, reader }).await;
            break;
        }
    }
    Ok(())
}
