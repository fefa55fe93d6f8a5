//! What is fuzzed, apart from the fuzzer: `cargo fuzz` calls these bodies, and so does `tests/fuzz.rs`, with seeded
//! input, on every run of the tests.

use bytes::{Bytes, BytesMut};
use throughline_protocol::limits::{
    INITIAL_CLIENT_STREAMS, MAX_CHANNEL_ANSWERS, MAX_CHANNEL_OVERHEAD, MAX_DATAGRAM, MAX_FRAME_PAYLOAD, MAX_PACKET,
    MAX_REQUEST_ANSWERS, MAX_REQUEST_OVERHEAD, MAX_REQUESTS,
};
use throughline_protocol::{
    Candidate, ChannelCode, ChannelMessage, Close, Config, Datagram, Decoder, Event, Frame, LinkTraits, Machine,
    Message, RequestMessage, ResumeKey, SessionId, StateDatagram, StateSlot, StreamRead, Token, TrySendError, channel,
    request, varint,
};

/// Type and length, each in its longest form.
const LONGEST_HEADER: usize = 16;

/// The first byte says how the rest is cut into pieces. It must be read alike in one piece; frames come out as they
/// would be written; nothing is kept beyond a frame.
pub(crate) fn decoder(input: &[u8]) {
    let Some((&cut, input)) = input.split_first() else { return };
    let mut whole = Decoder::new();
    whole.push(Bytes::copy_from_slice(input));
    let mut frames = Vec::new();
    let end = loop {
        match whole.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => break Ok(whole.is_empty()),
            Err(error) => break Err(error),
        }
    };

    let mut again = frames.iter();
    let mut pieces = Decoder::new();
    let mut pieces_end = Ok(true);
    for piece in input.chunks(usize::from(cut) + 1) {
        pieces.push(Bytes::copy_from_slice(piece));
        loop {
            match pieces.next_frame() {
                Ok(Some(frame)) => assert_eq!(Some(&frame), again.next()),
                Ok(None) => break pieces_end = Ok(pieces.is_empty()),
                Err(error) => break pieces_end = Err(error),
            }
        }
    }
    assert_eq!(again.next(), None);
    assert_eq!(pieces_end, end);

    let mut written = BytesMut::new();
    for frame in &frames {
        written.clear();
        frame.encode(&mut written);
        assert!(written.len() <= MAX_FRAME_PAYLOAD + LONGEST_HEADER);
        let mut decoder = Decoder::new();
        decoder.push(written.clone().freeze());
        assert_eq!(decoder.next_frame().as_ref(), Ok(&Some(frame.clone())));
        assert!(decoder.is_empty());
    }
}

/// Commands for a machine: its role, and then a byte for what happens and what belongs to it. Whatever happens, it
/// neither panics nor sends without end, it keeps to its bounds, and what it sends can be read.
pub(crate) fn machine(input: &[u8]) {
    const MAX_MESSAGE: usize = 2_000;
    const WINDOW: u64 = 1_000;
    const SEND_BUFFER: u64 = 3_000;
    const SESSION_STREAMS: u64 = 40_000;
    let mut input = Input(input);
    let config = Config {
        max_message_bytes: MAX_MESSAGE,
        receive_window_bytes: WINDOW,
        send_buffer_bytes: SEND_BUFFER,
        max_streams: MAX_STREAMS,
        session_stream_bytes: SESSION_STREAMS,
        ..Config::default()
    };
    let server = input.byte() & 1 == 0;
    let mut machine =
        if server { Machine::server(config, SessionId([1; 16]), ResumeKey([2; 16])) } else { Machine::client(config) };
    let mut decoder = Decoder::new();
    let mut now = 1_700_000_000_000_000;
    let (mut taken, mut taken_bytes, mut owed) = (0, 0, 0);
    let mut ended = false;
    let mut streams = Streams::default();
    let mut requests = Requests::default();
    let mut candidates: Vec<Candidate> = Vec::new();
    machine.link_opened(now, LinkTraits::default());
    while !input.0.is_empty() {
        match input.byte() % 28 {
            0..=5 => {
                // Bytes of a link. They are frames, mostly, since the fuzzer learns to write them.
                let len = usize::from(input.byte());
                let bytes = input.take(len);
                machine.count_received(bytes.len());
                decoder.push(Bytes::copy_from_slice(bytes));
                loop {
                    match decoder.next_frame() {
                        Ok(Some(frame)) => machine.handle_frame(now, frame),
                        Ok(None) => break,
                        Err(error) => {
                            break machine.handle_violation(now, Close::protocol(error.code(), error.to_string()));
                        }
                    }
                }
            }
            6 => {
                let (offset, len) = (machine.received(), usize::from(input.byte()));
                let data = Bytes::copy_from_slice(input.take(len));
                machine.handle_frame(now, Frame::Stream { stream: 0, offset, data });
            }
            7 => {
                let len = usize::from(input.byte()) * 5;
                machine.handle_datagram(now, Bytes::copy_from_slice(input.take(len)));
            }
            8 => {
                now += u64::from(input.byte()) * 100_000;
                if machine.poll_timeout().is_some_and(|at| at <= now) {
                    machine.handle_timeout(now);
                }
            }
            9 => {
                let len = usize::from(input.byte()) * 9;
                let sent = machine.send(Message::from(vec![7; len]));
                assert!(sent.is_ok() || len > 0 || !machine.has_room() || machine.closing().is_some());
            }
            10 => {
                let (key, len) = (input.byte(), usize::from(input.byte()) * 5);
                let sent = machine.send_datagram(Datagram::from(vec![7; len]), key.checked_sub(250).map(u64::from));
                assert!(sent.is_ok() || len > MAX_DATAGRAM || machine.closing().is_some());
            }
            11 | 12 => match machine.poll_event() {
                Some(Event::Message(message)) => {
                    assert!(!ended && (message.len() <= MAX_MESSAGE || !server));
                    taken += 1;
                    taken_bytes += message.len() as u64;
                }
                Some(Event::Datagram(payload)) => assert!(!ended && payload.len() <= MAX_DATAGRAM),
                Some(Event::Opened) => assert!(!ended),
                Some(Event::Closed(_)) => {
                    assert!(!ended, "told twice");
                    ended = true;
                }
                Some(Event::Stream(id)) => streams.open.push((id, 0)),
                None => {}
            },
            13 => {
                let (native, received) = (input.byte(), u64::from(input.byte()));
                let traits = LinkTraits {
                    native_datagrams: (native > 100).then_some(usize::from(native) * 6),
                    native_streams: native & 2 == 2,
                    peer_sends_requests: native & 4 == 4,
                    marks: native & 8 == 8,
                };
                match machine.offer(now, received, traits, (native & 1 == 1).then_some(now + 1_000 * received)) {
                    _ if !server => {
                        decoder = Decoder::new();
                        machine.link_opened(now, traits);
                    }
                    Ok(candidate) => candidates.push(candidate),
                    Err(_) => {}
                }
            }
            14 => {
                let (id, native) = (u64::from(input.byte()), input.byte());
                let traits = LinkTraits { native_streams: native & 1 == 1, ..LinkTraits::default() };
                if let Some(candidate) = candidates.pop()
                    && machine.adopt(now, &candidate, traits, &Frame::Ping { id }).is_ok()
                {
                    decoder = Decoder::new();
                }
            }
            15 => match input.byte() % 10 {
                0 => machine.link_lost(now, "fuzz"),
                1 => machine.link_closed(7, "fuzz"),
                2 => machine.close(now, Close::application(u32::from(input.byte()), "fuzz")),
                3 => machine.go_away(now, u64::from(input.byte())),
                4 => machine.handle_late_frame(now, Frame::Ack { stream: 0, received: input.byte().into(), limit: 9 }),
                _ => machine.heard_from(now),
            },
            16..=19 => streams.step(&mut machine, now, &mut input),
            20 => {
                if let Some(body) = machine.poll_channel() {
                    assert!(!body.is_empty() && (body.len() <= MAX_MESSAGE + MAX_CHANNEL_OVERHEAD || !server));
                    taken += 1;
                    taken_bytes += body.len() as u64;
                    owed += usize::from(server);
                    assert!(owed <= MAX_CHANNEL_ANSWERS || machine.closed().is_some());
                }
            }
            21 => {
                let reason = "x".repeat(usize::from(input.byte()) * 3);
                let failed = ChannelMessage::failed(1, ChannelCode::TooMany, reason).encode();
                if owed > 0 {
                    owed -= 1;
                    let answered = machine.answer_channel(failed);
                    assert!(matches!(answered, Ok(()) | Err(TrySendError::Closed(_))), "{answered:?}");
                }
            }
            22 | 23 => {
                let (len, count) = requests.step(&mut machine, now, &mut input);
                taken_bytes += len;
                taken += count;
            }
            24 => {
                let (channel, key, len) = (input.byte(), input.byte(), usize::from(input.byte()) * 5);
                if let Some(value) = StateDatagram::new(&vec![7; len]) {
                    let sent = machine.send_state(StateSlot(channel.into(), key.into()), value);
                    assert!(sent.is_ok() || machine.closing().is_some());
                }
            }
            25 => assert!(machine.poll_state().is_none_or(|value| !server && value.len() <= MAX_DATAGRAM)),
            26 => match input.byte() % 4 {
                0 => machine.send_token(Token("t".into())),
                1 => {
                    if machine.poll_token().is_some() {
                        assert!(server && machine.poll_token().is_none(), "one at a time");
                    }
                }
                2 => drop(machine.refreshed(Some(now + u64::from(input.byte()) * 100_000))),
                _ => machine.not_refreshed(),
            },
            _ => {
                let message = ChannelMessage::Skipped { number: input.byte().into(), offset: 9 };
                let sent = machine.send_channel(message.encode());
                assert!(sent != Err(TrySendError::Full) || !machine.has_room());
            }
        }
        streams.check(&machine, server);
        send(&mut machine, now);
        if server {
            // The header of a message has between 2 and 16 bytes.
            let waiting = machine.received().saturating_sub(taken_bytes + 16 * taken);
            assert!(waiting <= WINDOW + (MAX_MESSAGE + MAX_CHANNEL_OVERHEAD) as u64 + 16, "{waiting} bytes wait");
            let requests = (MAX_REQUEST_ANSWERS + MAX_REQUESTS) * MAX_REQUEST_OVERHEAD;
            let answers = (MAX_CHANNEL_ANSWERS * MAX_CHANNEL_OVERHEAD + requests) as u64;
            assert!(machine.buffered_bytes() < SEND_BUFFER + MAX_MESSAGE as u64 + 16 + answers);
        }
    }
}

/// What whoever handles requests does.
#[derive(Default)]
struct Requests {
    owed: usize,
}

impl Requests {
    /// Returns the bytes of a message that was taken, and how often a header may have been longer than was needed.
    fn step(&mut self, machine: &mut Machine, now: u64, input: &mut Input<'_>) -> (u64, u64) {
        match input.byte() % 4 {
            0 if self.owed > 0 => {
                self.owed -= 1;
                let said = machine.say_request(&RequestMessage::error(1, 0, &"x".repeat(usize::from(input.byte()))));
                assert!(matches!(said, Ok(()) | Err(TrySendError::Closed(_))), "{said:?}");
            }
            1 => {
                let data = Message::from(vec![7; usize::from(input.byte()) * 9]);
                let sent = machine.send_request(&RequestMessage::Chunk { id: 1, data });
                assert!(sent != Err(TrySendError::Full) || !machine.has_room());
            }
            _ if self.owed < MAX_REQUESTS => match machine.poll_request() {
                None => {}
                Some(Err(close)) => machine.handle_violation(now, close),
                Some(Ok(arrived)) => {
                    self.owed += usize::from(matches!(arrived.message, RequestMessage::Request { .. }));
                    machine.request_taken(arrived.cost);
                    let len: usize = arrived.message.encode().iter().flatten().map(Bytes::len).sum();
                    return (len as u64, 4); // five numbers beside the header
                }
            },
            _ => {}
        }
        (0, 0)
    }
}

/// Streams that a fuzzed server lets its peer have at once.
const MAX_STREAMS: u64 = 4;

/// The streams of a machine, and what their application does.
#[derive(Default)]
struct Streams {
    /// Each with what was read from it.
    open: Vec<(u64, usize)>,
}

impl Streams {
    fn step(&mut self, machine: &mut Machine, now: u64, input: &mut Input<'_>) {
        let (what, which) = (input.byte() % 12, usize::from(input.byte()));
        if what == 0 {
            return self.open.extend(machine.open_stream().ok().map(|id| (id, 0)));
        }
        if let Some(id) = machine.poll_unrouted() {
            machine.route(id, which.is_multiple_of(2));
        }
        let Some(index) = which.checked_rem(self.open.len()) else { return };
        let (id, read) = &mut self.open[index];
        let id = *id;
        match what {
            1 | 2 => {
                let data = vec![7; usize::from(input.byte()) * 200];
                let written = machine.stream_write(id, &Bytes::from(data));
                assert!(written.is_err() || written.is_ok_and(|written| written <= 65_536));
            }
            3 | 4 => {
                if let Ok(StreamRead::Data(data)) = machine.stream_read(id, usize::from(input.byte()) * 100 + 1) {
                    *read += data.len();
                }
            }
            5 => drop(machine.stream_finish(id)),
            6 => machine.stream_reset(id, 7),
            7 => machine.stream_stop(id, 8),
            8 => {
                machine.stream_release(id);
                self.open.swap_remove(index);
            }
            9 | 10 => {
                // What the peer may say of it, natively or not.
                let (offset, len) = (u64::from(input.byte()) * 64, usize::from(input.byte()));
                let data = Bytes::copy_from_slice(input.take(len));
                let frame = Frame::Stream { stream: id, offset, data };
                if which.is_multiple_of(2) {
                    machine.handle_frame(now, frame);
                } else if let Err(close) = machine.handle_native_frame(now, &mut None, frame) {
                    machine.handle_violation(now, close);
                }
            }
            _ => drop(machine.poll_native(id, 1_000)),
        }
    }

    /// The peer has no more open than it may.
    fn check(&mut self, machine: &Machine, is_server: bool) {
        self.open.retain(|(id, _)| machine.has_stream(*id));
        let (parity, most) = if is_server { (1, MAX_STREAMS) } else { (0, INITIAL_CLIENT_STREAMS) };
        let theirs = self.open.iter().filter(|(id, _)| id % 2 == parity).count() as u64;
        assert!(theirs <= most, "{theirs} streams of the peer");
    }
}

/// Everything that the machine wants to send comes to an end, and can be read.
fn send(machine: &mut Machine, now: u64) {
    let mut decoder = Decoder::new();
    for _ in 0..200 {
        let packet = machine.poll_transmit(now, MAX_PACKET);
        let datagram = machine.poll_datagram();
        if packet.is_none() && datagram.is_none() {
            return;
        }
        assert!(datagram.is_none_or(|datagram| datagram.len() <= MAX_DATAGRAM + 1), "with its mark");
        if let Some(packet) = packet {
            assert!(packet.len() <= MAX_PACKET);
            decoder.push(packet.into_bytes());
            while decoder.next_frame().expect("a machine writes frames").is_some() {}
            assert!(decoder.is_empty(), "a packet is of whole frames");
        }
    }
    panic!("it sends without end");
}

/// The body of a channel message, and the payload of a STATE frame. What can be read comes out as it would be written, and keeps to its bound beside its data.
pub(crate) fn channel_message(input: &[u8]) {
    if let Ok(value) = channel::decode_state(Bytes::copy_from_slice(input)) {
        let payload = value.encode_state().expect("it is a value");
        assert!(payload.len() <= input.len(), "the shortest form");
        assert_eq!(channel::decode_state(payload), Ok(value));
    }
    let Ok(message) = channel::decode(Bytes::copy_from_slice(input)) else { return };
    let mut whole = message.encode();
    assert_eq!(varint::take(&mut whole), Some(2));
    assert_eq!(varint::take(&mut whole), Some(whole.len() as u64));
    assert!(whole.len() <= input.len(), "the shortest form");
    assert_eq!(channel::decode(whole), Ok(message));
}

/// The body of a request message. What can be read comes out as it would be written.
pub(crate) fn request_message(input: &[u8]) {
    let Ok(message) = request::decode(Bytes::copy_from_slice(input)) else { return };
    let mut whole = Bytes::from(message.encode().iter().flatten().map(|chunk| &chunk[..]).collect::<Vec<_>>().concat());
    assert_eq!(varint::take(&mut whole), Some(3));
    assert_eq!(varint::take(&mut whole), Some(whole.len() as u64));
    assert!(whole.len() <= input.len(), "the shortest form");
    assert_eq!(request::decode(whole), Ok(message));
}

/// Ids and keys as text.
pub(crate) fn text(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        if let Ok(id) = text.parse::<SessionId>() {
            assert_eq!(id.to_string(), text);
        }
        if let Ok(key) = text.parse::<ResumeKey>() {
            assert_eq!(key.expose(), text);
        }
    }
    if let Some(id) = input.first_chunk::<16>() {
        assert_eq!(SessionId(*id).to_string().parse(), Ok(SessionId(*id)));
    }
}

/// The input of a fuzzer, taken from the front; zeros after its end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
