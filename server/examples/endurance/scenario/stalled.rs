//! A thousand subscribers, one of which on each transport stops reading: the others must not notice, and the server must not keep for it what it does not take.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::json;
use throughline::{Message, Transport};
use throughline_protocol::{ChannelMessage, Event, channel};
use tokio::task::JoinSet;

use crate::client::{Client, now};
use crate::fault::{Fault, How};
use crate::link::{Place, TRANSPORTS};
use crate::process::Process;
use crate::scenario::Spread;
use crate::subscriber::TIMED;
use crate::{Failure, Outcome};

/// Openings at the same time: more would only wait for each other.
const OPENINGS: usize = 64;

/// How much later the others may hear, as a ratio of the 99th percentiles.
const MAX_RATIO: f64 = 1.2;

/// What the server may hold for those who are stalled, each: its session's buffer, what its link has taken, and as much again for what is around it.
const MAX_BYTES_EACH: u64 = 2 * (256 + 256) * 1_024;

#[derive(clap::Args)]
pub(crate) struct StalledArguments {
    /// Subscribers, a quarter on each transport.
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
    /// Publications per second, of a kilobyte each.
    #[arg(long, default_value_t = 20)]
    rate: u64,
    /// Seconds with nobody stalled, and as many with one on each transport.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How often, one after the other.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Taken as the others take it, and not used: nothing here is left to chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) async fn stalled(arguments: StalledArguments) -> Result<Outcome, Failure> {
    let StalledArguments { subscribers, rate, seconds, rounds, seed: _ } = arguments;
    let server = Process::start(&[
        ("CHANNELS__NAMESPACES__TIMED__SUBSCRIBE", "true"),
        ("LIMITS__IDLE_TIMEOUT", "1h"), // who is stalled stays
    ])
    .await?;
    let late = Arc::new(Mutex::new(Vec::new()));
    let mut listeners = listen(&server.place, subscribers, &late).await?;
    let publisher = Client::open(&server.place, Transport::WebSocket, &Fault::never()).await?;
    let began = Instant::now();
    window(&publisher, rate, 2).await?; // caches and buffers are as they will be
    let (mut quiet, mut disturbed, mut grown) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        quiet.push(measure(&publisher, rate, seconds, &late).await?);
        let before = server.resident_bytes()?;
        let faults: Vec<Fault> = TRANSPORTS.iter().map(|_| Fault::never()).collect();
        let mut stalled = JoinSet::new();
        for (transport, fault) in TRANSPORTS.into_iter().zip(&faults) {
            stalled.spawn(hear(open(server.place, transport, fault.clone()).await?, Arc::default()));
        }
        faults.iter().for_each(|fault| fault.arm(0, How::Silence));
        disturbed.push(measure(&publisher, rate, seconds, &late).await?);
        grown.push(server.resident_bytes()?.saturating_sub(before));
    }
    let is_undisturbed = listeners.try_join_next().is_none();
    let median = |spreads: &[Spread]| {
        let mut p99: Vec<f64> = spreads.iter().map(|spread| spread.p99).collect();
        p99.sort_by(f64::total_cmp);
        p99[p99.len() / 2]
    };
    let ratio = median(&disturbed) / median(&quiet);
    let most = grown.iter().copied().max().unwrap_or(0);
    let passed = is_undisturbed && ratio <= MAX_RATIO && most <= MAX_BYTES_EACH * TRANSPORTS.len() as u64;
    let figures = json!({
        "subscribers": subscribers, "rate": rate, "seconds": began.elapsed().as_secs(), "lateMsQuiet": quiet, "lateMsStalled": disturbed,
        "ratioOfP99": (ratio * 100.0).round() / 100.0, "stalled": TRANSPORTS.len(), "grownBytes": grown,
    });
    Ok(Outcome { passed, figures })
}

/// Those that go on reading. One that ends has failed.
async fn listen(place: &Place, count: usize, late: &Arc<Mutex<Vec<f64>>>) -> Result<JoinSet<Failure>, Failure> {
    let (mut opening, mut listeners) = (JoinSet::new(), JoinSet::new());
    for index in 0..count {
        if opening.len() == OPENINGS {
            let client = opening.join_next().await.ok_or("nothing is being opened")??;
            listeners.spawn(hear(client?, Arc::clone(late)));
        }
        opening.spawn(open(*place, TRANSPORTS[index % TRANSPORTS.len()], Fault::never()));
    }
    while let Some(client) = opening.join_next().await {
        listeners.spawn(hear(client??, Arc::clone(late)));
    }
    Ok(listeners)
}

/// A session that is subscribed.
async fn open(place: Place, transport: Transport, fault: Fault) -> Result<Client, Failure> {
    let client = Client::open(&place, transport, &fault).await?;
    let subscribe = ChannelMessage::Subscribe { request: 1, channel: TIMED.into(), position: None, about: None };
    client.change(|machine| machine.send_channel(subscribe.encode()))?;
    match channel::decode(client.until(|machine| machine.poll_channel()).await).map_err(|close| close.to_string())? {
        ChannelMessage::Subscribed { .. } => Ok(client),
        other => Err(format!("the server says {other:?}").into()),
    }
}

/// Notes how late each publication is, in milliseconds.
async fn hear(client: Client, late: Arc<Mutex<Vec<f64>>>) -> Failure {
    loop {
        let body =
            client.until(|machine| machine.poll_channel().map(Ok).or_else(|| machine.closed().cloned().map(Err)));
        let sent = match body.await.and_then(channel::decode) {
            Ok(ChannelMessage::Publication { data, .. }) => {
                data.as_text().and_then(|text| text.trim_end().parse::<u64>().ok())
            }
            Ok(other) => return format!("the server says {other:?}").into(),
            Err(close) => return close.to_string().into(),
        };
        let Some(sent) = sent else { return "a publication without its time".into() };
        late.lock().push(now().saturating_sub(sent) as f64 / 1_000.0);
    }
}

/// How late the publications of a time are, to all of those who read.
async fn measure(publisher: &Client, rate: u64, seconds: u64, late: &Mutex<Vec<f64>>) -> Result<Spread, Failure> {
    late.lock().clear();
    window(publisher, rate, seconds).await?;
    Ok(Spread::of(std::mem::take(&mut *late.lock())))
}

/// Publishes for so long.
async fn window(publisher: &Client, rate: u64, seconds: u64) -> Result<(), Failure> {
    let command = Message::from(format!("time {} {rate}", rate * seconds));
    publisher.send(command).await.map_err(|close| close.to_string())?;
    match publisher.recv().await {
        Some(Event::Message(_)) => Ok(()),
        other => Err(format!("the publisher's session says {other:?}").into()),
    }
}
