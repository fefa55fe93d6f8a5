//! What breaks the protocol is answered with the documented code and a reason, and nobody else notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use throughline::{Message, Session, Transport};
use throughline_protocol::{Close, Code, Frame, frame as frames, varint};
use tokio::sync::mpsc;

use crate::common::{Client, Incoming, Outgoing, Running, Wire, config, echo, encode, start, within};
use crate::on_every_transport;

on_every_transport! {
    what_breaks_the_protocol_ends_the_session_with_its_code,
    a_first_frame_that_breaks_the_protocol_opens_no_session,
    random_bytes_disturb_nobody_else,
}

fn stream(offset: u64, data: &[u8]) -> Bytes {
    encode(&[Frame::Stream { stream: 0, offset, data: Bytes::copy_from_slice(data) }])
}

/// Type and length of a frame, and its payload, whatever it is.
fn frame(kind: u64, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    varint::encode(kind, &mut bytes);
    varint::encode(payload.len() as u64, &mut bytes);
    bytes.put_slice(payload);
    bytes.freeze()
}

/// Bytes of a stream above 0.
fn above(stream: u64, offset: u64, data: &[u8]) -> Bytes {
    encode(&[Frame::Stream { stream, offset, data: Bytes::copy_from_slice(data) }])
}

/// Packets that are wrong, and the codes of SPEC section 8.
fn mistakes() -> Vec<(&'static str, Bytes, Code)> {
    use Code::{
        DatagramTooLarge, FlowControl, FrameTooLarge, MalformedFrame, MalformedMessage, MessageTooLarge,
        ProtocolViolation, StreamLimit, UnknownFrame,
    };
    vec![
        ("an unknown frame", frame(0x3f, &[]), UnknownFrame),
        ("an unknown frame of two bytes", frame(0x1234, b"x"), UnknownFrame),
        ("a PING with bytes after it", frame(0x06, &[1, 1]), MalformedFrame),
        ("a PING without an id", frame(0x06, &[]), MalformedFrame),
        ("a PING beyond 2^53", frame(0x06, &[0xff; 8]), MalformedFrame),
        ("a CLOSE of an unknown origin", frame(0x02, &[0, 2]), MalformedFrame),
        ("a CLOSE whose reason is no text", frame(0x02, &[0, 1, 0xff]), MalformedFrame),
        ("a length over 64 KiB", Bytes::from_static(&[0x03, 0x80, 0x01, 0x00, 0x01]), FrameTooLarge),
        (
            "a stream of the server's that is not there",
            encode(&[Frame::Stream { stream: 2, offset: 0, data: Bytes::new() }]),
            ProtocolViolation,
        ),
        ("END of a stream that is not there", encode(&[Frame::End { stream: 2, size: 0 }]), ProtocolViolation),
        ("RESET of a stream that is not there", encode(&[Frame::Reset { stream: 4, code: 0 }]), ProtocolViolation),
        ("STOP of a stream that is not there", encode(&[Frame::Stop { stream: 6, code: 0 }]), ProtocolViolation),
        ("END of the message stream", encode(&[Frame::End { stream: 0, size: 0 }]), ProtocolViolation),
        ("RESET of the message stream", encode(&[Frame::Reset { stream: 0, code: 0 }]), ProtocolViolation),
        ("STOP of the message stream", encode(&[Frame::Stop { stream: 0, code: 0 }]), ProtocolViolation),
        ("a stream beyond those that are allowed", above(201, 0, b""), StreamLimit),
        ("a gap in a stream", above(1, 1, b"x"), ProtocolViolation),
        ("stream bytes beyond the credit of a stream", above(1, 0, &[0; 16_385]), FlowControl),
        ("a gap", stream(1, b"x"), ProtocolViolation),
        (
            "an ACK of what was never sent",
            encode(&[Frame::Ack { stream: 0, received: 1, limit: 0 }]),
            ProtocolViolation,
        ),
        ("an ACK of another stream", encode(&[Frame::Ack { stream: 4, received: 0, limit: 0 }]), ProtocolViolation),
        ("a message of an unknown kind", stream(0, &[4, 0]), MalformedMessage),
        ("an empty channel message", stream(0, &[2, 0]), MalformedMessage),
        ("an empty request message", stream(0, &[3, 0]), MalformedMessage),
        ("a text that is not UTF-8", stream(0, &[1, 1, 0xff]), MalformedMessage),
        ("a message over max_message", stream(0, &[0, 0x80, 0x40, 0x00, 0x01]), MessageTooLarge),
        ("a datagram of 1,101 bytes", frame(0x05, &[0; 1_101]), DatagramTooLarge),
        ("a value of a channel", frame(0x0e, &[1, 1, 0, 0]), ProtocolViolation),
        ("a token without bytes", frame(0x0f, &[]), MalformedFrame),
        ("a token of 4,097 bytes", frame(0x0f, &[b't'; 4_097]), MalformedFrame),
        ("an end of credentials", frame(0x10, &[1]), ProtocolViolation),
    ]
}

/// What is wrong only after something that is right.
fn later_mistakes() -> Vec<(&'static str, Bytes, Code)> {
    use Code::ProtocolViolation;
    vec![
        (
            "stream bytes after END",
            [above(1, 0, b"x"), encode(&[Frame::End { stream: 1, size: 1 }]), above(1, 1, b"x")].concat().into(),
            ProtocolViolation,
        ),
        (
            "another END",
            encode(&[Frame::End { stream: 1, size: 0 }, Frame::End { stream: 1, size: 1 }]),
            ProtocolViolation,
        ),
        (
            "done of a stream that was not ended",
            [above(1, 0, b""), encode(&[Frame::Ack { stream: 1, received: frames::DONE, limit: 0 }])].concat().into(),
            ProtocolViolation,
        ),
    ]
}

async fn what_breaks_the_protocol_ends_the_session_with_its_code(transport: Transport) {
    let (tell, mut told) = mpsc::channel(1);
    let application = move |session: Session| {
        let tell = tell.clone();
        async move { tell.send(session.closed().await).await.unwrap() }
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let mut mistakes = mistakes();
    mistakes.extend(later_mistakes());
    let mut wire = Wire::connect(place, transport).await;
    mistakes.push(("WELCOME from a client", encode(&[Frame::Welcome(wire.welcome.clone())]), Code::ProtocolViolation));
    if transport != Transport::WebTransport {
        // There packets have no ends.
        mistakes.push(("a packet that ends inside a frame", Bytes::from_static(&[0x06, 0x01]), Code::MalformedFrame));
        mistakes.push(("a packet that ends inside a length", Bytes::from_static(&[0x06, 0x40]), Code::MalformedFrame));
    }
    for (what, packet, expected) in mistakes {
        wire.send_frames(&[Frame::Ping { id: 1 }]).await;
        wire.send(Outgoing::Packet(packet)).await;
        let (code, reason) = wire.next_close().await;
        assert_eq!(code, expected as u32, "{what}: {reason}");
        assert!(!reason.is_empty(), "{what}");
        let closed = within("the end of the session", told.recv()).await.unwrap();
        assert_eq!((closed.code, closed.application), (code, false), "{what}");
        match (transport, wire.end().await) {
            (Transport::WebTransport | Transport::WebSocket, Incoming::Closed { code: carrier, .. }) => {
                assert_eq!(carrier, 4_000 + code, "{what}");
            }
            (Transport::Sse | Transport::Poll, Incoming::Lost(_)) => {}
            (_, end) => panic!("{what}: {end:?}"),
        }
        wire = Wire::connect(place, transport).await;
    }
}

async fn a_first_frame_that_breaks_the_protocol_opens_no_session(transport: Transport) {
    let opened = Arc::new(AtomicUsize::new(0));
    let application = {
        let opened = Arc::clone(&opened);
        move |session: Session| {
            opened.fetch_add(1, Ordering::SeqCst);
            async move { drop(session.closed().await) }
        }
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    // At once: a WebTransport session that its client does not leave is closed a second later.
    let each = mistakes().into_iter().map(|(what, packet, expected)| async move {
        let mut wire = Wire::connect(place, transport).await;
        wire.send(Outgoing::Packet(packet)).await;
        assert_eq!(wire.next_close().await.0, expected as u32, "{what}");
        wire.end().await;
    });
    futures_util::future::join_all(each).await;
    assert_eq!(opened.load(Ordering::SeqCst), 0);
    let client = Client::connect(place, transport).await;
    client.send("a session of which the application is told").await.unwrap();
    within("a session", async {
        while opened.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn random_bytes_disturb_nobody_else(transport: Transport) {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let other = Client::connect(place, transport).await;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..40 {
        let wire = Wire::connect(place, transport).await;
        let length = 1 + (random() % 2_000) as usize;
        let packet: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        wire.send_frames(&[Frame::Ping { id: 1 }]).await;
        wire.send(Outgoing::Packet(packet.into())).await;
        wire.send_frames(&[Frame::Close(Close::application(1, "whatever that was"))]).await;
        if round % 10 == 9 {
            let text = format!("still here after {round}");
            other.send(text.clone()).await.unwrap();
            assert_eq!(other.message().await, Message::from(text));
        }
    }
}

#[tokio::test]
async fn a_websocket_says_what_was_wrong_with_its_messages() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    for (what, message, expected) in [
        ("a text message", Outgoing::Text("hello".into()), Code::ProtocolViolation),
        ("a packet over 256 KiB", Outgoing::Packet(vec![0x06; 262_145].into()), Code::FrameTooLarge),
        ("a packet far over 256 KiB", Outgoing::Packet(vec![0x06; 20_000_000].into()), Code::FrameTooLarge),
    ] {
        let mut wire = Wire::connect(place, Transport::WebSocket).await;
        wire.send_frames(&[Frame::Ping { id: 1 }]).await;
        wire.send(message).await;
        let (code, reason) = wire.next_close().await;
        assert_eq!(code, expected as u32, "{what}: {reason}");
        match wire.end().await {
            Incoming::Closed { code, reason } => {
                assert_eq!(code, 4_000 + expected as u32, "{what}");
                assert!(!reason.is_empty(), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_packet_of_256_kib_is_taken_on_a_websocket() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let mut wire = Wire::connect(place, Transport::WebSocket).await;
    let mut packet = BytesMut::new();
    while packet.len() < 262_144 - 1_000 {
        packet.put_slice(&frame(0x05, &[0; 900]));
    }
    let rest = 262_144 - packet.len();
    packet.put_slice(&frame(0x05, &vec![0; rest - 3]));
    assert_eq!(packet.len(), 262_144);
    wire.send(Outgoing::Packet(packet.freeze())).await;
    wire.send_frames(&[Frame::Close(Close::application(8, "fine"))]).await;
    match wire.end().await {
        Incoming::Closed { code, .. } => assert_eq!(code, 1_000),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_does_not_belong_on_a_native_stream_ends_the_session() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    for (what, bytes, expected) in [
        ("a PING", encode(&[Frame::Ping { id: 2 }]), Code::ProtocolViolation),
        ("the message stream", stream(0, b""), Code::ProtocolViolation),
        ("two streams on one", [above(1, 0, b"x"), above(3, 0, b"x")].concat().into(), Code::ProtocolViolation),
        ("a frame that cannot be read", frame(0x3f, &[]), Code::UnknownFrame),
    ] {
        let mut wire = Wire::connect(place, Transport::WebTransport).await;
        wire.send_frames(&[Frame::Ping { id: 1 }]).await;
        let natives = wire.natives.clone().expect("there are native streams");
        let number = natives.open().expect("a few are allowed from the start");
        natives.send(number, bytes);
        let (code, reason) = wire.next_close().await;
        assert_eq!(code, expected as u32, "{what}: {reason}");
    }
    // How a native stream ends says nothing.
    let client = Client::connect(place, Transport::WebTransport).await;
    let wire = Wire::connect(place, Transport::WebTransport).await;
    wire.send_frames(&[Frame::Ping { id: 1 }]).await;
    let natives = wire.natives.clone().expect("there are native streams");
    let number = natives.open().expect("a few are allowed from the start");
    natives.finish(number);
    client.send("still here").await.unwrap();
    client.message().await;
}

#[tokio::test]
async fn a_native_datagram_of_1101_bytes_ends_the_session() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let mut wire = Wire::connect(place, Transport::WebTransport).await;
    assert!(wire.native_datagrams.is_some_and(|max| max >= 1_101), "{:?}", wire.native_datagrams);
    wire.send_frames(&[Frame::Ping { id: 1 }]).await;
    let closed = async {
        // One that comes before the PING is dropped.
        let sender = wire.sender();
        let sending = async {
            loop {
                drop(sender.send(Outgoing::Datagram(vec![0; 1_101].into())).await);
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = sending => unreachable!("it goes on for ever"),
            close = wire.next_close() => close,
        }
    };
    assert_eq!(within("CLOSE", closed).await.0, Code::DatagramTooLarge as u32);
}
