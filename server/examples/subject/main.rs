//! Throughline as `benches/` measures it, beside other servers that do the same work (`benches/README.md` has the contract).
//!
//! `subject --app APP --tcp ADDR --quic ADDR [--cert FILE --key FILE]` serves one application below `/APP`, prints the ready line, and ends on SIGTERM. With a
//! certificate there is a second server, for TLS over TCP, on a port of its own.
//! - `fanout`: sessions are subscribed to a channel; what any of them sends is published there.
//! - `broadcast`: the same without a channel: a loop over all sessions.
//! - `echo`: messages, datagrams and the bytes of streams come back.
//! - `idle`: nothing.
//! - `state`: each session is sent a datagram of 150 bytes 30 times a second (`?hz=&bytes=` of its opening say otherwise), newest wins.
//! - `tokens`: each session is sent 20 characters as a message 50 times a second; the channel `tokens` has the same, for `/channels/tokens/events`.
//! - `game`: the demo's arena, with more seats.
//!
//! The defaults of the configuration, but for limits per address and in all: here everybody comes from one. Channels may be read and written by all, and by the API.

#![expect(clippy::print_stdout, reason = "the ready line")]

mod clock;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use throughline::auth::Secret;
use throughline::demo::Arena;
use throughline::{CertificateConfig, Config, Event, Identity, Namespace, Server, Session, StartError, Stream};
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};

use clock::{Clock, Rate, Ticks};

/// Both sides' key for `/api`: it guards nothing.
const API_KEY: &str = "throughline-benchmark";

/// Of the arena: more than one core has time for.
const SEATS: u16 = 4_000;

/// More than whoever measures can open.
const PLENTY: usize = 1_000_000;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    app: App,
    #[arg(long, default_value = "127.0.0.1:0")]
    tcp: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:0")]
    quic: SocketAddr,
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    #[arg(long)]
    key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum App {
    Fanout,
    Broadcast,
    Echo,
    Idle,
    State,
    Tokens,
    Game,
}

// One core is what each subject has.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let plain = start(arguments.app, config(&arguments)).await?;
    let secure = match &arguments.cert {
        Some(_) => Some(start(arguments.app, secure(config(&arguments))).await?),
        None => None,
    };
    let ready = serde_json::json!({
        "event": "ready",
        "tcp": plain.tcp_addr().map(|addr| addr.port()),
        "tls": secure.as_ref().and_then(Server::tcp_addr).map(|addr| addr.port()),
        "quic": plain.quic_addr().map(|addr| addr.port()),
        "versions": { "throughline": env!("CARGO_PKG_VERSION") },
    });
    println!("{ready}");
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}

async fn start(app: App, config: Config) -> Result<Server, StartError> {
    let sessions = Arc::new(Clock::default());
    let arena = matches!(app, App::Game).then(|| Arena::with_seats(SEATS));
    let server = Server::builder()
        .config(config)
        .authenticate(|open| std::future::ready(Ok(remember(open.uri.query()))))
        .on_session(move |session| run(app, session, Arc::clone(&sessions), arena.clone()))
        .start()
        .await?;
    if matches!(app, App::Tokens) {
        let channel = server.hub().channel("tokens");
        tokio::spawn(async move {
            let mut ticks = Ticks::new(Rate::TOKENS);
            loop {
                let _ = channel.publish(ticks.next().await.token()).await; // nothing is kept that could be full
            }
        });
    }
    Ok(server)
}

fn config(arguments: &Arguments) -> Config {
    let mut config = Config { base: format!("/{:?}", arguments.app).to_lowercase(), ..Config::default() };
    config.tcp.listen = Some(arguments.tcp);
    config.quic.listen = Some(arguments.quic);
    if let (Some(chain), Some(key)) = (arguments.cert.clone(), arguments.key.clone()) {
        config.certificate = CertificateConfig::Files { chain, key };
    }
    let limits = &mut config.limits;
    limits.max_sessions = PLENTY;
    limits.max_sessions_per_ip = PLENTY;
    limits.max_tcp_connections = PLENTY;
    limits.opens_per_ip_per_second = 1_000_000;
    limits.opens_per_ip_burst = 1_000_000;
    let everything = Namespace { subscribe: true, publish: true, history: true, ..Namespace::default() };
    config.channels.namespaces.insert(String::new(), everything);
    config.channels.publishes_per_second = 1_000_000;
    config.channels.publish_burst = 1_000_000;
    config.api.keys.push(Secret::new(API_KEY));
    config
}

/// The same over TLS: only TCP, on another port.
fn secure(mut config: Config) -> Config {
    config.tcp.listen.iter_mut().for_each(|addr| addr.set_port(0));
    config.tcp.tls = true;
    config.quic.listen = None;
    config
}

/// What an opening asks for, for its session.
fn remember(query: Option<&str>) -> Identity {
    let Some(rate) = query.and_then(Rate::asked) else { return Identity::anonymous() };
    Identity { claims: serde_json::json!(rate), ..Identity::anonymous() }
}

async fn run(app: App, session: Session, sessions: Arc<Clock>, arena: Option<Arena>) {
    // Boxed: whoever only waits need not have room for what others do.
    match arena {
        Some(arena) => Box::pin(arena.play(session)).await,
        None if matches!(app, App::Idle) => while session.recv().await.is_some() {},
        None => Box::pin(work(app, session, sessions)).await,
    }
}

async fn work(app: App, session: Session, sessions: Arc<Clock>) {
    let asked = || serde_json::from_value(session.identity().claims.clone()).ok();
    let _seat = match app {
        App::State => Some(sessions.states(asked().unwrap_or(Rate::STATE), &session)),
        App::Tokens => Some(sessions.tokens(asked().unwrap_or(Rate::TOKENS), &session)),
        App::Broadcast => Some(sessions.sit(&session)),
        App::Fanout => {
            let _ = session.hub().channel("fanout").subscribe(&session).await; // fails when the session has ended
            None
        }
        App::Echo | App::Idle | App::Game => None,
    };
    while let Some(event) = session.recv().await {
        match (app, event) {
            (App::Fanout, Event::Message(message)) => drop(session.hub().channel("fanout").publish(message).await),
            (App::Broadcast, Event::Message(message)) => sessions.send(&message, &session),
            (App::Echo, Event::Message(message)) => drop(session.send(message).await),
            (App::Echo, Event::Datagram(datagram)) => drop(session.send_datagram(datagram, None)),
            (App::Echo, Event::Stream(stream)) => drop(tokio::spawn(echo(stream))),
            _ => {}
        }
    }
}

async fn echo(stream: Stream) -> std::io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}
