//! A QUIC client whose address changes in the middle of its traffic: the session goes on over the same link.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::json;
use throughline::{Message, Transport};
use throughline_protocol::Event;
use tokio::sync::watch;

use crate::account::{Account, Tally, numbered};
use crate::client::Client;
use crate::fault::Fault;
use crate::process::Process;
use crate::rng::Rng;
use crate::scenario::Spread;
use crate::{Failure, Outcome};

/// How far each side may be ahead of the other, in messages.
const LEAD: u32 = 100;

#[derive(clap::Args)]
pub(crate) struct RebindArguments {
    /// Messages each way.
    #[arg(long, default_value_t = 100_000)]
    count: u32,
    /// Changes of the client's port, every second one of its address, too.
    #[arg(long, default_value_t = 50)]
    changes: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds after which it has failed.
    #[arg(long, default_value_t = 120)]
    patience: u64,
}

pub(crate) async fn rebind(arguments: RebindArguments) -> Result<Outcome, Failure> {
    let RebindArguments { count, changes, seed, patience } = arguments;
    let server = Process::start(&[]).await?;
    let mut rng = Rng::new(seed, 0);
    let began = Instant::now();
    let client = Client::open(&server.place, Transport::WebTransport, &Fault::never()).await?;
    let endpoint = client.endpoint().ok_or("a link over QUIC has an endpoint")?;
    let command = Message::from(format!("messages {seed} {count} {LEAD}"));
    client.send(command).await.map_err(|close| close.to_string())?;

    let (arrived, progress) = watch::channel(0_u32);
    let mut seen = progress.clone();
    let sending = async {
        for index in 0..count {
            seen.wait_for(|arrived| *arrived + LEAD > index).await?;
            client.send(numbered(seed, index)).await.map_err(|close| close.to_string())?;
        }
        client.send(Message::from("done")).await.map_err(|close| close.to_string())?;
        Ok::<_, Failure>(())
    };
    let receiving = async {
        let mut account = Account::new(!seed, count);
        while let Some(event) = client.recv().await {
            let Event::Message(message) = event else { continue };
            if let Some(verdict) = message.as_text().and_then(|text| text.strip_prefix("verdict ")) {
                return Ok((account.tally(), serde_json::from_str::<Tally>(verdict)?));
            }
            account.take(&message);
            arrived.send_modify(|arrived| *arrived += 1);
        }
        Err(Failure::from(format!("the session ended early: {}", client.closed().await)))
    };
    let changing = async {
        let mut progress = progress;
        let mut silences = Vec::new();
        for change in 0..changes {
            let at = count / changes * change + rng.below(u64::from(count / changes).max(1)) as u32;
            progress.wait_for(|arrived| *arrived >= at).await?;
            let address = Ipv4Addr::new(127, 0, 0, 1 + (change % 2) as u8);
            let changed = Instant::now();
            endpoint.rebind(UdpSocket::bind((address, 0))?)?;
            // What had arrived before says nothing: a whole lead must come over the new address.
            let next = (*progress.borrow() + 2 * LEAD).min(count);
            progress.wait_for(|arrived| *arrived >= next).await?;
            silences.push(changed.elapsed().as_secs_f64() * 1_000.0);
        }
        Ok::<_, Failure>(silences)
    };
    let all = async { tokio::try_join!(sending, receiving, changing) };
    let finished = tokio::time::timeout(Duration::from_secs(patience), all).await;
    let ((), (down, up), silences) = finished.map_err(|_| format!("not done within {patience} s (seed {seed})"))??;
    let seconds = began.elapsed().as_secs_f64();
    let links = client.until(|machine| Some(machine.links())).await;
    let unexpected = client.unexpected();
    client.close().await;
    let passed = up.is_clean(count.into()) && down.is_clean(count.into()) && links == 1 && unexpected.is_empty();
    let figures = json!({
        "seed": seed, "count": count, "changes": changes, "seconds": seconds, "up": up, "down": down, "links": links,
        "unexpected": unexpected, "msToGoOn": Spread::of(silences),
    });
    Ok(Outcome { passed, figures })
}
