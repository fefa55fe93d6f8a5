//! SIGTERM while many sessions are busy. What was acknowledged must not be lost, the server must be gone by its deadline, and its clients must come
//! to the next one at different times.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use throughline::{Message, SessionId, Transport};
use throughline_protocol::{Close, Code, Event};
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;

use crate::account::{Account, Tally, numbered};
use crate::client::Client;
use crate::fault::Fault;
use crate::link::{Place, TRANSPORTS};
use crate::process::Process;
use crate::rng::Rng;
use crate::scenario::Spread;
use crate::{Failure, Outcome};

/// Openings at the same time, before the stop: more would only wait for each other.
const OPENINGS: usize = 64;

/// From one message of a session to its next, at most.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the sessions are busy before the stop.
const BUSY: Duration = Duration::from_secs(3);

/// Nobody sends so many.
const MOST: u32 = 100_000;

#[derive(clap::Args)]
pub(crate) struct DrainArguments {
    /// Sessions, a quarter on each transport.
    #[arg(long, default_value_t = 2_000)]
    sessions: usize,
    /// The server's `drain_spread`, in milliseconds.
    #[arg(long, default_value_t = 3_000)]
    spread: u64,
    /// The server's `drain_timeout`, in milliseconds.
    #[arg(long, default_value_t = 8_000)]
    deadline: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds after which it has failed.
    #[arg(long, default_value_t = 120)]
    patience: u64,
}

pub(crate) async fn drain(arguments: DrainArguments) -> Result<Outcome, Failure> {
    let patience = arguments.patience;
    tokio::time::timeout(Duration::from_secs(patience), run(arguments))
        .await
        .map_err(|_| format!("not done within {patience} s"))?
}

async fn run(arguments: DrainArguments) -> Result<Outcome, Failure> {
    let DrainArguments { sessions, spread, deadline, seed, .. } = arguments;
    let (spread_text, deadline_text) = (format!("{spread}ms"), format!("{deadline}ms"));
    let limits = [("LIMITS__DRAIN_SPREAD", &spread_text[..]), ("LIMITS__DRAIN_TIMEOUT", &deadline_text[..])];
    let (server, next) = (Process::start(&limits).await?, Process::start(&limits).await?);

    let openings = Arc::new(Semaphore::new(OPENINGS));
    let all_open = Arc::new(Barrier::new(sessions + 1));
    let mut running = JoinSet::new();
    let began = Instant::now();
    for index in 0..sessions {
        let (first, second) = (server.place, next.place);
        let (openings, all_open) = (Arc::clone(&openings), Arc::clone(&all_open));
        running.spawn(async move {
            let transport = TRANSPORTS[index % TRANSPORTS.len()];
            let mut user = {
                let _one_of_few = openings.acquire().await?;
                User::open(&first, transport, Rng::new(seed, index as u64)).await
            };
            all_open.wait().await; // also when it failed: the others wait for it
            let closed = user.as_mut().map(User::use_until_closed).map_err(|error| error.to_string())?.await;
            let at = Instant::now();
            user?.go_on(&second, closed, at).await
        });
    }
    all_open.wait().await;
    let opened_in = began.elapsed();
    tokio::time::sleep(BUSY).await;
    let stopped = Instant::now();
    server.terminate()?;
    let (code, ends) = server.ended().await?;
    let exit_ms = stopped.elapsed().as_millis() as u64;

    let mut ways = Vec::new();
    while let Some(way) = running.join_next().await {
        ways.push(way??);
    }
    let (mut sent, mut acked, mut lost, mut unanswered, mut late) = (0, 0, 0, 0, 0);
    let (mut tally, mut ended) = (Tally::default(), BTreeMap::<&str, u64>::new());
    for way in &ways {
        let end = ends.get(&way.session.to_string()).ok_or("the server did not say how a session ended")?;
        sent += way.sent;
        acked += way.acked;
        lost += way.acked.saturating_sub(end.received);
        unanswered += end.received - way.echoed;
        late += end.sent - way.echoed;
        tally.add(way.tally);
        *ended.entry(way.ended).or_default() += 1;
    }
    let reasons: Vec<&String> = ways.iter().filter_map(|way| way.lost.as_ref()).take(5).collect();
    let back: Vec<f64> =
        ways.iter().map(|way| way.back.saturating_duration_since(stopped).as_secs_f64() * 1_000.0).collect();
    let busiest = busiest(&back, spread as f64 / 10.0);
    let back = Spread::of(back);
    let passed = code == Some(0)
        && exit_ms <= deadline + 500 // the process itself ends, too
        && lost == 0
        && unanswered == 0
        && reasons.is_empty()
        && tally.is_clean(tally.received);
    let figures = json!({
        "seed": seed, "sessions": sessions, "openedInMs": opened_in.as_millis() as u64, "sent": sent, "acked": acked,
        "ackedAndLost": lost, "receivedAndUnanswered": unanswered, "sentAndNotReceived": late, "arrived": tally, "ended": ended, "lostBecause": reasons,
        "exitCode": code, "exitMs": exit_ms, "deadlineMs": deadline, "spreadMs": spread, "backAfterMs": back,
        "inBusiestTenth": busiest,
    });
    Ok(Outcome { passed, figures })
}

/// The most of these times that lie in one window of this length, as a share of all.
fn busiest(times: &[f64], window: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let most = sorted
        .iter()
        .enumerate()
        .map(|(first, from)| sorted[first..].iter().take_while(|time| **time < from + window).count());
    let share = most.max().unwrap_or(0) as f64 / times.len().max(1) as f64;
    (share * 1_000.0).round() / 1_000.0
}

/// A session that is busy.
struct User {
    client: Client,
    session: SessionId,
    transport: Transport,
    rng: Rng,
    seed: u64,
    echoes: Account,
    /// Where each message ends in the message stream.
    ends: Vec<u64>,
    /// Bytes of the message stream that were given to the machine.
    end: u64,
}

/// What became of one.
struct Way {
    session: SessionId,
    sent: u64,
    acked: u64,
    /// By the first server.
    echoed: u64,
    /// By both.
    tally: Tally,
    ended: &'static str,
    /// Why its link was lost, when it was not closed.
    lost: Option<String>,
    /// When it turned to the second server.
    back: Instant,
}

impl User {
    async fn open(place: &Place, transport: Transport, mut rng: Rng) -> Result<Self, Failure> {
        let client = Client::open(place, transport, &Fault::never()).await?;
        let session = client.resume().ok_or("an open session has an id")?.session;
        let seed = rng.next();
        let echoes = Account::new(seed, MOST);
        let mut user = Self { client, session, transport, rng, seed, echoes, ends: Vec::new(), end: 0 };
        user.send(Message::from("echo")).await.map_err(|close| close.to_string())?;
        Ok(user)
    }

    async fn send(&mut self, message: Message) -> Result<(), Close> {
        let len = message.len() as u64;
        self.client.send(message).await?;
        let length_of_length = match len {
            0..0x40 => 1,
            0x40..0x4000 => 2,
            _ => 4,
        };
        self.end += 1 + length_of_length + len;
        Ok(())
    }

    /// A message now and then, until the server has closed the session.
    async fn use_until_closed(&mut self) -> Close {
        loop {
            let pause = self.rng.below(PAUSE.as_micros() as u64);
            let pause = tokio::time::sleep(Duration::from_micros(pause));
            let mut pause = std::pin::pin!(pause);
            loop {
                tokio::select! {
                    biased;
                    event = self.client.recv() => match event {
                        Some(Event::Message(message)) => self.echoes.take(&message),
                        Some(_) => {}
                        None => return self.client.closed().await,
                    },
                    () = &mut pause => break,
                    // Nobody moves it here: it is over, unless it has been closed just now.
                    () = self.client.link_gone() => {
                        let closed = self.client.until(|machine| Some(machine.closed().cloned())).await;
                        return closed.unwrap_or_else(|| Close::application(0, self.client.unexpected().join("; ")));
                    }
                }
            }
            let message = numbered(self.seed, self.ends.len() as u32);
            if self.send(message).await.is_ok() {
                self.ends.push(self.end);
            }
        }
    }

    /// Turns to the next server, with what the first has not acknowledged.
    async fn go_on(mut self, place: &Place, closed: Close, at: Instant) -> Result<Way, Failure> {
        let unacked = self.client.until(|machine| Some(machine.buffered_bytes())).await;
        while let Some(event) = self.client.until(|machine| Some(machine.poll_event())).await {
            if let Event::Message(message) = event {
                self.echoes.take(&message); // it came before the end
            }
        }
        let acked = self.ends.iter().filter(|end| **end <= self.end - unacked).count();
        let echoed = self.echoes.tally().received;
        let sent = self.ends.len();

        let client = Client::open(place, self.transport, &Fault::never()).await?;
        client.send(Message::from("echo")).await.map_err(|close| close.to_string())?;
        for index in acked..sent {
            client.send(numbered(self.seed, index as u32)).await.map_err(|close| close.to_string())?;
        }
        let mut missing = sent - acked;
        while missing > 0 {
            match client.recv().await {
                Some(Event::Message(message)) => {
                    self.echoes.take(&message);
                    missing -= 1;
                }
                Some(_) => {}
                None => return Err(format!("the second session ended: {}", client.closed().await).into()),
            }
        }
        client.close().await;
        let ended = match Code::from_number(closed.code) {
            Some(code) if closed.origin == throughline_protocol::Origin::Protocol => code.name(),
            _ => "lost",
        };
        let lost = (ended == "lost").then_some(closed.reason);
        // Those beyond what was sent are not lost.
        let tally =
            Tally { lost: sent as u64 - echoed.min(acked as u64) - (sent - acked) as u64, ..self.echoes.tally() };
        let (sent, acked) = (sent as u64, acked as u64);
        Ok(Way { session: self.session, sent, acked, echoed, tally, ended, lost, back: at })
    }
}
