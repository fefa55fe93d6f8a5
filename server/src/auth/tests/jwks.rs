use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::*;

/// What the server of keys answers.
#[derive(Clone)]
enum Answer {
    Keys(Value),
    Status(StatusCode),
    /// More than anybody wants to have.
    Huge,
    /// A part, and then nothing.
    Slow,
    Redirect,
}

/// A server of keys. It ends with the test's runtime.
struct KeyServer {
    url: String,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
}

impl KeyServer {
    async fn start(answer: Answer) -> Self {
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let handler = {
            let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
            move || {
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = answer.lock().clone();
                async move { respond(answer) }
            }
        };
        let routes = Router::new().route("/keys", get(handler)).route("/elsewhere", get(|| async { "{}" }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, routes).await });
        Self { url, answer, asked }
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn tokens(&self, pace: Pace) -> Tokens {
        let config = AuthConfig { jwks_url: Some(self.url.clone()), ..AuthConfig::default() };
        Tokens::with_pace(&config, pace).unwrap()
    }
}

fn respond(answer: Answer) -> Response {
    match answer {
        Answer::Keys(keys) => axum::Json(keys).into_response(),
        Answer::Status(status) => status.into_response(),
        Answer::Huge => " ".repeat(256 * 1024 + 1).into_response(),
        Answer::Slow => {
            let start = futures_util::stream::once(async { Ok::<_, std::convert::Infallible>("{\"keys\":") });
            Body::from_stream(futures_util::StreamExt::chain(start, futures_util::stream::pending())).into_response()
        }
        Answer::Redirect => Redirect::temporary("/elsewhere").into_response(),
    }
}

fn set(keys: &[Value]) -> Answer {
    Answer::Keys(json!({ "keys": keys }))
}

/// Only as tokens make it ask, and as soon as they do.
const EAGER: Pace = Pace {
    refresh: Duration::from_secs(3_600),
    retry: Duration::from_secs(3_600),
    at_most_every: Duration::ZERO,
    timeout: Duration::from_millis(300),
};

#[tokio::test]
async fn keys_are_fetched_and_a_new_one_is_found_when_a_token_names_it() {
    let [old, new] = [(); 2].map(|()| Signer::new(TokenAlgorithm::ES256));
    let server = KeyServer::start(set(&[old.jwk("old")])).await;
    let tokens = server.tokens(EAGER);
    // The first token waits for the keys.
    assert_eq!(tokens.verify(&old.token(Some("old"), &claims())).await.unwrap().user.as_deref(), Some("ada"));
    assert!(tokens.verify(&old.token(None, &claims())).await.is_ok());
    assert_eq!(server.asked(), 1);
    assert_eq!(tokens.verify(&new.token(Some("new"), &claims())).await, Err(TokenError::UnknownKey));
    assert_eq!(server.asked(), 2);
    server.answers(set(&[new.jwk("new")]));
    assert!(tokens.verify(&new.token(Some("new"), &claims())).await.is_ok());
    // What was withdrawn counts no more.
    assert_eq!(tokens.verify(&old.token(Some("old"), &claims())).await, Err(TokenError::UnknownKey));
}

#[tokio::test]
async fn keys_are_fetched_anew_by_time() {
    let [old, new] = [(); 2].map(|()| Signer::new(TokenAlgorithm::EdDSA));
    let server = KeyServer::start(set(&[old.jwk("k")])).await;
    let tokens = server.tokens(Pace { refresh: Duration::from_millis(50), ..EAGER });
    tokens.verify(&old.token(Some("k"), &claims())).await.unwrap();
    server.answers(set(&[new.jwk("k")]));
    let mut state = tokens.0.jwks.as_ref().unwrap().changes();
    while tokens.verify(&new.token(Some("k"), &claims())).await.is_err() {
        state.changed().await.unwrap();
    }
    assert_eq!(tokens.verify(&old.token(Some("k"), &claims())).await, Err(TokenError::Signature));
}

#[tokio::test]
async fn the_last_good_keys_count_while_there_are_no_others() {
    let signer = Signer::new(TokenAlgorithm::RS256);
    let server = KeyServer::start(set(&[signer.jwk("k")])).await;
    let tokens = server.tokens(EAGER);
    tokens.verify(&signer.token(Some("k"), &claims())).await.unwrap();
    for answer in [
        Answer::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Answer::Status(StatusCode::NO_CONTENT),
        Answer::Huge,
        Answer::Slow,
        Answer::Redirect,
        Answer::Keys(json!({})),
        Answer::Keys(json!([])),
        set(&[]),
        set(&[json!({ "kty": "oct", "k": "c2VjcmV0" }), json!(7)]),
    ] {
        server.answers(answer);
        let asked = server.asked();
        // It may be a key that the server would tell if it could.
        assert_eq!(tokens.verify(&signer.token(Some("?"), &claims())).await, Err(TokenError::KeysUnavailable));
        assert_eq!(server.asked(), asked + 1);
        assert!(tokens.verify(&signer.token(Some("k"), &claims())).await.is_ok());
    }
    server.answers(set(&[signer.jwk("k")]));
    assert_eq!(tokens.verify(&signer.token(Some("?"), &claims())).await, Err(TokenError::UnknownKey));
}

#[tokio::test]
async fn nobody_comes_in_before_there_are_keys_and_the_client_may_try_again() {
    let signer = Signer::new(TokenAlgorithm::ES256);
    let server = KeyServer::start(Answer::Status(StatusCode::BAD_GATEWAY)).await;
    let tokens = server.tokens(EAGER);
    let error = tokens.verify(&signer.token(Some("k"), &claims())).await.unwrap_err();
    assert_eq!(error, TokenError::KeysUnavailable);
    assert_eq!(Rejection::from(error).status(), StatusCode::SERVICE_UNAVAILABLE);
    server.answers(set(&[signer.jwk("k")]));
    assert!(tokens.verify(&signer.token(Some("k"), &claims())).await.is_ok());
}

#[tokio::test]
async fn however_many_tokens_name_unknown_keys_the_url_is_asked_rarely() {
    let signer = Signer::new(TokenAlgorithm::ES256);
    let server = KeyServer::start(set(&[signer.jwk("k")])).await;
    let tokens = server.tokens(Pace { at_most_every: Duration::from_secs(600), ..EAGER });
    let unknown: Vec<_> = (0..50).map(|kid| signer.token(Some(&kid.to_string()), &claims())).collect();
    let all = futures_util::future::join_all(unknown.iter().map(|token| tokens.verify(token))).await;
    assert!(all.iter().all(|result| *result == Err(TokenError::UnknownKey)));
    tokens.verify(&unknown[0]).await.unwrap_err();
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn keys_that_are_for_something_else_are_left_out() {
    let [signer, other] = [(); 2].map(|()| Signer::new(TokenAlgorithm::ES256));
    let with = |key: &str, value: &str| {
        let mut jwk = other.jwk("other");
        jwk[key] = json!(value);
        jwk
    };
    for odd in [with("use", "enc"), with("alg", "ES384"), with("crv", "P-384"), with("kty", "??"), with("x", "AA")] {
        let server = KeyServer::start(set(&[odd.clone(), signer.jwk("k")])).await;
        let tokens = server.tokens(EAGER);
        assert!(tokens.verify(&signer.token(Some("k"), &claims())).await.is_ok(), "{odd}");
        assert!(tokens.verify(&other.token(Some("other"), &claims())).await.is_err(), "{odd}");
    }
    let mut plain = other.jwk("other");
    plain.as_object_mut().unwrap().remove("alg");
    plain["use"] = json!("sig");
    let server = KeyServer::start(set(&[plain])).await;
    assert!(server.tokens(EAGER).verify(&other.token(Some("other"), &claims())).await.is_ok());
}

#[tokio::test]
async fn the_task_ends_with_the_last_clone() {
    let signer = Signer::new(TokenAlgorithm::ES256);
    let server = KeyServer::start(set(&[signer.jwk("k")])).await;
    let tokens = server.tokens(EAGER);
    tokens.verify(&signer.token(Some("k"), &claims())).await.unwrap();
    let mut state = tokens.0.jwks.as_ref().unwrap().changes();
    state.mark_unchanged();
    drop(tokens.clone());
    assert!(state.has_changed().is_ok());
    drop(tokens);
    assert!(state.changed().await.is_err());
}
