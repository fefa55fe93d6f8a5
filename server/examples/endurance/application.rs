//! `endurance serve`: the application at the other end. The first message of a session says what it does.
//!
//! - `messages SEED COUNT LEAD`: sends COUNT numbered messages, at most LEAD ahead of what it has received, and accounts for as many, until `done`;
//!   then answers `verdict JSON`;
//! - `streams SEED COUNT SIZE`: says `ready`, then see [`crate::bulk`]; answers `verdict JSON`;
//! - `publish COUNT RATE`: publishes COUNT times in `log:all`, and changes a value of `state:all` each time, at most RATE per second; answers `verdict JSON`;
//! - `time COUNT RATE`: the same in `timed:all`, where each publication says when it was made;
//! - `echo`: sends back what comes; a line on standard output says in the end how many messages came, and how many were sent.
//!
//! The configuration comes from `THROUGHLINE_*`; SIGTERM drains.

use std::time::Duration;

use serde_json::{Value, json};
use throughline::{Config, Event, Hub, Message, Server, Session, SessionId};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::account::{Account, Tally, numbered};
use crate::client::now;
use crate::subscriber::{LOG, REMOVED, STATE, TIMED, key, published};
use crate::{Failure, bulk, say};

pub(crate) async fn serve() -> Result<(), Failure> {
    let config = Config::load(None)?;
    let drain_timeout = config.limits.drain_timeout;
    let mut terminated = signal(SignalKind::terminate())?;
    let server = Server::builder().config(config).on_session(run).start().await?;
    say(&json!({ "event": "ready", "tcp": server.tcp_addr(), "quic": server.quic_addr() }));
    terminated.recv().await;
    server.drain(drain_timeout).await;
    Ok(())
}

async fn run(session: Session) {
    let hub = session.hub();
    while let Some(Event::Message(Message::Text(command))) = session.recv().await {
        let mut words = command.split(' ');
        let name = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        match (name, &numbers[..]) {
            ("messages", [seed, count, lead]) => {
                let tally = messages(&session, *seed, *count as u32, *lead as u32).await;
                return answer(&session, json!(tally)).await;
            }
            ("streams", [seed, count, size]) => {
                drop(session.send("ready").await); // an incoming stream would be seen before the message above
                let equal = bulk::at_server(&session, *seed, *count, *size as usize).await;
                return answer(&session, json!({ "equal": equal })).await;
            }
            ("publish", [count, rate]) => {
                let verdict = publish(&hub, *count, *rate).await;
                return answer(&session, verdict).await;
            }
            ("time", [count, rate]) => {
                let verdict = time(&hub, *count, *rate).await;
                drop(session.send(format!("verdict {verdict}")).await); // there may be a next time
            }
            ("echo", []) => return echo(&session).await,
            _ => return session.close(1, "this is not known"),
        }
    }
}

/// The session stays until its client closes it: the answer must arrive.
async fn answer(session: &Session, verdict: Value) {
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

/// Publishes in the log, and changes the values.
async fn publish(hub: &Hub, count: u64, rate: u64) -> Value {
    let (log, state) = (hub.channel(LOG), hub.channel(STATE));
    let before = hub.stats();
    let publishing = async {
        state.set(REMOVED, "there").await?;
        let mut ticks = steady(rate);
        for offset in 1..=count {
            ticks.tick().await;
            log.publish(published(offset)).await?;
            state.set(&key(offset), published(offset)).await?;
        }
        state.remove(REMOVED).await
    };
    if let Err(error) = publishing.await {
        return json!({ "error": error.to_string() });
    }
    let after = hub.stats();
    json!({ "published": after.publications - before.publications, "encoded": after.encoded - before.encoded, "skipped": after.skipped })
}

/// Publishes what the time is.
async fn time(hub: &Hub, count: u64, rate: u64) -> Value {
    let channel = hub.channel(TIMED);
    let mut ticks = steady(rate);
    for _ in 0..count {
        ticks.tick().await;
        if let Err(error) = channel.publish(format!("{:<1000}", now())).await {
            return json!({ "error": error.to_string() });
        }
    }
    json!({ "published": count })
}

/// So many per second: what is late is not made up for.
fn steady(rate: u64) -> Interval {
    let mut ticks = interval(Duration::from_secs(1) / rate.max(1) as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
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
