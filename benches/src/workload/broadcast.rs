//! One publisher and many subscribers: what fan-out and long-polling have in common.

use std::cell::RefCell;
use std::ops::Range;
use std::process;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::sync::Notify;

use crate::catalogue::{Contender, Protocol};
use crate::load::client::{Client, OnMessage, Target, open_many};
use crate::load::open_loop::{self, Schedule};
use crate::load::{self, payload};
use crate::results::{Counts, Measured};
use crate::settings::Settings;
use crate::subject::{App, Subject};
use crate::{Failure, measure};

/// How long the last deliveries may take.
const LATE: Duration = Duration::from_secs(10);

/// What is published, how often, and to how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Broadcast {
    pub(super) subscribers: usize,
    pub(super) bytes: usize,
    /// Between publications, or between bursts of them.
    pub(super) interval: Duration,
    /// Publications that are due at the same time.
    pub(super) burst: u64,
    /// Publications before those that are measured: for what a server does once, and its compiler, if it has one.
    pub(super) warm_up: Duration,
    pub(super) window: Duration,
    pub(super) over_tls: bool,
}

impl Broadcast {
    /// See [`super::Workload::lasts`].
    pub(super) fn lasts(&self) -> Duration {
        self.warm_up + self.window + Duration::from_millis(if self.over_tls { 2_000 } else { 1_000 })
    }

    /// Publishes by an open loop, and counts what arrives. The server's CPU time is that of the whole window: what it does while it waits is not subtracted.
    pub(super) fn run(&self, contender: &Contender, settings: &Settings) -> Result<Measured, Failure> {
        let subject = Subject::start(contender, App::Fanout, settings)?;
        let target = load::target(&subject, self.over_tls)?;
        let limit = Duration::from_secs(120) + self.window;
        load::block_on(limit, self.measure(&subject, &target, contender.protocol))
    }

    async fn measure(&self, subject: &Subject, target: &Target, protocol: Protocol) -> Result<Measured, Failure> {
        let warm_up = Schedule::for_window(Instant::now(), self.interval, self.warm_up).count() * self.burst;
        let count = Schedule::for_window(Instant::now(), self.interval, self.window).count() * self.burst;
        let tally = Rc::new(RefCell::new(Tally::new(warm_up..warm_up + count)));
        let happened = Rc::new(Notify::new());
        let is_text = load::is_text(protocol);
        // Before anybody is there: what cannot be spoken is known then.
        let publisher = load::publisher(protocol, App::Fanout)?;
        load::wire(protocol, App::Fanout, 0)?;
        let subscribers = open_many(target, 1..self.subscribers + 1, |number| {
            let wire = load::wire(protocol, App::Fanout, number).expect("it can be spoken");
            (wire, ear(is_text, &tally, &happened))
        })
        .await?;
        let publisher = Client::open(target, 0, publisher, Box::new(|_| {})).await?;
        let publish = |publications: u64, start: Instant, first: u64| {
            let schedule = Schedule::new(start, self.interval, publications / self.burst);
            let (publisher, bytes, burst) = (&publisher, self.bytes, self.burst);
            async move {
                let mut message = vec![0; bytes];
                schedule
                    .run(async |index, due| {
                        for number in first + index * burst..first + (index + 1) * burst {
                            payload::write_as(is_text, &mut message, due, number);
                            publisher.send(Bytes::copy_from_slice(&message));
                        }
                    })
                    .await;
            }
        };
        let deliveries = |publications: u64| publications * self.subscribers as u64;
        let arrived = async |all: u64| {
            let all_arrived = async {
                while tally.borrow().seen < all {
                    happened.notified().await;
                }
            };
            drop(tokio::time::timeout(LATE, all_arrived).await); // what is missing is counted
        };

        publish(warm_up, Instant::now(), 0).await;
        arrived(deliveries(warm_up)).await;

        let start = Instant::now() + self.interval.min(Duration::from_millis(50));
        let (cpu, own_cpu) = (subject.cpu_time()?, measure::cpu_time(&[process::id()])?);
        let wire = measure::wire_bytes("lo")?;
        publish(count, start, warm_up).await;
        tokio::time::sleep_until((start + self.window).into()).await;
        arrived(deliveries(warm_up + count)).await;
        let cpu = (subject.cpu_time()? - cpu).as_secs_f64();
        let own_cpu = (measure::cpu_time(&[process::id()])? - own_cpu).as_secs_f64();
        let wire = measure::wire_bytes("lo")? - wire;
        let elapsed = start.elapsed().as_secs_f64();

        let failures: Vec<String> = subscribers.iter().chain([&publisher]).filter_map(Client::failure).collect();
        if let Some(failure) = failures.first() {
            return Err(format!("{} clients were lost: {failure}", failures.len()).into());
        }
        let tally = tally.borrow();
        let mut measured =
            Measured { counts: Counts::new(count, deliveries(count), tally.received), ..Measured::default() };
        measured.set("messages_per_cpu_second", tally.received as f64 / cpu);
        measured.set("cpu_share", cpu / elapsed);
        measured.set("load_cpu_share", own_cpu / elapsed);
        measured.set("wire_bytes_per_message", wire as f64 / tally.received.max(1) as f64);
        measured.set("gaps", tally.gaps as f64);
        measured.set("repeated", tally.repeated as f64);
        measured.set_latencies(&tally.latencies);
        Ok(measured)
    }
}

/// What all subscribers together have got.
struct Tally {
    /// Numbers of the publications that are measured.
    measured: Range<u64>,
    /// All deliveries, those of the warm-up too.
    seen: u64,
    received: u64,
    /// How often a publication was not the one after that before it.
    gaps: u64,
    /// Publications that came again, or after a later one.
    repeated: u64,
    latencies: Histogram<u64>,
}

impl Tally {
    fn new(measured: Range<u64>) -> Self {
        Self { measured, seen: 0, received: 0, gaps: 0, repeated: 0, latencies: open_loop::histogram() }
    }

    /// A subscriber has got a publication; `next` is the one that it waits for.
    fn count(&mut self, next: &mut Option<u64>, due: u64, number: u64) {
        let expected = next.unwrap_or(number);
        if number < expected {
            self.repeated += 1;
            return;
        }
        self.gaps += u64::from(number > expected);
        *next = Some(number + 1);
        self.seen += 1;
        if self.measured.contains(&number) {
            self.received += 1;
            open_loop::record(&mut self.latencies, payload::age(due));
        }
    }
}

/// What listens for one subscriber.
fn ear(is_text: bool, tally: &Rc<RefCell<Tally>>, happened: &Rc<Notify>) -> OnMessage {
    let (tally, happened) = (Rc::clone(tally), Rc::clone(happened));
    let mut next = None;
    Box::new(move |message| {
        if let Some((due, number)) = payload::read_as(is_text, message) {
            tally.borrow_mut().count(&mut next, due, number);
            happened.notify_one();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_repeats_are_no_deliveries() {
        let mut tally = Tally::new(2..6);
        let mut next = None;
        for number in [1, 2, 3, 3, 5, 4, 6] {
            tally.count(&mut next, payload::micros(Instant::now()), number);
        }
        assert_eq!((tally.seen, tally.received, tally.gaps, tally.repeated), (5, 3, 1, 2));
        assert_eq!(tally.latencies.len(), 3);
    }
}
