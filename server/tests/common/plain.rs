//! Plain requests over each version of HTTP, and what an `EventSource` makes of the answer.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::common::webtransport::client_config;
use crate::common::{Place, within};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
    Http3,
}

pub(crate) const VERSIONS: [Version; 3] = [Version::Http1, Version::Http2, Version::Http3];

/// An answer, whose body comes piece by piece.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// One piece deep, so that who does not read is a slow reader.
    body: mpsc::Receiver<Result<Bytes, String>>,
    /// Ends the connection when it is dropped.
    _tasks: JoinSet<()>,
}

pub(crate) async fn get(place: &Place, version: Version, path: &str) -> Answer {
    ask(place, version, "GET", path, HeaderMap::new(), "").await
}

/// One request on a connection of its own.
pub(crate) async fn ask(
    place: &Place,
    version: Version,
    method: &str,
    path: &str,
    headers: HeaderMap,
    body: impl Into<Bytes>,
) -> Answer {
    let authority = match version {
        Version::Http3 => place.quic.expect("it listens on QUIC"),
        _ => place.tcp.expect("it listens on TCP"),
    };
    let scheme = if version == Version::Http3 { "https" } else { "http" };
    let mut request = Request::builder().method(method).uri(format!("{scheme}://{authority}{path}"));
    request.headers_mut().expect("nothing is wrong so far").extend(headers);
    let answered = async {
        match version {
            Version::Http3 => over_quic(place, request.body(()).expect("a request"), body.into()).await,
            _ => over_tcp(version, request.body(Full::new(body.into())).expect("a request")).await,
        }
    };
    within("an answer", answered).await
}

async fn over_tcp(version: Version, request: Request<Full<Bytes>>) -> Answer {
    let client = Client::builder(TokioExecutor::new()).http2_only(version == Version::Http2).build_http();
    let (parts, mut body) = client.request(request).await.expect("an answer").into_parts();
    let (sender, receiver) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _client = client;
        while let Some(frame) = body.frame().await {
            let piece = frame.map(|frame| frame.into_data().unwrap_or_default()).map_err(|error| error.to_string());
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    Answer { status: parts.status, headers: parts.headers, body: receiver, _tasks: tasks }
}

async fn over_quic(place: &Place, request: Request<()>, body: Bytes) -> Answer {
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a UDP socket");
    let address = place.quic.expect("it listens on QUIC");
    let connecting = endpoint.connect_with(client_config(place), address, "localhost").expect("a valid configuration");
    let connection = h3_quinn::Connection::new(connecting.await.expect("QUIC connects"));
    let (mut driver, mut requests) = h3::client::new(connection).await.expect("HTTP/3 is set up");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        drop(std::future::poll_fn(|context| driver.poll_close(context)).await);
    });
    let mut stream = requests.send_request(request).await.expect("the request is sent");
    // A server that has heard enough may stop the request and answer it (RFC 9114, section 4.1).
    if body.is_empty() || stream.send_data(body).await.is_ok() {
        drop(stream.finish().await);
    }
    let (parts, ()) = stream.recv_response().await.expect("an answer").into_parts();
    let (sender, receiver) = mpsc::channel(1);
    tasks.spawn(async move {
        let _kept = (requests, endpoint);
        loop {
            let piece = match stream.recv_data().await {
                Ok(Some(mut data)) => Ok(data.copy_to_bytes(data.remaining())),
                Ok(None) => return,
                Err(error) => Err(error.to_string()),
            };
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    Answer { status: parts.status, headers: parts.headers, body: receiver, _tasks: tasks }
}

impl Answer {
    /// The whole body.
    pub(crate) async fn text(mut self) -> String {
        let mut text = Vec::new();
        while let Some(piece) = within("a body", self.body.recv()).await {
            text.extend_from_slice(&piece.expect("the body comes whole"));
        }
        String::from_utf8(text).expect("UTF-8")
    }

    /// The whole body, which is JSON.
    pub(crate) async fn json(self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The body as a stream of events.
    pub(crate) fn events(self) -> Events {
        assert_eq!((self.status, self.headers["content-type"].as_bytes()), (StatusCode::OK, &b"text/event-stream"[..]));
        Events {
            answer: self,
            text: String::new(),
            lines: VecDeque::new(),
            last_id: String::new(),
            retry: None,
            comments: 0,
        }
    }
}

/// What an `EventSource` makes of a stream (HTML Living Standard, section 9.2.6).
pub(crate) struct Events {
    answer: Answer,
    text: String,
    lines: VecDeque<String>,
    pub(crate) last_id: String,
    pub(crate) retry: Option<u64>,
    pub(crate) comments: usize,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) kind: String,
    pub(crate) data: String,
    pub(crate) id: String,
}

impl Events {
    /// The next event; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        let (mut kind, mut data, mut id) = (String::new(), String::new(), self.last_id.clone());
        loop {
            let line = within("an event", self.line()).await?;
            if line.is_empty() {
                self.last_id.clone_from(&id);
                if data.is_empty() {
                    kind.clear();
                    continue;
                }
                data.pop();
                let kind = if kind.is_empty() { "message".to_owned() } else { kind };
                return Some(Said { kind, data, id });
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => self.comments += 1,
                "event" => value.clone_into(&mut kind),
                "data" => data.extend([value, "\n"]),
                "id" if !value.contains('\0') => value.clone_into(&mut id),
                "retry" => self.retry = value.parse().ok(),
                _ => panic!("{line:?} in a stream of events"),
            }
        }
    }

    /// The data of the next event, of this kind.
    pub(crate) async fn data(&mut self, kind: &str) -> String {
        let said = self.next().await.expect("a further event");
        assert_eq!(said.kind, kind, "{said:?}");
        said.data
    }

    /// Reads until a position is known.
    pub(crate) async fn begun(&mut self) -> String {
        while self.last_id.is_empty() {
            let line = within("the beginning", self.line()).await.expect("a beginning");
            if let Some(id) = line.strip_prefix("id: ") {
                id.clone_into(&mut self.last_id);
            } else if let Some(retry) = line.strip_prefix("retry: ") {
                self.retry = retry.parse().ok();
            }
        }
        self.last_id.clone()
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            let piece = self.answer.body.recv().await?.ok()?;
            // Nothing here is cut inside a character: each event is a piece of its own.
            self.text.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
            // Any of the three ends a line.
            while let Some(end) = self.text.find(['\r', '\n']) {
                let width = if self.text[end..].starts_with("\r\n") { 2 } else { 1 };
                let rest = self.text.split_off(end + width);
                let mut line = std::mem::replace(&mut self.text, rest);
                line.truncate(end);
                self.lines.push_back(line);
            }
        }
    }
}
