//! The client's machine in TypeScript, in a process of its own: `machine.mjs` is the other end.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use throughline_protocol::{
    Close, Code, Config, Event, Frame, LinkTraits, Message, OpenStreamError, Origin, StreamError, StreamRead,
    TrySendError,
};

use super::peer::{Held, Peer};

/// A node that runs the machine, for one session after the other.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start() -> Rc<RefCell<Self>> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/machine.mjs");
        let mut child = Command::new("node")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is needed for the client's machine, and the packages of client-js");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Rc::new(RefCell::new(Self { child, input, output }))
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").expect("node takes commands");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("node answers");
        assert!(line.ends_with('\n'), "node has ended at: {command}");
        line.pop();
        line
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One session in it, and what it last said of itself.
pub(crate) struct TypeScript {
    process: Rc<RefCell<Process>>,
    timeout: Option<u64>,
    has_link: bool,
    received: u64,
    buffered: u64,
    streams: usize,
    unrouted: Option<u64>,
    has_native_datagram: bool,
    closed: Option<Close>,
    /// It had nothing to send, and nothing has happened since.
    is_quiet: bool,
    /// Streams that have nothing for their native ones.
    quiet_streams: Vec<u64>,
}

impl TypeScript {
    pub(crate) fn new(process: &Rc<RefCell<Process>>, config: &Config) -> Self {
        let mut machine = Self {
            process: process.clone(),
            timeout: None,
            has_link: false,
            received: 0,
            buffered: 0,
            streams: 0,
            unrouted: None,
            has_native_datagram: false,
            closed: None,
            is_quiet: false,
            quiet_streams: Vec::new(),
        };
        machine.ask(&format!("new {}", config.send_buffer_bytes));
        machine
    }

    /// A command that may change what it wants to send.
    fn ask(&mut self, command: &str) -> String {
        self.is_quiet = false;
        self.quiet_streams.clear();
        self.look(command)
    }

    fn look(&mut self, command: &str) -> String {
        let line = self.process.borrow_mut().ask(command);
        let (gave, state) = line.split_once('|').expect("an answer has two parts");
        let mut words = state.split(' ');
        let mut next = || words.next().expect("a state has all its words");
        let number = |word: &str| word.parse::<u64>().ok();
        self.timeout = number(next());
        self.has_link = next() == "1";
        self.received = number(next()).expect("a number");
        self.buffered = number(next()).expect("a number");
        self.streams = number(next()).expect("a number") as usize;
        self.unrouted = number(next());
        self.has_native_datagram = next() == "1";
        self.closed = number(next()).map(|code| {
            if next() == "1" {
                Close::application(code as u32, "enough")
            } else {
                let code = Code::ALL.iter().find(|known| **known as u64 == code).expect("a code of the protocol");
                Close::protocol(*code, "")
            }
        });
        gave.to_owned()
    }

    /// A refusal of a stream, or what it gave.
    fn of_stream(&mut self, command: &str) -> Result<String, StreamError> {
        let gave = self.ask(command);
        let Some(refusal) = gave.strip_prefix('!') else { return Ok(gave) };
        let (kind, code) = refusal.split_once(' ').expect("a kind and a code");
        let code = code.parse().expect("a code is a number");
        Err(match kind {
            "reset" => StreamError::Reset(code),
            "stopped" => StreamError::Stopped(code),
            _ => match &self.closed {
                Some(close) => StreamError::Closed(close.clone()),
                None => StreamError::Ended,
            },
        })
    }
}

fn to_hex(bytes: &[u8]) -> String {
    if bytes.is_empty() { ".".to_owned() } else { hex::encode(bytes) }
}

fn bytes(text: &str) -> Bytes {
    if text == "." { Bytes::new() } else { hex::decode(text).expect("hex digits").into() }
}

fn some_bytes(text: &str) -> Option<Bytes> {
    (text != "-").then(|| bytes(text))
}

fn frame_hex(frame: &Frame) -> String {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    to_hex(&out)
}

impl Peer for TypeScript {
    fn link_opened(&mut self, now: u64, traits: LinkTraits) {
        let native = u8::from(traits.native_streams);
        self.ask(&format!("open {now} {} {native}", traits.native_datagrams.unwrap_or(0)));
    }

    fn link_lost(&mut self, _now: u64) {
        self.ask("lost");
    }

    fn has_link(&mut self) -> bool {
        self.has_link
    }

    fn closed(&mut self) -> Option<Close> {
        self.closed.clone()
    }

    fn received(&mut self) -> u64 {
        self.received
    }

    fn buffered(&mut self) -> u64 {
        self.buffered
    }

    fn held(&mut self) -> Held {
        Held { streams: self.streams, ..Held::default() }
    }

    fn handle_frame(&mut self, now: u64, frame: Frame) {
        self.ask(&format!("frame {now} {}", frame_hex(&frame)));
    }

    fn handle_late_frame(&mut self, now: u64, frame: Frame) {
        self.ask(&format!("late {now} {}", frame_hex(&frame)));
    }

    fn handle_native_frame(&mut self, now: u64, known: &mut Option<u64>, frame: Frame) {
        let stream = known.map_or("-".to_owned(), |known| known.to_string());
        *known = self.ask(&format!("arrived {now} {stream} {}", frame_hex(&frame))).parse().ok();
    }

    fn handle_datagram(&mut self, now: u64, payload: Bytes) {
        self.ask(&format!("datagram {now} {}", to_hex(&payload)));
    }

    fn poll_timeout(&mut self) -> Option<u64> {
        self.timeout
    }

    fn handle_timeout(&mut self, now: u64) {
        self.ask(&format!("timeout {now}"));
    }

    fn poll_transmit(&mut self, now: u64, max: usize) -> Option<Bytes> {
        if self.is_quiet {
            return None;
        }
        let packet = some_bytes(&self.look(&format!("packet {now} {max}")));
        self.is_quiet = packet.is_none();
        packet
    }

    fn poll_datagram(&mut self) -> Option<Bytes> {
        self.has_native_datagram.then(|| bytes(&self.ask("nativeDatagram")))
    }

    fn poll_unrouted(&mut self) -> Option<u64> {
        self.unrouted.filter(|_| self.has_link && self.closed.is_none())
    }

    fn route(&mut self, stream: u64, native: bool) {
        self.ask(&format!("route {stream} {}", u8::from(native)));
    }

    fn poll_native(&mut self, now: u64, stream: u64, max: usize) -> Option<Bytes> {
        if self.quiet_streams.contains(&stream) {
            return None;
        }
        let packet = some_bytes(&self.look(&format!("native {now} {stream} {max}")));
        if packet.is_none() {
            self.quiet_streams.push(stream);
        }
        packet
    }

    fn poll_event(&mut self) -> Option<Event> {
        let gave = self.ask("event");
        let (kind, what) = gave.split_once(' ').unwrap_or((&gave, ""));
        Some(match kind {
            "opened" => Event::Opened,
            "text" => Event::Message(Message::from(String::from_utf8(bytes(what).to_vec()).expect("it was UTF-8"))),
            "binary" => Event::Message(Message::from(bytes(what))),
            "datagram" => Event::Datagram(bytes(what)),
            "stream" => Event::Stream(what.parse().expect("an id")),
            "closed" => Event::Closed(self.closed.clone().expect("it says how")),
            _ => return None,
        })
    }

    fn send(&mut self, message: Message) -> Result<(), TrySendError> {
        let kind = if message.as_text().is_some() { "text" } else { "binary" };
        match self.ask(&format!("send {kind} {}", to_hex(message.as_bytes()))).as_str() {
            "ok" => Ok(()),
            "full" => Err(TrySendError::Full),
            _ => Err(TrySendError::Closed(self.closed.clone().unwrap_or_else(|| Close::application(0, "")))),
        }
    }

    fn send_datagram(&mut self, payload: Bytes, key: Option<u64>) {
        let key = key.map_or("-".to_owned(), |key| key.to_string());
        self.ask(&format!("sendDatagram {key} {}", to_hex(&payload)));
    }

    fn open_stream(&mut self) -> Result<u64, OpenStreamError> {
        self.ask("openStream").parse().map_err(|_| OpenStreamError::Full(0))
    }

    fn stream_write(&mut self, stream: u64, data: &Bytes) -> Result<usize, StreamError> {
        Ok(self.of_stream(&format!("write {stream} {}", to_hex(data)))?.parse().expect("a number"))
    }

    fn stream_finish(&mut self, stream: u64) -> Result<(), StreamError> {
        self.of_stream(&format!("finish {stream}")).map(drop)
    }

    fn stream_reset(&mut self, stream: u64, code: u32) {
        self.ask(&format!("reset {stream} {code}"));
    }

    fn stream_read(&mut self, stream: u64, _max: usize) -> Result<StreamRead, StreamError> {
        Ok(match self.of_stream(&format!("read {stream}"))?.as_str() {
            "nothing" => StreamRead::Nothing,
            "end" => StreamRead::End,
            data => StreamRead::Data(bytes(data)),
        })
    }

    fn stream_stop(&mut self, stream: u64, code: u32) {
        self.ask(&format!("stop {stream} {code}"));
    }

    fn stream_release(&mut self, stream: u64) {
        self.ask(&format!("release {stream}"));
    }

    fn close(&mut self, now: u64, close: Close) {
        assert_eq!(close.origin, Origin::Application);
        self.ask(&format!("close {now} {}", close.code));
    }
}
