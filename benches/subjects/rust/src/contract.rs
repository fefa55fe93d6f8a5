//! How a subject is started and ends (`benches/README.md`).

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What all subjects are started with. What does not apply is ignored.
#[derive(Debug, Parser)]
pub struct Arguments {
    #[arg(long, default_value = "127.0.0.1:0")]
    pub tcp: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:0")]
    pub quic: SocketAddr,
    #[arg(long)]
    pub cert: Option<PathBuf>,
    #[arg(long)]
    pub key: Option<PathBuf>,
    #[arg(long)]
    app: Option<String>,
}

/// Where a subject listens.
pub enum Listens {
    Tcp(u16),
    Quic(u16),
}

/// Says that the subject accepts, and which version of its library it stands on.
pub fn ready(listens: Listens, library: &str) {
    let (tcp, quic) = match listens {
        Listens::Tcp(port) => (Some(port), None),
        Listens::Quic(port) => (None, Some(port)),
    };
    let versions = serde_json::json!({ library: version(library) });
    println!(
        "{}",
        serde_json::json!({ "event": "ready", "tcp": tcp, "tls": null, "quic": quic, "versions": versions })
    );
}

/// By the lock file that this was built with.
fn version(library: &str) -> Option<&'static str> {
    let name = format!("name = \"{library}\"");
    let mut lines = include_str!("../Cargo.lock").lines().skip_while(|line| *line != name);
    lines.nth(1)?.split('"').nth(1)
}

/// Waits until the subject is asked to end.
pub async fn terminated() -> Result<(), Failure> {
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}
