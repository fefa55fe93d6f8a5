//! A thousand subscribers on all four transports, some of them cut again and again: each has every publication once and in order, or is told that it has not.

use std::time::{Duration, Instant};

use serde_json::json;
use throughline::{Message, Transport};
use throughline_protocol::Event;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::fault::Fault;
use crate::link::TRANSPORTS;
use crate::process::Process;
use crate::rng::Rng;
use crate::subscriber::{Cuts, Ledger, Subscriber};
use crate::{Failure, Outcome};

/// Openings at the same time: more would only wait for each other.
const OPENINGS: usize = 64;

#[derive(clap::Args)]
pub(crate) struct ChannelsArguments {
    /// Subscribers, a quarter on each transport.
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
    /// Publications in the log channel, and as many changes in the channel of state.
    #[arg(long, default_value_t = 10_000)]
    publications: u64,
    /// Of a hundred subscribers, how many are cut.
    #[arg(long, default_value_t = 30)]
    cut_percent: u64,
    /// Cuts of each of those. One in five forgets its session, as a page does that is reloaded.
    #[arg(long, default_value_t = 3)]
    cuts: u32,
    /// Publications per second. Whoever is slower reads the history.
    #[arg(long, default_value_t = 50)]
    rate: u64,
    /// Publications that the channel keeps.
    #[arg(long, default_value_t = 10_000)]
    history: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds after which it has failed.
    #[arg(long, default_value_t = 600)]
    patience: u64,
}

pub(crate) async fn channels(arguments: ChannelsArguments) -> Result<Outcome, Failure> {
    let (patience, seed) = (arguments.patience, arguments.seed);
    let run = tokio::time::timeout(Duration::from_secs(patience), run(arguments));
    run.await.map_err(|_| format!("not done within {patience} s (seed {seed})"))?
}

async fn run(arguments: ChannelsArguments) -> Result<Outcome, Failure> {
    let ChannelsArguments { subscribers, publications, cut_percent, cuts, rate, history, seed, .. } = arguments;
    let server = Process::start(&[
        ("CHANNELS__NAMESPACES__LOG__SUBSCRIBE", "true"),
        ("CHANNELS__NAMESPACES__LOG__HISTORY_COUNT", &history.to_string()),
        ("CHANNELS__NAMESPACES__LOG__HISTORY_BYTES", "100000000"),
        ("CHANNELS__NAMESPACES__STATE__SUBSCRIBE", "true"),
        ("CHANNELS__NAMESPACES__STATE__KIND", "state"),
    ])
    .await?;
    let began = Instant::now();
    let mut running = JoinSet::new();
    let mut opening = JoinSet::new();
    for index in 0..subscribers {
        if opening.len() == OPENINGS {
            opening.join_next().await.ok_or("nothing is being opened")???;
        }
        let mut rng = Rng::new(seed, index as u64);
        let cuts = if rng.below(100) < cut_percent { Cuts::plan(&mut rng, publications, cuts) } else { Cuts::none() };
        let (place, transport) = (server.place, TRANSPORTS[index % TRANSPORTS.len()]);
        let (subscribed, is_subscribed) = oneshot::channel();
        running.spawn(async move {
            let subscriber = Subscriber::open(place, transport, rng, cuts).await;
            let _ = subscribed.send(()); // also when it failed: that is told below
            subscriber?.follow(publications).await
        });
        opening.spawn(async move { Ok::<_, Failure>(is_subscribed.await?) });
    }
    while let Some(opened) = opening.join_next().await {
        opened??;
    }
    let opened_in = began.elapsed();

    let publisher = Client::open(&server.place, Transport::WebSocket, &Fault::never()).await?;
    let began = Instant::now();
    publisher.send(Message::from(format!("publish {publications} {rate}"))).await.map_err(|close| close.to_string())?;
    let Some(Event::Message(verdict)) = publisher.recv().await else {
        return Err("the publisher's session ended".into());
    };
    let verdict = verdict.as_text().and_then(|text| text.strip_prefix("verdict ")).ok_or("not a verdict")?;
    let hub: serde_json::Value = serde_json::from_str(verdict)?;
    let published_in = began.elapsed();

    let mut all = Ledger::default();
    while let Some(ledger) = running.join_next().await {
        all.add(ledger??);
    }
    let took = began.elapsed();
    publisher.close().await;
    let passed = all.is_whole(subscribers as u64, publications);
    let figures = json!({
        "seed": seed, "subscribers": subscribers, "publications": publications, "openedInMs": opened_in.as_millis() as u64,
        "publishedInMs": published_in.as_millis() as u64, "allHadThemInMs": took.as_millis() as u64, "log": all.log, "state": all.state,
        "links": all.links, "hub": hub,
    });
    Ok(Outcome { passed, figures })
}
