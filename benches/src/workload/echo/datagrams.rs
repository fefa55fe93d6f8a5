//! Datagrams there and back.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use quinn::Connection;

use super::{BYTES, PER_SECOND, STRAGGLERS, WARM_UP};
use crate::Failure;
use crate::catalogue::Protocol;
use crate::load::open_loop::{self, Schedule};
use crate::load::webtransport::{self, Session};
use crate::load::{payload, quic, sessions};
use crate::results::{Counts, Measured};
use crate::subject::{App, Subject};

pub(super) async fn measure(subject: &Subject, protocol: Protocol, window: Duration) -> Result<Measured, Failure> {
    let line = Line::open(subject, protocol).await?;
    let tally = RefCell::new((open_loop::histogram(), 0_u64));
    let interval = Duration::from_secs(1) / PER_SECOND;
    let warm_up = Schedule::for_window(Instant::now(), interval, WARM_UP);
    let counted = Schedule::for_window(Instant::now() + WARM_UP, interval, window);
    let first = payload::micros(counted.due(0));
    let receiving = async {
        loop {
            let datagram = line.recv().await?;
            let Some((due, _)) = payload::read(&datagram).filter(|(due, _)| *due >= first) else { continue };
            let mut tally = tally.borrow_mut();
            open_loop::record(&mut tally.0, payload::age(due));
            tally.1 += 1;
        }
    };
    let sending = async {
        let mut cpu = Duration::ZERO;
        for (schedule, is_counted) in [(&warm_up, false), (&counted, true)] {
            if is_counted {
                cpu = subject.cpu_time()?;
            }
            let mut bytes = [0; BYTES];
            for number in 0..schedule.count() {
                let due = schedule.due(number);
                open_loop::precisely(due).await;
                payload::write(&mut bytes, due, number);
                line.send(&bytes);
            }
        }
        let cpu = subject.cpu_time()? - cpu;
        tokio::time::sleep(STRAGGLERS).await;
        Ok::<_, Failure>(cpu)
    };
    let cpu = tokio::select! {
        cpu = sending => cpu?,
        failed = receiving => return failed,
    };
    let (latencies, received) = &*tally.borrow();
    let counts = Counts::new(counted.count(), counted.count(), *received);
    let mut measured = Measured { counts, ..Measured::default() };
    measured.set_latencies(latencies);
    measured.set("cpu_us_per_echo", cpu.as_secs_f64() * 1e6 / counted.count() as f64);
    Ok(measured)
}

/// Datagrams, with or without WebTransport around them.
enum Line {
    Quic(Connection),
    Session(Session),
}

impl Line {
    async fn open(subject: &Subject, protocol: Protocol) -> Result<Self, Failure> {
        let to = subject.quic()?;
        match protocol {
            Protocol::Quic => Ok(Self::Quic(quic::connect(&quic::endpoint(quic::ALPN)?, to).await?)),
            _ => Ok(Self::Session(sessions::open(&webtransport::endpoint()?, to, protocol, App::Echo).await?)),
        }
    }

    fn send(&self, data: &[u8]) {
        match self {
            Self::Quic(connection) => drop(connection.send_datagram(bytes::Bytes::copy_from_slice(data))), // may be lost
            Self::Session(session) => session.send_datagram(data),
        }
    }

    async fn recv(&self) -> Result<bytes::Bytes, Failure> {
        match self {
            Self::Quic(connection) => Ok(connection.read_datagram().await?),
            Self::Session(session) => session.recv_datagram().await,
        }
    }
}
