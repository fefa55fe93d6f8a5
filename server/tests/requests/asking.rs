//! The application asks, and the client answers.

use std::time::Duration;

use throughline::{Message, RequestCode, RequestError, Transport};
use throughline_protocol::{Code, RequestMessage};

use crate::client::Peer;
use crate::common::{config, within};
use crate::{Driven, on_every_transport, request};

on_every_transport! {
    an_answer_comes_with_its_parts,
    a_request_that_is_not_waited_for_is_cancelled,
    requests_go_on_when_the_session_moves,
}

const WS: Transport = Transport::WebSocket;

/// The number of the request that the server makes next.
async fn asked(peer: &Peer, method: &str) -> u64 {
    match peer.next().await {
        RequestMessage::Request { id, method: name, .. } if name == method => id,
        other => panic!("{other:?} instead of the request {method}"),
    }
}

fn answer(id: u64, data: impl Into<Option<Message>>) -> RequestMessage {
    RequestMessage::Answer { id, data: data.into() }
}

async fn an_answer_comes_with_its_parts(transport: Transport) {
    let mut driven = Driven::start().await;
    let peer = Peer::connect(&driven.running.place, transport).await;
    let session = driven.session().await;
    let mut first = session.request("first", Message::from("x"));
    let second = session.request("second", None);
    let expected = RequestMessage::Request { id: 1, method: "first".into(), data: Some(Message::from("x")) };
    assert_eq!(peer.next().await, expected);
    let id = asked(&peer, "second").await;
    peer.say(&RequestMessage::error(id, 4711, "no"));
    peer.say(&RequestMessage::Chunk { id: 1, data: Message::from("one") });
    peer.say(&RequestMessage::Chunk { id: 1, data: Message::from(vec![2; 50_000]) });
    peer.say(&answer(1, Message::from("three")));
    peer.say(&RequestMessage::Chunk { id: 1, data: Message::from("after the end: ignored") });
    let failed = RequestError::Failed { code: 4711, reason: "no".into() };
    assert_eq!(within("the second answer", second).await, Err(failed));
    assert_eq!(within("a part", first.next_chunk()).await, Some(Message::from("one")));
    assert_eq!(within("a part", first.next_chunk()).await, Some(Message::from(vec![2; 50_000])));
    assert_eq!(within("no part", first.next_chunk()).await, None);
    assert_eq!(within("the first answer", first).await, Ok(Some(Message::from("three"))));
}

async fn a_request_that_is_not_waited_for_is_cancelled(transport: Transport) {
    let mut driven = Driven::start().await;
    let peer = Peer::connect(&driven.running.place, transport).await;
    let session = driven.session().await;
    let slow = tokio::time::timeout(Duration::from_millis(20), session.request("slow", None));
    assert!(slow.await.is_err());
    let id = asked(&peer, "slow").await;
    assert_eq!(peer.next().await, RequestMessage::Cancel { id });
    // What was under way then does no harm.
    peer.say(&RequestMessage::Chunk { id, data: Message::from("late") });
    peer.say(&RequestMessage::error(id, RequestCode::Cancelled as u32, ""));
    let next = session.request("next", None);
    let id = asked(&peer, "next").await;
    peer.say(&answer(id, None));
    assert_eq!(within("an answer", next).await, Ok(None));
}

async fn requests_go_on_when_the_session_moves(transport: Transport) {
    let mut driven = Driven::start().await;
    let place = driven.running.place.clone();
    let peer = Peer::connect(&place, transport).await;
    let session = driven.session().await;
    let asking = session.request("before", None);
    let id = asked(&peer, "before").await;
    peer.cut().await;
    peer.say(&answer(id, Message::from("after")));
    let unsent = session.request("unsent", None);
    peer.move_to(&place, Transport::WebSocket).await;
    assert_eq!(within("an answer", asking).await, Ok(Some(Message::from("after"))));
    let id = asked(&peer, "unsent").await;
    peer.say(&answer(id, None));
    assert_eq!(within("an answer", unsent).await, Ok(None));
}

#[tokio::test]
async fn chunks_have_credit_as_they_are_taken() {
    let mut driven = Driven::start().await;
    let peer = Peer::connect(&driven.running.place, WS).await;
    let session = driven.session().await;
    let mut asking = session.request("all", None);
    let id = asked(&peer, "all").await;
    let chunk = || RequestMessage::Chunk { id, data: Message::from(vec![7; 16_384]) };
    // The last of them reaches the limit.
    (0..4).for_each(|_| peer.say(&chunk()));
    assert!(within("a part", asking.next_chunk()).await.is_some());
    assert_eq!(peer.next().await, RequestMessage::More { id, limit: 65_536 + 16_384 });
    peer.say(&chunk());
    peer.say(&chunk());
    assert_eq!(peer.closed().await.code, Code::FlowControl as u32, "the second one begins at the limit");
    while asking.next_chunk().await.is_some() {}
    assert!(matches!(asking.await, Err(RequestError::Closed(close)) if close.code == Code::FlowControl as u32));
}

#[tokio::test]
async fn parts_that_nobody_takes_do_not_hold_up_the_session() {
    let mut config = config();
    config.limits.receive_window_bytes = 65_536;
    let mut driven = Driven::with(config).await;
    let peer = Peer::connect(&driven.running.place, WS).await;
    let session = driven.session().await;
    // Far more than the window: each of them has 64 KiB of its own.
    let answers: Vec<_> = (0..10).map(|_| session.request("all", None)).collect();
    for _ in 0..10 {
        let id = asked(&peer, "all").await;
        (0..6).for_each(|_| peer.say(&RequestMessage::Chunk { id, data: Message::from(vec![7; 10_000]) }));
        peer.say(&answer(id, Message::from(vec![8; 100_000])));
    }
    let id = peer.ask("still there?", None);
    request(&session).await.respond(None);
    assert_eq!(peer.next().await, answer(id, None));
    for answer in answers {
        assert_eq!(within("an answer", answer).await, Ok(Some(Message::from(vec![8; 100_000]))));
    }
}

#[tokio::test]
async fn a_hundred_requests_are_under_way_and_no_more() {
    let mut driven = Driven::start().await;
    let peer = Peer::connect(&driven.running.place, WS).await;
    let session = driven.session().await;
    let mut held: Vec<_> = (0..100).map(|_| session.request("hold", None)).collect();
    assert_eq!(session.request("one more", None).await, Err(RequestError::TooMany));
    for _ in 0..100 {
        asked(&peer, "hold").await;
    }
    // One that was given up has its place until the client has answered.
    drop(held.pop());
    assert_eq!(peer.next().await, RequestMessage::Cancel { id: 100 });
    assert_eq!(session.request("one more", None).await, Err(RequestError::TooMany));
    peer.say(&RequestMessage::error(100, RequestCode::Cancelled as u32, ""));
    peer.say(&answer(99, None));
    assert_eq!(within("an answer", held.pop().unwrap()).await, Ok(None));
    let (_one, _two) = (session.request("two more", None), session.request("two more", None));
    asked(&peer, "two more").await;
    assert_eq!(asked(&peer, "two more").await, 102, "what was not sent has no number");
}

#[tokio::test]
async fn a_request_waits_for_room_and_not_for_ever() {
    let mut config = config();
    config.limits.session_buffer_bytes = 16_384;
    let mut driven = Driven::with(config).await;
    let peer = Peer::connect(&driven.running.place, WS).await;
    let session = driven.session().await;
    peer.pause();
    session.try_send(vec![7; 16_384]).unwrap();
    let waiting = tokio::spawn(session.request("waiting", None));
    let given_up = session.request("given up", None);
    drop(given_up); // it was never sent, and nothing is said of it
    peer.resume();
    let id = asked(&peer, "waiting").await;
    peer.say(&answer(id, None));
    assert_eq!(within("an answer", waiting).await.unwrap(), Ok(None));
}

#[tokio::test]
async fn what_cannot_be_asked_fails_at_once() {
    let mut config = config();
    config.limits.max_message_bytes = 10_000;
    let mut driven = Driven::with(config).await;
    let peer = Peer::connect(&driven.running.place, WS).await;
    let session = driven.session().await;
    let most = "m".repeat(255);
    assert_eq!(session.request("", None).await, Err(RequestError::BadMethod));
    assert_eq!(session.request(&format!("{most}m"), None).await, Err(RequestError::BadMethod));
    let too_large = Err(RequestError::TooLarge { len: 10_001, max: 10_000 });
    assert_eq!(session.request("a", Message::from(vec![7; 10_001])).await, too_large);
    let largest = session.request(&most, Message::from(vec![7; 10_000]));
    let id = asked(&peer, &most).await;
    peer.say(&answer(id, Message::from(vec![7; 10_000])));
    assert_eq!(within("an answer", largest).await, Ok(Some(Message::from(vec![7; 10_000]))));
}

#[tokio::test]
async fn the_end_of_the_session_ends_its_requests() {
    let mut driven = Driven::start().await;
    let peer = Peer::connect(&driven.running.place, WS).await;
    let session = driven.session().await;
    let (answered, under_way) = (session.request("answered", None), session.request("under way", None));
    let id = asked(&peer, "answered").await;
    peer.say(&answer(id, Message::from("in time")));
    peer.close(7, "bye");
    assert_eq!(within("an answer", answered).await, Ok(Some(Message::from("in time"))));
    assert!(matches!(within("the end", under_way).await, Err(RequestError::Closed(close)) if close.code == 7));
    assert!(matches!(session.request("late", None).await, Err(RequestError::Closed(close)) if close.code == 7));
}

#[tokio::test]
async fn an_answer_to_what_was_not_asked_ends_the_session() {
    let mut driven = Driven::start().await;
    for said in [answer(2, None), RequestMessage::error(2, 0, ""), RequestMessage::Chunk { id: 2, data: "x".into() }] {
        let peer = Peer::connect(&driven.running.place, WS).await;
        let asking = driven.session().await.request("x", None);
        asked(&peer, "x").await;
        peer.say(&said);
        let code = Code::ProtocolViolation as u32;
        assert_eq!(peer.closed().await.code, code, "{said:?}");
        assert!(matches!(within("the end", asking).await, Err(RequestError::Closed(close)) if close.code == code));
    }
}
