//! A language model's answers as channels: each token is a publication, so that a page that reloads, changes its network or falls down the ladder in the middle
//! of an answer gets every token once, and so does a second one that opens late.
//!
//! ```sh
//! OPENAI_API_KEY=… cargo run --example tokens -- --model gpt-4o-mini
//! OPENAI_BASE_URL=http://127.0.0.1:11434 cargo run --example tokens -- --model llama3.2   # whatever speaks the same
//! ```
//!
//! Top-down: this file starts the server; `routes` has the page and `POST /ask`; `answers` makes a channel of an answer; `endpoint` reads the model's endpoint.
//! `docs/tokens.md` says what readers can rely on.

#![expect(clippy::print_stdout, reason = "the ready line")]

mod answers;
mod endpoint;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use throughline::{Config, Server};

use answers::Answers;
use endpoint::Endpoint;

/// A language model's answers as channels.
#[derive(Debug, Parser)]
struct Arguments {
    /// The model to ask
    #[arg(long, default_value = "gpt-4o-mini")]
    model: String,
    /// Nothing from the endpoint for this long ends an answer
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    stall_timeout: Duration,
    /// Print one line of JSON when the server listens
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let base_url = std::env::var("OPENAI_BASE_URL").unwrap_or_else(|_| "https://api.openai.com/v1".to_owned());
    // Not an argument: those can be read by everybody on the machine.
    let key = std::env::var("OPENAI_API_KEY").ok();
    let mut config = Config::load(None)?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::new(config.log.filter.clone()))
        .init();
    config.channels.namespaces.insert(answers::NAMESPACE.to_owned(), answers::namespace());
    let drain_timeout = config.limits.drain_timeout;
    let scheme = if config.tcp.tls { "https" } else { "http" };

    let endpoint = Endpoint::new(&base_url, key.as_deref(), arguments.model, arguments.stall_timeout)?;
    let answers = Arc::new(Answers::new(endpoint));
    let server = Server::builder().config(config).routes(routes::routes(Arc::clone(&answers))).start().await?;

    let tcp = server.tcp_addr().map(|addr| format!("{scheme}://{addr}"));
    if arguments.json {
        let hashes: Vec<_> = server.certificate_hashes().iter().map(throughline_certs::base64).collect();
        let quic = server.quic_addr().map(|addr| format!("https://{addr}"));
        println!("{}", serde_json::json!({ "event": "ready", "tcp": tcp, "quic": quic, "certificateHashes": hashes }));
    } else {
        println!("open {}", tcp.unwrap_or_default());
    }

    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    answers.stop().await;
    server.drain(drain_timeout).await;
    Ok(())
}
