//! Many streams at once, opened by both sides, over cuts and moves: the hashes of both directions must be equal.

use std::time::{Duration, Instant};

use serde_json::json;
use throughline::Message;
use throughline_protocol::Event;
use tokio::sync::watch;

use crate::client::Client;
use crate::fault::Fault;
use crate::link::TRANSPORTS;
use crate::process::Process;
use crate::rng::Rng;
use crate::trouble::{Report, Trouble};
use crate::{Failure, Outcome, bulk};

#[derive(clap::Args)]
pub(crate) struct StreamsArguments {
    /// Streams at once, in all: each side opens half of them.
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// Bytes of each, in each direction.
    #[arg(long, default_value_t = 1_048_576)]
    size: usize,
    /// Cuts and moves.
    #[arg(long, default_value_t = 100)]
    events: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds after which it has failed.
    #[arg(long, default_value_t = 170)]
    patience: u64,
}

pub(crate) async fn streams(arguments: StreamsArguments) -> Result<Outcome, Failure> {
    let StreamsArguments { count, size, events, seed, patience } = arguments;
    let each = count / 2;
    let server = Process::start(&[]).await?;
    let mut rng = Rng::new(seed, 0);
    let began = Instant::now();
    let client = Client::open(&server.place, rng.pick(&TRANSPORTS), &Fault::never()).await?;
    let command = Message::from(format!("streams {seed} {each} {size}"));
    client.send(command).await.map_err(|close| close.to_string())?;

    if !matches!(client.recv().await, Some(Event::Message(ready)) if ready.as_text() == Some("ready")) {
        return Err("the server is not ready".into());
    }
    let total = 2 * each * size as u64;
    let (read, progress) = watch::channel(0);
    let using = async {
        let by_client =
            bulk::at_client(&client, seed, each, size, |bytes| read.send_modify(|read| *read += bytes)).await;
        while let Some(event) = client.recv().await {
            let Event::Message(message) = event else { continue };
            let verdict = message.as_text().and_then(|text| text.strip_prefix("verdict ")).unwrap_or_default();
            let verdict: serde_json::Value = serde_json::from_str(verdict)?;
            return Ok((by_client, verdict["equal"].as_u64().unwrap_or(0)));
        }
        Err(Failure::from(format!("the session ended early: {}", client.closed().await)))
    };
    let trouble = Trouble {
        client: &client,
        place: server.place,
        rng,
        events,
        progress,
        total,
        allowed: watch::channel(0).0, // bytes need no spreading: there are enough of them
        bytes_between: (2 * total / u64::from(events.max(1))).max(1),
        report: Report::default(),
    };
    let finished = tokio::time::timeout(Duration::from_secs(patience), trouble.during(using)).await;
    let ((by_client, by_server), report) =
        finished.map_err(|_| format!("not done within {patience} s (seed {seed})"))??;
    let seconds = began.elapsed().as_secs_f64();
    client.close().await;
    let equal = by_client + by_server;
    let passed = equal == 2 * each && report.events() >= events && report.unexpected.is_empty();
    let figures = json!({
        "seed": seed, "streams": 2 * each, "size": size, "equal": equal, "seconds": seconds, "links": report,
    });
    Ok(Outcome { passed, figures })
}
