//! The limits of the machine: servers that do the least that a workload needs. They are subjects like all others
//! ([`crate::subject`]), started as `throughline-bench limit NAME`, so that the load they get is the same.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::Failure;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Which one.
    name: String,
    #[arg(long)]
    tcp: SocketAddr,
    #[arg(long)]
    quic: SocketAddr,
    #[arg(long)]
    cert: Option<PathBuf>,
    #[arg(long)]
    key: Option<PathBuf>,
}

/// Says that it is ready, and serves until SIGTERM.
pub(crate) fn serve(arguments: &Arguments) -> Result<(), Failure> {
    Err(format!("there is no limit called {}", arguments.name).into())
}
