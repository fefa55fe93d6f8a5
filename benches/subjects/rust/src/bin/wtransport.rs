//! `wtransport`.

use std::sync::Arc;

use bytes::Bytes;
use clap::Parser;
use throughline_bench_subjects::contract::{Arguments, Failure, Listens, ready, terminated};
use throughline_bench_subjects::quic;
use throughline_bench_subjects::webtransport::{Behaviours, Session, echo};
use wtransport::endpoint::IncomingSession;
use wtransport::{Connection, Endpoint, ServerConfig};

struct Held(Connection);

impl Session for Held {
    fn send(&self, datagram: Bytes) {
        let _ = self.0.send_datagram(datagram);
    }

    async fn receive(&self) -> Option<Bytes> {
        Some(self.0.receive_datagram().await.ok()?.payload())
    }

    async fn streams(&self, is_echo: bool) {
        while let Ok((writer, reader)) = self.0.accept_bi().await {
            if is_echo {
                echo(reader, writer);
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let config = ServerConfig::builder()
        .with_bind_socket(quic::socket(&arguments)?)
        .with_custom_tls_and_transport(quic::tls(&arguments)?, quic::transport()?)
        .build();
    let endpoint = Endpoint::server(config)?;
    ready(Listens::Quic(endpoint.local_addr()?.port()), "wtransport");
    let behaviours = Arc::new(Behaviours::default());
    tokio::spawn(async move {
        loop {
            tokio::spawn(serve(endpoint.accept().await, Arc::clone(&behaviours)));
        }
    });
    terminated().await
}

async fn serve(incoming: IncomingSession, behaviours: Arc<Behaviours>) -> Result<(), Failure> {
    let request = incoming.await?;
    let target = request.path().to_owned();
    behaviours.run(&target, Held(request.accept().await?)).await;
    Ok(())
}
