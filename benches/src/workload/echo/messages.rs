//! Messages there and back: those of a session, or pieces of equal length of a stream.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hdrhistogram::Histogram;
use quinn::{RecvStream, SendStream};
use throughline_protocol::{Event, Message};

use super::{BYTES, Conduit, PER_SECOND, STRAGGLERS, WARM_UP};
use crate::Failure;
use crate::catalogue::Protocol;
use crate::load::driven::Driven;
use crate::load::open_loop::{self, Schedule};
use crate::load::{payload, webtransport};
use crate::results::{Counts, Measured};
use crate::subject::Subject;

pub(super) async fn measure(subject: &Subject, protocol: Protocol, window: Duration) -> Result<Measured, Failure> {
    let conduit = Conduit::open(subject, protocol).await?;
    let mut line = match conduit {
        Conduit::Quic(connection) => Line::stream(connection.open_bi().await?, None),
        Conduit::WebTransport(session) => Line::stream(session.open_bi().await?, Some(session)),
        Conduit::Throughline(driven) => Line::Session(driven),
    };
    let interval = Duration::from_secs(1) / PER_SECOND;
    let schedule = Schedule::for_window(Instant::now(), interval, WARM_UP + window);
    let counted_from = Schedule::for_window(Instant::now(), interval, WARM_UP).count();
    let mut tally = Tally { latencies: open_loop::histogram(), received: 0, counted_from };
    let mut cpu = Duration::ZERO;
    for number in 0..schedule.count() {
        let due = schedule.due(number);
        line.wait_until(due, &mut tally).await?;
        if number == counted_from {
            cpu = subject.cpu_time()?;
        }
        let mut bytes = [0; BYTES];
        payload::write(&mut bytes, due, number);
        line.send(Bytes::copy_from_slice(&bytes)).await?;
    }
    let cpu = subject.cpu_time()? - cpu;
    line.wait_until(Instant::now() + STRAGGLERS, &mut tally).await?;
    let expected = schedule.count() - counted_from;
    let mut measured = Measured { counts: Counts::new(expected, expected, tally.received), ..Measured::default() };
    measured.set_latencies(&tally.latencies);
    measured.set("cpu_us_per_echo", cpu.as_secs_f64() * 1e6 / expected as f64);
    Ok(measured)
}

struct Tally {
    latencies: Histogram<u64>,
    received: u64,
    counted_from: u64,
}

impl Tally {
    fn count(&mut self, message: &[u8]) {
        if let Some((due, _)) = payload::read(message).filter(|(_, number)| *number >= self.counted_from) {
            open_loop::record(&mut self.latencies, payload::age(due));
            self.received += 1;
        }
    }
}

enum Line {
    Stream(Box<Stream>),
    Session(Box<Driven>),
}

struct Stream {
    send: SendStream,
    recv: RecvStream,
    /// What has come of a message that is not whole.
    rest: BytesMut,
    _session: Option<webtransport::Session>,
}

impl Line {
    fn stream((send, recv): (SendStream, RecvStream), session: Option<webtransport::Session>) -> Self {
        Self::Stream(Box::new(Stream { send, recv, rest: BytesMut::new(), _session: session }))
    }

    async fn send(&mut self, message: Bytes) -> Result<(), Failure> {
        match self {
            Self::Stream(stream) => Ok(stream.send.write_chunk(message).await?),
            Self::Session(driven) => {
                driven.machine().send(Message::Binary(message)).map_err(|error| error.to_string())?;
                driven.flush().await
            }
        }
    }

    /// Counts what comes until then.
    async fn wait_until(&mut self, when: Instant, tally: &mut Tally) -> Result<(), Failure> {
        loop {
            tokio::select! {
                biased;
                arrived = self.arrive(tally) => arrived?,
                () = open_loop::precisely(when) => return Ok(()),
            }
            if let Self::Session(driven) = self {
                driven.flush().await?;
            }
        }
    }

    async fn arrive(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        match self {
            Self::Stream(stream) => {
                let Stream { recv, rest, .. } = &mut **stream;
                let chunk = recv.read_chunk(webtransport::CHUNK, true).await?.ok_or("the stream has ended")?;
                rest.extend_from_slice(&chunk.bytes);
                while rest.len() >= BYTES {
                    tally.count(&rest.split_to(BYTES));
                }
            }
            Self::Session(driven) => {
                driven.arrive().await?;
                while let Some(event) = driven.machine().poll_event() {
                    if let Event::Message(message) = event {
                        tally.count(message.as_bytes());
                    }
                }
            }
        }
        Ok(())
    }
}
