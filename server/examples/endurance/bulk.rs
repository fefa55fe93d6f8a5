//! Streams full of bytes, in both directions at once. Whoever opens one writes bytes that follow from its number; the other answers with the
//! SHA-256 of what came, and bytes of its own.

use bytes::Bytes;
use futures_util::future::{join, join_all};
use sha2::{Digest, Sha256};
use throughline::{Event, Session, Stream};
use throughline_protocol::{self as protocol, Machine, OpenStreamError, StreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::Client;
use crate::rng::Rng;

/// Length of a SHA-256, in bytes.
const HASH: usize = 32;

/// The bytes of a stream, by its id, in one direction.
fn content(seed: u64, id: u64, size: usize) -> Bytes {
    Rng::new(seed, id).bytes(size).into()
}

/// Whether this is the answer to what was written on a stream.
fn is_answer(seed: u64, id: u64, size: usize, answer: &[u8]) -> bool {
    let (hash, rest) = answer.split_at(answer.len().min(HASH));
    hash == Sha256::digest(content(seed, id, size)).as_slice()
        && Sha256::digest(rest) == Sha256::digest(content(!seed, id, size))
}

/// The server's side: answers `count` streams of its client, and opens as many when the first has come. Returns how many of its own were answered
/// as they should.
pub(crate) async fn at_server(session: &Session, seed: u64, count: u64, size: usize) -> u64 {
    let Some(Event::Stream(first)) = session.recv().await else { return 0 };
    let accepting = async {
        let mut answering = vec![tokio::spawn(answer(first, seed, size))];
        while answering.len() < count as usize {
            match session.recv().await {
                Some(Event::Stream(stream)) => answering.push(tokio::spawn(answer(stream, seed, size))),
                Some(_) => {}
                None => break,
            }
        }
        join_all(answering).await;
    };
    let asking = (0..count).map(|_| ask(session, seed, size));
    let (answers, ()) = join(join_all(asking), accepting).await;
    answers.into_iter().filter(|equal| *equal).count() as u64
}

async fn ask(session: &Session, seed: u64, size: usize) -> bool {
    let Ok(stream) = session.open_stream().await else { return false };
    let id = stream.id();
    let (mut reader, mut writer) = stream.into_split();
    let writing = async {
        let content = content(seed, id, size);
        drop(writer.write_all(&content).await); // the answer says whether it arrived
        drop(writer.shutdown().await);
    };
    let mut read = Vec::new();
    let (result, ()) = join(reader.read_to_end(&mut read), writing).await;
    result.is_ok() && is_answer(seed, id, size, &read)
}

async fn answer(stream: Stream, seed: u64, size: usize) {
    let id = stream.id();
    let (mut reader, mut writer) = stream.into_split();
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 16_384]);
    while let Ok(len @ 1..) = reader.read(&mut piece).await {
        hash.update(&piece[..len]);
    }
    drop(writer.write_all(&hash.finalize()).await); // its reader says whether it arrived
    drop(writer.write_all(&content(!seed, id, size)).await);
    drop(writer.shutdown().await);
}

/// The client's side of the same. `count_bytes` hears of every byte that was read.
pub(crate) async fn at_client(
    client: &Client,
    seed: u64,
    count: u64,
    size: usize,
    count_bytes: impl Fn(u64) + Copy,
) -> u64 {
    let accepting = async {
        let mut incoming = Vec::new();
        while incoming.len() < count as usize {
            match client.recv().await {
                Some(protocol::Event::Stream(stream)) => incoming.push(stream),
                Some(_) => {}
                None => break,
            }
        }
        incoming
    };
    let asking = join_all((0..count).map(|_| async move {
        let open = |machine: &mut Machine| match machine.open_stream() {
            Ok(stream) => Some(Some(stream)),
            Err(OpenStreamError::Full(_)) => None,
            Err(OpenStreamError::Closed(_)) => Some(None),
        };
        let Some(stream) = client.until(open).await else { return false };
        let writing = client.write_to_end(stream, content(seed, stream, size));
        let (written, read) = join(writing, read_to_end(client, stream, count_bytes)).await;
        written.is_ok() && read.is_ok_and(|read| is_answer(seed, stream, size, &read))
    }));
    let answering = async {
        join_all(accepting.await.into_iter().map(|stream| async move {
            let read = read_to_end(client, stream, count_bytes).await?;
            let mut answer = Sha256::digest(&read).to_vec();
            answer.extend_from_slice(&content(!seed, stream, size));
            client.write_to_end(stream, answer.into()).await
        }))
        .await
    };
    let (answers, _) = join(asking, answering).await;
    answers.into_iter().filter(|equal| *equal).count() as u64
}

async fn read_to_end(client: &Client, stream: u64, count_bytes: impl Fn(u64)) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    while let Some(bytes) = client.read(stream).await? {
        count_bytes(bytes.len() as u64);
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}
