//! Credentials that end, and how a client stays beyond them (SPEC section 12).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use parking_lot::Mutex;
use throughline::{Identity, Open, Rejection, Session, Transport};
use throughline_protocol::machine::Machine;
use throughline_protocol::{ChannelMessage, Close, Code, Token, channel};
use tokio::sync::{Semaphore, mpsc};

use crate::common::{Client, Opening, Running, Wire, config, echo, start, within};
use crate::on_every_transport;

on_every_transport! {
    a_token_puts_the_end_off,
    a_token_that_is_refused_ends_the_session,
    the_end_of_the_time_ends_the_session,
    the_opening_of_a_further_link_shows_newer_credentials,
}

const WS: Transport = Transport::WebSocket;

/// What every token here is: a user, how many milliseconds it is good for, and what else it says. "ann 1000 x".
fn identify(token: &str) -> Result<Identity, Rejection> {
    let mut parts = token.splitn(3, ' ');
    let user = parts.next().filter(|user| *user != "nobody");
    let mut identity = Identity::user(user.ok_or_else(|| Rejection::unauthorized("nobody knows nobody"))?);
    let lasts_ms = parts.next().and_then(|lasts| lasts.parse().ok());
    identity.expires = lasts_ms.map(|ms| SystemTime::now() + Duration::from_millis(ms));
    identity.claims = parts.next().unwrap_or_default().into();
    Ok(identity)
}

fn authenticate(open: &Open) -> std::future::Ready<Result<Identity, Rejection>> {
    std::future::ready(identify(open.token.as_deref().unwrap_or_default()))
}

/// A server whose sessions send everything back, and are handed out.
async fn server() -> (Running, mpsc::UnboundedReceiver<Session>) {
    let (tell, sessions) = mpsc::unbounded_channel();
    let running = start(config(), |builder| {
        builder.authenticate(authenticate).on_session(move |session: Session| {
            tell.send(session.clone()).unwrap();
            echo(session)
        })
    })
    .await;
    (running, sessions)
}

async fn connect(running: &Running, transport: Transport, token: &str) -> Client {
    Client::open(&running.place, transport, &Opening::with_token(token)).await.unwrap()
}

fn send_token(client: &Client, token: &str) {
    client.change(|machine| machine.send_token(Token(token.into())));
}

/// Whether the credentials end about so many seconds from now, as the client knows it.
fn ends_in(machine: &Machine, seconds: u64) -> bool {
    let now = crate::common::now();
    machine.expires().is_some_and(|at| (seconds - 60..=seconds).contains(&(at.saturating_sub(now) / 1_000_000)))
}

async fn hello(client: &Client) {
    client.send("hello").await.unwrap();
    assert_eq!(client.message().await.as_text(), Some("hello"));
}

async fn a_token_puts_the_end_off(transport: Transport) {
    let (running, mut sessions) = server().await;
    let client = connect(&running, transport, "ann 3600000 before").await;
    assert!((3_500_000..=3_600_000).contains(&client.welcome.expires_ms), "{}", client.welcome.expires_ms);
    let session = within("the session", sessions.recv()).await.unwrap();
    assert_eq!(session.identity().claims, "before");
    send_token(&client, "ann 7200000 after");
    client.until("EXPIRES", |machine| ends_in(machine, 7_200).then_some(())).await;
    assert_eq!((session.identity().claims.as_str(), session.identity().user.as_deref()), (Some("after"), Some("ann")));
    // One that is good for less counts as well, and one that is good for ever.
    send_token(&client, "ann 600000 less");
    client.until("EXPIRES", |machine| ends_in(machine, 600).then_some(())).await;
    send_token(&client, "ann ever");
    client.until("EXPIRES", |machine| machine.expires().is_none().then_some(())).await;
    hello(&client).await;
}

async fn a_token_that_is_refused_ends_the_session(transport: Transport) {
    let (running, mut sessions) = server().await;
    for (token, reason) in [("nobody", "nobody knows nobody"), ("bob", "the token is another user's")] {
        let client = connect(&running, transport, "ann").await;
        let session = within("the session", sessions.recv()).await.unwrap();
        send_token(&client, token);
        assert_eq!(client.closed().await, Close::protocol(Code::Unauthorized, reason));
        let closed = within("the end", session.closed()).await;
        assert_eq!((closed.code, closed.application), (Code::Unauthorized as u32, false));
    }
}

async fn the_end_of_the_time_ends_the_session(transport: Transport) {
    let (running, mut sessions) = server().await;
    let client = connect(&running, transport, "ann 400").await;
    let session = within("the session", sessions.recv()).await.unwrap();
    let close = client.closed().await;
    assert_eq!(close, Close::protocol(Code::Unauthorized, "what the client has authenticated with has expired"));
    assert_eq!(within("the end", session.closed()).await.code, Code::Unauthorized as u32);
}

async fn the_opening_of_a_further_link_shows_newer_credentials(transport: Transport) {
    let (running, mut sessions) = server().await;
    let client = connect(&running, transport, "ann 3600000 first").await;
    let session = within("the session", sessions.recv()).await.unwrap();
    let further = async |token: &str| {
        let opening = Opening { token: Some(token.into()), ..Opening::resuming(&client.welcome, client.received()) };
        Wire::open(&running.place, transport, &opening).await.unwrap()
    };
    // Offered is not chosen.
    let older = further("ann 1800000 second").await;
    assert_eq!(session.identity().claims, "first");
    client.take(further("ann 7200000 third").await).await;
    hello(&client).await;
    assert_eq!(session.identity().claims, "third");
    assert!(client.change(|machine| ends_in(machine, 7_200)));
    // What its opening has shown is older than what the session knows, which is what counts, and the client is told.
    client.take(older).await;
    client.until("EXPIRES", |machine| ends_in(machine, 7_200).then_some(())).await;
    hello(&client).await;
    assert_eq!(session.identity().claims, "third");
}

#[tokio::test]
async fn a_session_without_a_link_does_not_end_for_its_credentials() {
    let (running, _sessions) = server().await;
    let client = connect(&running, WS, "ann 200").await;
    client.cut().await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    let opening = Opening { token: Some("ann".into()), ..Opening::resuming(&client.welcome, client.received()) };
    let wire = Wire::open(&running.place, WS, &opening).await.unwrap();
    assert!(wire.welcome.resumed);
    client.take(wire).await;
    hello(&client).await;
}

#[tokio::test]
async fn what_has_expired_opens_nothing() {
    let (running, _sessions) = server().await;
    let refusal = Wire::open(&running.place, WS, &Opening::with_token("ann 0")).await.err().unwrap();
    assert_eq!((refusal.status, refusal.code()), (StatusCode::UNAUTHORIZED, Code::Unauthorized as u64));
}

#[tokio::test]
async fn of_tokens_that_wait_the_newest_is_looked_at_and_the_session_goes_on_meanwhile() {
    let (asked, may_answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(1)));
    let (list, gate) = (Arc::clone(&asked), Arc::clone(&may_answer));
    let authenticate = move |open: &Open| {
        let (token, gate) = (open.token.clone().unwrap_or_default(), Arc::clone(&gate));
        list.lock().push(token.clone());
        async move {
            gate.acquire().await.unwrap().forget();
            identify(&token)
        }
    };
    let running = start(config(), |builder| builder.authenticate(authenticate).on_session(echo)).await;
    let client = connect(&running, WS, "ann 3600000").await;
    for token in ["ann 7200000", "ann 10800000", "ann 14400000"] {
        send_token(&client, token);
        hello(&client).await; // it has arrived, and nobody waits for it
    }
    may_answer.add_permits(1);
    client.until("EXPIRES", |machine| ends_in(machine, 7_200).then_some(())).await;
    may_answer.add_permits(1);
    client.until("EXPIRES", |machine| ends_in(machine, 14_400).then_some(())).await;
    assert_eq!(*asked.lock(), ["ann 3600000", "ann 7200000", "ann 14400000"]);
}

#[tokio::test]
async fn an_authentication_that_fails_for_now_changes_nothing() {
    let count = AtomicUsize::new(0);
    let authenticate = move |open: &Open| {
        let result = authenticate(open);
        match count.fetch_add(1, Ordering::SeqCst) {
            1 => panic!("as it should"),
            2 => std::future::ready(Err(Rejection::too_many("later", Duration::from_secs(1)))),
            _ => result,
        }
    };
    let (tell, mut told) = mpsc::unbounded_channel();
    let on_session = move |session: Session| {
        tell.send(session.clone()).unwrap();
        echo(session)
    };
    let running = start(config(), |builder| builder.authenticate(authenticate).on_session(on_session)).await;
    let client = connect(&running, WS, "ann 3600000 first").await;
    let session = within("the session", told.recv()).await.unwrap();
    for token in ["ann 7200000 second", "ann 7200000 third"] {
        let known = client.change(|machine| machine.expires());
        send_token(&client, token);
        // It says anew what is left, to a millisecond.
        client.until("EXPIRES", |machine| (machine.expires() != known).then_some(())).await;
        assert!(client.change(|machine| ends_in(machine, 3_600)));
        assert_eq!(session.identity().claims, "first");
    }
    send_token(&client, "ann 7200000 fourth");
    client.until("EXPIRES", |machine| ends_in(machine, 7_200).then_some(())).await;
    assert_eq!(session.identity().claims, "fourth");
}

#[tokio::test]
async fn where_nobody_is_authenticated_a_token_changes_nothing() {
    let running = start(config(), |builder| builder.on_session(echo)).await;
    let client = Client::connect(&running.place, WS).await;
    send_token(&client, "whatever");
    hello(&client).await;
    assert_eq!(client.change(|machine| machine.expires()), None);
}

#[tokio::test]
async fn subscriptions_that_a_new_token_gives_no_right_to_end() {
    let running = start(config(), |builder| {
        builder.authenticate(authenticate).on_session(echo).authorize(|who, action| match action {
            throughline::Action::Subscribe { channel } if who.claims != channel => {
                Err(throughline::Denied::new("not any more"))
            }
            _ => Ok(()),
        })
    })
    .await;
    let client = connect(&running, WS, "ann 3600000 news").await;
    let next = async || {
        let body = client.until("a message about channels", |machine| machine.poll_channel()).await;
        channel::decode(body).unwrap()
    };
    let subscribe = ChannelMessage::Subscribe { request: 1, channel: "news".into(), position: None, about: None };
    client.change(|machine| machine.send_channel(subscribe.encode())).unwrap();
    let ChannelMessage::Subscribed { number, .. } = next().await else { panic!("it may subscribe") };
    send_token(&client, "ann 7200000 news");
    client.until("EXPIRES", |machine| ends_in(machine, 7_200).then_some(())).await;
    send_token(&client, "ann 3600000 other");
    let expected = ChannelMessage::unsubscribed(number, throughline_protocol::ChannelCode::NotAllowed, "not any more");
    assert_eq!(next().await, expected);
    hello(&client).await;
}
