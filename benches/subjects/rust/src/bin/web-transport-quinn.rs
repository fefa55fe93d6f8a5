//! `web-transport-quinn`, on an endpoint of quinn's own.

use std::sync::Arc;

use bytes::Bytes;
use clap::Parser;
use throughline_bench_subjects::contract::{Arguments, Failure, Listens, ready, terminated};
use throughline_bench_subjects::quic;
use throughline_bench_subjects::webtransport::{Behaviours, Session, echo};
use web_transport_quinn::{Request, Server};

struct Held(web_transport_quinn::Session);

impl Session for Held {
    fn send(&self, datagram: Bytes) {
        let _ = self.0.send_datagram(datagram);
    }

    async fn receive(&self) -> Option<Bytes> {
        self.0.read_datagram().await.ok()
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
    let mut server = Server::new(quic::endpoint(&Arguments::parse())?);
    ready(Listens::Quic(server.local_addr()?.port()), "web-transport-quinn");
    let behaviours = Arc::new(Behaviours::default());
    tokio::spawn(async move {
        while let Some(request) = server.accept().await {
            tokio::spawn(serve(request, Arc::clone(&behaviours)));
        }
    });
    terminated().await
}

async fn serve(request: Request, behaviours: Arc<Behaviours>) {
    let url = &request.url;
    let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
    if let Ok(session) = request.ok().await {
        behaviours.run(&target, Held(session)).await;
    }
}
