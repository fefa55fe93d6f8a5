//! As much as goes through one stream there and back.

use std::cell::Cell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use throughline_protocol::StreamRead;

use super::{Conduit, WARM_UP};
use crate::Failure;
use crate::catalogue::Protocol;
use crate::load::driven::Driven;
use crate::load::webtransport::CHUNK;
use crate::results::{Counts, Measured};
use crate::subject::Subject;

pub(super) async fn measure(subject: &Subject, protocol: Protocol, window: Duration) -> Result<Measured, Failure> {
    let conduit = Conduit::open(subject, protocol).await?;
    let received = Cell::new(0_u64);
    let moving = async {
        match conduit {
            Conduit::Quic(connection) => through_stream(connection.open_bi().await?, &received).await,
            Conduit::WebTransport(session) => through_stream(session.open_bi().await?, &received).await,
            Conduit::Throughline(driven) => through_session(*driven, &received).await,
        }
    };
    let measuring = async {
        tokio::time::sleep(WARM_UP).await;
        let (start, cpu, before) = (Instant::now(), subject.cpu_time()?, received.get());
        tokio::time::sleep(window).await;
        let (cpu, bytes) = (subject.cpu_time()? - cpu, received.get() - before);
        Ok::<_, Failure>((start.elapsed(), cpu, bytes))
    };
    let (elapsed, cpu, bytes) = tokio::select! {
        measured = measuring => measured?,
        failed = moving => return failed,
    };
    // What is on its way at the end is no loss.
    let mut measured = Measured { counts: Counts::new(bytes, bytes, bytes), ..Measured::default() };
    measured.set("megabytes_per_second", bytes as f64 / 1e6 / elapsed.as_secs_f64());
    measured.set("megabytes_per_cpu_second", bytes as f64 / 1e6 / cpu.as_secs_f64());
    Ok(measured)
}

async fn through_stream(
    (mut send, mut recv): (SendStream, RecvStream),
    received: &Cell<u64>,
) -> Result<Measured, Failure> {
    let data = Bytes::from(vec![b'x'; CHUNK]);
    let sending = async {
        loop {
            send.write_chunk(data.clone()).await?;
        }
    };
    let receiving = async {
        loop {
            let chunk = recv.read_chunk(CHUNK, true).await?.ok_or("the stream has ended")?;
            received.set(received.get() + chunk.bytes.len() as u64);
        }
    };
    tokio::select! {
        failed = sending => failed,
        failed = receiving => failed,
    }
}

async fn through_session(mut driven: Driven, received: &Cell<u64>) -> Result<Measured, Failure> {
    let data = Bytes::from(vec![b'x'; CHUNK]);
    let stream = driven.open_stream().await?;
    loop {
        while driven.machine().stream_write(stream, &data)? > 0 {}
        while let StreamRead::Data(bytes) = driven.machine().stream_read(stream, usize::MAX)? {
            received.set(received.get() + bytes.len() as u64);
        }
        driven.flush().await?;
        driven.arrive().await?;
    }
}
