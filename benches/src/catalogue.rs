//! Which subjects there are: how each is started, what it speaks, and what a reader should know of its settings.

mod ours;
mod peers;

use crate::Failure;
use crate::results::Kind;
use crate::settings::Settings;
use crate::subject::App;

/// What the load generator speaks with a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Plain WebSocket: `/APP`.
    WebSocket,
    /// Plain Server-Sent Events: `GET /APP`.
    Sse,
    /// The event stream of a channel of Throughline's, which needs no session: `GET /channels/APP/events`.
    Events,
    /// nchan's long-polling.
    Poll,
    /// Socket.IO 4 over Engine.IO 4 over WebSocket: namespace `/APP`.
    SocketIo,
    /// SockJS over its WebSocket transport, prefix `/APP`.
    SockJs,
    /// Plain WebTransport: `/APP`.
    WebTransport,
    /// A Throughline session, base `/APP`.
    Throughline(Transport),
    /// Bytes over TCP.
    Tcp,
    /// TLS over TCP, and nothing above it.
    Tls,
    /// Datagrams of UDP.
    Udp,
    /// QUIC without HTTP/3.
    Quic,
}

/// The kind of a Throughline session's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "that is what the transports are called")]
pub(crate) enum Transport {
    WebTransport,
    WebSocket,
    Sse,
    Poll,
}

impl Protocol {
    /// In names of rows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WebSocket | Self::Throughline(Transport::WebSocket) => "websocket",
            Self::Sse | Self::Throughline(Transport::Sse) => "sse",
            Self::Events => "events of a channel",
            Self::Poll | Self::Throughline(Transport::Poll) => "poll",
            Self::WebTransport | Self::Throughline(Transport::WebTransport) => "webtransport",
            Self::SocketIo => "socket.io",
            Self::SockJs => "sockjs",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Udp => "udp",
            Self::Quic => "quic",
        }
    }
}

/// A program that can be a subject.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As the table calls it.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) protocols: &'static [Protocol],
    /// The applications that it has.
    pub(crate) apps: &'static [App],
    /// Whether it takes TLS over TCP, too.
    pub(crate) tls: bool,
    /// Its command, word by word. `{subjects}` is the folder of the peers, `{bench}` this program, `{programs}` the folder that this program is in, `{app}` the application.
    pub(crate) command: &'static [&'static str],
    /// A file that is there when it is installed, with the same words in braces; empty: it is always there.
    pub(crate) needs: &'static str,
    /// How it is set up, for readers.
    pub(crate) settings: &'static str,
}

impl Entry {
    /// Its command with the words in braces filled in.
    pub(crate) fn command(&self, app: App, settings: &Settings) -> Result<Vec<String>, Failure> {
        self.command.iter().map(|word| fill(word, app, settings)).collect()
    }

    /// Why it cannot be started.
    pub(crate) fn missing(&self, settings: &Settings) -> Option<String> {
        if self.needs.is_empty() {
            return None;
        }
        match fill(self.needs, App::Idle, settings) {
            Ok(path) if std::path::Path::new(&path).exists() => None,
            Ok(path) => Some(format!("not installed: there is no {path}")),
            Err(error) => Some(error.to_string()),
        }
    }
}

fn fill(word: &str, app: App, settings: &Settings) -> Result<String, Failure> {
    let bench = std::env::current_exe()?;
    let programs = bench.parent().ok_or("this program is in no folder")?;
    Ok(word
        .replace("{subjects}", &settings.subjects.to_string_lossy())
        .replace("{bench}", &bench.to_string_lossy())
        .replace("{programs}", &programs.to_string_lossy())
        .replace("{app}", app.name()))
}

/// A subject, and one of the protocols that it speaks: what has a row in the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contender {
    pub(crate) entry: &'static Entry,
    pub(crate) protocol: Protocol,
}

impl Contender {
    /// As the table calls it.
    pub(crate) fn name(&self) -> String {
        if self.entry.protocols.len() == 1 {
            return self.entry.name.to_owned();
        }
        format!("{} {}", self.entry.name, self.protocol.name())
    }
}

/// All that there are.
pub(crate) fn contenders() -> Vec<Contender> {
    let entries = LIMITS.iter().chain(ours::ENTRIES).chain(peers::ENTRIES);
    entries
        .flat_map(|entry| entry.protocols.iter().map(move |protocol| Contender { entry, protocol: *protocol }))
        .collect()
}

/// The limits of the machine.
const LIMITS: &[Entry] = &[
    Entry {
        name: "raw write loop",
        kind: Kind::Limit,
        protocols: &[Protocol::WebSocket],
        apps: &[App::Fanout],
        tls: false,
        command: &["{bench}", "limit", "writes"],
        needs: "",
        settings: "a loop of blocking write(2) of the same WebSocket frame to each socket; nothing is encoded twice, and nothing waits",
    },
    Entry {
        name: "raw sendmmsg",
        kind: Kind::Limit,
        protocols: &[Protocol::Udp],
        apps: &[App::State],
        tls: false,
        command: &["{bench}", "limit", "sendmmsg"],
        needs: "",
        settings: "sendmmsg(2) of the same 150 bytes to each address, 256 in a call; no encryption, no acknowledgement",
    },
    Entry {
        name: "tokio TCP echo",
        kind: Kind::Limit,
        protocols: &[Protocol::Tcp],
        apps: &[App::Echo],
        tls: false,
        command: &["{bench}", "limit", "tcp-echo"],
        needs: "",
        settings: "tokio on one thread, a task and a buffer of 64 KiB for each connection, TCP_NODELAY",
    },
    Entry {
        name: "bare quinn",
        kind: Kind::Limit,
        protocols: &[Protocol::Quic],
        apps: &[App::Echo, App::Idle],
        tls: false,
        command: &["{bench}", "limit", "quic"],
        needs: "",
        settings: "quinn on one thread, its own transport settings, AES-128 first, no session tickets, socket buffers of 4 MiB; a task for each stream",
    },
    Entry {
        name: "bare rustls",
        kind: Kind::Limit,
        protocols: &[Protocol::Tls],
        apps: &[App::Idle],
        tls: true,
        command: &["{bench}", "limit", "tls"],
        needs: "",
        settings: "tokio-rustls on one thread, TLS 1.3, AES-128 first, no session tickets",
    },
];
