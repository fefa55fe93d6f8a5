//! What a scenario cannot show of the machine: memory, and what its owner must be able to count on.

use bytes::Bytes;
use throughline_protocol::{
    Close, Code, Config, Event, Frame, HeldByStreams, LinkTraits, Machine, Message, ResumeKey, SessionId, VERSION,
    Welcome,
};

fn server(config: Config) -> Machine {
    let mut machine = Machine::server(config, SessionId([1; 16]), ResumeKey([2; 16]));
    machine.link_opened(0, LinkTraits::default());
    while machine.poll_transmit(0, 65_536).is_some() {}
    machine.handle_frame(0, Frame::Ping { id: 1 });
    while machine.poll_transmit(0, 65_536).is_some() {}
    assert_eq!(machine.poll_event(), Some(Event::Opened));
    machine
}

#[test]
fn a_waiting_datagram_does_not_keep_its_packet_in_memory() {
    // The payload was queued as a slice: 256 of them could hold 256 packets of a quarter of a megabyte.
    let mut machine = server(Config::default());
    let packet = Bytes::from(vec![7; 65_536]);
    machine.handle_frame(0, Frame::Datagram(packet.slice(..3)));
    machine.handle_datagram(0, packet.slice(..3));
    assert!(packet.is_unique());
    assert_eq!(machine.poll_event(), Some(Event::Datagram(Bytes::from_static(&[7, 7, 7]))));
}

#[test]
fn a_session_is_established_by_its_clients_first_frame_and_told_of_once() {
    // A second link told the application of a new session.
    let mut machine = server(Config::default());
    assert!(machine.is_established());
    let candidate = machine.offer(1, 0).expect("the session goes on");
    machine.adopt(1, &candidate, LinkTraits::default(), &Frame::Ping { id: 2 }).expect("the client has chosen it");
    assert_eq!(machine.poll_event(), None);

    let mut machine = Machine::server(Config::default(), SessionId([1; 16]), ResumeKey([2; 16]));
    machine.link_opened(0, LinkTraits::default());
    machine.handle_frame(0, Frame::Close(Close::application(0, "")));
    assert!(!machine.is_established());
}

fn welcome(session: u8, resumed: bool, received: u64) -> Frame {
    Frame::Welcome(Welcome {
        version: VERSION,
        session: SessionId([session; 16]),
        key: ResumeKey([2; 16]),
        resumed,
        link: 1,
        time_us: 0,
        heartbeat_ms: 10_000,
        idle_ms: 30_000,
        max_message: 1_000,
        received,
        limit: 262_144,
        streams: 100,
        window_ms: 120_000,
    })
}

#[test]
fn a_client_does_not_go_on_in_a_session_that_is_not_its_own() {
    // It took the offsets of the old session into the new one: its first bytes there were a gap.
    let mut machine = Machine::client(Config::default());
    machine.link_opened(0, LinkTraits::default());
    machine.handle_frame(0, welcome(1, false, 0));
    assert_eq!(machine.poll_event(), Some(Event::Opened));
    machine.send(Message::from("lost")).expect("there is room");
    while machine.poll_transmit(0, 65_536).is_some() {}

    machine.link_opened(1, LinkTraits::default());
    machine.handle_frame(1, welcome(3, false, 0));
    let packet = machine.poll_transmit(1, 65_536).expect("it says so").into_bytes();
    assert_eq!(packet[..3], [2, packet.len() as u8 - 2, Code::UnknownSession as u8], "CLOSE and nothing else");
    assert_eq!(machine.identity(), Some((SessionId([1; 16]), ResumeKey([2; 16]))));
    let Some(Event::Closed(close)) = machine.poll_event() else { panic!("the application is told") };
    assert!(close.code == Code::UnknownSession as u32 && close.retry());
}

#[test]
fn unread_bytes_of_a_stream_do_not_keep_their_packets_in_memory() {
    // A STREAM of one byte held its whole packet: a credit of 16 KiB could cost 4 GiB.
    let mut machine = server(Config::default());
    let packet = Bytes::from(vec![7; 65_536]);
    for offset in 0..100 {
        machine.handle_frame(0, Frame::Stream { stream: 1, offset, data: packet.slice(..1) });
    }
    assert!(packet.is_unique());
}

#[test]
fn a_stream_that_was_given_up_is_announced_where_its_peer_is() {
    // It was announced at the end of what was sent: a gap, when its peer has less and RESET travels another way.
    let native = LinkTraits { native_streams: true, ..LinkTraits::default() };
    let mut machine = server(Config::default());
    let stream = machine.open_stream().expect("100 may be opened");
    assert_eq!(machine.stream_write(stream, &Bytes::from_static(b"abcdef")), Ok(6));
    while machine.poll_transmit(0, 65_536).is_some() {}
    machine.handle_frame(0, Frame::Ack { stream, received: 2, limit: 16_384 });
    machine.stream_reset(stream, 5);
    let candidate = machine.offer(1, 0).expect("the session goes on");
    machine.adopt(1, &candidate, native, &Frame::Ping { id: 2 }).expect("the client has chosen it");
    assert_eq!(machine.poll_unrouted(), Some(stream));
    machine.route(stream, true);
    let packet = machine.poll_native(stream, 65_536).expect("it is announced").into_bytes();
    assert_eq!(packet[..], [3, 2, 2, 2], "STREAM, 2 bytes, stream 2, offset 2");
}

#[test]
fn acknowledgements_without_room_in_a_packet_go_with_the_next() {
    // They were forgotten until the next traffic, and their senders kept the bytes.
    let mut machine = server(Config::default());
    for index in 0..50 {
        machine.handle_frame(0, Frame::Stream { stream: 2 * index + 1, offset: 0, data: Bytes::from_static(b"x") });
    }
    let due = machine.poll_timeout().expect("ACKs are due");
    machine.handle_timeout(due);
    let mut bytes = 0;
    while let Some(packet) = machine.poll_transmit(due, 100) {
        assert!(packet.len() <= 100);
        bytes += packet.len();
    }
    // Type, length, stream, received and limit.
    assert!(bytes >= 50 * 8, "{bytes} bytes of ACKs");
    assert!(machine.poll_timeout().is_some_and(|at| at > due + 1_000_000), "nothing is left");
}

#[test]
fn credit_that_was_promised_on_a_link_that_is_not_chosen_in_the_end_counts() {
    // A client that chose one link, and at once another, kept the higher credit of the first: it was FLOW_CONTROL.
    let mut machine = server(Config { receive_window_bytes: 10, ..Config::default() });
    let lower = machine.offer(1, 0).expect("the session goes on");
    machine.handle_frame(1, Frame::Stream { stream: 0, offset: 0, data: Bytes::from_static(b"\0\x01x") });
    assert!(matches!(machine.poll_event(), Some(Event::Message(_))));
    // Its WELCOME says 13, and the client hears it; but it chooses the other one in the end.
    let _higher = machine.offer(1, 0).expect("the session goes on");
    machine.adopt(2, &lower, LinkTraits::default(), &Frame::Ping { id: 2 }).expect("it is the newest");
    machine.handle_frame(2, Frame::Stream { stream: 0, offset: 3, data: Bytes::from_static(b"\0\x08xxxxxxxx") });
    assert_eq!(machine.closing(), None);
}

#[test]
fn what_a_peer_that_reads_nothing_is_to_be_told_is_bounded() {
    // It opened and ended streams, and then ended them all again: each was noted down for an answer that never left.
    let mut machine = server(Config { max_streams: 10, ..Config::default() });
    for index in 0..2_000 {
        let stream = 2 * index + 1;
        machine.handle_frame(0, Frame::Reset { stream, code: 0 });
        while machine.poll_event().is_some() {}
        machine.stream_release(stream);
        while machine.poll_transmit(0, 65_536).is_some() {}
        machine.handle_frame(0, Frame::Ack { stream, received: throughline_protocol::frame::DONE, limit: 0 });
        while machine.poll_transmit(0, 65_536).is_some() {}
    }
    assert!(machine.closing().is_none() && machine.held_by_streams() == HeldByStreams::default());
    for index in 0..2_000 {
        machine.handle_frame(0, Frame::End { stream: 2 * index + 1, size: 0 });
        assert!(machine.held_by_streams().due < 1_000);
    }
    assert_eq!(machine.closing().map(|close| close.code), Some(Code::ProtocolViolation as u32));
}
