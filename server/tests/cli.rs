//! The `throughline` command as scripts see it: what it prints, where, and its exit code.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic, in its helpers, too")]

use std::{fs, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{TcpListener, TcpStream, UdpSocket},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// What a test waits at most for what should happen soon, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

struct Running {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    ready: Value,
}

impl Running {
    async fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::of(command(folder, arguments)).await
    }

    async fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(SOON, out.next_line()).await.unwrap().unwrap().expect("a line before the end");
        Self { child, out, ready: serde_json::from_str(&line).unwrap() }
    }

    fn tcp(&self) -> &str {
        self.ready["tcp"].as_str().unwrap().split_once("://").unwrap().1
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// The exit code, after checking that nothing followed the first line.
    async fn end(mut self) -> Option<i32> {
        assert_eq!(timeout(SOON, self.out.next_line()).await.unwrap().unwrap(), None);
        timeout(SOON, self.child.wait()).await.unwrap().unwrap().code()
    }
}

/// A command with a certificate folder of its own and nothing of the tester's environment.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_throughline"));
    command
        .args(arguments)
        .env_clear()
        .env("THROUGHLINE_CERTIFICATE__DIR", folder.join("certificates"))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Exit code and standard error of a command that ends by itself and says one line.
async fn failure(mut command: Command) -> (Option<i32>, String) {
    let output = timeout(SOON, command.output()).await.unwrap().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(output.stdout.is_empty());
    (output.status.code(), error)
}

const DEMO: [&str; 4] = ["demo", "--tcp=127.0.0.1:0", "--quic=127.0.0.1:0", "--json"];

#[tokio::test]
async fn the_demo_says_where_it_is_and_stops_on_either_signal() {
    let folder = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let running = Running::start(folder.path(), &DEMO).await;
        assert_eq!(running.ready["event"], "ready");
        assert!(running.ready["quic"].as_str().unwrap().starts_with("https://127.0.0.1:"));
        assert_eq!(running.ready["certificateHashes"].as_array().unwrap().len(), 1);
        let mut page = TcpStream::connect(running.tcp()).await.unwrap();
        page.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(SOON, page.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("text/html"), "{answer}");
        running.signal(signal);
        assert_eq!(running.end().await, Some(0));
    }
}

#[tokio::test]
async fn serve_takes_a_file_and_the_environment_and_shows_the_same_certificate_as_cert() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("t.toml"),
        "tcp = { listen = \"127.0.0.1:0\" }\nquic = { listen = \"127.0.0.1:0\" }\ncertificate = { dir = \"certificates\" }\n",
    )
    .unwrap();
    let running = Running::start(folder.path(), &["serve", "--config", "t.toml", "--json"]).await;
    let cert = command(folder.path(), &["cert", "--dir", "certificates", "--format", "base64"]).output().await.unwrap();
    assert_eq!(String::from_utf8(cert.stdout).unwrap().trim_end(), running.ready["certificateHashes"][0]);
    running.signal(Signal::TERM);
    assert_eq!(running.end().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("t.toml"),
        "tcp = { listen = \"127.0.0.1:0\" }\nquic = { listen = \"off\" }\nlimits = { drain_timeout = \"1h\", header_read_timeout = \"10m\" }\n",
    )
    .unwrap();
    let running = Running::start(folder.path(), &["serve", "--config", "t.toml", "--json"]).await;
    assert_eq!(running.ready["quic"], Value::Null);
    // An HTTP/2 client that sends its preface and an empty SETTINGS frame, and then ignores the server's farewell: the drain waits for it.
    let mut held = TcpStream::connect(running.tcp()).await.unwrap();
    held.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    timeout(SOON, held.read_u8()).await.unwrap().unwrap();
    running.signal(Signal::INT);
    // That the first one was taken shows in the listener.
    let address = running.tcp().to_owned();
    let closed = async { while TcpStream::connect(&address).await.is_ok() {} };
    timeout(SOON, closed).await.unwrap();
    running.signal(Signal::TERM);
    assert_eq!(running.end().await, Some(128 + 15));
}

#[tokio::test]
async fn busy_ports_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    let arguments = ["demo", "--tcp", &address, "--quic", "127.0.0.1:0"];
    let (code, error) = failure(command(folder.path(), &arguments)).await;
    assert!(code == Some(1) && error.contains(&address) && error.contains("TCP"), "{error}");
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap().to_string();
    let arguments = ["demo", "--tcp", "127.0.0.1:0", "--quic", &address];
    let (code, error) = failure(command(folder.path(), &arguments)).await;
    assert!(code == Some(1) && error.contains(&address) && error.contains("UDP"), "{error}");
}

#[tokio::test]
async fn mistakes_in_arguments_configuration_and_certificates_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("key.toml", "[limits]\nmax_session = 1\n");
    write("value.toml", "[limits]\nmax_sessions = 0\n");
    write("files.toml", "certificate = { chain = \"missing.pem\", key = \"missing.pem\" }\n");
    write("rubbish.pem", "rubbish");
    write("deaf.toml", "tcp = { listen = \"off\" }\nquic = { listen = \"off\" }\n");
    write("rubbish.toml", "certificate = { chain = \"rubbish.pem\", key = \"rubbish.pem\" }\n");
    for (arguments, wanted_code, wanted) in [
        (&["demo", "--udp"][..], 2, "--udp"),
        (&["serve", "--config", "key.toml"], 2, "key.toml: unknown key `limits.max_session`"),
        (&["serve", "--config", "value.toml"], 2, "limits.max_sessions is 0"),
        (&["serve", "--config", "nowhere.toml"], 2, "nowhere.toml cannot be read"),
        (&["serve", "--config", "files.toml"], 1, "missing.pem cannot be read"),
        (&["serve", "--config", "rubbish.toml"], 1, "rubbish.pem cannot be used"),
        (&["serve", "--config", "deaf.toml"], 2, "tcp.listen and quic.listen are both off"),
        (&["cert", "--dir", "rubbish.pem"], 1, "rubbish.pem cannot be created"),
    ] {
        let mut command = command(folder.path(), arguments);
        command.env_remove("THROUGHLINE_CERTIFICATE__DIR");
        let (code, error) = failure(command).await;
        assert!(error.contains(wanted), "{error:?} should contain {wanted:?}");
        assert_eq!(code, Some(wanted_code), "{error}");
    }
}

/// Exit code and standard output of a command that ends by itself without complaints.
async fn success(mut command: Command) -> String {
    let output = timeout(SOON, command.output()).await.unwrap().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && error.is_empty(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_default_configuration_is_a_file_that_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let text = success(command(folder.path(), &["config", "default"])).await;
    assert!(text.contains("\n[limits]\n") && text.contains("\nmax_sessions = 10_000\n"), "{text}");
    fs::write(folder.path().join("t.toml"), text).unwrap();
    let checked = success(command(folder.path(), &["config", "check", "--config", "t.toml"])).await;
    assert_eq!(checked.lines().next(), Some("t.toml is fine"));
    assert!(checked.contains("but nobody can come in"), "{checked}");
    let mut without_file = command(folder.path(), &["config", "check"]);
    without_file.env("THROUGHLINE_AUTH__ANONYMOUS", "true");
    assert_eq!(success(without_file).await, "the configuration is fine\n");
}

#[tokio::test]
async fn what_is_wrong_with_a_configuration_is_found_before_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("short"), "secret").unwrap();
    for (text, wanted) in [
        ("[limits]\nmax_session = 1", "t.toml: unknown key `limits.max_session`; did you mean `max_sessions`?"),
        (
            "[limits]\nmax_sessions = \"many\"",
            "t.toml: `limits.max_sessions` is string \"many\"; a whole number is wanted",
        ),
        ("[limits]\nmax_sessions = 0", "limits.max_sessions is 0; allowed is 1 to"),
        ("tcp = { listen = \"off\" }\nquic = { listen = \"off\" }", "are both off"),
        ("certificate = { chain = \"missing.pem\", key = \"missing.pem\" }", "missing.pem cannot be read"),
        ("auth.keys = [{ algorithm = \"HS256\", secret_file = \"none\" }]", "auth.keys: none cannot be read"),
        (
            "auth.keys = [{ algorithm = \"HS256\", secret_file = \"short\" }]",
            "short cannot be used: a secret has at least",
        ),
        ("auth.keys = [{ algorithm = \"ES256\", secret_file = \"short\" }]", "allowed is one of `public_key` and"),
        ("auth.jwks_url = \"http://a.test/\"", "auth.jwks_url is http://a.test/; allowed is a URL with https"),
        ("a = [", "t.toml: "),
    ] {
        fs::write(folder.path().join("t.toml"), text).unwrap();
        let mut command = command(folder.path(), &["config", "check", "--config", "t.toml"]);
        command.env_remove("THROUGHLINE_CERTIFICATE__DIR");
        let (code, error) = failure(command).await;
        assert!(error.contains(wanted), "{error:?} should contain {wanted:?}");
        assert_eq!(code, Some(2), "{error}");
    }
}

#[tokio::test]
async fn arguments_override_the_environment_which_overrides_the_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("t.toml"), "tcp = { listen = \"off\" }\nquic = { listen = \"off\" }\n").unwrap();
    let arguments = ["serve", "--config", "t.toml", "--json", "--tcp", "127.0.0.1:0"];
    let mut command = command(folder.path(), &arguments);
    command.env("THROUGHLINE_QUIC__LISTEN", "127.0.0.1:0").env("THROUGHLINE_TCP__LISTEN", "127.0.0.1:1");
    let running = Running::of(command).await;
    assert!(running.ready["quic"].is_string() && running.ready["tcp"].is_string());
    running.signal(Signal::TERM);
    assert_eq!(running.end().await, Some(0));
}

/// The status of an opening, and what the body says.
async fn open_a_poll(running: &Running, token: Option<&str>) -> String {
    let mut stream = TcpStream::connect(running.tcp()).await.unwrap();
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request =
        format!("GET /rt/poll HTTP/1.1\r\nhost: a\r\nthroughline-version: 1\r\n{token}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn serve_lets_nobody_in_unless_the_configuration_says_so_and_the_demo_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["serve", "--tcp=127.0.0.1:0", "--quic=off", "--json"];
    let closed = Running::start(folder.path(), &arguments).await;
    for (token, reason) in [(None, "a token is needed"), (Some("x"), "it is no token")] {
        let answer = open_a_poll(&closed, token).await;
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains(reason), "{answer}");
    }
    let mut anonymous = command(folder.path(), &arguments);
    anonymous.env("THROUGHLINE_AUTH__ANONYMOUS", "true");
    for open in [Running::of(anonymous).await, Running::start(folder.path(), &DEMO).await] {
        let answer = open_a_poll(&open, None).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let answer = open_a_poll(&open, Some("x")).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    let secret = "a secret that is as long as it has to be";
    let mut keyed = command(folder.path(), &arguments);
    keyed.env("THROUGHLINE_AUTH__KEYS", format!("[{{algorithm=\"HS256\",secret=\"{secret}\"}}]"));
    let keyed = Running::of(keyed).await;
    let claims = serde_json::json!({ "sub": "ada", "exp": 4_000_000_000_u64 });
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    assert!(open_a_poll(&keyed, Some(&token)).await.starts_with("HTTP/1.1 200 "));
    assert!(open_a_poll(&keyed, None).await.starts_with("HTTP/1.1 401 "));
}
