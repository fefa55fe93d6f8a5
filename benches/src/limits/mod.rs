//! The limits of the machine: servers that do the least that a workload needs, with nothing in them but the system call, or the library, that
//! everything else stands on. They are subjects like all others ([`crate::subject`]), started as `throughline-bench limit NAME`, so that the load they
//! get, and how it is measured, are the same.

mod credentials;
mod quic;
mod sendmmsg;
mod tcp_echo;
mod tls;
mod writes;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::Failure;

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Limit {
    /// Fan-out: a loop of blocking `write`s of the same WebSocket frame to every socket.
    Writes,
    /// State as datagrams: `sendmmsg` of the same bytes to every address that has asked.
    Sendmmsg,
    /// Whatever comes on a TCP connection goes back.
    TcpEcho,
    /// Bare quinn: datagrams and streams go back; also for its handshakes.
    Quic,
    /// Bare rustls: TLS 1.3 over TCP, for its handshakes.
    Tls,
}

/// How every subject is started.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Which one.
    name: Limit,
    #[arg(long)]
    tcp: SocketAddr,
    #[arg(long)]
    quic: SocketAddr,
    #[arg(long)]
    cert: PathBuf,
    #[arg(long)]
    key: PathBuf,
}

/// Says that it is ready, and serves until SIGTERM.
pub(crate) fn serve(arguments: &Arguments) -> Result<(), Failure> {
    match arguments.name {
        Limit::Writes => writes::serve(arguments),
        Limit::Sendmmsg => sendmmsg::serve(arguments),
        Limit::TcpEcho => on_one_thread(tcp_echo::serve(arguments)),
        Limit::Quic => on_one_thread(quic::serve(arguments)),
        Limit::Tls => on_one_thread(tls::serve(arguments)),
    }
}

/// One core is all that a subject has.
fn on_one_thread(serving: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serving)
}

/// The ports that a limit listens on.
#[derive(Default)]
struct Ports {
    tcp: Option<u16>,
    tls: Option<u16>,
    quic: Option<u16>,
}

impl Ports {
    /// The first line of a subject's output.
    fn announce(self) -> Result<(), Failure> {
        let Self { tcp, tls, quic } = self;
        let ready = serde_json::json!({ "event": "ready", "tcp": tcp, "tls": tls, "quic": quic, "versions": {} });
        let mut output = std::io::stdout();
        writeln!(output, "{ready}")?;
        Ok(output.flush()?)
    }
}
