//! What a scenario cannot show of the machine: memory, and what its owner must be able to count on.

use bytes::Bytes;
use throughline_protocol::limits::{
    MAX_CHANNEL_ANSWERS, MAX_CHANNEL_OVERHEAD, MAX_INCOMING_STATES, MAX_REQUEST_ANSWERS, MAX_REQUEST_OVERHEAD,
};
use throughline_protocol::{
    ChannelCode, ChannelMessage, Close, Code, Config, Decoder, Event, Frame, HeldByStreams, LinkTraits, Machine,
    Message, Position, RequestMessage, ResumeKey, SessionId, TrySendError, VERSION, Welcome,
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
    let candidate = machine.offer(1, 0, LinkTraits::default(), None).expect("the session goes on");
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
        marked: false,
        link: 1,
        time_us: 0,
        heartbeat_ms: 10_000,
        idle_ms: 30_000,
        max_message: 1_000,
        received,
        limit: 262_144,
        streams: 100,
        window_ms: 120_000,
        expires_ms: 0,
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
    let candidate = machine.offer(1, 0, LinkTraits::default(), None).expect("the session goes on");
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
    let lower = machine.offer(1, 0, LinkTraits::default(), None).expect("the session goes on");
    machine.handle_frame(1, Frame::Stream { stream: 0, offset: 0, data: Bytes::from_static(b"\0\x01x") });
    assert!(matches!(machine.poll_event(), Some(Event::Message(_))));
    // Its WELCOME says 13, and the client hears it; but it chooses the other one in the end.
    let _higher = machine.offer(1, 0, LinkTraits::default(), None).expect("the session goes on");
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

/// A PUBLISH as a client sends it.
fn publish(request: u64, data: impl Into<Message>) -> Bytes {
    ChannelMessage::Publish { request, channel: "room:42".into(), data: data.into() }.encode()
}

fn done(request: u64) -> Bytes {
    ChannelMessage::Done { request, position: Position { epoch: 1, offset: request } }.encode()
}

/// Bytes of stream 0 arrive, after those before them.
fn arrive(machine: &mut Machine, data: Bytes) {
    let offset = machine.received();
    machine.handle_frame(0, Frame::Stream { stream: 0, offset, data });
}

/// The limit of stream 0 in what the machine says now.
fn said_limit(machine: &mut Machine) -> Option<u64> {
    let mut decoder = Decoder::new();
    while let Some(packet) = machine.poll_transmit(0, 65_536) {
        decoder.push(packet.into_bytes());
    }
    let frames = std::iter::from_fn(|| decoder.next_frame().expect("a machine writes frames"));
    frames.filter_map(|frame| if let Frame::Ack { stream: 0, limit, .. } = frame { Some(limit) } else { None }).last()
}

#[test]
fn channel_messages_are_not_the_applications_and_their_credit_is_freed_when_they_are_handled() {
    let mut machine = server(Config { receive_window_bytes: 1_000, ..Config::default() });
    let (message, text) = (publish(1, vec![7; 600]), &b"\x01\x02hi"[..]);
    arrive(&mut machine, message.clone());
    arrive(&mut machine, Bytes::from_static(text));
    assert_eq!(machine.poll_event(), Some(Event::Message(Message::from("hi"))));
    assert_eq!(machine.poll_event(), None);
    // More than half of the window is received, and only the text is taken.
    assert_eq!(said_limit(&mut machine), Some(1_000 + text.len() as u64));
    assert_eq!(machine.poll_channel(), Some(message.slice(3..)));
    assert!(machine.owes());
    assert_eq!(said_limit(&mut machine), Some(1_000 + (text.len() + message.len()) as u64));
    assert_eq!(machine.poll_channel(), None);
}

#[test]
fn a_channel_message_may_be_longer_than_another_by_what_is_beside_its_data() {
    let config = || Config { max_message_bytes: 100, ..Config::default() };
    let of_length = |len: usize| {
        let mut bytes = vec![2, 0x40 | (len >> 8) as u8, len as u8];
        bytes.resize(3 + len, 7);
        Bytes::from(bytes)
    };
    let most = 100 + MAX_CHANNEL_OVERHEAD;
    let mut machine = server(config());
    arrive(&mut machine, of_length(most));
    assert_eq!(machine.poll_channel().map(|body| body.len()), Some(most));
    assert_eq!(machine.send_channel(of_length(most)), Ok(()));
    let too_large = TrySendError::TooLarge { len: most + 1, max: most };
    assert_eq!(machine.send_channel(of_length(most + 1)), Err(too_large.clone()));
    assert_eq!(machine.answer_channel(of_length(most + 1)), Err(too_large));
    arrive(&mut machine, of_length(most + 1).slice(..3)); // refused when its length has come
    assert_eq!(machine.closing().map(|close| close.code), Some(Code::MessageTooLarge as u32));

    let mut machine = server(config());
    arrive(&mut machine, Bytes::from_static(&[2, 0]));
    assert_eq!(machine.closing().map(|close| close.code), Some(Code::MalformedMessage as u32));
}

#[test]
fn a_channel_message_for_many_sessions_is_in_memory_once() {
    let data = Message::from(vec![7; 5_000]);
    let whole = ChannelMessage::Publication { number: 3, offset: 1, data }.encode();
    for _ in 0..3 {
        let mut machine = server(Config::default());
        machine.send_channel(whole.clone()).expect("there is room");
        let packet = machine.poll_transmit(0, 65_536).expect("it is to be sent");
        assert!(packet.pieces().any(|piece| piece.as_ptr() == whole.as_ptr() && piece.len() == whole.len()));
    }
}

#[test]
fn answers_go_beyond_a_full_buffer_and_what_is_published_does_not() {
    let mut machine = server(Config { send_buffer_bytes: 1_000, ..Config::default() });
    arrive(&mut machine, publish(1, "a"));
    assert!(machine.poll_channel().is_some());
    machine.send(Message::from(vec![7; 1_000])).expect("there is room");
    assert!(!machine.has_room());
    assert_eq!(machine.send_channel(done(1)), Err(TrySendError::Full));
    assert_eq!(machine.answer_channel(done(1)), Ok(()));
    assert_eq!(machine.buffered_bytes(), 1_003 + done(1).len() as u64);
}

#[test]
fn a_client_that_asks_and_does_not_read_gets_so_many_answers_and_its_further_requests_wait() {
    let mut machine = server(Config { send_buffer_bytes: 1_000, ..Config::default() });
    machine.send(Message::from(vec![7; 1_000])).expect("there is room");
    let full = machine.buffered_bytes();
    for request in 1..=200 {
        arrive(&mut machine, publish(request, "a"));
    }
    // Unanswered ones count, and so do answers that find no room.
    let mut asked = 0;
    while machine.poll_channel().is_some() {
        asked += 1;
    }
    assert_eq!(asked, MAX_CHANNEL_ANSWERS);
    for request in 1..=asked as u64 {
        machine.answer_channel(done(request)).expect("there is always room for an answer");
        assert_eq!(machine.poll_channel(), None);
    }
    let answers = machine.buffered_bytes() - full;
    assert_eq!(answers, (1..=asked as u64).map(|request| done(request).len() as u64).sum::<u64>());

    // One answer is acknowledged, and then another, and a part of the third: as many requests are read.
    while machine.poll_transmit(0, 65_536).is_some() {}
    let first = full + done(1).len() as u64;
    for received in [first, first + done(2).len() as u64 + 1] {
        machine.handle_frame(0, Frame::Ack { stream: 0, received, limit: 1 << 20 });
        assert!(machine.poll_channel().is_some());
        assert_eq!(machine.poll_channel(), None);
    }
}

#[test]
fn a_client_that_reads_gets_as_many_answers_as_it_asks_for() {
    // Answers that find room in the buffer are bounded by it, and are not counted: requests need not wait for a round trip.
    let mut machine = server(Config::default());
    for request in 1..=1_000 {
        arrive(&mut machine, publish(request, "a"));
        assert!(machine.poll_channel().is_some());
        machine.answer_channel(done(request)).expect("there is always room for an answer");
    }
    assert_eq!(machine.stats().messages_in, 1_000);
    assert_eq!(machine.stats().messages_out, 1_000);
}

#[test]
fn what_a_client_asked_before_it_closed_is_handled_and_not_answered() {
    let mut machine = server(Config { send_buffer_bytes: 1, ..Config::default() });
    machine.send(Message::from("full")).expect("there is room");
    for request in 1..=100 {
        arrive(&mut machine, publish(request, "a"));
    }
    machine.handle_frame(0, Frame::Close(Close::application(0, "")));
    // All of it, though whoever handles it takes his time: it costs no answers.
    for _ in 1..=100 {
        assert!(machine.poll_channel().is_some());
    }
    let failed = ChannelMessage::failed(1, ChannelCode::Unavailable, "").encode();
    assert!(matches!(machine.answer_channel(failed), Err(TrySendError::Closed(_))));
}

#[test]
fn a_server_that_goes_away_answers_first() {
    // The client's request was acknowledged and its answer refused: it could not know what had become of it.
    let mut machine = server(Config::default());
    arrive(&mut machine, publish(1, "a"));
    arrive(&mut machine, publish(2, "b"));
    machine.go_away(0, 0);
    while machine.poll_transmit(0, 65_536).is_some() {}
    machine.handle_frame(0, Frame::GoAway { delay_ms: 0 });
    assert_eq!(machine.closing(), None);
    for request in 1..=2 {
        assert!(machine.poll_channel().is_some());
        assert!(matches!(machine.send_channel(done(9)), Err(TrySendError::Closed(_))), "nothing else is begun");
        machine.answer_channel(done(request)).expect("it is still open");
        assert_eq!(machine.closing(), None);
        while machine.poll_transmit(0, 65_536).is_some() {}
        machine.handle_frame(0, Frame::Ack { stream: 0, received: request * done(1).len() as u64, limit: 1 << 20 });
    }
    assert_eq!(machine.closing().map(|close| close.code), Some(Code::ShuttingDown as u32));
}

fn ask(id: u64, data: impl Into<Option<Message>>) -> Bytes {
    whole(&RequestMessage::Request { id, method: "m".into(), data: data.into() })
}

/// As it lies in the stream.
fn whole(message: &RequestMessage) -> Bytes {
    message.encode().iter().flatten().map(|chunk| &chunk[..]).collect::<Vec<_>>().concat().into()
}

#[test]
fn a_request_keeps_its_credit_until_it_is_taken_and_answers_keep_none() {
    let mut machine = server(Config { receive_window_bytes: 1_000, ..Config::default() });
    let data = || Message::from(vec![7; 400]);
    let (request, chunk) = (ask(1, data()), whole(&RequestMessage::Chunk { id: 1, data: data() }));
    let answer = whole(&RequestMessage::Answer { id: 1, data: Some(data()) });
    arrive(&mut machine, request.clone());
    let arrived = machine.poll_request().expect("it waits").expect("it is well-formed");
    assert_eq!((arrived.cost, arrived.after), (request.len() as u64, 0));
    assert_eq!(said_limit(&mut machine), Some(1_000));
    machine.request_taken(arrived.cost);
    let mut freed = 1_000 + request.len() as u64;
    assert_eq!(said_limit(&mut machine), Some(freed));
    arrive(&mut machine, chunk.clone());
    let arrived = machine.poll_request().expect("it waits").expect("it is well-formed");
    assert_eq!(arrived.cost, (chunk.len() - 400) as u64, "what is beside its data: empty ones are not endless");
    freed += 400;
    assert_eq!(said_limit(&mut machine), Some(freed));
    arrive(&mut machine, answer.clone());
    let arrived = machine.poll_request().expect("it waits").expect("it is well-formed");
    assert_eq!(arrived.cost, 0);
    assert_eq!(said_limit(&mut machine), Some(freed + answer.len() as u64));
    assert_eq!(machine.poll_request(), None);
    arrive(&mut machine, Bytes::from_static(&[3, 1, 9]));
    assert!(matches!(machine.poll_request(), Some(Err(close)) if close.code == Code::MalformedMessage as u32));
}

#[test]
fn a_request_message_may_be_longer_than_another_by_what_is_beside_its_data() {
    let config = || Config { max_message_bytes: 100, ..Config::default() };
    let most = 100 + MAX_REQUEST_OVERHEAD;
    for (len, code) in [(most, None), (most + 1, Some(Code::MessageTooLarge as u32))] {
        let mut machine = server(config());
        arrive(&mut machine, vec![3, 0x40 | (len >> 8) as u8, len as u8].into());
        assert_eq!(machine.closing().map(|close| close.code), code);
    }
    let mut machine = server(config());
    let chunk = |len: usize| RequestMessage::Chunk { id: 1, data: Message::from(vec![7; len]) };
    assert_eq!(machine.send_request(&chunk(100)), Ok(()));
    let too_large = Err(TrySendError::TooLarge { len: 101, max: 100 });
    assert_eq!((machine.send_request(&chunk(101)), machine.say_request(&chunk(101))), (too_large.clone(), too_large));
}

#[test]
fn requests_know_how_many_messages_came_before_them() {
    let mut machine = server(Config::default());
    let message = || Bytes::from_static(b"\0\0");
    for bytes in [ask(1, None), ask(2, None), message(), ask(3, None), message(), message(), ask(4, None)] {
        arrive(&mut machine, bytes);
    }
    let after: Vec<u64> = std::iter::from_fn(|| machine.poll_request()).map(|arrived| arrived.unwrap().after).collect();
    assert_eq!(after, [0, 0, 1, 3]);
    assert_eq!(machine.messages_taken(), 0);
    assert!(machine.poll_event().is_some() && machine.messages_taken() == 1);
}

#[test]
fn a_peer_that_asks_and_does_not_read_is_answered_so_often() {
    let mut machine = server(Config { send_buffer_bytes: 1_000, ..Config::default() });
    machine.send(Message::from(vec![7; 1_000])).expect("there is room");
    assert_eq!(machine.send_request(&RequestMessage::Cancel { id: 1 }), Err(TrySendError::Full));
    for id in 1..=300 {
        arrive(&mut machine, ask(id, None));
    }
    let mut answered = 0;
    while let Some(arrived) = machine.poll_request() {
        let id = arrived.expect("it is well-formed").message.id();
        machine.say_request(&RequestMessage::error(id, 3, "")).expect("there is always room for an answer");
        answered += 1;
    }
    assert_eq!(answered, MAX_REQUEST_ANSWERS);
    // The buffer is read, and then the first of them.
    while machine.poll_transmit(0, 65_536).is_some() {}
    let received = 1_003 + whole(&RequestMessage::error(1, 3, "")).len() as u64;
    machine.handle_frame(0, Frame::Ack { stream: 0, received, limit: 1 << 20 });
    assert!(machine.poll_request().is_some());
}

#[test]
fn a_server_that_goes_away_answers_requests_first() {
    let mut machine = server(Config::default());
    arrive(&mut machine, ask(1, None));
    machine.go_away(0, 0);
    while machine.poll_transmit(0, 65_536).is_some() {}
    machine.handle_frame(0, Frame::GoAway { delay_ms: 0 });
    assert!(machine.poll_request().is_some());
    assert!(matches!(machine.send_request(&RequestMessage::Cancel { id: 1 }), Err(TrySendError::Closed(_))));
    assert_eq!(machine.closing(), None);
    let answer = RequestMessage::Answer { id: 1, data: None };
    machine.say_request(&answer).expect("it is still open");
    while machine.poll_transmit(0, 65_536).is_some() {}
    machine.handle_frame(0, Frame::Ack { stream: 0, received: whole(&answer).len() as u64, limit: 1 << 20 });
    assert_eq!(machine.closing().map(|close| close.code), Some(Code::ShuttingDown as u32));
}

#[test]
fn values_that_nobody_takes_make_way_and_their_credit_comes_back() {
    let mut machine = Machine::client(Config::default());
    machine.link_opened(0, LinkTraits::default());
    machine.handle_frame(0, welcome(1, false, 0));
    while machine.poll_transmit(0, 65_536).is_some() {}
    let packet = Bytes::from(vec![7; 65_536]);
    for _ in 0..=MAX_INCOMING_STATES {
        machine.handle_frame(0, Frame::State(packet.slice(..3)));
    }
    assert!(packet.is_unique(), "they do not keep their packets in memory");
    assert!(machine.owes(), "the first was dropped");
    let said = machine.poll_transmit(0, 65_536).expect("TAKEN is due").into_bytes();
    assert_eq!(said[..], [0x0c, 1, 1]);
    assert_eq!(std::iter::from_fn(|| machine.poll_state()).count(), MAX_INCOMING_STATES);
    assert_eq!(machine.poll_event(), Some(Event::Opened), "they are not the application's");
    assert_eq!(machine.poll_event(), None);
}
