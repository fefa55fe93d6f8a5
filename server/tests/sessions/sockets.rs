//! What one TCP connection carries when it is had from HTTP and given back, byte by byte as a client sees it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::select;
use http::{HeaderMap, StatusCode};
use throughline::Transport;
use throughline_protocol::{Decoder, Frame, Welcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{Incoming, Place, Running, Wire, config, echo, start, welcome, within};

/// A connection of a client that speaks HTTP/1.1 by hand.
struct Connection<'a> {
    place: &'a Place,
    socket: TcpStream,
    read: BytesMut,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl<'a> Connection<'a> {
    async fn open(place: &'a Place) -> Self {
        let socket = TcpStream::connect(place.tcp.unwrap()).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { place, socket, read: BytesMut::new() }
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    fn request(&self, line: &str, headers: &[(&str, String)], body: &[u8]) -> Vec<u8> {
        let (method, route) = line.split_once(' ').unwrap();
        let mut request =
            format!("{method} {}{route} HTTP/1.1\r\nhost: {}\r\n", self.place.base, self.place.tcp.unwrap());
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if method == "POST" {
            request += &format!("content-length: {}\r\n", body.len());
        }
        [request.as_bytes(), b"\r\n", body].concat()
    }

    async fn more(&mut self) -> bool {
        within("bytes", self.socket.read_buf(&mut self.read)).await.unwrap() > 0
    }

    async fn head(&mut self) -> (StatusCode, HeaderMap) {
        let end = loop {
            match self.read.windows(4).position(|end| end == b"\r\n\r\n") {
                Some(end) => break end,
                None => assert!(self.more().await, "{:?}", self.read),
            }
        };
        let head = String::from_utf8(self.read.split_to(end + 4).to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            headers.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        (status, headers)
    }

    /// An answer whose length is known.
    async fn answer(&mut self) -> Answer {
        let (status, headers) = self.head().await;
        let len = headers.get("content-length").map_or(0, |len| len.to_str().unwrap().parse().unwrap());
        while self.read.len() < len {
            assert!(self.more().await);
        }
        Answer { status, headers, body: self.read.split_to(len).freeze() }
    }

    async fn ask(&mut self, line: &str, headers: &[(&str, String)], body: &[u8]) -> Answer {
        let request = self.request(line, headers, body);
        self.write(&request).await;
        self.answer().await
    }
}

fn version() -> [(&'static str, String); 1] {
    [("throughline-version", "1".to_owned())]
}

fn link(welcome: &Welcome) -> Vec<(&'static str, String)> {
    vec![
        ("throughline-session", welcome.session.to_string()),
        ("throughline-key", welcome.key.expose()),
        ("throughline-link", welcome.link.to_string()),
    ]
}

fn ping(id: u64) -> Bytes {
    let mut packet = BytesMut::new();
    Frame::Ping { id }.encode(&mut packet);
    packet.freeze()
}

/// Everything on one connection, in turn: GETs that are held and POSTs between them, each an answer of ordinary HTTP.
#[tokio::test]
async fn one_connection_carries_polls_and_posts() {
    let mut config = config();
    config.limits.poll_hold = Duration::from_millis(100);
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(echo)).await;
    let mut client = Connection::open(place).await;
    let first = client.ask("GET /poll", &version(), b"").await;
    assert_eq!((first.status, &first.headers["throughline-packet"]), (StatusCode::OK, &"1".parse().unwrap()));
    for name in ["date", "cache-control", "access-control-expose-headers", "content-type"] {
        assert!(first.headers.contains_key(name), "{name}: {:?}", first.headers);
    }
    let welcome = welcome(&first.body);
    let names = link(&welcome);
    for number in 2..6 {
        // Nothing is to be said: it is held, and then given back.
        assert_eq!(client.ask("GET /poll", &names, b"").await.status, StatusCode::NO_CONTENT);
        assert_eq!(client.ask("POST /send", &names, &ping(number)).await.status, StatusCode::NO_CONTENT);
        let answer = client.ask("GET /poll", &names, b"").await;
        assert_eq!(
            (answer.status, &answer.headers["throughline-packet"]),
            (StatusCode::OK, &number.to_string().parse().unwrap())
        );
    }
}

/// What is sent ahead while a GET is held waits for its turn, and nothing of it is lost.
#[tokio::test]
async fn a_post_behind_a_held_poll_waits_for_its_turn() {
    let mut config = config();
    config.limits.poll_hold = Duration::from_millis(100);
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(echo)).await;
    let mut client = Connection::open(place).await;
    let welcome = welcome(&client.ask("GET /poll", &version(), b"").await.body);
    let names = link(&welcome);
    let ahead = [
        client.request("GET /poll", &names, b""),
        client.request("POST /send", &names, &ping(1)),
        client.request("GET /poll", &names, b""),
    ];
    client.write(&ahead.concat()).await;
    assert_eq!(client.answer().await.status, StatusCode::NO_CONTENT);
    assert_eq!(client.answer().await.status, StatusCode::NO_CONTENT);
    assert_eq!(client.answer().await.status, StatusCode::OK);
}

/// A client that leaves is noticed while its GET is held: the next packet is for the next GET, and no number is missing.
#[tokio::test]
async fn a_poll_whose_client_has_left_takes_no_packet_along() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let mut client = Connection::open(place).await;
    let welcome = welcome(&client.ask("GET /poll", &version(), b"").await.body);
    let names = link(&welcome);
    let held = client.request("GET /poll", &names, b"");
    client.write(&held).await;
    drop(client);
    // The server answers the end of a connection with its own, which nobody sees. So: until a packet comes with the number that is next.
    let (mut gets, mut posts) = (Connection::open(place).await, Connection::open(place).await);
    let request = gets.request("GET /poll", &names, b"");
    gets.write(&request).await;
    assert_eq!(posts.ask("POST /send", &names, &ping(1)).await.status, StatusCode::NO_CONTENT);
    let answer = gets.answer().await;
    assert_eq!((answer.status, &answer.headers["throughline-packet"]), (StatusCode::OK, &"2".parse().unwrap()));
}

/// A packet that the socket does not take at once comes whole, and the connection goes on after it.
#[tokio::test]
async fn a_long_answer_comes_whole_and_the_connection_goes_on() {
    let application = async |session: throughline::Session| {
        session.send(vec![7; 200_000]).await.unwrap();
        session.closed().await;
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let mut client = Connection::open(place).await;
    let welcome = welcome(&client.ask("GET /poll", &version(), b"").await.body);
    let names = link(&welcome);
    assert_eq!(client.ask("POST /send", &names, &ping(1)).await.status, StatusCode::NO_CONTENT);
    let mut bytes = 0;
    while bytes < 60_000 {
        let answer = client.ask("GET /poll", &names, b"").await;
        assert_eq!(answer.status, StatusCode::OK);
        bytes += answer.body.len();
    }
}

/// An event stream says that nothing follows, is in chunks, and its session knows when the client leaves.
#[tokio::test]
async fn an_event_stream_has_its_connection_for_itself() {
    let (opened, mut sessions) = tokio::sync::mpsc::unbounded_channel();
    let application = move |session: throughline::Session| {
        opened.send(session.clone()).unwrap();
        echo(session)
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let mut events = Connection::open(place).await;
    // What is sent ahead here is never answered.
    let ahead = [events.request("GET /sse", &version(), b""), events.request("GET /info", &[], b"")].concat();
    events.write(&ahead).await;
    let (status, headers) = events.head().await;
    assert_eq!(status, StatusCode::OK);
    let header = |name: &str| headers[name].to_str().unwrap();
    assert_eq!((header("transfer-encoding"), header("connection")), ("chunked", "close"));
    assert_eq!(header("content-type"), "text/event-stream");
    while !events.read.ends_with(b"\n\n\r\n") {
        assert!(events.more().await);
    }
    let text = String::from_utf8(events.read.to_vec()).unwrap();
    let (size, event) = text.split_once("\r\n").unwrap();
    assert_eq!(usize::from_str_radix(size, 16).unwrap() + 2, event.len(), "{text}");
    let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let packet = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, data).unwrap();
    let welcome = welcome(&packet.into());
    let mut posts = Connection::open(place).await;
    assert_eq!(posts.ask("POST /send", &link(&welcome), &ping(1)).await.status, StatusCode::NO_CONTENT);
    let session = within("a session", sessions.recv()).await.unwrap();
    session.close(7, "enough");
    // CLOSE, the end of the body, the end of the connection.
    while events.more().await {}
    assert!(events.read.ends_with(b"\r\n0\r\n\r\n"), "{:?}", events.read);
}

/// Who cannot be given a connection of his own gets the same by HTTP.
#[tokio::test]
async fn old_clients_and_those_that_close_are_answered_by_http() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    for (line, close) in [("HTTP/1.0", ""), ("HTTP/1.1", "connection: close\r\n")] {
        for route in ["poll", "sse"] {
            let mut client = Connection::open(place).await;
            let base = &place.base;
            let request = format!("GET {base}/{route} {line}\r\nhost: a.test\r\n{close}throughline-version: 1\r\n\r\n");
            client.write(request.as_bytes()).await;
            let read_all = async { while client.more().await {} };
            let enough = tokio::time::sleep(Duration::from_millis(300));
            drop(select(Box::pin(read_all), Box::pin(enough)).await);
            let text = String::from_utf8_lossy(&client.read).into_owned();
            assert!(text.starts_with(line) && text.contains(" 200 OK\r\n"), "{line} {route}: {text:?}");
            assert!(route == "poll" || text.contains("\nid: 1\n") || text.contains("\r\n\r\nid: 1\n"), "{text:?}");
        }
    }
}

/// What is sent before its sender gives way leaves in one piece: sixteen small messages are not sixteen writes.
#[tokio::test]
async fn what_is_sent_in_one_go_leaves_in_one_frame() {
    const MESSAGES: u8 = 16;
    let application = async |session: throughline::Session| {
        (0..MESSAGES).for_each(|number| session.try_send(vec![number]).unwrap());
        session.closed().await;
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    for transport in [Transport::WebSocket, Transport::Sse, Transport::Poll] {
        let mut wire = Wire::connect(place, transport).await;
        wire.send_frames(&[Frame::Ping { id: 1 }]).await;
        let (mut decoder, mut data) = (Decoder::new(), None);
        while data.is_none() {
            let Incoming::Bytes(bytes) = wire.next().await else { panic!("{transport}") };
            decoder.push(bytes);
            while let Some(frame) = decoder.next_frame().unwrap() {
                if let Frame::Stream { data: bytes, .. } = frame {
                    data = Some(bytes);
                }
            }
        }
        // Each is its kind, its length and one byte.
        assert_eq!(data.unwrap().len(), 3 * usize::from(MESSAGES), "{transport}");
    }
}
