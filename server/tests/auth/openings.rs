//! Who comes in with which token, and who does not (SPEC section 7).

use http::StatusCode;
use serde_json::{Value, json};
use throughline::{Session, Transport};
use throughline_protocol::Code;
use tokio::sync::mpsc;

use crate::common::{Client, Opening, Refusal, Running, Wire, within};
use crate::issuer::{Issuer, now, time};
use crate::on_every_transport;
use crate::{config, serve};

on_every_transport! {
    a_token_that_is_not_good_is_refused_with_a_reason_before_anything_is_sent,
    a_token_says_who_it_is,
    nobody_comes_without_a_token_unless_that_is_configured,
    a_session_is_resumed_with_a_newer_token_of_the_same_user_only,
}

/// Tells of the sessions that the application sees.
fn telling() -> (mpsc::Receiver<Session>, impl Fn(Session) -> futures_util::future::BoxFuture<'static, ()>) {
    let (tell, told) = mpsc::channel(100);
    let application = move |session: Session| {
        let tell = tell.clone();
        Box::pin(async move {
            tell.send(session.clone()).await.unwrap();
            session.closed().await;
        }) as futures_util::future::BoxFuture<'static, ()>
    };
    (told, application)
}

async fn refused(running: &Running, transport: Transport, opening: &Opening) -> Refusal {
    match Wire::open(&running.place, transport, opening).await {
        Ok(_) => panic!("{transport} was let in with {opening:?}"),
        Err(refusal) => refusal,
    }
}

async fn a_token_that_is_not_good_is_refused_with_a_reason_before_anything_is_sent(transport: Transport) {
    let issuer = Issuer::new();
    let (mut told, application) = telling();
    let running = serve(config(&issuer), application).await;
    for (token, reason) in issuer.bad() {
        let refusal = refused(&running, transport, &Opening::with_token(&token)).await;
        assert_eq!(refusal.status, StatusCode::UNAUTHORIZED, "{token}");
        assert_eq!(refusal.code(), Code::Unauthorized as u64);
        assert_eq!(refusal.field("retry"), Value::Bool(false));
        let told = refusal.field("reason");
        assert!(told.as_str().is_some_and(|told| told.contains(reason)), "{told} should contain {reason:?}");
    }
    drop(running);
    assert!(told.recv().await.is_none(), "the application saw a session");
}

async fn a_token_says_who_it_is(transport: Transport) {
    let issuer = Issuer::new();
    let (mut told, application) = telling();
    let running = serve(config(&issuer), application).await;
    let end = now() + 600;
    let token = issuer.token(&json!({ "exp": end, "info": { "name": "Ada" }, "plan": "gold" }));
    let client = Client::open(&running.place, transport, &Opening::with_token(&token)).await.unwrap();
    let session = within("a session", told.recv()).await.unwrap();
    let identity = session.identity();
    assert_eq!(identity.user.as_deref(), Some("ada"));
    assert_eq!((&identity.claims["plan"], &identity.info), (&json!("gold"), &json!({ "name": "Ada" })));
    assert_eq!(identity.expires, Some(time(end + 30)));
    drop(client);
    let other = Client::open(&running.place, transport, &Opening::with_token(&issuer.rsa_token())).await;
    assert!(other.is_ok());
}

async fn nobody_comes_without_a_token_unless_that_is_configured(transport: Transport) {
    let issuer = Issuer::new();
    let (mut told, application) = telling();
    let running = serve(config(&issuer), application).await;
    let refusal = refused(&running, transport, &Opening::default()).await;
    assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refusal.field("reason"), "a token is needed");
    assert_eq!(refusal.headers["www-authenticate"], "Bearer");
    drop(running);
    assert!(told.recv().await.is_none());
    let mut config = config(&issuer);
    config.auth.anonymous = true;
    let (mut told, application) = telling();
    let running = serve(config, application).await;
    let _client = Client::connect(&running.place, transport).await;
    assert_eq!(within("a session", told.recv()).await.unwrap().identity().user, None);
    let refusal = refused(&running, transport, &Opening::with_token("x")).await;
    assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
}

async fn a_session_is_resumed_with_a_newer_token_of_the_same_user_only(transport: Transport) {
    let issuer = Issuer::new();
    let (mut told, application) = telling();
    let running = serve(config(&issuer), application).await;
    let first = Opening::with_token(&issuer.token(&json!({})));
    let client = Client::open(&running.place, transport, &first).await.unwrap();
    within("a session", told.recv()).await.unwrap();
    let resuming = |token: String| Opening { token: Some(token), ..Opening::resuming(&client.welcome, 0) };
    let same = Wire::open(&running.place, transport, &resuming(issuer.token(&json!({ "exp": now() + 60 })))).await;
    assert!(same.unwrap().welcome.resumed);
    let other = Wire::open(&running.place, transport, &resuming(issuer.token(&json!({ "sub": "eve" })))).await;
    assert!(!other.unwrap().welcome.resumed);
    for (token, _) in issuer.bad() {
        let refusal = refused(&running, transport, &resuming(token)).await;
        assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
    }
}
