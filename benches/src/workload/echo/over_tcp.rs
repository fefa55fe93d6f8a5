//! Messages there and back over TCP: what the fallback costs, beside a socket that is written to and read from.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{BYTES, PER_SECOND, STRAGGLERS, WARM_UP};
use crate::Failure;
use crate::catalogue::Protocol;
use crate::load::client::{Client, OnMessage};
use crate::load::open_loop::{self, Schedule};
use crate::load::{self, payload};
use crate::results::{Counts, Measured};
use crate::subject::{App, Subject};

pub(super) async fn measure(subject: &Subject, protocol: Protocol, window: Duration) -> Result<Measured, Failure> {
    let is_text = load::is_text(protocol);
    let tally = Rc::new(RefCell::new(Tally { first: u64::MAX, latencies: open_loop::histogram() }));
    let mut line = Line::open(subject, protocol, is_text, Rc::clone(&tally)).await?;
    let interval = Duration::from_secs(1) / PER_SECOND;
    let warm_up = Schedule::for_window(Instant::now(), interval, WARM_UP);
    let counted = Schedule::for_window(Instant::now() + WARM_UP, interval, window);
    tally.borrow_mut().first = payload::micros(counted.due(0));
    let mut cpu = Duration::ZERO;
    for (schedule, is_counted) in [(&warm_up, false), (&counted, true)] {
        if is_counted {
            cpu = subject.cpu_time()?;
        }
        for number in 0..schedule.count() {
            let due = schedule.due(number);
            open_loop::precisely(due).await;
            let mut message = [0; BYTES];
            if is_text {
                payload::write_text(&mut message, due, number);
            } else {
                payload::write(&mut message, due, number);
            }
            line.send(&message).await?;
        }
    }
    let cpu = subject.cpu_time()? - cpu;
    open_loop::precisely(Instant::now() + STRAGGLERS).await;
    line.still_there()?;
    let tally = tally.borrow();
    let counts = Counts::new(counted.count(), counted.count(), tally.latencies.len());
    let mut measured = Measured { counts, ..Measured::default() };
    measured.set_latencies(&tally.latencies);
    measured.set("cpu_us_per_echo", cpu.as_secs_f64() * 1e6 / counted.count() as f64);
    Ok(measured)
}

struct Tally {
    /// What was due before does not count.
    first: u64,
    latencies: Histogram<u64>,
}

impl Tally {
    fn count(&mut self, message: &[u8], is_text: bool) {
        let read = if is_text { payload::read_text(message) } else { payload::read(message) };
        if let Some((due, _)) = read.filter(|(due, _)| *due >= self.first) {
            open_loop::record(&mut self.latencies, payload::age(due));
        }
    }
}

enum Line {
    Socket(OwnedWriteHalf),
    Client(Client),
}

impl Line {
    async fn open(
        subject: &Subject,
        protocol: Protocol,
        is_text: bool,
        tally: Rc<RefCell<Tally>>,
    ) -> Result<Self, Failure> {
        if protocol == Protocol::Tcp {
            let stream = TcpStream::connect(subject.tcp()?).await?;
            stream.set_nodelay(true)?;
            let (reading, writing) = stream.into_split();
            tokio::task::spawn_local(read(reading, tally));
            return Ok(Self::Socket(writing));
        }
        let on_message: OnMessage = Box::new(move |message| tally.borrow_mut().count(message, is_text));
        let wire = load::wire(protocol, App::Echo, 0)?;
        Ok(Self::Client(Client::open(&load::target(subject, false)?, 0, wire, on_message).await?))
    }

    async fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Socket(socket) => socket.write_all(message).await?,
            Self::Client(client) => client.send(Bytes::copy_from_slice(message)),
        }
        Ok(())
    }

    fn still_there(&self) -> Result<(), Failure> {
        match self {
            Self::Client(client) => client.failure().map_or(Ok(()), |failure| Err(failure.into())),
            Self::Socket(_) => Ok(()), // what did not come is counted
        }
    }
}

/// Pieces of equal length.
async fn read(mut socket: OwnedReadHalf, tally: Rc<RefCell<Tally>>) -> std::io::Result<()> {
    let mut message = [0; BYTES];
    loop {
        socket.read_exact(&mut message).await?;
        tally.borrow_mut().count(&message, false);
    }
}
