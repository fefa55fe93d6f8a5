//! The application behind the end-to-end tests: echoes, floods, counts, and closes on command.
//!
//! `testbed [CONFIG]` listens where the configuration (or `THROUGHLINE_*`) says and prints the ready line of
//! `throughline demo --json`; the log is JSON. `/blank` is a page with the browser client. What is received is sent back, except text messages that begin with `!`:
//! - `!flood COUNT`: that many messages of mixed size, then `flooded COUNT`;
//! - `!expect COUNT`: counts that many such messages from the client, then answers `received COUNT`, or what was wrong;
//! - `!traffic HZ COUNT`: sends that many such messages, so many per second, while it counts as many from the client; then answers `traffic MS`, the
//!   longest time between two of the client's, or what was wrong;
//! - `!states HZ SECONDS`: datagrams under one key: sequence number (u32) and the server's clock in ms (f64), big-endian;
//! - `!queue HZ SECONDS`: the same as messages, for comparison;
//! - `!stream BYTES`: opens a stream and writes that many pseudo-random bytes and an end; then `streamed ID SHA256`, in hex;
//! - `!join CHANNEL`: subscribes the session;
//! - `!close CODE REASON`: closes the session;
//! - `!panic`: fails.
//!
//! A stream that the client opens comes back as it is, its end included. One that begins with an `h` is read to its end, and answered with the SHA-256 of
//! it, in hex. One that begins with an `r` is answered with a reset, one that begins with an `s` is stopped, both with code 4,321.
//!
//! Requests: `echo` is answered with its data, `count N` (N as its data) in so many parts, `fail` with the code 4,321, `back` with what the client answers to
//! `echo` with the same data, `wait` never, and `cancelled` with how many of those have been cancelled.
//!
//! A token `for MS` names a user, and is good for so many milliseconds from now on. The token `refused` is answered 401, `forbidden` 403, `busy` 429; any other names the user.

#![expect(clippy::print_stdout, reason = "the ready line")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::response::Html;
use axum::routing::get;
use sha2::{Digest, Sha256};
use throughline::{Config, Event, Identity, Message, Open, Rejection, Request, Server, Session, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What streams are reset and stopped with.
const CODE: u32 = 4_321;

/// A page that has the browser client, and nothing else: no icon either, so that nothing fails to load.
const BLANK: &str = r#"<!doctype html><meta charset="utf-8"><title>testbed</title><link rel="icon" href="data:,">
<script type="module">window.throughline = await import('/throughline.js');</script>"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    let config = Config::load(file.as_deref())?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(tracing_subscriber::EnvFilter::new(config.log.filter.clone()))
        .json()
        .flatten_event(true)
        .init();
    let drain_timeout = config.limits.drain_timeout;
    let scheme = if config.tcp.tls { "https" } else { "http" };
    let server = Server::builder()
        .config(config)
        .routes(throughline::demo::assets().route("/blank", get(async || Html(BLANK))))
        .authenticate(|open| std::future::ready(authenticate(open)))
        .on_session(run)
        .start()
        .await?;
    let hashes: Vec<_> = server.certificate_hashes().iter().map(throughline_certs::base64).collect();
    let ready = serde_json::json!({
        "event": "ready",
        "tcp": server.tcp_addr().map(|addr| format!("{scheme}://{addr}")),
        "quic": server.quic_addr().map(|addr| format!("https://{addr}")),
        "certificateHashes": hashes,
    });
    println!("{ready}");
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    server.drain(drain_timeout).await;
    Ok(())
}

fn authenticate(open: &Open) -> Result<Identity, Rejection> {
    match open.token.as_deref() {
        None => Ok(Identity::anonymous()),
        Some("refused") => Err(Rejection::unauthorized("this token is not good")),
        Some("forbidden") => Err(Rejection::forbidden("not you")),
        Some("busy") => Err(Rejection::too_many("come back later", Duration::from_secs(2))),
        Some(token) => {
            let good_for = token.strip_prefix("for ").and_then(|ms| ms.parse().ok());
            let expires = good_for.map(|ms| SystemTime::now() + Duration::from_millis(ms));
            let user = if expires.is_some() { "for a time" } else { token };
            Ok(Identity { expires, info: user.to_uppercase().into(), ..Identity::user(user) })
        }
    }
}

async fn run(session: Session) {
    while let Some(event) = session.recv().await {
        let result = match event {
            Event::Datagram(bytes) => {
                drop(session.send_datagram(bytes, None)); // fails only when the session has ended
                continue;
            }
            Event::Message(Message::Text(text)) if text.starts_with('!') => command(&session, &text).await,
            Event::Message(message) => session.send(message).await.map_err(|error| error.to_string()),
            Event::Stream(stream) => {
                let session = session.id();
                tokio::spawn(async move {
                    let id = stream.id();
                    if let Err(error) = answer(stream).await {
                        tracing::info!(%session, stream = id, %error, "stream ended");
                    }
                });
                continue;
            }
            Event::Request(request) => {
                tokio::spawn(respond(session.clone(), request));
                continue;
            }
            _ => Ok(()),
        };
        if let Err(error) = result {
            tracing::info!(session = %session.id(), error, "stopped");
        }
    }
}

/// Requests of any session that were cancelled.
static CANCELLED: AtomicU32 = AtomicU32::new(0);

async fn respond(session: Session, request: Request) {
    let data = |request: &Request| request.data().cloned();
    match request.method() {
        "echo" => {
            let data = data(&request);
            request.respond(data);
        }
        "count" => {
            let count = data(&request).and_then(|data| data.as_text()?.parse().ok()).unwrap_or(0_u32);
            for number in 1..=count {
                if request.chunk(format!("part {number} ")).await.is_err() {
                    return;
                }
            }
            request.respond(None);
        }
        "fail" => request.fail(CODE, "as it was told"),
        "back" => match session.request("echo", data(&request)).await {
            Ok(answer) => request.respond(answer),
            Err(error) => request.fail(CODE, &error.to_string()),
        },
        "wait" => {
            request.cancelled().await;
            CANCELLED.fetch_add(1, Ordering::Relaxed);
        }
        "cancelled" => request.respond(Some(CANCELLED.load(Ordering::Relaxed).to_string().into())),
        _ => {} // nobody answers it
    }
}

async fn command(session: &Session, text: &str) -> Result<(), String> {
    let mut words = text.splitn(3, ' ');
    let (name, first, rest) = (words.next().unwrap_or_default(), words.next(), words.next().unwrap_or_default());
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<u32>().ok()).ok_or("a number is needed");
    match name {
        "!flood" => {
            let count = number(first)?;
            for index in 0..count {
                session.send(numbered(index)).await.map_err(|error| error.to_string())?;
            }
            session.send(format!("flooded {count}")).await.map_err(|error| error.to_string())
        }
        "!expect" => {
            let count = number(first)?;
            let verdict = match expect(session, count).await {
                Ok(_) => format!("received {count}"),
                Err(wrong) => wrong,
            };
            session.send(verdict).await.map_err(|error| error.to_string())
        }
        "!traffic" => {
            let verdict = match traffic(session, number(first)?, number(Some(rest))?).await {
                Ok(longest) => format!("traffic {}", longest.as_millis()),
                Err(wrong) => wrong,
            };
            session.send(verdict).await.map_err(|error| error.to_string())
        }
        "!states" => states(session, number(first)?, number(Some(rest))?, false).await,
        "!queue" => states(session, number(first)?, number(Some(rest))?, true).await,
        "!stream" => stream(session, number(first)?).await.map_err(|error| error.to_string()),
        "!close" => {
            session.close(number(first)?, rest);
            Ok(())
        }
        "!join" => {
            let channel = session.hub().channel(first.unwrap_or_default());
            channel.subscribe(session).await.map_err(|error| error.to_string())
        }
        "!panic" => panic!("as it was told"),
        _ => Err(format!("{name} is not known")),
    }
}

/// What a client's stream gets back.
async fn answer(mut stream: Stream) -> std::io::Result<()> {
    let mut first = [0];
    if stream.read(&mut first).await? == 0 {
        return stream.shutdown().await;
    }
    match first[0] {
        b'h' => {
            let mut hash = Sha256::new();
            hash.update(first);
            let mut buffer = vec![0; 16_384];
            loop {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    read => hash.update(&buffer[..read]),
                }
            }
            stream.write_all(hex(&hash.finalize()).as_bytes()).await?;
            stream.shutdown().await
        }
        b'r' => {
            stream.reset(CODE);
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        }
        b's' => {
            stream.stop(CODE);
            stream.shutdown().await
        }
        _ => {
            stream.write_all(&first).await?;
            let (mut reader, mut writer) = stream.into_split();
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await
        }
    }
}

async fn stream(session: &Session, bytes: u32) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut stream = session.open_stream().await?;
    let (mut state, mut hash) = (u64::from(bytes) | 1, Sha256::new());
    let mut left = bytes as usize;
    while left > 0 {
        let mut piece = Vec::with_capacity(16_384);
        while piece.len() < 16_384 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            piece.extend_from_slice(&state.to_le_bytes());
        }
        piece.truncate(left);
        left -= piece.len();
        hash.update(&piece);
        stream.write_all(&piece).await?;
    }
    stream.shutdown().await?;
    session.send(format!("streamed {} {}", stream.id(), hex(&hash.finalize()))).await?;
    stream.stop(0); // whatever the client writes back
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The message at `index`: its number, and a length between 4 and 3,003 bytes that follows from it; every 1,000th is larger.
fn numbered(index: u32) -> Vec<u8> {
    let length = if index % 1_000 == 999 { 100_000 } else { 4 + (index.wrapping_mul(2_654_435_761) >> 8) % 3_000 };
    let mut bytes = vec![index as u8; length as usize];
    bytes[..4].copy_from_slice(&index.to_be_bytes());
    bytes
}

async fn traffic(session: &Session, hz: u32, count: u32) -> Result<Duration, String> {
    let sending = async {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / hz.clamp(1, 10_000));
        for index in 0..count {
            ticks.tick().await;
            session.send(numbered(index)).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    let ((), longest) = tokio::try_join!(sending, expect(session, count))?;
    Ok(longest)
}

/// The longest time between two of them.
async fn expect(session: &Session, count: u32) -> Result<Duration, String> {
    let mut last = None;
    let mut longest = Duration::ZERO;
    for index in 0..count {
        loop {
            match session.recv().await {
                None => return Err(format!("the session ended at {index}")),
                Some(Event::Message(message)) if message.as_bytes() == &numbered(index) => break,
                Some(Event::Message(message)) => {
                    return Err(format!("message {index} was {} bytes of something else", message.len()));
                }
                Some(_) => {}
            }
        }
        let now = Instant::now();
        longest = longest.max(now - last.replace(now).unwrap_or(now));
    }
    Ok(longest)
}

async fn states(session: &Session, hz: u32, seconds: u32, reliable: bool) -> Result<(), String> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / hz.clamp(1, 1_000));
    let end = Instant::now() + Duration::from_secs(u64::from(seconds));
    let mut sequence = 0u32;
    while Instant::now() < end {
        ticks.tick().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
        let mut state = vec![0; 1_000];
        state[..4].copy_from_slice(&sequence.to_be_bytes());
        state[4..12].copy_from_slice(&(now.as_secs_f64() * 1_000.0).to_be_bytes());
        sequence += 1;
        if reliable {
            session.send(state).await.map_err(|error| error.to_string())?;
        } else {
            session.send_datagram(state, 0).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}
