//! Messages both ways over cuts and moves: each must arrive once, and in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use throughline::Message;
use throughline_protocol::Event;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::account::{Account, Tally, numbered};
use crate::client::Client;
use crate::fault::Fault;
use crate::link::{Place, TRANSPORTS};
use crate::process::Process;
use crate::rng::Rng;
use crate::trouble::{Report, Trouble};
use crate::{Failure, Outcome};

/// How far the server's messages may be ahead of its client's: a cut finds some of both on their way.
const LEAD: u32 = 200;

/// Bytes of a message and what is around it, on average.
const MESSAGE_BYTES: u64 = 150;

#[derive(clap::Args)]
pub(crate) struct MessagesArguments {
    /// Messages each way, over all sessions.
    #[arg(long, default_value_t = 1_000_000)]
    count: u32,
    /// Cuts and moves, over all sessions.
    #[arg(long, default_value_t = 1_000)]
    events: u32,
    /// Sessions at once.
    #[arg(long, default_value_t = 10)]
    sessions: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds after which it has failed.
    #[arg(long, default_value_t = 170)]
    patience: u64,
}

pub(crate) async fn messages(arguments: MessagesArguments) -> Result<Outcome, Failure> {
    let MessagesArguments { count, events, sessions, seed, patience } = arguments;
    let server = Process::start(&[]).await?;
    let began = Instant::now();
    let mut running = JoinSet::new();
    for session in 0..u64::from(sessions) {
        let share = |all: u32| {
            (u64::from(all) * (session + 1) / u64::from(sessions) - u64::from(all) * session / u64::from(sessions))
                as u32
        };
        running.spawn(one(server.place, Rng::new(seed, session), share(count), share(events)));
    }
    let (mut up, mut down, mut report) = (Tally::default(), Tally::default(), Report::default());
    let all = async {
        while let Some(done) = running.join_next().await {
            let one = done??;
            up.add(one.up);
            down.add(one.down);
            report.add(one.report);
        }
        Ok::<_, Failure>(())
    };
    let finished = tokio::time::timeout(Duration::from_secs(patience), all).await;
    finished.map_err(|_| format!("not done within {patience} s (seed {seed})"))??;
    let seconds = began.elapsed().as_secs_f64();
    let passed = up.is_clean(count.into())
        && down.is_clean(count.into())
        && report.events() >= events
        && report.unexpected.is_empty();
    let figures = json!({ "seed": seed, "count": count, "seconds": seconds, "up": up, "down": down, "links": report });
    Ok(Outcome { passed, figures })
}

struct One {
    up: Tally,
    down: Tally,
    report: Report,
}

async fn one(place: Place, mut rng: Rng, count: u32, events: u32) -> Result<One, Failure> {
    let seed = rng.next() >> 1;
    let client = Arc::new(Client::open(&place, rng.pick(&TRANSPORTS), &Fault::never()).await?);
    client.send(Message::from(format!("messages {seed} {count} {LEAD}"))).await.map_err(|close| close.to_string())?;
    let (allowed, mut may) = watch::channel(0);
    let (arrived, progress) = watch::channel(0);
    let sending = async {
        for index in 0..count {
            may.wait_for(|allowed| u64::from(index) < *allowed).await?;
            client.send(numbered(seed, index)).await.map_err(|close| close.to_string())?;
        }
        client.send(Message::from("done")).await.map_err(|close| close.to_string())?;
        Ok::<_, Failure>(())
    };
    let receiving = async {
        let mut account = Account::new(!seed, count);
        let mut taken = 0;
        while let Some(event) = client.recv().await {
            let Event::Message(message) = event else { continue };
            if let Some(verdict) = message.as_text().and_then(|text| text.strip_prefix("verdict ")) {
                return Ok((account.tally(), serde_json::from_str(verdict)?));
            }
            account.take(&message);
            taken += 1;
            arrived.send_replace(taken);
        }
        Err(Failure::from(format!("the session ended early: {}", client.closed().await)))
    };
    let bytes_between = u64::from(count) * MESSAGE_BYTES * 2 / u64::from(events.max(1));
    let trouble = Trouble {
        client: &client,
        place,
        rng,
        events,
        progress,
        total: count.into(),
        allowed,
        bytes_between: bytes_between.max(1),
        report: Report::default(),
    };
    let using = async { tokio::try_join!(sending, receiving) };
    let (((), (down, up)), report) = trouble.during(using).await?;
    client.close().await;
    Ok(One { up, down, report })
}
