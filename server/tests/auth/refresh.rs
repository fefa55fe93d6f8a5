//! New tokens on a session that goes on (SPEC section 12).

use serde_json::{Value, json};
use throughline::{Session, Transport};
use throughline_protocol::{ChannelCode, ChannelMessage, Close, Code, Token};
use tokio::sync::mpsc;

use crate::client::Channels;
use crate::common::{Client, Opening, Running, echo, within};
use crate::issuer::{Issuer, now, time};
use crate::on_every_transport;
use crate::{config, serve};

on_every_transport! {
    a_newer_token_puts_the_end_off_on_the_same_link_and_brings_its_rights,
    rights_that_the_new_token_has_not_are_gone,
    a_token_that_is_not_good_ends_the_session_with_a_reason,
    a_token_of_another_user_ends_the_session,
    the_end_of_the_token_ends_the_session,
}

async fn connect(running: &Running, transport: Transport, token: &str) -> Channels {
    Channels::over(Client::open(&running.place, transport, &Opening::with_token(token)).await.unwrap())
}

fn present(client: &Client, token: &str) {
    client.change(|machine| machine.send_token(Token(token.into())));
}

/// Presents a token that ends this many seconds from now, and waits until the server has said that it takes it.
async fn refresh(client: &Client, issuer: &Issuer, seconds: u64, claims: Value) {
    let mut claims = claims;
    claims["exp"] = json!(now() + seconds);
    present(client, &issuer.token(&claims));
    let ends = |at: u64| at.saturating_sub(crate::common::now()) / 1_000_000;
    // With the leeway.
    let is_it = |at: u64| (seconds..=seconds + 31).contains(&ends(at));
    client.until("EXPIRES", |machine| machine.expires().filter(|at| is_it(*at)).map(drop)).await;
}

async fn a_newer_token_puts_the_end_off_on_the_same_link_and_brings_its_rights(transport: Transport) {
    let issuer = Issuer::new();
    let (tell, mut told) = mpsc::channel(1);
    let application = move |session: Session| {
        let tell = tell.clone();
        async move {
            tell.send(session.clone()).await.unwrap();
            echo(session).await;
        }
    };
    let running = serve(config(&issuer), application).await;
    let client = connect(&running, transport, &issuer.token(&json!({ "exp": now() + 60 }))).await;
    let session = within("a session", told.recv()).await.unwrap();
    assert!((60_000..=90_000).contains(&client.welcome.expires_ms), "{}", client.welcome.expires_ms);
    assert_eq!(client.subscribe("room:1", None).await, Err(ChannelCode::NotAllowed));
    refresh(&client, &issuer, 3_600, json!({ "channels": ["room:*"], "info": "new" })).await;
    assert_eq!(session.identity().info, json!("new"));
    assert!(session.identity().expires.is_some_and(|end| end > time(now() + 3_500)));
    assert!(client.subscribe("room:1", None).await.is_ok());
    client.send("hello").await.unwrap();
    assert_eq!(client.message().await.as_text(), Some("hello"));
    assert_eq!(client.change(|machine| machine.link()), 1);
}

async fn rights_that_the_new_token_has_not_are_gone(transport: Transport) {
    let issuer = Issuer::new();
    let running = serve(config(&issuer), echo).await;
    let client = connect(&running, transport, &issuer.token(&json!({ "channels": ["room:1", "room:2"] }))).await;
    let first = client.subscribe("room:1", None).await.unwrap();
    client.subscribe("room:2", None).await.unwrap();
    refresh(&client, &issuer, 600, json!({ "channels": ["room:2"] })).await;
    match client.next().await {
        ChannelMessage::Unsubscribed { number, code, .. } => {
            assert_eq!((number, code), (first.number, ChannelCode::NotAllowed as u64));
        }
        other => panic!("{other:?}"),
    }
    running.server.hub().channel("room:1").publish("not for him").await.unwrap();
    running.server.hub().channel("room:2").publish("for him").await.unwrap();
    assert_eq!(client.publication().await.2.as_text(), Some("for him"));
}

async fn a_token_that_is_not_good_ends_the_session_with_a_reason(transport: Transport) {
    let issuer = Issuer::new();
    let running = serve(config(&issuer), echo).await;
    for (token, reason) in issuer.bad() {
        let client = connect(&running, transport, &issuer.token(&json!({}))).await;
        present(&client, &token);
        let close = client.closed().await;
        assert_eq!(close, Close::protocol(Code::Unauthorized, close.reason.clone()));
        assert!(close.reason.contains(reason), "{:?} should contain {reason:?}", close.reason);
    }
}

async fn a_token_of_another_user_ends_the_session(transport: Transport) {
    let issuer = Issuer::new();
    let running = serve(config(&issuer), echo).await;
    let client = connect(&running, transport, &issuer.token(&json!({}))).await;
    present(&client, &issuer.token(&json!({ "sub": "eve" })));
    assert_eq!(client.closed().await, Close::protocol(Code::Unauthorized, "the token is another user's"));
}

async fn the_end_of_the_token_ends_the_session(transport: Transport) {
    let issuer = Issuer::new();
    let mut config = config(&issuer);
    config.auth.leeway = std::time::Duration::ZERO;
    let running = serve(config, echo).await;
    // Tokens count whole seconds: this one has between one and two left.
    let client = connect(&running, transport, &issuer.token(&json!({ "exp": now() + 2 }))).await;
    let close = client.closed().await;
    assert_eq!(close, Close::protocol(Code::Unauthorized, close.reason.clone()));
}
