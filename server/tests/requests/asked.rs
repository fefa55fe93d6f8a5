//! A client asks, and the application answers.

use throughline::{ChunkError, Event, Message, RequestCode, Transport};
use throughline_protocol::{Code, RequestMessage};

use crate::client::Peer;
use crate::common::{config, within};
use crate::{Driven, on_every_transport, request};

on_every_transport! {
    a_request_is_answered,
    chunks_beyond_the_credit_wait,
    a_cancelled_request_is_answered_at_once_and_its_application_told,
    requests_go_on_when_the_session_moves,
}

const WS: Transport = Transport::WebSocket;

fn answer(id: u64, data: impl Into<Option<Message>>) -> RequestMessage {
    RequestMessage::Answer { id, data: data.into() }
}

fn error(id: u64, code: RequestCode, reason: &str) -> RequestMessage {
    RequestMessage::error(id, code as u32, reason)
}

async fn a_request_is_answered(transport: Transport) {
    let mut driven = Driven::start().await;
    let peer = Peer::connect(&driven.running.place, transport).await;
    let session = driven.session().await;
    for data in [None, Some(Message::from("")), Some(Message::from("späť")), Some(Message::from(vec![7; 100_000]))] {
        let id = peer.ask("echo", data.clone());
        let request = request(&session).await;
        assert_eq!((request.method(), request.data()), ("echo", data.as_ref()));
        assert_eq!(request.session().id(), session.id());
        request.respond(data.clone());
        assert_eq!(peer.next().await, answer(id, data));
    }
    // In whatever order, and from whatever task.
    let (first, second) = (peer.ask("a", None), peer.ask("b", None));
    let (a, b) = (request(&session).await, request(&session).await);
    tokio::spawn(async move { b.fail(100, "not today") });
    assert_eq!(peer.next().await, RequestMessage::error(second, 100, "not today"));
    a.respond(Message::from("a"));
    assert_eq!(peer.next().await, answer(first, Message::from("a")));
}

async fn chunks_beyond_the_credit_wait(transport: Transport) {
    let mut driven = Driven::start().await;
    let peer = Peer::connect(&driven.running.place, transport).await;
    let session = driven.session().await;
    let id = peer.ask("all", None);
    let asked = request(&session).await;
    let chunk = |index: u8| Message::from(vec![index; 10_000]);
    // The last of them begins below 65,536.
    for index in 0..7 {
        asked.chunk(chunk(index)).await.unwrap();
    }
    let mut next = Box::pin(asked.chunk(chunk(7)));
    for index in 0..7 {
        assert_eq!(peer.next().await, RequestMessage::Chunk { id, data: chunk(index) });
    }
    // The client has all of them, and says nothing: another one does not go, though others do.
    let other = peer.ask("other", None);
    request(&session).await.respond(None);
    assert_eq!(peer.next().await, answer(other, None));
    assert!(futures_util::poll!(&mut next).is_pending());
    // As much as was sent is no more, and a lower limit than before is none.
    for limit in [70_000, 10] {
        peer.say(&RequestMessage::More { id, limit });
        let other = peer.ask("other", None);
        request(&session).await.respond(None);
        assert_eq!(peer.next().await, answer(other, None));
        assert!(futures_util::poll!(&mut next).is_pending());
    }
    peer.say(&RequestMessage::More { id, limit: 70_001 });
    within("credit", next).await.unwrap();
    assert_eq!(peer.next().await, RequestMessage::Chunk { id, data: chunk(7) });
    asked.respond(Message::from("that was all"));
    assert_eq!(peer.next().await, answer(id, Message::from("that was all")));
}

async fn a_cancelled_request_is_answered_at_once_and_its_application_told(transport: Transport) {
    let mut driven = Driven::start().await;
    let peer = Peer::connect(&driven.running.place, transport).await;
    let session = driven.session().await;
    let id = peer.ask("slow", None);
    let slow = request(&session).await;
    while slow.chunk(vec![7; 10_000]).await.is_ok() {
        if let RequestMessage::Chunk { .. } = peer.next().await {
            peer.say(&RequestMessage::Cancel { id });
            break;
        }
    }
    within("the cancelling", slow.cancelled()).await;
    assert_eq!(peer.next().await, error(id, RequestCode::Cancelled, "it was cancelled"));
    assert_eq!(slow.chunk("more").await, Err(ChunkError::Cancelled));
    slow.respond(Message::from("too late"));
    // What is said of a request that has ended is ignored, in both directions.
    peer.say(&RequestMessage::Cancel { id });
    peer.say(&RequestMessage::More { id, limit: 1 << 20 });
    let id = peer.ask("quick", None);
    request(&session).await.respond(None);
    assert_eq!(peer.next().await, answer(id, None));
}

async fn requests_go_on_when_the_session_moves(transport: Transport) {
    let mut driven = Driven::start().await;
    let place = driven.running.place.clone();
    let peer = Peer::connect(&place, transport).await;
    let session = driven.session().await;
    let id = peer.ask("slow", Message::from("x"));
    let slow = request(&session).await;
    peer.cut().await;
    slow.chunk("one").await.unwrap();
    let (unsent, sent) = (peer.ask("unsent", None), slow.data().cloned());
    peer.move_to(&place, Transport::WebSocket).await;
    assert_eq!(peer.next().await, RequestMessage::Chunk { id, data: Message::from("one") });
    slow.respond(sent);
    assert_eq!(peer.next().await, answer(id, Message::from("x")));
    request(&session).await.respond(None);
    assert_eq!(peer.next().await, answer(unsent, None));
}

#[tokio::test]
async fn a_request_that_is_dropped_fails() {
    let mut driven = Driven::start().await;
    let peer = Peer::connect(&driven.running.place, WS).await;
    let session = driven.session().await;
    let id = peer.ask("nobody knows it", None);
    assert_eq!(request(&session).await.method(), "nobody knows it");
    assert_eq!(peer.next().await, error(id, RequestCode::UnknownMethod, "nobody there answers it"));
    let id = peer.ask("somebody has begun", None);
    assert_eq!(request(&session).await.data(), None);
    assert_eq!(peer.next().await, error(id, RequestCode::Failed, "it was not answered"));
}

#[tokio::test]
async fn requests_and_messages_are_received_in_their_order() {
    let mut driven = Driven::start().await;
    let peer = Peer::connect(&driven.running.place, WS).await;
    let session = driven.session().await;
    for round in 0..3 {
        peer.ask(&format!("{round}"), None);
        peer.send(format!("after {round}")).await.unwrap();
    }
    for round in 0..3 {
        assert_eq!(request(&session).await.method(), format!("{round}"));
        let event = within("a message", session.recv()).await;
        assert!(matches!(&event, Some(Event::Message(message)) if *message == Message::from(format!("after {round}"))));
    }
}

#[tokio::test]
async fn a_hundred_requests_are_under_way_and_no_more() {
    let mut driven = Driven::start().await;
    let peer = Peer::connect(&driven.running.place, WS).await;
    let session = driven.session().await;
    let ids: Vec<u64> = (0..101).map(|_| peer.ask("hold", None)).collect();
    let reason = "100 requests are under way in this session";
    // Though the application has received none of them.
    assert_eq!(peer.next().await, error(ids[100], RequestCode::TooMany, reason));
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(request(&session).await);
    }
    held.remove(50).respond(None);
    assert_eq!(peer.next().await, answer(ids[50], None));
    let id = peer.ask("again", None);
    let again = request(&session).await;
    assert_eq!(again.method(), "again");
    again.respond(None);
    assert_eq!(peer.next().await, answer(id, None));
}

#[tokio::test]
async fn a_request_that_was_cancelled_before_it_was_received_is_not() {
    let mut driven = Driven::start().await;
    let peer = Peer::connect(&driven.running.place, WS).await;
    let session = driven.session().await;
    let (first, second) = (peer.ask("first", None), peer.ask("second", None));
    peer.say(&RequestMessage::Cancel { id: first });
    assert_eq!(peer.next().await, error(first, RequestCode::Cancelled, "it was cancelled"));
    let asked = request(&session).await;
    assert_eq!(asked.method(), "second");
    asked.respond(None);
    assert_eq!(peer.next().await, answer(second, None));
}

#[tokio::test]
async fn answers_are_as_long_as_messages_may_be() {
    let mut config = config();
    config.limits.max_message_bytes = 10_000;
    let mut driven = Driven::with(config).await;
    let peer = Peer::connect(&driven.running.place, WS).await;
    let session = driven.session().await;
    let (most, more) = (Message::from(vec![7; 10_000]), Message::from(vec![7; 10_001]));
    let id = peer.ask("long", most.clone());
    let asked = request(&session).await;
    assert_eq!(asked.chunk(more.clone()).await, Err(ChunkError::TooLarge { len: 10_001, max: 10_000 }));
    asked.chunk(most.clone()).await.unwrap();
    assert_eq!(peer.next().await, RequestMessage::Chunk { id, data: most.clone() });
    asked.respond(most.clone());
    assert_eq!(peer.next().await, answer(id, most));
    let id = peer.ask("too long", None);
    request(&session).await.respond(more);
    assert_eq!(peer.next().await, error(id, RequestCode::Failed, "the answer is too long"));
}

#[tokio::test]
async fn the_end_of_the_session_ends_its_requests() {
    let mut driven = Driven::start().await;
    let peer = Peer::connect(&driven.running.place, WS).await;
    let session = driven.session().await;
    peer.ask("slow", None);
    let slow = request(&session).await;
    peer.close(7, "bye");
    within("the end of the request", slow.cancelled()).await;
    assert!(matches!(slow.chunk("x").await, Err(ChunkError::Closed(close)) if close.code == 7));
    slow.respond(None);
}

#[tokio::test]
async fn what_breaks_the_rules_ends_the_session() {
    let mut driven = Driven::start().await;
    let ask = |id: u64| RequestMessage::Request { id, method: "x".into(), data: None };
    for said in [
        vec![ask(2), ask(2)],
        vec![ask(2), ask(1)],
        vec![ask(0)],
        vec![ask(1), RequestMessage::Cancel { id: 2 }],
        vec![RequestMessage::More { id: 1, limit: 1 }],
        vec![RequestMessage::Chunk { id: 1, data: Message::from("") }],
        vec![RequestMessage::Answer { id: 1, data: None }],
        vec![RequestMessage::error(1, 0, "")],
    ] {
        let peer = Peer::connect(&driven.running.place, WS).await;
        let session = driven.session().await;
        said.iter().for_each(|message| peer.say(message));
        assert_eq!(peer.closed().await.code, Code::ProtocolViolation as u32, "{said:?}");
        assert_eq!(within("the end", session.closed()).await.code, Code::ProtocolViolation as u32);
    }
    let peer = Peer::connect(&driven.running.place, WS).await;
    peer.change(|machine| machine.send_channel(vec![3, 1, 9].into())).unwrap();
    assert_eq!(peer.closed().await.code, Code::MalformedMessage as u32);
}
