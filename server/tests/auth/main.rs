//! Tokens, on every transport: the server, through its public interface, and a client on the other end of loopback.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "../common/mod.rs"]
#[expect(dead_code, unused_imports, reason = "it is made for the tests of sessions, too")]
mod common;

#[path = "../channels/client.rs"]
#[expect(dead_code, reason = "it is made for the tests of channels, too")]
mod client;

mod issuer;
mod openings;
mod refresh;
mod rights;

use throughline::auth::Tokens;
use throughline::{Config, Session};

use common::{Running, start};
use issuer::Issuer;

/// A server whose clients need a token of `issuer`, made for the audience `chat`.
fn config(issuer: &Issuer) -> Config {
    let mut config = common::config();
    config.auth.keys = issuer.keys();
    config.auth.audience = vec!["chat".to_owned()];
    config.auth.issuer = vec!["https://issuer.test".to_owned()];
    config
}

async fn serve<F: Future<Output = ()> + Send + 'static>(
    config: Config,
    application: impl Fn(Session) -> F + Send + Sync + 'static,
) -> Running {
    let tokens = Tokens::new(&config.auth).unwrap();
    start(config, |builder| builder.tokens(tokens).on_session(application)).await
}
