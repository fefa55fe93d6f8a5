//! Opens sessions that say nothing but what keeps them alive, and holds them: what a server needs for each can then be read off its memory.
//! `tests/memory.test.mjs` does that.
//!
//! `idle_sessions ADDRESS COUNT --transport NAME [--tls]` opens them with connections of their own, as browsers do, prints
//! `{"event":"open","sessions":COUNT}`, and ends them when its standard input ends. `ADDRESS` is the server's for that transport: UDP for
//! webtransport, TCP for the others. Takes any certificate: it is for a server on this machine.

#[path = "../common/trust.rs"]
mod trust;

mod http;
mod idle;
mod poll;
mod sse;
mod tcp;
mod websocket;
mod webtransport;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::Parser;
use idle::{Failure, Kind, Opener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Handshakes at the same time: more would only wait for each other.
const HANDSHAKES: usize = 32;

#[derive(Parser)]
struct Arguments {
    /// Where the server listens
    address: SocketAddr,
    /// Sessions to open
    count: usize,
    /// What carries them
    #[arg(long, value_enum, default_value = "webtransport")]
    transport: Kind,
    /// Below which the server's routes are
    #[arg(long, default_value = "/rt")]
    base: String,
    /// TLS on TCP
    #[arg(long)]
    tls: bool,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let Arguments { address, count, transport, base, tls } = Arguments::parse();
    raise_open_files();
    let opener = Arc::new(Opener::new(transport, address, &base, tls)?);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let mut opening = JoinSet::new();
    for number in 0..count {
        let (opener, handshakes) = (Arc::clone(&opener), Arc::clone(&handshakes));
        opening.spawn(async move {
            let _one_of_few = handshakes.acquire().await?;
            opener.open(number).await
        });
    }
    let mut holding = JoinSet::new();
    while let Some(opened) = opening.join_next().await {
        holding.spawn(opened??);
    }
    writeln!(std::io::stdout(), r#"{{"event":"open","sessions":{count}}}"#)?;

    // A thread, and not one of the runtime's: that would be waited for when a session fails first.
    let (ending, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || ending.send(std::io::copy(&mut std::io::stdin(), &mut std::io::sink())));
    tokio::select! {
        ended = ended => drop(ended??),
        Some(failed) = holding.join_next() => failed??,
    }
    Ok(())
}

/// Each TCP connection is an open file, and the usual soft limit is 1,024. What the system refuses shows when connections fail.
fn raise_open_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}
