//! Every knob of the server, with the reason for its default.
//!
//! Values come from [`Config::default`], then a TOML file, then `THROUGHLINE_*` variables of the environment
//! (`__` goes one level down: `THROUGHLINE_LIMITS__MAX_SESSIONS=500`). Durations are written with their unit (`"20s"`,
//! `"1m 30s"`), sizes are in bytes, as their names say. What both sides of the wire must agree on is no knob: it
//! is in the protocol crate's `limits`.

mod auth;
mod document;
mod duration;
mod load;
mod validate;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use documented::DocumentedFields;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use auth::{AuthConfig, AuthKey, ClaimNames, Secret, TokenAlgorithm};
pub use load::ConfigError;

/// The configuration of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The listener for HTTP/1.1 and HTTP/2: pages, WebSocket, Server-Sent Events, long-polling.
    pub tcp: TcpConfig,
    /// The listener for HTTP/3: WebTransport, and the same pages.
    pub quic: QuicConfig,
    /// The certificate of the QUIC listener, and of the TCP listener when it speaks TLS.
    pub certificate: CertificateConfig,
    /// The path that the transports lie below. Default `/rt`: short, and unlikely to be an application's own.
    pub base: String,
    /// Origins that may connect beside the request's own host: `scheme://host[:port]`, or `*` for all. Default none,
    /// because a page of another site must not act with a visitor's credentials.
    pub origins: Vec<String>,
    /// Networks of proxies whose `X-Forwarded-For` is believed. Default none: anyone can write that header.
    pub trusted_proxies: Vec<IpNet>,
    /// What `throughline serve` runs. A program that embeds the library brings its own handler and ignores it.
    pub application: Application,
    /// What is logged, and how.
    pub log: LogConfig,
    /// How much of everything there may be, and for how long.
    pub limits: Limits,
    /// Channels, and who may do what with them.
    pub channels: ChannelsConfig,
    /// Channels over plain HTTP, for clients without our library.
    pub http: HttpConfig,
    /// Tokens: who a client is, and what he may do.
    pub auth: AuthConfig,
    /// The API for back ends.
    pub api: ApiConfig,
}

/// The API for back ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// The path that it lies below. Default `/api`.
    pub base: String,
    /// Whoever has one of these may do everything; each has 16 to 1,024 visible characters of ASCII. Several, so that one can take another's place while both are good. Default none:
    /// there is no API then.
    #[serde(skip_serializing)]
    pub keys: Vec<Secret>,
    /// Longest body of a call, in bytes. Default 1 MiB: a batch of a dozen of the longest publications in base64.
    pub max_body_bytes: usize,
    /// How long an idempotency key is remembered. Default 10 minutes: longer than a back end tries again without a person looking at it.
    #[serde(with = "duration")]
    pub idempotency_age: Duration,
    /// How many idempotency keys are remembered; beyond it the oldest are forgotten. Default 10,000: 16 calls per second for `idempotency_age`, in 5 MB.
    pub max_idempotency_keys: usize,
}

/// Channels over plain HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// The path that `{name}/events` and `{name}/poll` lie below, or `"off"`. Default `/channels`. Who reads there needs the same rights as a subscriber, and takes the place of a session
    /// in `limits.max_sessions`.
    #[serde(deserialize_with = "load::path_or_off", serialize_with = "document::or_off")]
    pub base: Option<String>,
}

/// The TCP listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct TcpConfig {
    /// Address and port, or `"off"`. Default `127.0.0.1:8080`: what is open to the network should be opened on purpose.
    #[serde(deserialize_with = "load::address_or_off", serialize_with = "document::or_off")]
    pub listen: Option<SocketAddr>,
    /// Whether it speaks TLS, with the certificate of [`Config::certificate`]. Default no: in development
    /// `http://127.0.0.1` is a secure context without it, and in production a proxy usually ends TLS.
    pub tls: bool,
}

/// The QUIC listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct QuicConfig {
    /// Address and port, or `"off"`. Default `127.0.0.1:4433`, the port that QUIC examples use.
    #[serde(deserialize_with = "load::address_or_off", serialize_with = "document::or_off")]
    pub listen: Option<SocketAddr>,
    /// The host that clients are told to use. Default none: the host of the page.
    pub advertised_host: Option<String>,
    /// The port that clients are told to use, where a port is forwarded. Default none: the port that is listened on.
    pub advertised_port: Option<u16>,
}

/// Where the certificate comes from. In TOML, `[certificate]` has either `chain` and `key`, or `dir` and `names`, or nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "load::RawCertificate", into = "load::RawCertificate")]
pub enum CertificateConfig {
    /// A self-signed one, made when it is missing and renewed while the server runs. Browsers accept it by its hash.
    Development {
        /// The folder that keeps it. Default none: [`throughline_certs::default_folder`].
        dir: Option<PathBuf>,
        /// Host names and IP addresses beside `localhost`, `127.0.0.1` and `::1`.
        names: Vec<String>,
    },
    /// The user's own, in PEM files, which are read anew when they change.
    Files {
        /// The server's certificate and those between it and a root, in this order.
        chain: PathBuf,
        /// The private key.
        key: PathBuf,
    },
}

/// The applications that are built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(rename_all = "lowercase")]
pub enum Application {
    /// Sends every message and datagram back. The default: the smallest thing that shows that a connection works.
    Echo,
    /// The game of `throughline demo`.
    Arena,
}

/// The log, which goes to standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Default text: a person reads it first. Collectors take JSON.
    pub format: LogFormat,
    /// In the syntax of `tracing_subscriber`'s `EnvFilter`, such as `info,throughline=debug`. Default `info`: one line per
    /// session opened and closed.
    pub filter: String,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people, with colours on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

/// Bounds on everything that a client can make grow or last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Sessions in all, those that wait for another link and readers over plain HTTP included. Default 10,000: half a gigabyte when idle, five if every message buffer of
    /// every one were full.
    pub max_sessions: usize,
    /// Sessions from one IP address (IPv6: one /64). Default 1,000: a school behind one address fits, and one
    /// address cannot take more than a tenth of the server.
    pub max_sessions_per_ip: usize,
    /// Openings that one IP address may go on making per second. Default 50: a client that races its transports makes up to
    /// four, and after a restart a whole office comes back from one address.
    pub opens_per_ip_per_second: u32,
    /// Openings that one IP address may make at once, before the rate counts. Default 200: fifty such clients.
    pub opens_per_ip_burst: u32,
    /// Longest message, either way. Default 4 MiB: a photograph passes; a receiver has to hold the whole of it.
    pub max_message_bytes: usize,
    /// What a session may hold that its client has not acknowledged. Default 256 KiB: 20 Mbit/s at 100 ms. `send` waits beyond it.
    pub session_buffer_bytes: usize,
    /// What a client may send ahead of the application's reading. Default 256 KiB, for the same path the other way.
    pub receive_window_bytes: usize,
    /// Streams that a client may have open on one QUIC connection for its requests and sessions. Default 16: quinn reserves room for each ahead of its use,
    /// and what a browser asks for beyond it waits there. `max_session_streams` come on top once a session has the first of those.
    pub max_streams: u32,
    /// How long a session waits without a link for its client to come back, with all that it has sent. Default 2 minutes: a tunnel, a lift, a change of
    /// networks, a laptop that is carried to the next room. It keeps its place in `max_sessions`. 0 ends a session with its link.
    #[serde(with = "duration")]
    pub resume_window: Duration,
    /// Streams that a client may have open in one session. Default 100: browsers and QUIC stacks allow about as many.
    pub max_session_streams: u32,
    /// What a client may send ahead of the application's reading on one stream, once the application has shown that it keeps up; every stream begins with
    /// 16 KiB. Default 256 KiB, as `receive_window_bytes`.
    pub stream_window_bytes: usize,
    /// What one stream may hold that the client has not acknowledged. Default 256 KiB, as `session_buffer_bytes`; writing waits beyond it.
    pub stream_buffer_bytes: usize,
    /// What all streams of a session together may hold beyond 16 KiB each, in each direction. Default 1 MiB: four fast ones at once, and the others
    /// go on more slowly.
    pub session_stream_bytes: usize,
    /// From a connection, or an accepted opening, to the first frame from the client. Default 10 s: three lost packets on a slow path.
    #[serde(with = "duration")]
    pub open_timeout: Duration,
    /// Silence after which a link is dead. Default 30 s: three heartbeats, so that two may be lost.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Between two PINGs. Default 10 s: below the 30 s after which home routers forget a UDP flow.
    #[serde(with = "duration")]
    pub heartbeat_interval: Duration,
    /// How long a poll waits for something to send. Default 20 s: safely below the 60 s of nginx's `proxy_read_timeout`.
    #[serde(with = "duration")]
    pub poll_hold: Duration,
    /// From a stop signal to the end, whoever is still connected. Default 8 s: below the 10 s that Docker waits before it kills (Kubernetes: 30 s), and
    /// 5 s above `drain_spread`, so that the last client that is asked to leave still has a few round trips of a bad path for what is under way.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// Time over which clients are asked to leave when the server stops, each at a moment of its own. Default 3 s: 2,000 clients come to the next server
    /// at 700 per second, and not all at once. Raise it together with `drain_timeout` where there are more. When draining is given less than twice
    /// as long, it is half of that.
    #[serde(with = "duration")]
    pub drain_spread: Duration,
    /// TCP connections in all; beyond it they are answered 503 and closed. Default 25,000: two per session (long-polling
    /// uses two), and a quarter more for pages.
    pub max_tcp_connections: usize,
    /// From a connection, or from the answer to its last request, to a complete request head. Also closes idle keep-alive connections:
    /// default 30 s, well above `heartbeat_interval`, so that the POSTs of a quiet session find theirs still open.
    #[serde(with = "duration")]
    pub header_read_timeout: Duration,
    /// For a TLS handshake. Default 10 s, as `open_timeout`.
    #[serde(with = "duration")]
    pub tls_handshake_timeout: Duration,
}

/// Channels: topics that sessions subscribe to, with the newest of what was published there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelsConfig {
    /// Channels that one session may be subscribed to. Default 100: a page shows a few dozen things at once, and each costs the server some hundred bytes.
    pub max_subscriptions: usize,
    /// Channels that are subscribed to or remembered, in all. Default 100,000: ten for each session, and 50 MB when their histories are empty.
    pub max_channels: usize,
    /// Longest publication, in bytes of its data. Default 64 KiB: text and state, of which a full history of the default size holds 16. Larger things
    /// are better told of than sent to everybody. Never more than [`Limits::max_message_bytes`], whatever stands here.
    pub max_publication_bytes: usize,
    /// What all histories and values together may hold, counted as [`Namespace::history_bytes`]. Default 256 MiB: an eighth of a small server. Beyond it the oldest
    /// publication of all goes, then channels of state that nobody uses; further values are refused.
    pub max_history_bytes: usize,
    /// Publications and changes of values that one session may go on making per second. Default 100: a pointer that is shared at 60 Hz, and something beside it. What
    /// each costs, the subscribers multiply.
    pub publishes_per_second: u32,
    /// Publications and changes that one session may make at once, before the rate counts. Default 500: what a page says that was offline for a while.
    pub publish_burst: u32,
    /// What may be done with the channels of a namespace, by its name: what comes before the first `:` of a channel's name. `""` is for names without one. Default none: a
    /// namespace that is not listed allows its clients nothing, and otherwise has the defaults of [`Namespace`].
    pub namespaces: BTreeMap<String, Namespace>,
}

/// What may be done with the channels of one namespace, and what they keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Namespace {
    /// What its channels are. Default a log.
    pub kind: Kind,
    /// Whether every client may subscribe. Default no: a channel may be private. An application that knows its users decides with `Builder::authorize` instead.
    pub subscribe: bool,
    /// Whether every client may publish, or change values. Default no: most channels are the server's to speak in.
    pub publish: bool,
    /// Whether every client may ask for the history without being subscribed. Default no.
    pub history: bool,
    /// Whether is kept who is subscribed. Every client that may subscribe to a channel may then see who is in it. Default no: it tells of people, and costs each
    /// subscription some hundred bytes.
    pub presence: bool,
    /// Publications that a channel keeps for who comes back or is slow. Default 100: a chat's last pages. 0 keeps none.
    pub history_count: usize,
    /// Bytes that a channel keeps: those of its data, and 256 for what is around each publication. Default 1 MiB, so that one channel takes little of `max_history_bytes`.
    /// Of a channel of state: what its values and their keys may take, counted in the same way.
    pub history_bytes: usize,
    /// Keys that a channel of state may have, and members that presence tells of. Default 1,000: whoever subscribes gets all of them, some hundred KB. Values of further keys are
    /// refused; a list of members is cut: who came later is not in it.
    pub max_keys: usize,
    /// How long a publication is kept, and how long a channel is remembered that nobody uses. Default 5 minutes: above `limits.resume_window`, so that a client whose session is
    /// gone may still find what it missed. Values do not grow old, but go with their channel.
    #[serde(with = "duration")]
    pub history_age: Duration,
    /// What becomes of a subscriber that is so slow that the history does not reach back to where it is. Default skip. Channels of state never get there: who is
    /// slow gets fewer values, and ends on the last.
    pub slow: Slow,
}

/// What a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One publication after the other, of which every subscriber gets each.
    Log,
    /// A value for each key, of which every subscriber gets the newest.
    State,
}

/// What becomes of a subscriber that the history does not reach back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(rename_all = "lowercase")]
pub enum Slow {
    /// It is told which publications are lost to it, and goes on with those that are kept: for what is soon replaced by something newer.
    Skip,
    /// Its subscription ends with TOO_SLOW: for what is of no use with a gap.
    Disconnect,
}

impl ChannelsConfig {
    /// What counts for the channels of a namespace.
    pub(crate) fn namespace(&self, name: &str) -> Namespace {
        self.namespaces.get(name).cloned().unwrap_or_default()
    }
}

impl Default for ChannelsConfig {
    fn default() -> Self {
        Self {
            max_subscriptions: 100,
            max_channels: 100_000,
            max_publication_bytes: 64 * 1024,
            max_history_bytes: 256 * 1024 * 1024,
            publishes_per_second: 100,
            publish_burst: 500,
            namespaces: BTreeMap::new(),
        }
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self {
            kind: Kind::Log,
            subscribe: false,
            publish: false,
            history: false,
            presence: false,
            history_count: 100,
            history_bytes: 1024 * 1024,
            max_keys: 1_000,
            history_age: Duration::from_secs(300),
            slow: Slow::Skip,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tcp: TcpConfig::default(),
            quic: QuicConfig::default(),
            certificate: CertificateConfig::default(),
            base: "/rt".to_owned(),
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            application: Application::Echo,
            log: LogConfig::default(),
            limits: Limits::default(),
            channels: ChannelsConfig::default(),
            http: HttpConfig::default(),
            auth: AuthConfig::default(),
            api: ApiConfig::default(),
        }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            base: "/api".to_owned(),
            keys: Vec::new(),
            max_body_bytes: 1024 * 1024,
            idempotency_age: Duration::from_secs(600),
            max_idempotency_keys: 10_000,
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { base: Some("/channels".to_owned()) }
    }
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self { listen: Some((Ipv4Addr::LOCALHOST, 8080).into()), tls: false }
    }
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self { listen: Some((Ipv4Addr::LOCALHOST, 4433).into()), advertised_host: None, advertised_port: None }
    }
}

impl Default for CertificateConfig {
    fn default() -> Self {
        Self::Development { dir: None, names: Vec::new() }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_sessions: 10_000,
            max_sessions_per_ip: 1_000,
            opens_per_ip_per_second: 50,
            opens_per_ip_burst: 200,
            max_message_bytes: throughline_protocol::limits::DEFAULT_MAX_MESSAGE,
            session_buffer_bytes: 256 * 1024,
            receive_window_bytes: 256 * 1024,
            max_streams: 16,
            resume_window: Duration::from_secs(120),
            max_session_streams: 100,
            stream_window_bytes: 256 * 1024,
            stream_buffer_bytes: 256 * 1024,
            session_stream_bytes: 1024 * 1024,
            open_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(10),
            poll_hold: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(8),
            drain_spread: Duration::from_secs(3),
            max_tcp_connections: 25_000,
            header_read_timeout: Duration::from_secs(30),
            tls_handshake_timeout: Duration::from_secs(10),
        }
    }
}
