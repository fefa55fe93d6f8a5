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
        let mut child = command(folder, arguments).spawn().unwrap();
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
