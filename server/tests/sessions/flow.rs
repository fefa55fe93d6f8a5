//! Nobody buffers more than was agreed on, whoever is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use throughline::{Event, Session, Transport};
use throughline_protocol::{Code, Frame, varint};
use tokio::sync::{Notify, mpsc};

use crate::common::{Client, Running, Wire, config, start, within};
use crate::on_every_transport;

on_every_transport! {
    a_client_that_takes_no_messages_stops_the_server_and_resumes,
    a_client_that_reads_nothing_stops_the_server_and_resumes,
    a_client_that_floods_is_stopped_and_resumes,
    stream_bytes_beyond_the_credit_end_the_session,
    of_datagrams_that_nobody_takes_the_oldest_go,
}

const COUNT: usize = 600;
const SIZE: usize = 10_000;

/// The server's buffer and its client's window: by default 256 KiB each.
const WINDOW: usize = 262_144;

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

/// An application that sends, and a number that says how far it is.
fn sending() -> (Arc<AtomicUsize>, impl Fn(Session) -> futures_util::future::BoxFuture<'static, ()>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let number = Arc::clone(&sent);
    let application = move |session: Session| {
        let number = Arc::clone(&number);
        Box::pin(async move {
            for index in 0..COUNT {
                session.send(vec![index as u8; SIZE]).await.unwrap();
                number.fetch_add(1, Ordering::SeqCst);
                assert!(session.buffered_bytes() < (WINDOW + 2 * SIZE) as u64);
            }
            session.closed().await;
        }) as futures_util::future::BoxFuture<'static, ()>
    };
    (sent, application)
}

async fn take_all(client: &Client) {
    for index in 0..COUNT {
        let message = client.message().await;
        assert!(message.as_bytes() == &vec![index as u8; SIZE][..], "message {index}");
    }
}

async fn a_client_that_takes_no_messages_stops_the_server_and_resumes(transport: Transport) {
    let (sent, application) = sending();
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    let stopped = settled(&sent).await;
    assert!(stopped <= 2 * WINDOW / SIZE + 2, "{stopped} messages are on the way");
    assert!(stopped >= WINDOW / SIZE, "{stopped} messages are on the way: a window is allowed");
    take_all(&client).await;
}

async fn a_client_that_reads_nothing_stops_the_server_and_resumes(transport: Transport) {
    let (sent, application) = sending();
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    // Not before the server knows it.
    assert!(client.message().await.len() == SIZE);
    client.pause();
    let stopped = settled(&sent).await;
    assert!(stopped <= 3 * WINDOW / SIZE + 2, "{stopped} messages are on the way");
    client.resume();
    for index in 1..COUNT {
        let message = client.message().await;
        assert!(message.as_bytes() == &vec![index as u8; SIZE][..], "message {index}");
    }
}

async fn a_client_that_floods_is_stopped_and_resumes(transport: Transport) {
    let go = Arc::new(Notify::new());
    let (tell, mut told) = mpsc::channel(1);
    let application = {
        let go = Arc::clone(&go);
        move |session: Session| {
            let (go, tell) = (Arc::clone(&go), tell.clone());
            async move {
                go.notified().await;
                for index in 0..COUNT {
                    match session.recv().await {
                        Some(Event::Message(message)) if message.as_bytes() == &vec![index as u8; SIZE][..] => {}
                        other => panic!("{index}: {other:?}"),
                    }
                }
                tell.send(()).await.unwrap();
            }
        }
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Arc::new(Client::connect(place, transport).await);
    let sent = Arc::new(AtomicUsize::new(0));
    let flood = tokio::spawn({
        let (client, sent) = (Arc::clone(&client), Arc::clone(&sent));
        async move {
            for index in 0..COUNT {
                client.send(vec![index as u8; SIZE]).await.unwrap();
                sent.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let stopped = settled(&sent).await;
    // The client's own buffer, which is as large, and the server's window.
    assert!(stopped <= 2 * WINDOW / SIZE + 2, "{stopped} messages are on the way");
    go.notify_one();
    within("the flood", flood).await.unwrap();
    within("everything", told.recv()).await.unwrap();
}

async fn stream_bytes_beyond_the_credit_end_the_session(transport: Transport) {
    let application = |session: Session| async move { drop(session.closed().await) };
    let mut config = config();
    config.limits.receive_window_bytes = 16_384;
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(application)).await;
    let mut wire = Wire::connect(place, transport).await;
    assert_eq!(wire.welcome.limit, 16_384);
    // Whole messages: one that is still being assembled is given credit of its own.
    let messages = messages_of(1_021, 17);
    let (allowed, beyond) = (messages.slice(..16_384), messages.slice(16_384..16_385));
    wire.send_frames(&[Frame::Stream { stream: 0, offset: 0, data: allowed }]).await;
    wire.send_frames(&[Frame::Stream { stream: 0, offset: 16_384, data: beyond }]).await;
    let (code, reason) = wire.next_close().await;
    assert_eq!(code, Code::FlowControl as u32);
    assert!(reason.contains("16384"), "{reason}");
}

async fn of_datagrams_that_nobody_takes_the_oldest_go(transport: Transport) {
    const LAST: u32 = 999;
    let (tell, mut told) = mpsc::channel(1);
    let go = Arc::new(Notify::new());
    let application = {
        let go = Arc::clone(&go);
        move |session: Session| {
            let (go, tell) = (Arc::clone(&go), tell.clone());
            async move {
                go.notified().await;
                let mut numbers = Vec::new();
                while let Some(Event::Datagram(bytes)) = session.recv().await {
                    numbers.push(u32::from_be_bytes(bytes[..4].try_into().unwrap()));
                }
                tell.send(numbers).await.unwrap();
            }
        }
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let client = Client::connect(place, transport).await;
    within("the datagrams to leave", async {
        for number in 0..=LAST {
            client.send_datagram(number.to_be_bytes().to_vec(), None).unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;
    client.send("that was all").await.unwrap();
    // Acknowledged, so it is there, and what came before it is.
    within("the acknowledgement", async {
        while client.buffered_bytes() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    go.notify_one();
    let numbers = within("the datagrams", told.recv()).await.unwrap();
    assert!(numbers.len() <= 256, "{} datagrams were kept", numbers.len());
    assert!(numbers.is_sorted());
    if transport != Transport::WebTransport {
        // There they may be lost. Elsewhere those that wait wait with the client, where newer ones replace them.
        assert!(numbers.len() < 200, "{} datagrams were under way", numbers.len());
    }
}

/// The bytes of so many binary messages of this size.
fn messages_of(size: usize, count: usize) -> Bytes {
    let mut bytes = BytesMut::new();
    for _ in 0..count {
        varint::encode(0, &mut bytes);
        varint::encode(size as u64, &mut bytes);
        bytes.put_bytes(7, size);
    }
    bytes.freeze()
}
