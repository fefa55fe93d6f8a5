//! What holds for every input: round trips, no panic, bounded memory, and delivery between two machines.

mod common;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use throughline_protocol::limits::{
    INITIAL_CLIENT_CREDIT, MAX_CHANNEL_ANSWERS, MAX_DATAGRAM, MAX_FRAME_PAYLOAD, MAX_REASON,
};
use throughline_protocol::{
    ChannelMessage, Close, Config, Datagram, Decoder, Event, Frame, LinkTraits, Machine, Message, Origin, Position,
    ResumeKey, SessionId, Token, TrySendError, Welcome, channel, varint,
};

fn number() -> impl Strategy<Value = u64> {
    // Every length of a varint is as likely as the others.
    prop_oneof![0..=0x3fu64, 0x40..=0x3fffu64, 0x4000..=0x3fff_ffffu64, 0x4000_0000..=varint::MAX]
}

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=max).prop_map(Bytes::from)
}

fn welcome() -> impl Strategy<Value = Frame> {
    let ids = (any::<[u8; 16]>(), any::<[u8; 16]>());
    let numbers = (number(), number(), number(), number(), number(), number(), number(), number(), number());
    (ids, any::<(bool, bool)>(), numbers, 1..=varint::MAX, 1..=varint::MAX).prop_map(
        |(
            (session, key),
            (resumed, marked),
            (version, link, time_us, max_message, received, limit, streams, window_ms, expires_ms),
            heartbeat_ms,
            idle_ms,
        )| {
            Frame::Welcome(Welcome {
                version,
                session: SessionId(session),
                key: ResumeKey(key),
                resumed,
                marked,
                link,
                time_us,
                heartbeat_ms,
                idle_ms,
                max_message,
                received,
                limit,
                streams,
                window_ms,
                expires_ms,
            })
        },
    )
}

fn frame() -> impl Strategy<Value = Frame> {
    let origin = prop_oneof![Just(Origin::Protocol), Just(Origin::Application)];
    prop_oneof![
        welcome(),
        (any::<u32>(), origin, "\\PC{0,200}").prop_map(|(code, origin, mut reason)| {
            reason.truncate(reason.floor_char_boundary(MAX_REASON));
            Frame::Close(Close { code, origin, reason })
        }),
        (number(), number(), bytes(2_000)).prop_map(|(stream, offset, data)| {
            Frame::Stream { stream, offset: offset.min(varint::MAX - data.len() as u64), data }
        }),
        (number(), number(), number()).prop_map(|(stream, received, limit)| Frame::Ack { stream, received, limit }),
        bytes(MAX_DATAGRAM).prop_map(Frame::Datagram),
        number().prop_map(|id| Frame::Ping { id }),
        (number(), number()).prop_map(|(id, time_us)| Frame::Pong { id, time_us }),
        (number(), number()).prop_map(|(stream, size)| Frame::End { stream, size }),
        (number(), any::<u32>()).prop_map(|(stream, code)| Frame::Reset { stream, code }),
        (number(), any::<u32>()).prop_map(|(stream, code)| Frame::Stop { stream, code }),
        number().prop_map(|limit| Frame::Streams { limit }),
        number().prop_map(|count| Frame::Taken { count }),
        any::<u32>().prop_map(|delay| Frame::GoAway { delay_ms: delay.into() }),
        bytes(MAX_DATAGRAM).prop_map(Frame::State),
        "\\PC{1,200}".prop_map(|token| Frame::Token(Token(token.into()))),
        number().prop_map(|in_ms| Frame::Expires { in_ms }),
    ]
}

fn channel_message() -> impl Strategy<Value = ChannelMessage> {
    let name = || "\\PC{0,90}".prop_map(|name: String| name.into());
    let key = || "\\PC{0,60}".prop_map(|key: String| key.into());
    let data = || prop_oneof![bytes(1_000).prop_map(Message::from), "\\PC{0,300}".prop_map(Message::from)];
    let position = || (number(), number()).prop_map(|(epoch, offset)| Position { epoch, offset });
    prop_oneof![
        (number(), name(), option::of(position()), option::of(name())).prop_map(
            |(request, channel, position, about)| ChannelMessage::Subscribe { request, channel, position, about }
        ),
        (number(), name()).prop_map(|(request, channel)| ChannelMessage::Unsubscribe { request, channel }),
        (number(), name(), data()).prop_map(|(request, channel, data)| ChannelMessage::Publish {
            request,
            channel,
            data
        }),
        (number(), number(), any::<bool>(), any::<bool>(), position()).prop_map(
            |(request, number, recovered, state, position)| ChannelMessage::Subscribed {
                request,
                number,
                recovered,
                state,
                position
            }
        ),
        (number(), position()).prop_map(|(request, position)| ChannelMessage::Done { request, position }),
        (number(), number(), "\\PC{0,90}").prop_map(|(request, code, reason)| ChannelMessage::Failed {
            request,
            code,
            reason
        }),
        (number(), number(), data()).prop_map(|(number, offset, data)| ChannelMessage::Publication {
            number,
            offset,
            data
        }),
        (number(), number(), "\\PC{0,90}").prop_map(|(number, code, reason)| ChannelMessage::Unsubscribed {
            number,
            code,
            reason
        }),
        (number(), number()).prop_map(|(number, offset)| ChannelMessage::Skipped { number, offset }),
        number().prop_map(|number| ChannelMessage::Snapshot { number }),
        (number(), number(), key(), option::of(data())).prop_map(|(number, offset, key, data)| ChannelMessage::Value {
            number,
            offset,
            key,
            data
        }),
        (number(), number()).prop_map(|(number, offset)| ChannelMessage::Settled { number, offset }),
        (number(), name(), key(), option::of(data())).prop_map(|(request, channel, key, data)| ChannelMessage::Set {
            request,
            channel,
            key,
            data
        }),
        (number(), name(), option::of(position()), any::<bool>(), 1..=varint::MAX).prop_map(
            |(request, channel, after, newest, limit)| ChannelMessage::History {
                request,
                channel,
                after,
                newest,
                limit
            }
        ),
        (number(), any::<bool>(), any::<bool>(), position(), vec((number(), data()), 0..5)).prop_map(
            |(request, complete, more, position, publications)| ChannelMessage::Page {
                request,
                complete,
                more,
                position,
                publications
            }
        ),
        (number(), name(), any::<bool>(), position())
            .prop_map(|(number, channel, state, position)| ChannelMessage::Added { number, channel, state, position }),
    ]
}

/// Frames of a few streams, with values that may be right.
fn stream_frame() -> impl Strategy<Value = Frame> {
    let (id, small) = (|| 0u64..6, || prop_oneof![3 => 0u64..4, 1 => number()]);
    prop_oneof![
        3 => (id(), small(), bytes(9)).prop_map(|(stream, offset, data)| {
            Frame::Stream { stream, offset: offset.min(varint::MAX - data.len() as u64), data }
        }),
        1 => (id(), prop_oneof![small(), Just(varint::MAX)], small())
            .prop_map(|(stream, received, limit)| Frame::Ack { stream, received, limit }),
        1 => (id(), small()).prop_map(|(stream, size)| Frame::End { stream, size }),
        1 => (id(), any::<u32>()).prop_map(|(stream, code)| Frame::Reset { stream, code }),
        1 => (id(), any::<u32>()).prop_map(|(stream, code)| Frame::Stop { stream, code }),
    ]
}

fn any_frame() -> impl Strategy<Value = Frame> {
    prop_oneof![1 => frame(), 3 => stream_frame()]
}

/// Cuts `bytes` into pieces whose lengths go round in `lengths`.
fn cut(mut bytes: Bytes, lengths: &[usize]) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    for length in lengths.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        pieces.push(bytes.split_to((*length).min(bytes.len())));
    }
    pieces
}

/// How many whole frames there are in `bytes`, and where the last of them ends, by their headers alone: a changed frame may be read as one that is written in more bytes.
fn whole_frames(bytes: &[u8]) -> (usize, usize) {
    let varint = |at: usize| {
        let first = *bytes.get(at)?;
        let end = at + (1 << (first >> 6));
        let rest = bytes.get(at + 1..end)?;
        Some((rest.iter().fold(usize::from(first & 0x3f), |value, byte| value << 8 | usize::from(*byte)), end))
    };
    let next = |at: usize| {
        let (_, at) = varint(at)?;
        let (length, at) = varint(at)?;
        Some(at + length).filter(|end| *end <= bytes.len())
    };
    std::iter::successors(Some((0, 0)), |(count, end)| Some((count + 1, next(*end)?))).last().unwrap_or_default()
}

/// Reads `pieces`; the decoder never keeps back a whole frame, nor more than one frame and one piece.
fn read(pieces: Vec<Bytes>) -> (Vec<Frame>, bool) {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    let mut pushed = Vec::new();
    for piece in pieces {
        pushed.extend_from_slice(&piece);
        decoder.push(piece.clone());
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next_frame(), Err(error), "an error is final");
                    assert!(decoder.is_empty(), "nothing is kept after an error");
                    decoder.push(piece);
                    assert!(decoder.is_empty(), "nothing is kept after an error");
                    return (frames, false);
                }
            }
        }
        let (count, end) = whole_frames(&pushed);
        assert_eq!((frames.len(), decoder.is_empty()), (count, end == pushed.len()));
        let longest_header = 16;
        assert!(pushed.len() - end <= MAX_FRAME_PAYLOAD + longest_header, "more is kept than one frame");
    }
    (frames, true)
}

fn stream_of(frames: &[Frame]) -> Bytes {
    let mut all = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut all));
    all.freeze()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn frames_come_out_as_they_went_in_wherever_the_bytes_are_cut(
        frames in proptest::collection::vec(frame(), 0..8),
        lengths in proptest::collection::vec(1usize..2_000, 1..8),
    ) {
        let all = stream_of(&frames);
        prop_assert_eq!(read(vec![all.clone()]), (frames.clone(), true));
        prop_assert_eq!(read(cut(all.clone(), &lengths)), (frames.clone(), true));

        let mut lazy = Decoder::new();
        cut(all, &lengths).into_iter().for_each(|piece| lazy.push(piece));
        let read: Result<Vec<Frame>, _> = std::iter::from_fn(|| lazy.next_frame().transpose()).collect();
        prop_assert_eq!(read, Ok(frames));
    }

    #[test]
    fn channel_messages_come_out_as_they_went_in_and_never_half(message in channel_message()) {
        let whole = message.encode();
        let body = |whole: &Bytes| {
            let mut rest = whole.clone();
            let head = [varint::take(&mut rest), varint::take(&mut rest)];
            prop_assert_eq!(head, [Some(2), Some(rest.len() as u64)]);
            Ok(rest)
        };
        let body = body(&whole)?;
        prop_assert_eq!(channel::decode(body.clone()), Ok(message.clone()));
        // Whatever is cut off is missed, or was data; whatever comes after it is too much, or becomes data.
        let has_data = matches!(
            message,
            ChannelMessage::Publish { .. }
                | ChannelMessage::Publication { .. }
                | ChannelMessage::Value { data: Some(_), .. }
                | ChannelMessage::Set { data: Some(_), .. }
        );
        for len in 0..body.len() {
            prop_assert!(has_data || channel::decode(body.slice(..len)).is_err());
        }
        let longer = Bytes::from([&body[..], b"!"].concat());
        prop_assert_eq!(channel::decode(longer).is_ok(), has_data);
    }

    #[test]
    fn mutated_frames_never_panic_and_are_read_alike_wherever_they_are_cut(
        frames in proptest::collection::vec(frame(), 1..6),
        mutations in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        drop_at in proptest::option::of(any::<prop::sample::Index>()),
        lengths in proptest::collection::vec(1usize..2_000, 1..8),
    ) {
        let mut all = stream_of(&frames).to_vec();
        for (index, byte) in mutations {
            let at = index.index(all.len());
            all[at] = byte;
        }
        if let Some(index) = drop_at {
            all.remove(index.index(all.len()));
        }
        let all = Bytes::from(all);
        prop_assert_eq!(read(vec![all.clone()]), read(cut(all, &lengths)));
    }

    #[test]
    fn random_bytes_never_panic(all in bytes(4_096), lengths in proptest::collection::vec(1usize..500, 1..8)) {
        prop_assert_eq!(read(vec![all.clone()]), read(cut(all, &lengths)));
    }

    #[test]
    fn ids_are_read_as_they_are_written(id in any::<[u8; 16]>(), text in "\\PC{0,30}") {
        prop_assert_eq!(SessionId(id).to_string().parse(), Ok(SessionId(id)));
        prop_assert_eq!(ResumeKey(id).expose().parse(), Ok(ResumeKey(id)));
        if let Ok(read) = text.parse::<SessionId>() {
            prop_assert_eq!(read.to_string(), text);
        }
    }
}

// ---- two machines ----

fn message() -> impl Strategy<Value = Message> {
    // Small ones are the rule; some are longer than a window, and cut into many frames.
    prop_oneof![
        6 => bytes(40).prop_map(Message::from),
        3 => "\\PC{0,60}".prop_map(Message::from),
        2 => (0usize..6_000, any::<u8>()).prop_map(|(len, byte)| Message::from(vec![byte; len])),
        1 => (0..=MAX_MESSAGE, any::<u8>()).prop_map(|(len, byte)| Message::from(vec![byte; len])),
    ]
}

/// What happens next, to either side.
#[derive(Debug, Clone)]
enum Step {
    Send(bool, Message),
    SendDatagram(bool, Option<u64>, Bytes),
    Take(bool, usize),
    /// The client asks something about a channel, the server publishes; with as many bytes.
    Channel(bool, usize),
    /// The server answers as many requests as it owes answers to, at most.
    Answer(usize),
    /// One packet leaves, and one arrives.
    Transmit(bool, usize),
    Deliver(bool),
    Wait(u64),
    /// The link breaks with everything on it, and another one goes on.
    Resume,
}

fn step(resumes: bool) -> impl Strategy<Value = Step> {
    let side = any::<bool>;
    let max = prop_oneof![3 => 200usize..2_000, 1 => 20_000usize..70_000];
    prop_oneof![
        6 => (side(), message()).prop_map(|(side, message)| Step::Send(side, message)),
        2 => (side(), proptest::option::of(0u64..3), bytes(100)).prop_map(|(side, key, data)| Step::SendDatagram(side, key, data)),
        5 => (side(), 1usize..6).prop_map(|(side, count)| Step::Take(side, count)),
        3 => (side(), 0usize..3_000).prop_map(|(side, len)| Step::Channel(side, len)),
        2 => (1usize..9).prop_map(Step::Answer),
        8 => (side(), max).prop_map(|(side, max)| Step::Transmit(side, max)),
        8 => side().prop_map(Step::Deliver),
        2 => (1u64..200_000).prop_map(Step::Wait),
        u32::from(resumes) => Just(Step::Resume),
    ]
}

#[derive(Debug, Clone)]
struct Limits {
    send_buffer_bytes: u64,
    receive_window_bytes: u64,
}

fn limits() -> impl Strategy<Value = Limits> {
    (1u64..100_000, 1u64..20_000)
        .prop_map(|(send_buffer_bytes, receive_window_bytes)| Limits { send_buffer_bytes, receive_window_bytes })
}

const MAX_MESSAGE: usize = 60_000;
/// Bytes of a DONE, at most.
const MAX_ANSWER_BYTES: u64 = 2 + 1 + 3 * 8;
/// Kind and length of a message of that size.
const MAX_MESSAGE_BYTES: u64 = MAX_MESSAGE as u64 + 5;

struct Side {
    machine: Machine,
    limits: Limits,
    /// What it grants at the start: a server its window, a client at least what the protocol says.
    window: u64,
    /// Packets and native datagrams on their way to the other side.
    wire: VecDeque<Bytes>,
    natives: VecDeque<Bytes>,
    sent: Vec<Message>,
    /// Taken here, of what the other side sent.
    taken: Vec<Message>,
    /// Whole channel messages.
    channel_sent: Vec<Bytes>,
    channel_taken: usize,
    /// Requests that a server has not answered.
    owed: u64,
    /// Bytes of stream that were taken.
    taken_bytes: u64,
    datagrams_sent: Vec<Bytes>,
    opened: usize,
}

impl Side {
    fn new(machine: Machine, limits: Limits, least_window: u64) -> Self {
        Self {
            machine,
            window: limits.receive_window_bytes.max(least_window),
            limits,
            wire: VecDeque::new(),
            natives: VecDeque::new(),
            sent: Vec::new(),
            taken: Vec::new(),
            channel_sent: Vec::new(),
            channel_taken: 0,
            owed: 0,
            taken_bytes: 0,
            datagrams_sent: Vec::new(),
            opened: 0,
        }
    }
}

struct Pair {
    now: u64,
    native: Option<usize>,
    /// Server, client.
    sides: [Side; 2],
}

impl Pair {
    fn new(server: Limits, client: Limits, native: Option<usize>) -> Self {
        let config = |limits: &Limits| Config {
            max_message_bytes: MAX_MESSAGE,
            send_buffer_bytes: limits.send_buffer_bytes,
            receive_window_bytes: limits.receive_window_bytes,
            // Broken links and simulated pauses are no silence here.
            idle_timeout_ms: 1 << 40,
            ..Config::default()
        };
        let machines = [
            Machine::server(config(&server), SessionId([1; 16]), ResumeKey([2; 16])),
            Machine::client(config(&client)),
        ];
        let [a, b] = machines;
        let mut pair = Self {
            now: 1_000_000,
            native,
            sides: [Side::new(a, server, 0), Side::new(b, client, INITIAL_CLIENT_CREDIT)],
        };
        let traits = pair.traits();
        for side in &mut pair.sides {
            side.machine.link_opened(pair.now, traits);
        }
        pair
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Send(side, message) => {
                let side = &mut self.sides[usize::from(side)];
                match side.machine.send(message.clone()) {
                    Ok(()) => side.sent.push(message),
                    Err(TrySendError::Full) => assert!(side.machine.buffered_bytes() >= side.limits.send_buffer_bytes),
                    Err(error) => panic!("{error}"),
                }
            }
            Step::SendDatagram(side, key, data) => {
                let side = &mut self.sides[usize::from(side)];
                side.machine.send_datagram(Datagram::from(data.clone()), key).expect("it is short enough");
                side.datagrams_sent.push(data);
            }
            Step::Take(side, count) => {
                for _ in 0..count {
                    self.take(usize::from(side));
                }
            }
            Step::Channel(side, len) => self.send_channel(usize::from(side), len),
            Step::Answer(count) => self.answer(count),
            Step::Transmit(side, max) => drop(self.transmit(usize::from(side), max)),
            Step::Deliver(side) => drop(self.deliver(usize::from(side))),
            Step::Wait(time) => self.wait(time),
            Step::Resume => self.resume(),
        }
        self.check();
    }

    fn send_channel(&mut self, index: usize, len: usize) {
        let side = &mut self.sides[index];
        let (count, data) = (side.channel_sent.len() as u64 + 1, Message::from(vec![len as u8; len]));
        let message = match index {
            0 => ChannelMessage::Publication { number: 7, offset: count, data },
            _ => ChannelMessage::Publish { request: count, channel: "room:42".into(), data },
        };
        match side.machine.send_channel(message.encode()) {
            Ok(()) => side.channel_sent.push(message.encode()),
            Err(TrySendError::Full) => assert!(!side.machine.has_room()),
            Err(error) => panic!("{error}"),
        }
    }

    fn answer(&mut self, count: usize) {
        let server = &mut self.sides[0];
        for _ in 0..server.owed.min(count as u64) {
            let request = server.channel_taken as u64 - server.owed + 1;
            let answer = ChannelMessage::Done { request, position: Position { epoch: 1, offset: request } }.encode();
            server.machine.answer_channel(answer.clone()).expect("there is always room for an answer");
            server.channel_sent.push(answer);
            server.owed -= 1;
        }
    }

    fn take(&mut self, index: usize) -> bool {
        let took_event = self.take_event(index);
        self.take_channel(index) || took_event
    }

    fn take_channel(&mut self, index: usize) -> bool {
        let [a, b] = &mut self.sides;
        let (side, other) = if index == 0 { (a, b) } else { (b, a) };
        let Some(body) = side.machine.poll_channel() else { return false };
        let sent = &other.channel_sent[side.channel_taken];
        assert_eq!(sent[1 + varint::len(body.len() as u64)..], body, "once, and in order");
        side.channel_taken += 1;
        side.taken_bytes += sent.len() as u64;
        side.owed += u64::from(index == 0);
        assert!(side.owed <= MAX_CHANNEL_ANSWERS as u64);
        true
    }

    fn take_event(&mut self, index: usize) -> bool {
        let [a, b] = &mut self.sides;
        let (side, other) = if index == 0 { (a, b) } else { (b, a) };
        match side.machine.poll_event() {
            None => return false,
            Some(Event::Opened) => side.opened += 1,
            Some(Event::Message(message)) => {
                side.taken_bytes += (message.len() + 1 + varint::len(message.len() as u64)) as u64;
                assert_eq!(Some(&message), other.sent.get(side.taken.len()), "once, and in order");
                side.taken.push(message);
            }
            Some(Event::Datagram(data)) => assert!(other.datagrams_sent.contains(&data), "nobody sent it"),
            Some(Event::Closed(close)) => panic!("{close}"),
            Some(Event::Stream(_)) => panic!("nobody opens streams here: the simulation does"),
        }
        true
    }

    fn transmit(&mut self, index: usize, max: usize) -> bool {
        let side = &mut self.sides[index];
        let packet = side.machine.poll_transmit(self.now, max);
        let datagram = side.machine.poll_datagram();
        let some = packet.is_some() || datagram.is_some();
        if let Some(packet) = packet {
            assert!(packet.len() <= max, "{} > {max}", packet.len());
            side.wire.push_back(packet.into_bytes());
        }
        side.natives.extend(datagram);
        some
    }

    /// The oldest packet of `index`, and its newest native datagram, arrive at the other side.
    fn deliver(&mut self, index: usize) -> bool {
        let (packet, datagram) = (self.sides[index].wire.pop_front(), self.sides[index].natives.pop_back());
        let other = &mut self.sides[1 - index].machine;
        let some = packet.is_some() || datagram.is_some();
        if let Some(packet) = packet {
            let mut decoder = Decoder::new();
            decoder.push(packet);
            while let Some(frame) = decoder.next_frame().expect("a machine writes frames") {
                other.handle_frame(self.now, frame);
            }
            assert!(decoder.is_empty());
        }
        if let Some(datagram) = datagram {
            other.handle_datagram(self.now, datagram);
        }
        some
    }

    fn wait(&mut self, time: u64) {
        self.now += time;
        for side in &mut self.sides {
            if side.machine.poll_timeout().is_some_and(|at| at <= self.now) {
                side.machine.handle_timeout(self.now);
            }
        }
    }

    fn resume(&mut self) {
        if self.sides[1].machine.identity().is_none() {
            return; // there is nothing to resume before WELCOME
        }
        for side in &mut self.sides {
            side.wire.clear();
            side.natives.clear();
        }
        let received = self.sides[1].machine.received();
        let (now, traits) = (self.now, self.traits());
        let [server, client] = &mut self.sides;
        let candidate = server.machine.offer(now, received, traits, None).expect("the client says what it was sent");
        client.machine.link_opened(now, traits);
        let mut decoder = Decoder::new();
        decoder.push(candidate.welcome.clone().into_bytes());
        while let Some(frame) = decoder.next_frame().expect("a machine writes frames") {
            client.machine.handle_frame(now, frame);
        }
        decoder.push(client.machine.poll_transmit(now, 1_000).expect("it chooses the link").into_bytes());
        let first = decoder.next_frame().expect("a machine writes frames").expect("PING is whole");
        server.machine.adopt(now, &candidate, traits, &first).expect("it is the newest");
        while let Some(frame) = decoder.next_frame().expect("a machine writes frames") {
            server.machine.handle_frame(now, frame);
        }
    }

    fn traits(&self) -> LinkTraits {
        LinkTraits { native_datagrams: self.native, ..LinkTraits::default() }
    }

    fn check(&self) {
        for side in &self.sides {
            assert_eq!(side.machine.closing(), None);
            let buffered = side.machine.buffered_bytes();
            let most =
                side.limits.send_buffer_bytes + MAX_MESSAGE_BYTES + MAX_CHANNEL_ANSWERS as u64 * MAX_ANSWER_BYTES;
            assert!(buffered < most, "{buffered} bytes to send");
            let waiting = side.machine.received() - side.taken_bytes;
            assert!(waiting <= side.window + MAX_MESSAGE_BYTES, "{waiting} bytes wait for the application");
        }
    }

    /// Everything that is under way arrives, and everything that arrived is taken.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut busy = false;
            for index in 0..2 {
                busy |= self.transmit(index, 65_536);
                busy |= self.deliver(index);
                busy |= self.take(index);
            }
            self.answer(usize::MAX);
            self.check();
            if !busy {
                if self.sides.iter().all(|side| side.machine.is_drained()) {
                    return;
                }
                self.wait(50_000); // an ACK is due, at the latest
            }
        }
        panic!("the two never settle");
    }

    fn finish(mut self) {
        self.settle();
        let [server, client] = &self.sides;
        assert_eq!(server.taken, client.sent);
        assert_eq!(client.taken, server.sent);
        assert_eq!(server.channel_taken, client.channel_sent.len());
        assert_eq!(client.channel_taken, server.channel_sent.len());
        assert_eq!((server.opened, client.opened), (1, 1));
    }
}

fn run(server: Limits, client: Limits, native: Option<usize>, steps: Vec<Step>) {
    let mut pair = Pair::new(server, client, native);
    for step in steps {
        pair.apply(step);
    }
    pair.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn everything_arrives_once_and_in_order(
        server in limits(), client in limits(),
        native in proptest::option::of(0usize..120),
        steps in proptest::collection::vec(step(false), 0..400),
    ) {
        run(server, client, native, steps);
    }

    #[test]
    fn everything_arrives_once_and_in_order_across_links(
        server in limits(), client in limits(),
        native in proptest::option::of(0usize..120),
        steps in proptest::collection::vec(step(true), 0..400),
    ) {
        run(server, client, native, steps);
    }

    #[test]
    fn messages_come_through_however_their_bytes_are_cut(
        messages in proptest::collection::vec(message(), 0..20),
        lengths in proptest::collection::vec(1usize..3_000, 1..10),
    ) {
        let config = || Config { send_buffer_bytes: 1 << 30, ..Config::default() };
        let mut sender = Machine::server(config(), SessionId([1; 16]), ResumeKey([2; 16]));
        sender.link_opened(0, LinkTraits::default());
        sender.handle_frame(0, Frame::Ack { stream: 0, received: 0, limit: 1 << 30 });
        for message in &messages {
            sender.send(message.clone()).expect("there is room");
        }
        let (mut decoder, mut stream) = (Decoder::new(), Vec::new());
        while let Some(packet) = sender.poll_transmit(0, 5_000) {
            decoder.push(packet.into_bytes());
            while let Some(frame) = decoder.next_frame().expect("a machine writes frames") {
                if let Frame::Stream { data, .. } = frame {
                    stream.extend_from_slice(&data);
                }
            }
        }
        let mut receiver = Machine::server(
            Config { receive_window_bytes: 1 << 30, ..Config::default() }, SessionId([1; 16]), ResumeKey([2; 16]),
        );
        receiver.link_opened(0, LinkTraits::default());
        while receiver.poll_transmit(0, 5_000).is_some() {}
        let mut offset = 0;
        for data in cut(stream.into(), &lengths) {
            let len = data.len() as u64;
            receiver.handle_frame(0, Frame::Stream { stream: 0, offset, data });
            offset += len;
        }
        let received: Vec<Message> = std::iter::from_fn(|| receiver.poll_event())
            .filter_map(|event| if let Event::Message(message) = event { Some(message) } else { None })
            .collect();
        prop_assert_eq!(received, messages);
    }

    #[test]
    fn a_machine_survives_any_frames(
        server in any::<bool>(),
        frames in proptest::collection::vec((any_frame(), 0u64..40_000_000), 0..40),
    ) {
        let config = Config { max_message_bytes: MAX_MESSAGE, receive_window_bytes: 5_000, ..Config::default() };
        let mut machine =
            if server { Machine::server(config, SessionId([1; 16]), ResumeKey([2; 16])) } else { Machine::client(config) };
        let mut now = 0;
        machine.link_opened(now, LinkTraits::default());
        for (frame, pause) in frames {
            machine.handle_frame(now, frame);
            now += pause;
            if machine.poll_timeout().is_some_and(|at| at <= now) {
                machine.handle_timeout(now);
            }
            for _ in 0..3 {
                machine.poll_transmit(now, 10_000);
            }
            prop_assert!(machine.poll_transmit(now, 10_000).is_none(), "it sends without end");
        }
    }
}
