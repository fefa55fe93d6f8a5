//! `vectors/scenarios/`: what happens to a machine, and what it must do.

mod common;

use bytes::Bytes;
use common::{FrameText, MessageText, Raw, Side, code, folder, one_of_three, read};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use throughline_protocol::limits::STREAM_CHUNK;
use throughline_protocol::{
    Candidate, Close, Config, Datagram, Decoder, Event, Frame, LinkTraits, Machine, OpenStreamError, Origin, Packet,
    Refused, ResumeKey, SendDatagramError, SessionId, StateDatagram, StateSlot, StreamError, StreamRead, Token,
    TrySendError,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    #[serde(rename = "why")]
    _why: String,
    role: RoleText,
    session: Option<Raw>,
    key: Option<Raw>,
    #[serde(default)]
    config: ConfigText,
    #[serde(default = "max_packet")]
    max_packet: usize,
    steps: Vec<Step>,
}

fn max_packet() -> usize {
    262_144
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoleText {
    Server,
    Client,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigText {
    heartbeat_ms: Option<u64>,
    idle_timeout_ms: Option<u64>,
    open_timeout_ms: Option<u64>,
    max_message_bytes: Option<usize>,
    send_buffer_bytes: Option<u64>,
    receive_window_bytes: Option<u64>,
    resume_window_ms: Option<u64>,
    max_streams: Option<u64>,
    stream_window_bytes: Option<u64>,
    stream_buffer_bytes: Option<u64>,
    session_stream_bytes: Option<u64>,
}

impl ConfigText {
    fn config(&self) -> Config {
        Config {
            resume_window_ms: self.resume_window_ms.unwrap_or(120_000),
            max_streams: self.max_streams.unwrap_or(100),
            stream_window_bytes: self.stream_window_bytes.unwrap_or(262_144),
            stream_buffer_bytes: self.stream_buffer_bytes.unwrap_or(262_144),
            session_stream_bytes: self.session_stream_bytes.unwrap_or(1_048_576),
            heartbeat_ms: self.heartbeat_ms.unwrap_or(10_000),
            idle_timeout_ms: self.idle_timeout_ms.unwrap_or(30_000),
            open_timeout_ms: self.open_timeout_ms.unwrap_or(10_000),
            max_message_bytes: self.max_message_bytes.unwrap_or(4_194_304),
            send_buffer_bytes: self.send_buffer_bytes.unwrap_or(262_144),
            receive_window_bytes: self.receive_window_bytes.unwrap_or(262_144),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at: u64,
    why: Option<String>,
    #[serde(default)]
    busy: bool,

    link_opened: Option<LinkOpened>,
    frame: Option<FrameText>,
    /// On which link the frame arrives; the newest when left out.
    on: Option<u64>,
    #[serde(default)]
    natively: bool,
    datagram: Option<Raw>,
    timeout: Option<bool>,
    send: Option<MessageText>,
    send_datagram: Option<SendDatagram>,
    send_state: Option<SendState>,
    take: Option<usize>,
    take_token: Option<bool>,
    refreshed: Option<Refreshed>,
    not_refreshed: Option<bool>,
    close: Option<CloseText>,
    violation: Option<Violation>,
    link_lost: Option<Lost>,
    link_closed: Option<LinkClosed>,
    open_stream: Option<bool>,
    write: Option<WriteText>,
    finish: Option<u64>,
    reset: Option<CodeText>,
    read: Option<u64>,
    stop: Option<CodeText>,
    release: Option<u64>,
    go_away: Option<u64>,

    #[serde(default)]
    sent: Vec<FrameText>,
    #[serde(default)]
    sent_natively: Vec<FrameText>,
    #[serde(default)]
    datagrams: Vec<Raw>,
    #[serde(default)]
    events: Vec<EventText>,
    token: Option<String>,
    refused: Option<RefusedText>,
    code: Option<u32>,
    stream: Option<u64>,
    written: Option<usize>,
    data: Option<Raw>,
    #[serde(default)]
    ended: bool,
    #[serde(default, deserialize_with = "present")]
    next_timeout: Option<Option<u64>>,
    #[serde(default)]
    state: State,
}

/// `null` is something else than nothing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkOpened {
    native_datagrams: Option<usize>,
    #[serde(default)]
    native_streams: bool,
    #[serde(default)]
    marks: bool,
    received: Option<u64>,
    expires: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendDatagram {
    data: Raw,
    key: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendState {
    channel: u64,
    key: u64,
    data: Raw,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refreshed {
    expires: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteText {
    stream: u64,
    data: Raw,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeText {
    stream: u64,
    code: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CloseText {
    code: Option<u32>,
    protocol: Option<String>,
    reason: String,
}

impl CloseText {
    fn close(&self) -> Close {
        match (self.code, &self.protocol) {
            (Some(code), None) => Close::application(code, &self.reason),
            (None, Some(name)) => Close::protocol(code(name), &self.reason),
            _ => panic!("a close has a code or a protocol code"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Violation {
    code: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lost {
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkClosed {
    code: u32,
    reason: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RefusedText {
    Full,
    Closed,
    TooLarge,
    Late,
    Left,
    Ended,
    Reset,
    Stopped,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum EventText {
    Opened,
    Message { text: Option<String>, text_bytes: Option<Raw>, binary: Option<Raw> },
    Datagram { data: Raw },
    Stream { stream: u64 },
    Closed { code: u32, origin: Side, reason: Option<String> },
}

impl EventText {
    fn matches(&self, event: &Event) -> bool {
        match (self, event) {
            (Self::Opened, Event::Opened) => true,
            (Self::Message { text, text_bytes, binary }, Event::Message(message)) => {
                one_of_three(text, text_bytes, binary) == *message
            }
            (Self::Datagram { data }, Event::Datagram(payload)) => data.bytes() == *payload,
            (Self::Stream { stream }, Event::Stream(id)) => stream == id,
            (Self::Closed { code, origin, reason }, Event::Closed(close)) => {
                *code == close.code
                    && Origin::from(*origin) == close.origin
                    && reason.as_ref().is_none_or(|reason| *reason == close.reason)
            }
            _ => false,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    rtt_us: Option<u64>,
    min_rtt_us: Option<u64>,
    peer_time: Option<u64>,
    buffered: Option<u64>,
    has_room: Option<bool>,
    received: Option<u64>,
    resumed: Option<bool>,
    link: Option<u64>,
    open: Option<bool>,
    datagrams_dropped: Option<u64>,
}

impl State {
    fn check(&self, machine: &Machine, now: u64, place: &str) {
        fn compare<T: PartialEq + std::fmt::Debug>(expected: Option<T>, is: T, what: &str, place: &str) {
            if let Some(expected) = expected {
                assert_eq!(is, expected, "{place}: {what}");
            }
        }
        let stats = machine.stats();
        compare(self.rtt_us, stats.rtt_us, "rtt_us", place);
        compare(self.min_rtt_us, stats.min_rtt_us, "min_rtt_us", place);
        compare(self.peer_time, machine.peer_time(now), "peer_time", place);
        compare(self.buffered, machine.buffered_bytes(), "buffered", place);
        compare(self.has_room, machine.has_room(), "has_room", place);
        compare(self.received, machine.received(), "received", place);
        compare(self.resumed, machine.resumed(), "resumed", place);
        compare(self.link, machine.link(), "link", place);
        compare(self.open, machine.is_open(), "open", place);
        compare(self.datagrams_dropped, stats.datagrams_dropped, "datagrams_dropped", place);
    }
}

#[test]
fn machines_do_what_the_scenarios_say() {
    let mut paths: Vec<_> = std::fs::read_dir(folder().join("scenarios"))
        .expect("the folder is there")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    paths.sort();
    assert!(paths.len() > 1, "there are scenarios");
    let mut failures = Vec::new();
    for path in paths {
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        // Each is told of on its own: the first that fails does not hide the others.
        let result = std::panic::catch_unwind(|| run(&name, &read(&path)));
        if result.is_err() {
            failures.push(name);
        }
    }
    assert!(failures.is_empty(), "scenarios that failed: {failures:?}");
}

fn run(name: &str, scenario: &Scenario) {
    let config = scenario.config.config();
    let machine = match (&scenario.role, &scenario.session, &scenario.key) {
        (RoleText::Server, Some(session), Some(key)) => {
            Machine::server(config, SessionId(session.sixteen()), ResumeKey(key.sixteen()))
        }
        (RoleText::Client, None, None) => Machine::client(config),
        _ => panic!("{name}: a server has a session and a key, a client has neither"),
    };
    let mut runner = Runner {
        is_server: matches!(scenario.role, RoleText::Server),
        machine,
        links: 0,
        candidates: Vec::new(),
        traits: LinkTraits::default(),
        native: BTreeSet::new(),
    };
    let mut before = 0;
    for (index, step) in scenario.steps.iter().enumerate() {
        let why = step.why.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        let place = format!("{name}, step {index}{why}");
        assert!(step.at >= before, "{place}: time goes back");
        before = step.at;
        let mut sent = runner.apply(step, &place);
        let mut natively = Vec::new();
        let mut datagrams = Vec::new();
        if !step.busy {
            runner.drain(step.at, scenario.max_packet, &mut sent, &mut natively, &mut datagrams, &place);
        }
        assert_sent(sent, &step.sent, &place);
        assert_sent(natively, &step.sent_natively, &place);
        assert_eq!(datagrams, step.datagrams.iter().map(Raw::bytes).collect::<Vec<_>>(), "{place}: native datagrams");
        if let Some(next_timeout) = step.next_timeout {
            assert_eq!(runner.machine.poll_timeout(), next_timeout, "{place}: next_timeout");
        }
        step.state.check(&runner.machine, step.at, &place);
    }
}

fn assert_sent(sent: Vec<Frame>, expected: &[FrameText], place: &str) {
    for frame in &sent {
        if let Frame::Stream { data, .. } = frame {
            assert!(data.len() <= STREAM_CHUNK, "{place}: a STREAM frame of {} bytes", data.len());
        }
    }
    // How the bytes of the stream are divided into frames is free.
    let sent = join(sent);
    let exact = join(expected.iter().map(FrameText::frame).collect());
    // CLOSE is the last frame, if it is there at all, and its words may be free.
    let (last, before) = sent.split_last().map_or((None, &[][..]), |(last, before)| (Some(last), before));
    assert!(
        sent.len() == exact.len()
            && before == &exact[..before.len()]
            && last.zip(expected.last()).is_none_or(|(last, expected)| {
                if matches!(last, Frame::Close(_)) { expected.matches(last) } else { Some(last) == exact.last() }
            }),
        "{place}: sent {}\ninstead of {}",
        short(&sent),
        short(&exact)
    );
}

/// A machine and its links.
struct Runner {
    is_server: bool,
    machine: Machine,
    /// How many were opened.
    links: u64,
    candidates: Vec<(Candidate, LinkTraits)>,
    /// Of the current link.
    traits: LinkTraits,
    /// Streams that have been on a native one.
    native: BTreeSet<u64>,
}

impl Runner {
    /// The step's one input. Returns the frames that are answered on a candidate.
    fn apply(&mut self, step: &Step, place: &str) -> Vec<Frame> {
        let now = step.at;
        let mut inputs = 0;
        let mut refused = None;
        let mut sent = Vec::new();
        let mut events = Vec::new();
        let (mut data, mut ended, mut error_code) = (Vec::new(), false, None);
        let mut token = None;
        let machine = &mut self.machine;
        if let Some(opened) = &step.link_opened {
            inputs += 1;
            let traits = LinkTraits {
                native_datagrams: opened.native_datagrams,
                native_streams: opened.native_streams,
                marks: opened.marks,
                ..LinkTraits::default()
            };
            self.links += 1;
            if let Some(received) = opened.received {
                match machine.offer(now, received, traits, opened.expires) {
                    Ok(candidate) => {
                        assert_eq!(candidate.link, self.links, "{place}: the number of the link");
                        sent.extend(frames(candidate.welcome.clone(), place));
                        self.candidates.push((candidate, traits));
                    }
                    Err(close) => {
                        self.links -= 1;
                        sent.push(Frame::Close(close));
                    }
                }
            } else {
                self.traits = traits;
                if self.is_server {
                    machine.set_expires(opened.expires);
                }
                machine.link_opened(now, traits);
            }
        }
        if let Some(frame) = &step.frame {
            inputs += 1;
            (refused, sent) = self.arrives(now, step.on.unwrap_or(self.links), step.natively, frame.frame());
        }
        let machine = &mut self.machine;
        if let Some(payload) = &step.datagram {
            inputs += 1;
            machine.handle_datagram(now, payload.bytes());
        }
        if let Some(timeout) = step.timeout {
            inputs += 1;
            assert!(timeout, "{place}: a timeout is true");
            machine.handle_timeout(now);
        }
        if let Some(message) = &step.send {
            inputs += 1;
            refused = machine.send(message.message()).err().map(|error| match error {
                TrySendError::Full => RefusedText::Full,
                TrySendError::Closed(_) => RefusedText::Closed,
                TrySendError::TooLarge { .. } => RefusedText::TooLarge,
            });
        }
        if let Some(SendDatagram { data, key }) = &step.send_datagram {
            inputs += 1;
            refused = machine.send_datagram(Datagram::from(data.bytes()), *key).err().map(|error| match error {
                SendDatagramError::Closed(_) => RefusedText::Closed,
                SendDatagramError::TooLarge(_) => RefusedText::TooLarge,
            });
        }
        if let Some(SendState { channel, key, data }) = &step.send_state {
            inputs += 1;
            let value = StateDatagram::new(&data.bytes()).expect("it fits");
            let sent = machine.send_state(StateSlot(*channel, *key), value);
            refused = sent.err().map(|_| RefusedText::Closed);
        }
        if let Some(take_token) = step.take_token {
            inputs += 1;
            assert!(take_token, "{place}: take_token is true");
            token = machine.poll_token().map(|Token(token)| token.to_string());
        }
        if let Some(Refreshed { expires }) = step.refreshed {
            inputs += 1;
            machine.refreshed(expires);
        }
        if let Some(not_refreshed) = step.not_refreshed {
            inputs += 1;
            assert!(not_refreshed, "{place}: not_refreshed is true");
            machine.not_refreshed();
        }
        if let Some(count) = step.take {
            inputs += 1;
            events.extend(std::iter::from_fn(|| machine.poll_event()).take(count));
        }
        if let Some(close) = &step.close {
            inputs += 1;
            machine.close(now, close.close());
        }
        if let Some(violation) = &step.violation {
            inputs += 1;
            machine.handle_violation(now, Close::protocol(code(&violation.code), &violation.reason));
        }
        if let Some(lost) = &step.link_lost {
            inputs += 1;
            machine.link_lost(now, &lost.reason);
        }
        if let Some(closed) = &step.link_closed {
            inputs += 1;
            machine.link_closed(closed.code, &closed.reason);
        }
        if let Some(open_stream) = step.open_stream {
            inputs += 1;
            assert!(open_stream, "{place}: open_stream is true");
            let opened = machine.open_stream();
            assert_eq!(opened.clone().ok(), step.stream, "{place}: stream");
            refused = opened.err().map(|error| match error {
                OpenStreamError::Full(_) => RefusedText::Full,
                OpenStreamError::Closed(_) => RefusedText::Closed,
            });
        }
        if let Some(WriteText { stream, data }) = &step.write {
            inputs += 1;
            let data = data.bytes();
            match machine.stream_write(*stream, &data) {
                Ok(written) => assert_eq!(written, step.written.unwrap_or(data.len()), "{place}: written"),
                Err(error) => (refused, error_code) = stream_refusal(&error),
            }
        }
        if let Some(stream) = step.finish {
            inputs += 1;
            if let Err(error) = machine.stream_finish(stream) {
                (refused, error_code) = stream_refusal(&error);
            }
        }
        if let Some(CodeText { stream, code }) = step.reset {
            inputs += 1;
            machine.stream_reset(stream, code);
        }
        if let Some(stream) = step.read {
            inputs += 1;
            loop {
                match machine.stream_read(stream, 1_000) {
                    Ok(StreamRead::Data(part)) => data.extend_from_slice(&part),
                    Ok(StreamRead::Nothing) => break,
                    Ok(StreamRead::End) => break ended = true,
                    Err(error) => break (refused, error_code) = stream_refusal(&error),
                }
            }
        }
        if let Some(CodeText { stream, code }) = step.stop {
            inputs += 1;
            machine.stream_stop(stream, code);
        }
        if let Some(stream) = step.release {
            inputs += 1;
            machine.stream_release(stream);
        }
        if let Some(delay_ms) = step.go_away {
            inputs += 1;
            machine.go_away(now, delay_ms);
        }
        assert_eq!(inputs, 1, "{place}: a step has one input");
        assert_eq!(refused, step.refused, "{place}: refused");
        assert_eq!(error_code, step.code, "{place}: code");
        assert_eq!(token, step.token, "{place}: token");
        assert_eq!(data, step.data.as_ref().map_or(Vec::new(), |data| data.bytes().to_vec()), "{place}: data");
        assert_eq!(ended, step.ended, "{place}: ended");
        assert!(
            events.len() == step.events.len()
                && step.events.iter().zip(&events).all(|(expected, is)| expected.matches(is)),
            "{place}: events {}\ninstead of {}",
            short(&events),
            short(&step.events)
        );
        sent
    }

    /// A frame arrives on one of the links. Returns why it was refused, and what is answered on a candidate.
    fn arrives(&mut self, now: u64, link: u64, natively: bool, frame: Frame) -> (Option<RefusedText>, Vec<Frame>) {
        if let Some(index) = self.candidates.iter().position(|(candidate, _)| candidate.link == link) {
            let (candidate, traits) = self.candidates.remove(index);
            return match self.machine.adopt(now, &candidate, traits, &frame) {
                Ok(()) => {
                    self.traits = traits;
                    self.native.clear();
                    (None, vec![])
                }
                Err(Refused::Late) => (Some(RefusedText::Late), vec![]),
                Err(Refused::Left) => (Some(RefusedText::Left), vec![]),
                Err(Refused::Wrong(close)) => (None, vec![Frame::Close(close)]),
            };
        }
        if natively {
            let (Frame::Stream { stream, .. } | Frame::End { stream, .. }) = frame else {
                panic!("only STREAM and END travel natively in a scenario");
            };
            self.native.insert(stream);
            if let Err(close) = self.machine.handle_native_frame(now, &mut Some(stream), frame) {
                self.machine.handle_violation(now, close);
            }
        } else if self.is_server {
            // When another link has taken over, what still arrives on this one is dropped.
            if link == self.machine.link() {
                self.machine.handle_frame(now, frame);
            }
        } else if link < self.links {
            self.machine.handle_late_frame(now, frame);
        } else {
            self.machine.handle_frame(now, frame);
        }
        (None, vec![])
    }

    /// Everything that the machine wants to send now.
    fn drain(
        &mut self,
        now: u64,
        max_packet: usize,
        sent: &mut Vec<Frame>,
        natively: &mut Vec<Frame>,
        datagrams: &mut Vec<Bytes>,
        place: &str,
    ) {
        let machine = &mut self.machine;
        while let Some(stream) = machine.poll_unrouted() {
            machine.route(stream, true);
            self.native.insert(stream);
        }
        loop {
            let packet = machine.poll_transmit(now, max_packet);
            let datagram = machine.poll_datagram();
            let more: Vec<Packet> =
                self.native.iter().filter_map(|stream| machine.poll_native(*stream, max_packet)).collect();
            if packet.is_none() && datagram.is_none() && more.is_empty() {
                return;
            }
            datagrams.extend(datagram);
            for packet in more {
                natively.extend(frames(packet, place));
            }
            if let Some(packet) = packet {
                assert!(packet.len() <= max_packet, "{place}: a packet of {} bytes", packet.len());
                sent.extend(frames(packet, place));
            }
        }
    }
}

fn stream_refusal(error: &StreamError) -> (Option<RefusedText>, Option<u32>) {
    match *error {
        StreamError::Reset(code) => (Some(RefusedText::Reset), Some(code)),
        StreamError::Stopped(code) => (Some(RefusedText::Stopped), Some(code)),
        StreamError::Ended => (Some(RefusedText::Ended), None),
        StreamError::Closed(_) => (Some(RefusedText::Closed), None),
    }
}

/// The frames of a packet, which are whole.
fn frames(packet: Packet, place: &str) -> Vec<Frame> {
    let mut decoder = Decoder::new();
    decoder.push(packet.into_bytes());
    let frames = std::iter::from_fn(|| decoder.next_frame().expect("a machine writes frames")).collect();
    assert!(decoder.is_empty(), "{place}: a packet ends inside a frame");
    frames
}

/// STREAM frames that go on where the one before them ends become one.
fn join(frames: Vec<Frame>) -> Vec<Frame> {
    let mut joined: Vec<Frame> = Vec::new();
    for frame in frames {
        match (joined.last_mut(), frame) {
            (
                Some(Frame::Stream { stream, offset, data }),
                Frame::Stream { stream: same, offset: next, data: more },
            ) if *stream == same && *offset + data.len() as u64 == next => {
                *data = [&data[..], &more[..]].concat().into()
            }
            (_, frame) => joined.push(frame),
        }
    }
    joined
}

fn short(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    match text.char_indices().nth(2_000) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
