//! What the commands do.

use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use throughline::{
    Application, CertificateConfig, Config, Event, Server, Session, StartError,
    auth::{AuthError, Tokens},
    demo::{self, Arena},
};
use throughline_certs::{
    Certificate, DevCertificates, FileCertificates, base64, default_folder, hex, javascript, rfc3339,
};
use tokio::runtime::Runtime;

use crate::{
    cli::{CertArguments, CertFormat, ConfigFile, Listen, RunArguments, ServeArguments},
    logging, open_files,
    signals::Signals,
};

/// Why a command ended: one line for standard error, and the exit code. 2 says that the arguments or the configuration are
/// wrong, 1 that something is wrong with the machine (a busy port, an unreadable file).
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) code: ExitCode,
}

impl Failure {
    pub(crate) fn usage(message: impl ToString) -> Self {
        Self { message: message.to_string(), code: ExitCode::from(2) }
    }

    fn machine(message: impl ToString) -> Self {
        Self { message: message.to_string(), code: ExitCode::FAILURE }
    }
}

/// The demo shows the round-trip time, which PINGs measure: every two seconds, so that it follows what is done to the network.
const DEMO_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// What is wrong with a configuration that is not wrong, only of no use.
const NO_WAY_IN: &str =
    "nobody can come in: it has neither keys for tokens (auth.keys, auth.jwks_url) nor auth.anonymous = true";

/// All that pages publish are lines of the chat: their longest, in any script, as JSON, and as fast as somebody types.
const DEMO_PUBLICATION_BYTES: usize = 2_048;
const DEMO_PUBLISHES_PER_SECOND: u32 = 2;
const DEMO_PUBLISH_BURST: u32 = 10;

/// `throughline demo`
pub(crate) fn demo(arguments: &RunArguments) -> Result<ExitCode, Failure> {
    let mut config = Config::load(None).map_err(Failure::usage)?;
    config.application = Application::Arena;
    config.auth.anonymous = true;
    config.limits.heartbeat_interval = DEMO_HEARTBEAT_INTERVAL;
    config.channels.max_publication_bytes = DEMO_PUBLICATION_BYTES;
    config.channels.publishes_per_second = DEMO_PUBLISHES_PER_SECOND;
    config.channels.publish_burst = DEMO_PUBLISH_BURST;
    run(config, arguments)
}

/// `throughline serve`
pub(crate) fn serve(arguments: &ServeArguments) -> Result<ExitCode, Failure> {
    run(Config::load(arguments.file.config.as_deref()).map_err(Failure::usage)?, &arguments.run)
}

/// `throughline config default`
pub(crate) fn config_default() -> Result<ExitCode, Failure> {
    say(Config::default_toml().trim_end());
    Ok(ExitCode::SUCCESS)
}

/// `throughline config check`
pub(crate) fn config_check(arguments: &ConfigFile) -> Result<ExitCode, Failure> {
    let config = Config::load(arguments.config.as_deref()).map_err(Failure::usage)?;
    check_listeners(&config)?;
    Tokens::check(&config.auth).map_err(Failure::usage)?;
    if let CertificateConfig::Files { chain, key } = &config.certificate {
        FileCertificates::open(chain, key).map_err(Failure::usage)?;
    }
    let name = arguments.config.as_ref().map_or("the configuration".to_owned(), |file| file.display().to_string());
    say(&format!("{name} is fine"));
    if !Tokens::let_anybody_in(&config.auth) {
        say(&format!("but {NO_WAY_IN}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// `throughline cert`
pub(crate) fn cert(arguments: &CertArguments) -> Result<ExitCode, Failure> {
    let folder = match &arguments.dir {
        Some(folder) => folder.clone(),
        None => default_folder().map_err(Failure::machine)?,
    };
    let certificates = DevCertificates::open(folder, []).map_err(Failure::machine)?;
    let hashes = certificates.hashes();
    let lines = |form: fn(&[u8; 32]) -> String| hashes.iter().map(form).collect::<Vec<_>>().join("\n");
    say(&match arguments.format {
        CertFormat::Text => cert_text(&certificates),
        CertFormat::Json => json(&CertReport::new(&certificates)),
        CertFormat::Base64 => lines(base64),
        CertFormat::Hex => lines(hex),
        CertFormat::Js => javascript(&hashes),
    });
    Ok(ExitCode::SUCCESS)
}

/// Runs a server until a signal, then drains it. A second signal does not wait for that.
fn run(mut config: Config, arguments: &RunArguments) -> Result<ExitCode, Failure> {
    if let Some(Listen(address)) = arguments.tcp {
        config.tcp.listen = address;
    }
    if let Some(Listen(address)) = arguments.quic {
        config.quic.listen = address;
    }
    config.validate().map_err(Failure::usage)?;
    check_listeners(&config)?;
    logging::start(&config.log);
    open_files::raise_limit();
    let runtime = Runtime::new().map_err(|error| Failure::machine(format!("cannot start threads: {error}")))?;
    let ended = runtime.block_on(async {
        let mut signals =
            Signals::listen().map_err(|error| Failure::machine(format!("cannot listen for signals: {error}")))?;
        let drain_timeout = config.limits.drain_timeout;
        let (is_tls, has_a_way_in) = (config.tcp.tls, Tokens::let_anybody_in(&config.auth));
        let server = start(config).await?;
        if !has_a_way_in {
            tracing::warn!("{NO_WAY_IN}");
        }
        let ready = Ready::new(&server, is_tls);
        say(&if arguments.json { json(&ready) } else { ready.text() });

        let signal = signals.next().await;
        tracing::info!(signal = signal.name, drain_timeout = ?drain_timeout, "stopping; a second signal ends at once");
        tokio::select! {
            () = server.drain(drain_timeout) => Ok(ExitCode::SUCCESS),
            second = signals.next() => Ok(second.exit_code()),
        }
    });
    // A blocked thread, as in a slow file system, must not keep the process.
    runtime.shutdown_background();
    ended
}

/// A library may have both off, and its routes mounted elsewhere; a command would serve nobody.
fn check_listeners(config: &Config) -> Result<(), Failure> {
    if config.tcp.listen.is_none() && config.quic.listen.is_none() {
        return Err(Failure::usage("tcp.listen and quic.listen are both off: at least one of them has to be on"));
    }
    Ok(())
}

/// The built-in applications know nobody: tokens say who comes in, and what he may do beyond what namespaces allow everybody.
async fn start(mut config: Config) -> Result<Server, Failure> {
    if config.application == Application::Arena {
        for (name, namespace) in demo::namespaces() {
            config.channels.namespaces.entry(name.to_owned()).or_insert(namespace);
        }
    }
    // Its files are small, and nobody is served yet.
    let tokens = Tokens::new(&config.auth).map_err(|error| match error {
        AuthError::Read { .. } => Failure::machine(error),
        _ => Failure::usage(error),
    })?;
    let builder = Server::builder().tokens(tokens);
    let arena = (config.application == Application::Arena).then(Arena::start);
    let builder = match arena.clone() {
        None => builder.on_session(echo),
        Some(arena) => builder.routes(demo::assets()).on_session(move |session| arena.clone().play(session)),
    };
    let server = builder.config(config).start().await.map_err(|error| match error {
        StartError::Config(_) => Failure::usage(error),
        _ => Failure::machine(error),
    })?;
    if let Some(arena) = arena {
        arena.report(&server.hub());
    }
    Ok(server)
}

/// Sends everything back.
async fn echo(session: Session) {
    loop {
        let message = match session.recv().await {
            Some(Event::Message(message)) => message,
            Some(Event::Datagram(datagram)) => {
                // They may be lost, here as anywhere.
                let _ = session.send_datagram(datagram, None);
                continue;
            }
            Some(_) => continue,
            None => return,
        };
        if session.send(message).await.is_err() {
            return;
        }
    }
}

/// The `ready` event (one JSON line), or what a person wants to know. The order of the fields is that of the line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    event: &'static str,
    /// None when there is no TCP listener.
    tcp: Option<String>,
    /// None when there is no QUIC listener.
    quic: Option<String>,
    certificate_hashes: Vec<String>,
}

impl Ready {
    fn new(server: &Server, is_tls: bool) -> Self {
        let tcp_scheme = if is_tls { "https" } else { "http" };
        Self {
            event: "ready",
            tcp: server.tcp_addr().map(|address| url(tcp_scheme, address)),
            quic: server.quic_addr().map(|address| url("https", address)),
            certificate_hashes: server.certificate_hashes().iter().map(base64).collect(),
        }
    }

    fn text(&self) -> String {
        let mut lines = vec!["Throughline is running.".to_owned(), String::new()];
        if let Some(tcp) = &self.tcp {
            lines.push(format!("  open          {tcp}"));
        }
        if let Some(quic) = &self.quic {
            lines.push(format!("  WebTransport  {quic}"));
        }
        for hash in &self.certificate_hashes {
            lines.push(format!("  certificate   sha-256 {hash}"));
        }
        lines.extend([String::new(), "Ctrl-C stops it.".to_owned()]);
        lines.join("\n")
    }
}

/// A URL that can be opened on this machine: an address that stands for all is replaced by the loopback.
fn url(scheme: &str, mut address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    format!("{scheme}://{address}")
}

/// What `cert --format json` prints.
#[derive(Debug, Serialize)]
struct CertReport {
    path: PathBuf,
    current: CertFacts,
    /// From the seventh day of the current one on.
    next: Option<CertFacts>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CertFacts {
    not_before: String,
    not_after: String,
    names: Vec<String>,
    base64: String,
    hex: String,
}

impl CertReport {
    fn new(certificates: &DevCertificates) -> Self {
        let facts = |certificate: Certificate| CertFacts {
            not_before: rfc3339(certificate.not_before()),
            not_after: rfc3339(certificate.not_after()),
            names: certificate.names().to_vec(),
            base64: base64(&certificate.hash()),
            hex: hex(&certificate.hash()),
        };
        Self {
            path: certificates.current_path(),
            current: facts(certificates.current()),
            next: certificates.next().map(facts),
        }
    }
}

fn cert_text(certificates: &DevCertificates) -> String {
    let mut lines = vec![format!("file     {}", certificates.current_path().display())];
    for (title, certificate) in [("current", Some(certificates.current())), ("next", certificates.next())] {
        let Some(certificate) = certificate else { continue };
        let days = certificate.not_after().duration_since(SystemTime::now()).unwrap_or_default().as_secs() / 86_400;
        lines.push(format!("\n{title}"));
        lines.push(format!("expires  {} (in {days} days)", rfc3339(certificate.not_after())));
        lines.push(format!("names    {}", certificate.names().join(", ")));
        lines.push(format!("base64   {}", base64(&certificate.hash())));
        lines.push(format!("hex      {}", hex(&certificate.hash())));
    }
    lines.push(format!("\n{}", javascript(&certificates.hashes())));
    lines.join("\n")
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and lists of strings can always be written as JSON")
}

/// Prints for whoever listens; a closed standard output is nobody's failure.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_event_is_the_documented_line() {
        let ready = Ready {
            event: "ready",
            tcp: Some(url("http", "127.0.0.1:8080".parse().unwrap())),
            quic: Some(url("https", "0.0.0.0:4433".parse().unwrap())),
            certificate_hashes: vec!["aGFzaA==".to_owned()],
        };
        assert_eq!(
            json(&ready),
            r#"{"event":"ready","tcp":"http://127.0.0.1:8080","quic":"https://127.0.0.1:4433","certificateHashes":["aGFzaA=="]}"#
        );
        assert!(ready.text().contains("http://127.0.0.1:8080"));
        assert_eq!(url("https", "[::]:1".parse().unwrap()), "https://[::1]:1");
    }
}
