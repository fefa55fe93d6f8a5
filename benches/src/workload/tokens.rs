//! G6: many streams of small events.
//!
//! Two thousand event streams, each with twenty bytes every 20 ms: language models that talk to people.

use std::cell::RefCell;
use std::process;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;

use super::Workload;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::load::client::{Client, OnMessage, Target, open_many};
use crate::load::open_loop::{self, Schedule};
use crate::load::{self, payload};
use crate::results::{Counts, Measured};
use crate::settings::Settings;
use crate::subject::{App, Subject};
use crate::{Failure, measure};

/// Between two tokens of a stream.
const INTERVAL: Duration = Duration::from_millis(20);

/// Bytes of a token.
const TOKEN: usize = 20;

/// How long the last tokens may take.
const LATE: Duration = Duration::from_secs(10);

struct Tokens {
    streams: usize,
    warm_up: Duration,
    window: Duration,
}

pub(super) fn workloads(settings: &Settings) -> Vec<Box<dyn Workload>> {
    let streams = settings.pick(2_000, 100);
    let warm_up = settings.pick(Duration::from_millis(1_500), Duration::from_millis(200));
    let window = settings.pick(Duration::from_secs(6), Duration::from_millis(500));
    vec![Box::new(Tokens { streams, warm_up, window })]
}

impl Workload for Tokens {
    fn name(&self) -> &'static str {
        "tokens"
    }

    fn goal(&self) -> &'static str {
        "G6"
    }

    fn variant(&self) -> String {
        format!("{} streams, {TOKEN} B every {} ms", self.streams, INTERVAL.as_millis())
    }

    fn takes(&self, contender: &Contender) -> bool {
        matches!(contender.protocol, Protocol::Sse | Protocol::Events | Protocol::Throughline(Transport::Sse))
            && (contender.entry.apps.contains(&App::Tokens) || is_published_to(contender))
    }

    fn lasts(&self) -> Duration {
        self.warm_up + self.window + Duration::from_millis(1_200)
    }

    fn run(&self, contender: &Contender, settings: &Settings) -> Result<Measured, Failure> {
        let subject = Subject::start(contender, App::Tokens, settings)?;
        let target = load::target(&subject, false)?;
        load::block_on(Duration::from_secs(60) + self.window, self.measure(&subject, &target, contender))
    }
}

/// A server without an application of its own: the tokens are published to it, each once for all streams.
fn is_published_to(contender: &Contender) -> bool {
    contender.entry.apps.contains(&App::Fanout) && !contender.entry.apps.contains(&App::Tokens)
}

impl Tokens {
    async fn measure(&self, subject: &Subject, target: &Target, contender: &Contender) -> Result<Measured, Failure> {
        let tally = Rc::new(RefCell::new(Tally {
            newest: 0,
            window: 0..0,
            received: 0,
            arrived: 0,
            latencies: open_loop::histogram(),
        }));
        load::wire(contender.protocol, App::Tokens, 0)?;
        let streams = open_many(target, 1..self.streams + 1, |number| {
            (load::wire(contender.protocol, App::Tokens, number).expect("it can be spoken"), ear(&tally))
        })
        .await?;
        let _publishing = match is_published_to(contender) {
            true => Some(publish(target, contender.protocol, self.warm_up + self.window + LATE).await?),
            false => None,
        };
        tokio::time::sleep(self.warm_up).await;

        // The window begins and ends half-way between two tokens, so that each stream has the same number of them in it.
        let half = INTERVAL.as_micros() as u64 / 2;
        let newest = tally.borrow().newest;
        if newest == 0 {
            return Err("no token came".into());
        }
        let start = newest + half;
        let end = start + self.window.as_micros() as u64;
        tally.borrow_mut().window = start..end;
        let until = Instant::now() + Duration::from_micros(end.saturating_sub(payload::micros(Instant::now())));
        let (began, cpu, own_cpu) = (Instant::now(), subject.cpu_time()?, measure::cpu_time(&[process::id()])?);
        let before = tally.borrow().arrived;
        tokio::time::sleep_until(until.into()).await;
        // What has arrived while the CPU time was spent, whenever it was due: a server that lags does not pay for less.
        let arrived = (tally.borrow().arrived - before).max(1) as f64;
        let cpu = (subject.cpu_time()? - cpu).as_secs_f64();
        let own_cpu = (measure::cpu_time(&[process::id()])? - own_cpu).as_secs_f64();
        let elapsed = began.elapsed().as_secs_f64();

        let ticks = self.window.as_micros() as u64 / INTERVAL.as_micros() as u64;
        let expected = ticks * self.streams as u64;
        let all_arrived = async {
            while tally.borrow().received < expected {
                tokio::time::sleep(INTERVAL).await;
            }
        };
        drop(tokio::time::timeout(LATE, all_arrived).await); // what is missing is counted
        if let Some(failure) = streams.iter().find_map(Client::failure) {
            return Err(failure.into());
        }
        let tally = tally.borrow();
        let mut measured = Measured { counts: Counts::new(ticks, expected, tally.received), ..Measured::default() };
        measured.set("cpu_us_per_token", cpu * 1e6 / arrived);
        measured.set("messages_per_cpu_second", arrived / cpu);
        measured.set("cpu_share", cpu / elapsed);
        measured.set("load_cpu_share", own_cpu / elapsed);
        measured.set_latencies(&tally.latencies);
        Ok(measured)
    }
}

/// Publishes a token every 20 ms for so long.
async fn publish(target: &Target, protocol: Protocol, duration: Duration) -> Result<Rc<Client>, Failure> {
    let publisher = Rc::new(Client::open(target, 0, load::publisher(protocol, App::Tokens)?, Box::new(|_| {})).await?);
    let sender = Rc::clone(&publisher);
    tokio::task::spawn_local(async move {
        let schedule = Schedule::for_window(Instant::now(), INTERVAL, duration);
        schedule.run(async |_, due| sender.send(token(due))).await;
    });
    Ok(publisher)
}

fn token(due: Instant) -> Bytes {
    format!("{:016x}{:.>filler$}", payload::micros(due), "", filler = TOKEN - 16).into()
}

struct Tally {
    /// When the newest token was due.
    newest: u64,
    /// Tokens that were due in it are counted.
    window: std::ops::Range<u64>,
    received: u64,
    /// All tokens, whenever they were due.
    arrived: u64,
    latencies: Histogram<u64>,
}

fn ear(tally: &Rc<RefCell<Tally>>) -> OnMessage {
    let tally = Rc::clone(tally);
    Box::new(move |message| {
        let Some((due, _)) = payload::read_text(message) else { return };
        let tally = &mut *tally.borrow_mut();
        tally.arrived += 1;
        tally.newest = tally.newest.max(due);
        if tally.window.contains(&due) {
            tally.received += 1;
            open_loop::record(&mut tally.latencies, payload::age(due));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_when_it_was_due() {
        let due = Instant::now();
        let token = token(due);
        assert_eq!(token.len(), TOKEN);
        assert_eq!(payload::read_text(&token), Some((payload::micros(due), 0)));
    }
}
