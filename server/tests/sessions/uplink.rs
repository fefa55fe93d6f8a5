//! The requests that sse and poll are made of, asked for by hand (SPEC sections 7.4 and 7.5).

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use throughline::Transport;
use throughline_protocol::{Close, Code, Frame, Welcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::requests::{self, ask, headers, link_headers};
use crate::common::{Client, Outgoing, Place, Running, TRANSPORTS, Wire, config, echo, encode, start, within};

const UPLINKS: [Transport; 2] = [Transport::Sse, Transport::Poll];

fn ping() -> Bytes {
    encode(&[Frame::Ping { id: 1 }])
}

/// The names of a link, one of them changed.
fn changed(welcome: &Welcome, name: &'static str, value: &str) -> HeaderMap {
    let mut headers = link_headers(welcome);
    headers.insert(name, value.parse().expect("a value"));
    headers
}

#[tokio::test]
async fn a_post_that_breaks_the_protocol_is_answered_400_with_the_code() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    for transport in UPLINKS {
        let mut wire = Wire::connect(place, transport).await;
        let answer = ask("POST", &place.url("/send"), link_headers(&wire.welcome), &[0x3f, 0x00][..]).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.code(), Code::UnknownFrame as u64);
        assert_eq!(answer.field("name"), "UNKNOWN_FRAME");
        assert_eq!(answer.field("retry"), false);
        assert!(answer.field("reason").as_str().is_some_and(|reason| reason.contains("0x3f")));
        assert_eq!(wire.next_close().await.0, Code::UnknownFrame as u32);
    }
}

#[tokio::test]
async fn a_body_over_1_mib_is_answered_413_and_the_session_goes_on() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    for transport in UPLINKS {
        let wire = Wire::connect(place, transport).await;
        let names = link_headers(&wire.welcome);
        let answer = ask("POST", &place.url("/send"), names.clone(), vec![0; (1 << 20) + 1]).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(answer.code(), Code::FrameTooLarge as u64);
        let answer = ask("POST", &place.url("/send"), names, ping()).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
    }
}

/// It is at most that long: what a client may send in one go is taken.
#[tokio::test]
async fn a_body_of_1_mib_is_taken() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    for transport in UPLINKS {
        let wire = Wire::connect(place, transport).await;
        let pings = [0x06, 0x02, 0x40, 0x01].repeat(1 << 18);
        let answer = ask("POST", &place.url("/send"), link_headers(&wire.welcome), pings).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{:?}", answer.body);
    }
}

#[tokio::test]
async fn what_names_no_link_is_answered_410() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let other = "AAECAwQFBgcICQoLDA0ODw";
    for transport in UPLINKS {
        let wire = Wire::connect(place, transport).await;
        for names in [
            changed(&wire.welcome, "throughline-session", other),
            changed(&wire.welcome, "throughline-key", other),
            changed(&wire.welcome, "throughline-link", "2"),
        ] {
            gone("POST", place, "/send", names.clone()).await;
            gone("GET", place, "/poll", names).await;
        }
        // The owner does not notice.
        let answer = ask("POST", &place.url("/send"), link_headers(&wire.welcome), ping()).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn a_session_takes_only_the_requests_of_its_own_transport() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    for transport in TRANSPORTS {
        let wire = Wire::connect(place, transport).await;
        wire.send_frames(&[Frame::Ping { id: 1 }]).await;
        if !UPLINKS.contains(&transport) {
            gone("POST", place, "/send", link_headers(&wire.welcome)).await;
        }
        if transport != Transport::Poll {
            gone("GET", place, "/poll", link_headers(&wire.welcome)).await;
        }
    }
}

#[tokio::test]
async fn a_post_that_crosses_close_is_ignored_and_a_later_one_answered_410() {
    // The first message ends the session.
    let close = |session: throughline::Session| async move {
        session.recv().await;
        session.close(7, "enough");
        session.closed().await;
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(close)).await;
    let mut ended = Vec::new();
    for transport in UPLINKS {
        let client = Client::connect(place, transport).await;
        client.send("enough?").await.expect("it is open");
        client.closed().await;
        client.end().await;
        let names = link_headers(&client.welcome);
        // What crosses the end is no mistake.
        let posted = ask("POST", &place.url("/send"), names.clone(), ping()).await;
        assert_eq!(posted.status, StatusCode::NO_CONTENT, "{transport}");
        ended.push(names);
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    for names in ended {
        while ask("POST", &place.url("/send"), names.clone(), ping()).await.status != StatusCode::GONE {
            assert!(Instant::now() < deadline, "it is still there");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        gone("POST", place, "/send", names.clone()).await;
        gone("GET", place, "/poll", names).await;
    }
}

#[tokio::test]
async fn after_its_own_close_a_client_is_answered_410_at_once() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    for transport in UPLINKS {
        let client = Client::connect(place, transport).await;
        client.close(7, "enough");
        client.closed().await;
        client.end().await;
        gone("POST", place, "/send", link_headers(&client.welcome)).await;
    }
}

async fn gone(method: &str, place: &Place, route: &str, names: HeaderMap) {
    let answer = ask(method, &place.url(route), names, ping()).await;
    assert_eq!(answer.status, StatusCode::GONE, "{method} {route}");
    assert_eq!(answer.code(), Code::UnknownSession as u64);
    assert_eq!(answer.field("retry"), true);
}

#[tokio::test]
async fn what_does_not_say_which_link_it_means_is_answered_400() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let wire = Wire::connect(place, Transport::Poll).await;
    let all = link_headers(&wire.welcome);
    for missing in ["throughline-session", "throughline-key", "throughline-link"] {
        let mut names = all.clone();
        names.remove(missing);
        let answer = ask("POST", &place.url("/send"), names, ping()).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, Code::BadRequest as u64), "{missing}");
    }
    for (name, value) in [("throughline-link", "x"), ("throughline-key", "short"), ("throughline-session", "")] {
        for (method, route) in [("POST", "/send"), ("GET", "/poll")] {
            let answer = ask(method, &place.url(route), changed(&wire.welcome, name, value), ping()).await;
            assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, Code::BadRequest as u64), "{name}");
        }
    }
}

#[tokio::test]
async fn a_second_poll_takes_the_place_of_the_first() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let url = place.url("/poll");
    let first = ask("GET", &url, headers(&[("throughline-version", "1")]), Bytes::new()).await;
    let welcome = crate::common::welcome(&first.body);
    let poll = || {
        let (url, names) = (url.clone(), link_headers(&welcome));
        tokio::spawn(async move { ask("GET", &url, names, Bytes::new()).await })
    };
    // Nothing is to be sent before the client's first frame: polls wait.
    let mut held = poll();
    for _ in 0..3 {
        // Whichever of two comes first is answered 204; the other is held.
        let next = poll();
        let (answer, rest) = match within("an answer", futures_util::future::select(held, next)).await {
            futures_util::future::Either::Left((answer, rest)) => (answer, rest),
            futures_util::future::Either::Right((answer, rest)) => (answer, rest),
        };
        assert_eq!(answer.unwrap().status, StatusCode::NO_CONTENT);
        held = rest;
    }
    let answer = ask("POST", &place.url("/send"), link_headers(&welcome), ping()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let answer = within("the PONG", held).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn a_poll_is_answered_204_after_poll_hold() {
    let mut config = config();
    config.limits.poll_hold = Duration::from_millis(200);
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(echo)).await;
    let wire = ask("GET", &place.url("/poll"), headers(&[("throughline-version", "1")]), Bytes::new()).await;
    let welcome = crate::common::welcome(&wire.body);
    let started = std::time::Instant::now();
    let answer = ask("GET", &place.url("/poll"), link_headers(&welcome), Bytes::new()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(answer.headers["cache-control"], "no-store, no-transform");
}

/// SPEC section 7.4: the newest state in each answer.
#[tokio::test]
async fn a_poll_is_answered_with_the_newest_datagram() {
    let application = |session: throughline::Session| async move {
        for number in 0..100_u8 {
            session.send_datagram(vec![number], 0).unwrap();
        }
        session.closed().await;
    };
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(application)).await;
    let first = ask("GET", &place.url("/poll"), headers(&[("throughline-version", "1")]), Bytes::new()).await;
    let welcome = crate::common::welcome(&first.body);
    ask("POST", &place.url("/send"), link_headers(&welcome), ping()).await;
    assert_eq!(first.headers["throughline-packet"], "1");
    let mut datagrams = Vec::new();
    for number in 2.. {
        if datagrams.last() == Some(&99) {
            break;
        }
        let answer = ask("GET", &place.url("/poll"), link_headers(&welcome), Bytes::new()).await;
        // So that a client notices an answer that is missing.
        assert_eq!(answer.headers["throughline-packet"], number.to_string().as_str());
        let mut decoder = throughline_protocol::Decoder::new();
        decoder.push(answer.body);
        while let Some(frame) = decoder.next_frame().unwrap() {
            if let Frame::Datagram(bytes) = frame {
                datagrams.push(bytes[0]);
            }
        }
    }
    // One that was on its way while the others came, and the newest.
    assert!(datagrams.len() <= 3, "{datagrams:?}");
}

/// The same POST twice, as after a connection that broke before its answer: harmless (SPEC section 7.5).
#[tokio::test]
async fn a_post_that_is_sent_again_is_taken_once() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let mut wire = Wire::connect(place, Transport::Sse).await;
    let hello = encode(&[Frame::Stream { stream: 0, offset: 0, data: Bytes::from_static(&[1, 2, b'h', b'i']) }]);
    for _ in 0..3 {
        let answer = ask("POST", &place.url("/send"), link_headers(&wire.welcome), hello.clone()).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
    }
    wire.send(Outgoing::Packet(encode(&[Frame::Stream {
        stream: 0,
        offset: 4,
        data: Bytes::from_static(&[1, 3, b'e', b'n', b'd']),
    }])))
    .await;
    let mut echoed = Vec::new();
    let mut decoder = throughline_protocol::Decoder::new();
    within("the echo", async {
        while !echoed.ends_with(b"end") {
            let crate::common::Incoming::Bytes(bytes) = wire.next().await else { panic!("the session ended") };
            decoder.push(bytes);
            while let Some(frame) = decoder.next_frame().unwrap() {
                if let Frame::Stream { data, .. } = frame {
                    echoed.extend_from_slice(&data);
                }
            }
        }
    })
    .await;
    assert_eq!(echoed, [&[1, 2][..], b"hi", &[1, 3], b"end"].concat());
}

/// An upload that hangs would hold a connection of its browser, and its session's POSTs, for ever.
#[tokio::test]
async fn a_post_whose_body_does_not_arrive_is_given_up() {
    let mut config = config();
    config.limits.idle_timeout = Duration::from_secs(1);
    config.limits.heartbeat_interval = Duration::from_millis(500);
    config.limits.poll_hold = Duration::from_millis(500);
    let Running { server: _server, place, .. } = &start(config, |builder| builder.on_session(echo)).await;
    let client = Client::connect(place, Transport::Sse).await;
    let mut connection = TcpStream::connect(place.tcp.unwrap()).await.unwrap();
    let mut request = "POST /rt/send HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n".to_owned();
    for (name, value) in &link_headers(&client.welcome) {
        request += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    connection.write_all(format!("{request}\r\nten bytes.").as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    within("an answer", connection.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    client.send("and the session goes on").await.unwrap();
    client.message().await;
}

/// CLOSE in a POST is an end, not a mistake.
#[tokio::test]
async fn a_close_by_post_is_answered_204_and_the_held_poll_too() {
    let Running { server: _server, place, .. } = &start(config(), |builder| builder.on_session(echo)).await;
    let pool = requests::pool();
    let first = ask("GET", &place.url("/poll"), headers(&[("throughline-version", "1")]), Bytes::new()).await;
    let welcome = crate::common::welcome(&first.body);
    let close = encode(&[Frame::Ping { id: 1 }, Frame::Close(Close::application(7, "bye"))]);
    let url = place.url("/poll");
    let held = requests::send(&pool, "GET", &url, link_headers(&welcome), Bytes::new());
    let send = place.url("/send");
    let (held, posted) = tokio::join!(held, ask("POST", &send, link_headers(&welcome), close));
    assert_eq!(posted.status, StatusCode::NO_CONTENT);
    // It came before the CLOSE, or after it.
    assert!(matches!(held.unwrap().status(), StatusCode::NO_CONTENT | StatusCode::GONE));
}
