//! `endurance serve`: the application at the other end. The first message of a session says what it does.
//!
//! - `messages SEED COUNT LEAD`: sends COUNT numbered messages, at most LEAD ahead of what it has received, and accounts for as many, until `done`;
//!   then answers `verdict JSON`;
//! - `streams SEED COUNT SIZE`: says `ready`, then see [`crate::bulk`]; answers `verdict JSON`;
//! - `publish COUNT RATE`: publishes COUNT times in `log:all`, at most RATE per second, and answers `verdict JSON`;
//! - `time COUNT RATE`: the same in `timed:all`, where each publication says when it was made;
//! - `echo`: sends back what comes; a line on standard output says in the end how many messages came, and how many were sent.
//!
//! The configuration comes from `THROUGHLINE_*`; SIGTERM drains.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::json;
use throughline::{Channel, Config, Event, Hub, Message, Server, Session, SessionId};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::account::{Account, Tally, numbered};
use crate::client::now;
use crate::subscriber::{LOG, TIMED, published};
use crate::{Failure, bulk, say};

pub(crate) async fn serve() -> Result<(), Failure> {
    let config = Config::load(None)?;
    let drain_timeout = config.limits.drain_timeout;
    let mut terminated = signal(SignalKind::terminate())?;
    let hub = Arc::new(OnceLock::new());
    let channels = Arc::clone(&hub);
    let on_session = move |session| run(session, Arc::clone(&channels));
    let server = Server::builder().config(config).on_session(on_session).start().await?;
    let _ = hub.set(server.hub());
    say(&json!({ "event": "ready", "tcp": server.tcp_addr(), "quic": server.quic_addr() }));
    terminated.recv().await;
    server.drain(drain_timeout).await;
    Ok(())
}

async fn run(session: Session, channels: Arc<OnceLock<Hub>>) {
    while let Some(Event::Message(Message::Text(command))) = session.recv().await {
        let mut words = command.split(' ');
        let name = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        match (name, &numbers[..], channels.get()) {
            ("messages", [seed, count, lead], _) => {
                let tally = messages(&session, *seed, *count as u32, *lead as u32).await;
                return answer(&session, json!(tally)).await;
            }
            ("streams", [seed, count, size], _) => {
                drop(session.send("ready").await); // an incoming stream would be seen before the message above
                let equal = bulk::at_server(&session, *seed, *count, *size as usize).await;
                return answer(&session, json!({ "equal": equal })).await;
            }
            ("publish", [count, rate], Some(hub)) => {
                let verdict = publish(&hub.channel(LOG), *count, *rate, published).await;
                return answer(&session, verdict).await;
            }
            ("time", [count, rate], Some(hub)) => {
                let made_now = |_| format!("{:<1000}", now()).into();
                let verdict = publish(&hub.channel(TIMED), *count, *rate, made_now).await;
                drop(session.send(format!("verdict {verdict}")).await); // there may be a next time
            }
            ("echo", [], _) => return echo(&session).await,
            _ => return session.close(1, "this is not known"),
        }
    }
}

/// The session stays until its client closes it: the answer must arrive.
async fn answer(session: &Session, verdict: serde_json::Value) {
    if session.send(format!("verdict {verdict}")).await.is_ok() {
        session.closed().await;
    }
}

async fn messages(session: &Session, seed: u64, count: u32, lead: u32) -> Tally {
    let (received, receiving) = watch::channel(0);
    let account = async {
        let received = received; // dropped at the end: the sender waits for it no more
        let mut account = Account::new(seed, count);
        let mut taken = 0;
        while let Some(event) = session.recv().await {
            let Event::Message(message) = event else { continue };
            if message.as_text() == Some("done") {
                break;
            }
            account.take(&message);
            taken += 1;
            received.send_replace(taken);
        }
        account.tally()
    };
    let sending = async {
        let mut receiving = receiving;
        for index in 0..count {
            let gone = receiving.wait_for(|received| *received + lead > index).await.is_err();
            if gone || session.send(numbered(!seed, index)).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(account, sending).0
}

/// Publishes at a steady rate: what is late is not made up for.
async fn publish(channel: &Channel, count: u64, rate: u64, make: impl Fn(u64) -> Message) -> serde_json::Value {
    let mut ticks = interval(Duration::from_secs(1) / rate.max(1) as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for offset in 1..=count {
        ticks.tick().await;
        if let Err(error) = channel.publish(make(offset)).await {
            return json!({ "error": error.to_string() });
        }
    }
    json!({ "published": count })
}

async fn echo(session: &Session) {
    let mut ledger = Ledger { session: session.id(), received: 0, sent: 0 };
    while let Some(event) = session.recv().await {
        if let Event::Message(message) = event {
            ledger.received += 1;
            ledger.sent += u64::from(session.send(message).await.is_ok());
        }
    }
}

/// Says how many messages there were when it is dropped: also when the server does not wait for the application any more.
struct Ledger {
    session: SessionId,
    received: u64,
    sent: u64,
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let Self { session, received, sent } = self;
        say(&json!({ "event": "ended", "session": session.to_string(), "received": received, "sent": sent }));
    }
}
