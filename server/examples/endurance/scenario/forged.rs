//! Resumes with forged keys, ten thousand per second, beside sessions that work: their owners must not notice, and the server must have its memory back.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use throughline::{Message, SessionId};
use throughline_protocol::{Decoder, Event, Frame};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::fault::Fault;
use crate::link::{Place, Requests, TRANSPORTS};
use crate::process::Process;
use crate::rng::Rng;
use crate::scenario::Spread;
use crate::{Failure, Outcome};

/// The attacker's address: limits are per address.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// The attacker's connections.
const CONNECTIONS: u64 = 50;

/// Between two messages of an owner.
const OWNER_PAUSE: Duration = Duration::from_millis(20);

/// How much more memory than before the attack may stay in use: what the allocator keeps for the next time.
const MEMORY_KEPT: u64 = 48 * 1_024 * 1_024;

#[derive(clap::Args)]
pub(crate) struct ForgedArguments {
    /// Forged requests per second.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Seconds of it.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Openings per second that the server takes from one address; its own default is 50, which leaves little to attack with.
    #[arg(long, default_value_t = 100_000)]
    opens_per_second: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) async fn forged(arguments: ForgedArguments) -> Result<Outcome, Failure> {
    let ForgedArguments { rate, seconds, opens_per_second, seed } = arguments;
    let opens = opens_per_second.to_string();
    let limits = [
        ("OPEN_TIMEOUT", "2s"),
        ("MAX_SESSIONS_PER_IP", "1000"), // the default
        ("OPENS_PER_IP_PER_SECOND", &opens),
        ("OPENS_PER_IP_BURST", &opens),
    ];
    let server = Process::start(&limits).await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut owners = JoinSet::new();
    let mut sessions = Vec::new();
    for transport in TRANSPORTS {
        let client = Client::open(&server.place, transport, &Fault::never()).await?;
        sessions.push(client.resume().ok_or("an open session has an id")?.session);
        let is_over = Arc::clone(&is_over);
        owners.spawn(async move { own(client, &is_over).await });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = server.resident_bytes()?;

    let began = Instant::now();
    let mut attackers = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let place = Place { from: ATTACKER, ..server.place };
        let (sessions, rng) = (sessions.clone(), Rng::new(seed, connection));
        let each = rate as f64 / CONNECTIONS as f64;
        attackers.spawn(attack(place, sessions, rng, each, Duration::from_secs(seconds)));
    }
    let mut answers = BTreeMap::<String, u64>::new();
    let mut peak = before;
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            ended = attackers.join_next() => match ended {
                Some(seen) => for (answer, count) in seen?? {
                    *answers.entry(answer).or_default() += count;
                },
                None => break,
            },
            _ = ticks.tick() => peak = peak.max(server.resident_bytes()?),
        }
    }
    let took = began.elapsed().as_secs_f64();
    // A second more: whoever has been disturbed shows it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    is_over.store(true, Ordering::SeqCst);
    let mut seen = Vec::new();
    let mut undisturbed = true;
    while let Some(owner) = owners.join_next().await {
        let (figures, is_well) = owner??;
        undisturbed &= is_well;
        seen.push(figures);
    }
    // What was opened in vain ends with the server's open_timeout.
    let mut after = server.resident_bytes()?;
    for _ in 0..40 {
        if after <= before + MEMORY_KEPT / 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        after = server.resident_bytes()?;
    }
    let count: u64 = answers.values().sum();
    let documented = ["200 another session", "410 UNKNOWN_SESSION", "429 LIMIT_REACHED", "503 LIMIT_REACHED"];
    let passed =
        undisturbed && answers.keys().all(|answer| documented.contains(&&answer[..])) && after <= before + MEMORY_KEPT;
    let mib = |bytes: u64| (bytes as f64 / 1_048_576.0 * 10.0).round() / 10.0;
    let figures = json!({
        "seed": seed, "requests": count, "perSecond": (count as f64 / took).round(), "answers": answers, "owners": seen,
        "memoryMiB": { "before": mib(before), "peak": mib(peak), "after": mib(after) },
    });
    Ok(Outcome { passed, figures })
}

/// Sends a message, waits for its echo, and so on. Its figures, and whether it kept its link.
async fn own(client: Client, is_over: &AtomicBool) -> Result<(Value, bool), Failure> {
    client.send(Message::from("echo")).await.map_err(|close| close.to_string())?;
    let mut waits = Vec::new();
    let mut index = 0_u32;
    while !is_over.load(Ordering::SeqCst) {
        tokio::time::sleep(OWNER_PAUSE).await;
        let sent = Instant::now();
        client.send(Message::from(index.to_string())).await.map_err(|close| close.to_string())?;
        match client.recv().await {
            Some(Event::Message(message)) if message.as_text() == Some(&index.to_string()) => {}
            Some(_) => return Err("another message than the echo".into()),
            None => return Err(format!("an owner's session ended: {}", client.closed().await).into()),
        }
        waits.push(sent.elapsed().as_secs_f64() * 1_000.0);
        index += 1;
    }
    let links = client.until(|machine| Some(machine.links())).await;
    let unexpected = client.unexpected();
    let is_well = links == 1 && unexpected.is_empty();
    let transport = client.link().0.to_string();
    let figures = json!({
        "transport": transport, "links": links, "unexpected": unexpected, "echoes": index, "echoMs": Spread::of(waits),
    });
    client.close().await;
    Ok((figures, is_well))
}

/// Openings that resume a session with another key, POSTs and polls of it. How they were answered, with their numbers.
async fn attack(
    place: Place,
    sessions: Vec<SessionId>,
    mut rng: Rng,
    rate: f64,
    duration: Duration,
) -> Result<BTreeMap<String, u64>, Failure> {
    let mut requests = Requests::new(&place, &Fault::never());
    let mut answers = BTreeMap::new();
    let began = Instant::now();
    let mut made = 0_u64;
    while began.elapsed() < duration {
        // Behind its time it hurries, ahead of it it waits.
        let due = (began.elapsed().as_secs_f64() * rate) as u64;
        if made >= due {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        made += 1;
        let session = rng.pick(&sessions);
        let key = BASE64_URL_SAFE_NO_PAD.encode(rng.bytes(16));
        let mut headers = vec![("throughline-session", session.to_string()), ("throughline-key", key)];
        let (method, path) = match rng.below(4) {
            0 => (Method::POST, "/rt/send"),
            1 => (Method::GET, "/rt/poll"),
            _ => {
                headers.push(("throughline-version", "1".to_owned()));
                headers.push(("throughline-received", format!("0.{}", rng.below(1 << 40))));
                (Method::GET, "/rt/poll")
            }
        };
        if headers.len() == 2 {
            headers.push(("throughline-link", "1".to_owned()));
        }
        let body = if method == Method::POST { Bytes::from_static(&[0x06, 0x01, 0x07]) } else { Bytes::new() };
        let answer = match requests.ask(method, path, &headers, body).await {
            Ok((StatusCode::OK, body)) => welcome_of(&body, &sessions),
            Ok((status, body)) => {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                format!("{} {}", status.as_u16(), body["name"].as_str().unwrap_or("without a name"))
            }
            Err(error) => format!("no answer: {error}"),
        };
        *answers.entry(answer).or_default() += 1;
    }
    Ok(answers)
}

/// What a WELCOME says.
fn welcome_of(packet: &Bytes, sessions: &[SessionId]) -> String {
    let mut decoder = Decoder::new();
    decoder.push(packet.clone());
    match decoder.next_frame() {
        Ok(Some(Frame::Welcome(welcome))) if welcome.resumed || sessions.contains(&welcome.session) => {
            "200 RESUMED".to_owned()
        }
        Ok(Some(Frame::Welcome(_))) => "200 another session".to_owned(),
        other => format!("200 {other:?}"),
    }
}
