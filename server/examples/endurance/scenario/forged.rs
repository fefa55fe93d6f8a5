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

/// Attacks, one after the other.
const ROUNDS: u64 = 3;

/// How much more memory may be in use after the last attack than after the one before it, in bytes: half of what the thousand sessions that were
/// opened in vain had taken.
const MEMORY_LEAKED: u64 = 5 * 512 * 1_024;

/// The server's `open_timeout`, in seconds.
const OPEN_TIMEOUT: u64 = 2;

/// When what was opened in vain is gone: after `open_timeout`, and the three seconds in which a session that has ended still answers requests.
const GONE: Duration = Duration::from_secs(OPEN_TIMEOUT + 3 + 1);

#[derive(clap::Args)]
pub(crate) struct ForgedArguments {
    /// Forged requests per second.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Seconds of it, three times.
    #[arg(long, default_value_t = 3)]
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
        ("LIMITS__OPEN_TIMEOUT", &format!("{OPEN_TIMEOUT}s")[..]),
        ("LIMITS__MAX_SESSIONS_PER_IP", "1000"), // the default
        ("LIMITS__OPENS_PER_IP_PER_SECOND", &opens),
        ("LIMITS__OPENS_PER_IP_BURST", &opens),
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

    let mut answers = BTreeMap::<String, u64>::new();
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let attack = Attack { rng: Rng::new(seed, round), sessions: sessions.clone(), rate, seconds };
        rounds.push(attack.run(&server, &mut answers).await?);
    }
    is_over.store(true, Ordering::SeqCst);
    let mut seen = Vec::new();
    let mut undisturbed = true;
    while let Some(owner) = owners.join_next().await {
        let (figures, is_well) = owner??;
        undisturbed &= is_well;
        seen.push(figures);
    }
    let count: u64 = answers.values().sum();
    let took = rounds.iter().map(|round| round.seconds).sum::<f64>();
    let after: Vec<u64> = rounds.iter().map(|round| round.after_bytes).collect();
    let peak = rounds.iter().map(|round| round.peak_bytes).max().unwrap_or(0);
    // The first rounds fill what the allocator keeps for the next time. The last must find it free.
    let leak = after[after.len() - 1].saturating_sub(after[after.len() - 2]);
    let documented = ["200 another session", "410 UNKNOWN_SESSION", "429 LIMIT_REACHED", "503 LIMIT_REACHED"];
    let passed = undisturbed && answers.keys().all(|answer| documented.contains(&&answer[..])) && leak <= MEMORY_LEAKED;
    let mib = |bytes: u64| (bytes as f64 / 1_048_576.0 * 10.0).round() / 10.0;
    let figures = json!({
        "seed": seed, "requests": count, "perSecond": (count as f64 / took).round(), "answers": answers, "owners": seen,
        "memoryMiB": { "before": mib(before), "peak": mib(peak), "after": after.into_iter().map(mib).collect::<Vec<_>>() },
    });
    Ok(Outcome { passed, figures })
}

struct Attack {
    rng: Rng,
    /// Whose keys are forged.
    sessions: Vec<SessionId>,
    /// Requests per second.
    rate: u64,
    seconds: u64,
}

struct Round {
    seconds: f64,
    peak_bytes: u64,
    /// When what was opened in vain is gone.
    after_bytes: u64,
}

impl Attack {
    async fn run(mut self, server: &Process, answers: &mut BTreeMap<String, u64>) -> Result<Round, Failure> {
        let began = Instant::now();
        let mut attackers = JoinSet::new();
        for connection in 0..CONNECTIONS {
            let place = Place { from: ATTACKER, ..server.place };
            let (sessions, rng) = (self.sessions.clone(), Rng::new(self.rng.next(), connection));
            let each = self.rate as f64 / CONNECTIONS as f64;
            attackers.spawn(attack(place, sessions, rng, each, Duration::from_secs(self.seconds)));
        }
        let mut peak_bytes = server.resident_bytes()?;
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                ended = attackers.join_next() => match ended {
                    Some(seen) => for (answer, count) in seen?? {
                        *answers.entry(answer).or_default() += count;
                    },
                    None => break,
                },
                _ = ticks.tick() => peak_bytes = peak_bytes.max(server.resident_bytes()?),
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        tokio::time::sleep(GONE).await;
        Ok(Round { seconds, peak_bytes, after_bytes: server.resident_bytes()? })
    }
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
