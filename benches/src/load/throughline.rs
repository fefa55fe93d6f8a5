//! Throughline sessions over WebSocket, SSE and long-polling: the client's role of the protocol crate's machine, and the carriers of SPEC section 7.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use throughline_protocol::limits::{MAX_PACKET, MAX_UPLINK_PACKET};
use throughline_protocol::{
    ChannelMessage, Config, Datagram, Decoder, Event, Frame, LinkTraits, Machine, Message, Welcome, channel,
};

use super::http::{Answers, Part};
use super::payload;
use super::sse::{Line, Lines};
use super::websocket::{self, Codec, Kind};
use super::wire::{Io, Wire};
use crate::Failure;
use crate::catalogue::Transport;

/// A session. After a cut it resumes itself at the next start.
pub(crate) struct Session {
    /// Such as `/fanout`.
    base: String,
    machine: Machine,
    carrier: Carrier,
    /// WELCOME of this link has come.
    is_welcome: bool,
    /// The server has answered on this link: it is the one that carries the session.
    is_heard: bool,
    is_resumed: bool,
    /// What the application sends are datagrams.
    sends_datagrams: bool,
}

/// What carries packets. The first lane is the way down, the second that of the POSTs.
enum Carrier {
    WebSocket(Codec),
    Sse { down: Answers, lines: Lines, packet: Vec<u8>, up: Posts },
    Poll { down: Answers, packet: Vec<u8>, names: String, up: Posts },
}

/// One POST after the other (SPEC section 7.5).
#[derive(Default)]
struct Posts {
    answers: Answers,
    /// Header fields that name the link.
    names: String,
    is_busy: bool,
}

impl Session {
    /// A new session, below this base, over one of the three transports that stand on TCP.
    pub(crate) fn new(base: String, transport: Transport) -> Self {
        let machine = Machine::client(Config::default());
        let carrier = Carrier::new(transport);
        Self { base, machine, carrier, is_welcome: false, is_heard: false, is_resumed: false, sends_datagrams: false }
    }

    /// Sends datagrams instead of messages, of which the newest is enough.
    pub(crate) fn with_datagrams(mut self) -> Self {
        self.sends_datagrams = true;
        self
    }

    /// Handles one packet.
    fn packet(&mut self, packet: Bytes, io: &mut Io<'_>) -> Result<(), Failure> {
        let mut decoder = Decoder::new();
        decoder.push(packet);
        while let Some(frame) = decoder.next_frame()? {
            let now = now();
            if self.is_welcome {
                self.is_heard = true;
            } else if let Frame::Welcome(welcome) = &frame {
                self.is_welcome = true;
                self.is_resumed = welcome.resumed;
                self.carrier.welcomed(welcome);
                self.machine.link_opened(now, LinkTraits::default());
            }
            self.machine.handle_frame(now, frame);
        }
        self.events(io)
    }

    /// Hands on what has arrived, and writes what is due.
    fn events(&mut self, io: &mut Io<'_>) -> Result<(), Failure> {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Message(message) => (io.message)(message.as_bytes()),
                Event::Datagram(datagram) => (io.message)(&datagram),
                Event::Closed(close) => return Err(format!("the session ended: {close:?}").into()),
                Event::Opened | Event::Stream(_) => {}
            }
        }
        while let Some(body) = self.machine.poll_channel() {
            if let Ok(ChannelMessage::Publication { data, .. }) = channel::decode(body) {
                (io.message)(data.as_bytes());
            }
        }
        self.transmit(io);
        Ok(())
    }

    fn transmit(&mut self, io: &mut Io<'_>) {
        match &mut self.carrier {
            Carrier::WebSocket(codec) if codec.is_open => {
                while let Some(packet) = self.machine.poll_transmit(now(), MAX_PACKET) {
                    websocket::frame(Kind::Binary, &packet.into_bytes(), &mut io.out[0]);
                }
            }
            Carrier::WebSocket(_) => {}
            Carrier::Sse { up, .. } | Carrier::Poll { up, .. } => {
                if !up.is_busy
                    && self.is_welcome
                    && let Some(packet) = self.machine.poll_transmit(now(), MAX_UPLINK_PACKET)
                {
                    up.post(&self.base, &packet.into_bytes(), &mut io.out[1]);
                }
            }
        }
    }
}

impl Wire for Session {
    fn start(&mut self, io: &mut Io<'_>) {
        if self.machine.has_link() {
            self.machine.link_lost(now(), "cut");
        }
        (self.is_welcome, self.is_heard, self.is_resumed) = (false, false, false);
        self.carrier = Carrier::new(self.carrier.transport());
        let known = self.machine.identity().map(|(session, key)| {
            let (session, key, received) = (session.to_string(), key.expose(), self.machine.received());
            [("session", session), ("key", key), ("received", format!("0.{received}"))]
        });
        let name = match self.carrier.transport() {
            Transport::Sse => "sse",
            Transport::Poll => "poll",
            _ => {
                let offers = known.into_iter().flatten().fold("throughline.v1".to_owned(), |offers, (name, value)| {
                    offers + ", throughline." + name + "." + &value
                });
                return websocket::request(&format!("{}/websocket", self.base), Some(&offers), &mut io.out[0]);
            }
        };
        let fields =
            known.into_iter().flatten().fold("Throughline-Version: 1\r\n".to_owned(), |fields, (name, value)| {
                fields + "Throughline-" + name + ": " + &value + "\r\n"
            });
        get(&self.base, name, &fields, &mut io.out[0]);
    }

    fn take(&mut self, lane: usize, bytes: &[u8], io: &mut Io<'_>) -> Result<(), Failure> {
        // What is read is handled after the reader has been left: it may write, too.
        let mut packets = Vec::new();
        let base = &self.base;
        match &mut self.carrier {
            Carrier::WebSocket(codec) => codec.take(bytes, &mut io.out[0], |_, body, _| {
                packets.push(Bytes::copy_from_slice(body));
                Ok(())
            })?,
            Carrier::Sse { up, .. } | Carrier::Poll { up, .. } if lane == 1 => up.take(bytes)?,
            Carrier::Sse { down, lines, packet, .. } => down.take(bytes, |part| match part {
                Part::Head(head) if head.status != 200 => Err(format!("sse was answered {}", head.status).into()),
                Part::Head(_) => Ok(()),
                Part::Body(bytes) => lines.take(bytes, |line| {
                    match line {
                        Line::Data(line) => BASE64_STANDARD.decode_vec(line, packet)?,
                        Line::End if packet.is_empty() => {}
                        Line::End => packets.push(std::mem::take(packet).into()),
                    }
                    Ok(())
                }),
                Part::End => Err("the event stream ended".into()),
            })?,
            Carrier::Poll { down, packet, names, .. } => down.take(bytes, |part| {
                match part {
                    Part::Head(head) if !matches!(head.status, 200 | 204) => {
                        return Err(format!("a poll was answered {}", head.status).into());
                    }
                    Part::Head(_) => {}
                    Part::Body(bytes) => packet.extend_from_slice(bytes),
                    Part::End => {
                        if !packet.is_empty() {
                            packets.push(Bytes::from(std::mem::take(packet)));
                        }
                        if names.is_empty() {
                            // The first answer is WELCOME, which says how this link is named.
                            let mut decoder = Decoder::new();
                            decoder.push(packets.first().cloned().unwrap_or_default());
                            if let Some(Frame::Welcome(welcome)) = decoder.next_frame()? {
                                *names = named(&welcome);
                            }
                        }
                        get(base, "poll", names, &mut io.out[0]);
                    }
                }
                Ok(())
            })?,
        }
        for packet in packets {
            self.packet(packet, io)?;
        }
        self.transmit(io); // a POST may have been answered
        Ok(())
    }

    fn send(&mut self, message: &[u8], io: &mut Io<'_>) -> Result<(), Failure> {
        if self.sends_datagrams {
            let datagram = Datagram::from(message.to_vec());
            self.machine
                .send_datagram(datagram, Some(0))
                .map_err(|error| format!("a datagram was not taken: {error}"))?;
        } else {
            self.machine.send(Message::from(message)).map_err(|error| format!("a message was not taken: {error}"))?;
        }
        self.transmit(io);
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.is_welcome && self.is_heard
    }

    fn deadline(&self) -> Option<Instant> {
        let at = self.machine.poll_timeout()?;
        Some(Instant::now() + Duration::from_micros(at.saturating_sub(now())))
    }

    fn tick(&mut self, io: &mut Io<'_>) -> Result<(), Failure> {
        self.machine.handle_timeout(now());
        self.events(io)
    }

    fn is_resumed(&self) -> bool {
        self.is_resumed
    }
}

impl Carrier {
    fn new(transport: Transport) -> Self {
        match transport {
            Transport::Sse => Self::Sse {
                down: Answers::default(),
                lines: Lines::default(),
                packet: Vec::new(),
                up: Posts::default(),
            },
            Transport::Poll => {
                Self::Poll { down: Answers::default(), packet: Vec::new(), names: String::new(), up: Posts::default() }
            }
            _ => Self::WebSocket(Codec::default()),
        }
    }

    fn transport(&self) -> Transport {
        match self {
            Self::WebSocket(_) => Transport::WebSocket,
            Self::Sse { .. } => Transport::Sse,
            Self::Poll { .. } => Transport::Poll,
        }
    }

    fn welcomed(&mut self, welcome: &Welcome) {
        if let Self::Sse { up, .. } | Self::Poll { up, .. } = self {
            up.names = named(welcome);
        }
    }
}

impl Posts {
    fn post(&mut self, base: &str, packet: &[u8], out: &mut Vec<u8>) {
        let head = format!(
            "POST {base}/send HTTP/1.1\r\nHost: 127.0.0.1\r\n{}Content-Length: {}\r\n\r\n",
            self.names,
            packet.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(packet);
        self.is_busy = true;
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Self { answers, is_busy, .. } = self;
        answers.take(bytes, |part| {
            match part {
                Part::Head(head) if head.status != 204 => {
                    return Err(format!("a POST was answered {}", head.status).into());
                }
                Part::End => *is_busy = false,
                _ => {}
            }
            Ok(())
        })
    }
}

/// What names a link in a POST or a further poll.
fn named(welcome: &Welcome) -> String {
    let (session, key, link) = (welcome.session, welcome.key.expose(), welcome.link);
    format!("Throughline-Session: {session}\r\nThroughline-Key: {key}\r\nThroughline-Link: {link}\r\n")
}

fn get(base: &str, name: &str, fields: &str, out: &mut Vec<u8>) {
    let head = format!("GET {base}/{name} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n");
    out.extend_from_slice(head.as_bytes());
}

fn now() -> u64 {
    payload::micros(Instant::now())
}
