//! Streams of bytes beside the messages: of both sides, with backpressure, ends and codes, over one link after another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use throughline::{Event, OpenStreamError, Session, Stream, StreamError, Transport};
use throughline_protocol::machine::StreamError as ClientError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

use crate::common::{Client, Running, TRANSPORTS, config, echo, start, within};
use crate::on_every_transport;

on_every_transport! {
    a_stream_of_the_client_goes_both_ways,
    a_stream_of_the_server_goes_both_ways,
    twenty_streams_at_once_keep_apart,
    a_writer_waits_for_its_reader_in_both_directions,
    a_slow_stream_holds_up_no_message_and_no_other_stream,
    resets_and_stops_carry_their_codes,
    a_stream_that_is_dropped_is_given_up,
    half_a_stream_may_end_while_the_other_goes_on,
    as_many_streams_as_are_allowed_and_then_one_more_when_one_is_over,
    the_end_of_the_session_is_the_end_of_its_streams,
    streams_survive_moves,
    streams_survive_cuts,
    an_empty_stream_ends_too,
}

/// Bytes that follow from a number, and repeat nowhere near.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

type Handler = futures_util::future::BoxFuture<'static, ()>;

/// An application that does the same with the first stream of each session.
fn with_stream<F: Future<Output = ()> + Send + 'static>(
    handle: impl Fn(Stream, Session) -> F + Clone + Send + Sync + 'static,
) -> impl Fn(Session) -> Handler {
    move |session| {
        let handle = handle.clone();
        Box::pin(async move {
            while let Some(event) = session.recv().await {
                match event {
                    Event::Stream(stream) => drop(tokio::spawn(handle(stream, session.clone()))),
                    Event::Message(message) => drop(session.send(message).await),
                    _ => {}
                }
            }
        })
    }
}

fn stream_error(error: &std::io::Error) -> StreamError {
    error.get_ref().and_then(|inner| inner.downcast_ref::<StreamError>()).expect("a StreamError").clone()
}

/// Writes and reads at the same time: what comes back has to be what went out.
async fn echoed(client: &Client, stream: u64, all: &[u8]) {
    let writing = async {
        client.write(stream, all).await.expect("the server takes it");
        client.finish(stream);
    };
    let ((), read) = tokio::join!(writing, client.read_to_end(stream));
    let read = read.expect("the server ends it");
    assert_eq!(read.len(), all.len());
    assert!(read == all, "stream {stream} came back as something else");
}

async fn a_stream_of_the_client_goes_both_ways(transport: Transport) {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, transport).await;
    for (number, len) in [1, 16_384, 1 << 20].into_iter().enumerate() {
        let stream = client.open_stream().await;
        assert_eq!(stream, 2 * number as u64 + 1);
        echoed(&client, stream, &bytes(stream, len)).await;
    }
    if transport == Transport::WebTransport {
        assert!(client.native_bytes() > 1 << 20, "{} bytes came natively", client.native_bytes());
    }
}

async fn a_stream_of_the_server_goes_both_ways(transport: Transport) {
    const LEN: usize = 1 << 20;
    let (tell, mut told) = mpsc::channel(1);
    let application = move |session: Session| {
        let tell = tell.clone();
        async move {
            let mut stream = session.open_stream().await.unwrap();
            assert_eq!(stream.id(), 2);
            stream.write_all(&bytes(2, LEN)).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.unwrap();
            assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0, "the end stays the end");
            tell.send(back == bytes(3, LEN)).await.unwrap();
            session.closed().await;
        }
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    let stream = client.stream().await;
    assert_eq!(stream, 2);
    assert!(client.read_to_end(stream).await.unwrap() == bytes(2, LEN));
    client.write(stream, &bytes(3, LEN)).await.unwrap();
    client.finish(stream);
    assert_eq!(within("the server's verdict", told.recv()).await, Some(true));
    if transport == Transport::WebTransport {
        assert!(client.native_bytes() > LEN as u64, "{} bytes came natively", client.native_bytes());
    }
    client.until("the end of the stream", |machine| (!machine.has_stream(2)).then_some(())).await;
}

async fn twenty_streams_at_once_keep_apart(transport: Transport) {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, transport).await;
    let one = async |_| {
        let stream = client.open_stream().await;
        echoed(&client, stream, &bytes(stream, 60_000)).await;
    };
    futures_util::future::join_all((0..20).map(one)).await;
    client.send("still here").await.unwrap();
    client.message().await;
}

async fn a_writer_waits_for_its_reader_in_both_directions(transport: Transport) {
    const CHUNK: usize = 10_000;
    const CHUNKS: usize = 300;
    let go = Arc::new(Notify::new());
    let written = Arc::new(AtomicUsize::new(0));
    let application = {
        let (go, written) = (Arc::clone(&go), Arc::clone(&written));
        with_stream(move |mut stream, _| {
            let (go, written) = (Arc::clone(&go), Arc::clone(&written));
            async move {
                // It reads nothing until it is told to, and writes into a client that does not read.
                for number in 0..CHUNKS {
                    stream.write_all(&bytes(number as u64, CHUNK)).await.unwrap();
                    written.fetch_add(CHUNK, Ordering::SeqCst);
                }
                stream.shutdown().await.unwrap();
                go.notified().await;
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                assert_eq!(all.len(), CHUNK * CHUNKS);
            }
        })
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Arc::new(Client::connect(place, transport).await);
    let stream = client.open_stream().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let writing = tokio::spawn({
        let (client, sent) = (Arc::clone(&client), Arc::clone(&sent));
        async move {
            for number in 0..CHUNKS {
                client.write(stream, &bytes(number as u64, CHUNK)).await.unwrap();
                sent.fetch_add(CHUNK, Ordering::SeqCst);
            }
            client.finish(stream);
        }
    });
    // A buffer on one side and a window on the other.
    for (who, count) in [("the client", &sent), ("the server", &written)] {
        let stopped = settled(count).await;
        assert!(stopped <= 2 * 262_144 + CHUNK, "{who} wrote {stopped} bytes");
    }
    // Messages have a credit of their own.
    client.send("still here").await.unwrap();
    client.message().await;
    let mut read = 0;
    while let Some(bytes) = client.read(stream).await.unwrap() {
        read += bytes.len();
    }
    assert_eq!(read, CHUNK * CHUNKS);
    go.notify_one();
    within("the writer", writing).await.unwrap();
    client.until("the end of the stream", |machine| (!machine.has_stream(stream)).then_some(())).await;
}

/// Waits until a number has not changed for a while: what is stopped shows by nothing happening.
async fn settled(number: &AtomicUsize) -> usize {
    within("a standstill", async {
        let mut last = usize::MAX;
        loop {
            let now = number.load(Ordering::SeqCst);
            if now > 0 && now == last {
                return now;
            }
            last = now;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    })
    .await
}

async fn a_slow_stream_holds_up_no_message_and_no_other_stream(transport: Transport) {
    // Stream 1 is never read; the others come back.
    let application = with_stream(|stream: Stream, session: Session| async move {
        if stream.id() == 1 {
            session.closed().await;
        } else {
            let (mut reader, mut writer) = stream.into_split();
            tokio::io::copy(&mut reader, &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
        }
    });
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    let slow = client.open_stream().await;
    let full = bytes(1, 16_384);
    client.write(slow, &full).await.unwrap();
    client.change(|machine| machine.stream_write(slow, &vec![0; 100_000].into())).unwrap();
    for _ in 0..3 {
        let stream = client.open_stream().await;
        echoed(&client, stream, &bytes(stream, 300_000)).await;
        client.send("and this").await.unwrap();
        client.message().await;
    }
}

async fn resets_and_stops_carry_their_codes(transport: Transport) {
    let (tell, mut told) = mpsc::channel(4);
    let application = with_stream(move |mut stream, _| {
        let tell = tell.clone();
        async move {
            let mut first = [0];
            stream.read_exact(&mut first).await.unwrap();
            match first[0] {
                b'r' => stream.reset(70_000),
                b's' => stream.stop(80_000),
                _ => stream.write_all(b"!").await.unwrap(),
            }
            let read = stream.read_to_end(&mut Vec::new()).await;
            let written = loop {
                match stream.write_all(&[0; 100]).await {
                    Ok(()) => tokio::time::sleep(Duration::from_millis(2)).await,
                    Err(error) => break error,
                }
            };
            let read = read.map_err(|error| stream_error(&error));
            tell.send((first[0], read.err(), stream_error(&written))).await.unwrap();
        }
    });
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;

    // The server resets what it writes: the client reads the code. Then the client ends its own half.
    let stream = client.open_stream().await;
    client.write(stream, b"r").await.unwrap();
    assert_eq!(client.read_to_end(stream).await, Err(ClientError::Reset(70_000)));
    client.finish(stream);
    let verdict = within("the server's errors", told.recv()).await.unwrap();
    assert_eq!(verdict, (b'r', None, StreamError::Ended));

    // The server stops the client, which then cannot write, and resets the other half.
    let stream = client.open_stream().await;
    client.write(stream, b"s").await.unwrap();
    let stopped =
        client.until("the server's STOP", |machine| machine.stream_write(stream, &vec![0].into()).err()).await;
    assert_eq!(stopped, ClientError::Stopped(80_000));
    client.change(|machine| machine.stream_stop(stream, 90_000));
    let verdict = within("the server's errors", told.recv()).await.unwrap();
    assert_eq!(verdict, (b's', Some(StreamError::Ended), StreamError::Stopped(90_000)));

    // The client does both.
    let stream = client.open_stream().await;
    client.write(stream, b"x").await.unwrap();
    // The server has it: a reset may overtake what was written before, and a message a native stream.
    assert_eq!(client.read(stream).await, Ok(Some("!".into())));
    client.change(|machine| machine.stream_reset(stream, 1));
    client.change(|machine| machine.stream_stop(stream, u32::MAX));
    let verdict = within("the server's errors", told.recv()).await.unwrap();
    assert_eq!(verdict, (b'x', Some(StreamError::Reset(1)), StreamError::Stopped(u32::MAX)));
    client.send("still here").await.unwrap();
    client.message().await;
}

async fn a_stream_that_is_dropped_is_given_up(transport: Transport) {
    let application = with_stream(|stream, _| async move { drop(stream) });
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    let stream = client.open_stream().await;
    assert_eq!(client.read_to_end(stream).await, Err(ClientError::Reset(0)));
    let stopped =
        client.until("the server's STOP", |machine| machine.stream_write(stream, &vec![0].into()).err()).await;
    assert!(matches!(stopped, ClientError::Stopped(0) | ClientError::Ended), "{stopped}");
}

async fn half_a_stream_may_end_while_the_other_goes_on(transport: Transport) {
    let application = with_stream(|stream: Stream, _| async move {
        let (mut reader, mut writer) = stream.into_split();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        drop(reader);
        writer.write_all(&all).await.unwrap();
        writer.write_all(b" and more").await.unwrap();
        writer.shutdown().await.unwrap();
        assert!(writer.write_all(b"x").await.is_err());
        writer.shutdown().await.unwrap();
    });
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    let stream = client.open_stream().await;
    client.write(stream, b"half").await.unwrap();
    client.finish(stream);
    assert_eq!(client.read_to_end(stream).await.unwrap(), b"half and more");
}

async fn as_many_streams_as_are_allowed_and_then_one_more_when_one_is_over(transport: Transport) {
    let mut config = config();
    config.limits.max_session_streams = 3;
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, transport).await;
    assert_eq!(client.welcome.streams, 3);
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(client.open_stream().await);
    }
    assert!(client.change(|machine| machine.open_stream()).is_err());
    for _ in 0..10 {
        echoed(&client, open.remove(0), b"hello").await;
        open.push(client.open_stream().await);
    }

    // The server waits in the same way: a client allows it 100 at first.
    let opened = Arc::new(AtomicUsize::new(0));
    let application = {
        let opened = Arc::clone(&opened);
        move |session: Session| {
            let opened = Arc::clone(&opened);
            async move {
                let mut streams = Vec::new();
                while opened.load(Ordering::SeqCst) < 105 {
                    streams.push(session.open_stream().await.unwrap());
                    opened.fetch_add(1, Ordering::SeqCst);
                }
                session.closed().await;
            }
        }
    };
    let Running { server: _server, place, .. } = &start(crate::common::config(), |b| b.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    assert_eq!(settled(&opened).await, 100);
    for _ in 0..5 {
        let stream = client.stream().await;
        client.change(|machine| {
            machine.stream_stop(stream, 0);
            machine.stream_reset(stream, 0);
        });
    }
    within("five more", async {
        while opened.load(Ordering::SeqCst) < 105 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn the_end_of_the_session_is_the_end_of_its_streams(transport: Transport) {
    let (tell, mut told) = mpsc::channel(1);
    let application = with_stream(move |mut stream: Stream, session: Session| {
        let tell = tell.clone();
        async move {
            let read = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
            let written = stream.write_all(b"x").await.unwrap_err();
            let opened = session.open_stream().await.unwrap_err();
            tell.send((stream_error(&read), stream_error(&written), opened)).await.unwrap();
        }
    });
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    let stream = client.open_stream().await;
    client.write(stream, b"hello").await.unwrap();
    client.until("an acknowledgement", |machine| machine.is_drained().then_some(())).await;
    client.send("and the stream is there").await.unwrap();
    client.message().await;
    client.close(5, "enough");
    let (read, written, opened) = within("the server's errors", told.recv()).await.unwrap();
    assert!(matches!(read, StreamError::Closed(ref close) if close.code == 5), "{read}");
    assert!(matches!(written, StreamError::Closed(ref close) if close.code == 5), "{written}");
    assert!(matches!(opened, OpenStreamError::Closed(ref close) if close.code == 5), "{opened}");
}

/// Four streams of half a megabyte, while the session is on its way.
async fn on_the_way(transport: Transport, moves: impl AsyncFn(&Client, &crate::common::Place)) {
    const LEN: usize = 500_000;
    let (tell, mut told) = mpsc::channel(1);
    let application = move |session: Session| {
        let tell = tell.clone();
        async move {
            let own = {
                let session = session.clone();
                async move {
                    let stream = session.open_stream().await.unwrap();
                    let (mut reader, mut writer) = stream.into_split();
                    let writing = async {
                        writer.write_all(&bytes(2, LEN)).await.unwrap();
                        writer.shutdown().await.unwrap();
                    };
                    let mut back = Vec::new();
                    let (_, read) = tokio::join!(writing, reader.read_to_end(&mut back));
                    read.unwrap();
                    tell.send(back == bytes(2, LEN)).await.unwrap();
                }
            };
            tokio::join!(own, echo(session));
        }
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(client.open_stream().await);
    }
    let client = &client;
    let echoes = streams.iter().map(|stream| async move {
        let all = bytes(*stream, LEN);
        let writing = async {
            for chunk in all.chunks(20_000) {
                client.write(*stream, chunk).await.expect("the server takes it");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            client.finish(*stream);
        };
        let ((), read) = tokio::join!(writing, client.read_to_end(*stream));
        assert!(read.expect("the server ends it") == all, "stream {stream} came back as something else");
    });
    let theirs = async {
        let stream = client.stream().await;
        loop {
            match client.read(stream).await.unwrap() {
                Some(bytes) => client.write(stream, &bytes).await.unwrap(),
                None => break client.finish(stream),
            }
        }
    };
    tokio::join!(futures_util::future::join_all(echoes), theirs, moves(client, place));
    assert_eq!(within("the server's verdict", told.recv()).await, Some(true));
    client.until("the end of the streams", |machine| (!(1..=5).any(|id| machine.has_stream(id))).then_some(())).await;
}

async fn streams_survive_moves(transport: Transport) {
    on_the_way(transport, async |client, place| {
        for to in TRANSPORTS {
            client.move_to(place, to).await;
            tokio::time::sleep(Duration::from_millis(12)).await;
            client.move_to(place, transport).await;
            tokio::time::sleep(Duration::from_millis(12)).await;
        }
    })
    .await;
}

async fn streams_survive_cuts(transport: Transport) {
    on_the_way(transport, async |client, place| {
        for to in TRANSPORTS {
            client.cut().await;
            client.move_to(place, to).await;
            tokio::time::sleep(Duration::from_millis(12)).await;
            client.cut().await;
            client.move_to(place, transport).await;
            tokio::time::sleep(Duration::from_millis(12)).await;
        }
    })
    .await;
}

async fn an_empty_stream_ends_too(transport: Transport) {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, transport).await;
    let stream = client.open_stream().await;
    client.finish(stream);
    assert_eq!(client.read_to_end(stream).await.unwrap(), b"");
    client.until("the end of the stream", |machine| (!machine.has_stream(stream)).then_some(())).await;
}
