//! The keys that a URL has: fetched, kept while it cannot be reached, and looked for again when a token names one that is not among them.

use std::{error::Error, sync::Arc, time::Duration};

use jsonwebtoken::jwk::Jwk;
use reqwest::{Client, StatusCode, Url, redirect};
use serde::Deserialize;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use super::keys::{AuthError, Key};

/// Longest answer. A set of a dozen RSA keys with their certificates has 40 KiB.
const MAX_BODY: usize = 256 * 1024;

/// Most keys of a set that are looked at: a token without a key id is tried with each.
const MAX_KEYS: usize = 64;

/// When to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How old the keys may become.
    pub(super) refresh: Duration,
    /// After a failure, before the next attempt.
    pub(super) retry: Duration,
    /// Between two attempts at least, however many tokens name a key that is not known.
    pub(super) at_most_every: Duration,
    /// For the whole of an attempt.
    pub(super) timeout: Duration,
}

impl Pace {
    /// `timeout` is half of what an opening may take by default, since an opening may wait for it.
    pub(super) fn new(refresh: Duration) -> Self {
        let at_most = |seconds| Duration::from_secs(seconds).min(refresh);
        Self { refresh, retry: at_most(30), at_most_every: at_most(10), timeout: Duration::from_secs(5) }
    }
}

/// The keys of a URL. Dropping it ends the task that fetches them.
pub(super) struct Jwks {
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
    pace: Pace,
    _task: AbortOnDropHandle<()>,
}

/// What the last attempts have brought.
#[derive(Clone)]
pub(super) struct State {
    /// Those of the last attempt that succeeded.
    pub(super) keys: Arc<[Key]>,
    /// Whether the last attempt failed, or there was none.
    pub(super) is_stale: bool,
    /// When the last attempt began.
    asked: Option<Instant>,
}

impl Jwks {
    /// Begins to fetch. Called in a runtime.
    pub(super) fn new(url: &str, pace: Pace) -> Result<Self, AuthError> {
        let failed = |error: &dyn Error| AuthError::Jwks(reason(error));
        let url = Url::parse(url).map_err(|error| failed(&error))?;
        let client = Client::builder().timeout(pace.timeout).redirect(redirect::Policy::none());
        // What is on this machine is not asked for through a proxy.
        let client = if url.scheme() == "http" { client.no_proxy() } else { client };
        let client = client.build().map_err(|error| failed(&error))?;
        let (sender, state) = watch::channel(State { keys: Arc::new([]), is_stale: true, asked: None });
        let wanted = Arc::new(Notify::new());
        let task = keep_fresh(client, url, pace, sender, Arc::clone(&wanted));
        Ok(Self { state, wanted, pace, _task: AbortOnDropHandle::new(tokio::spawn(task)) })
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Asks again, if that is not too soon, and waits for the answer.
    pub(super) async fn look_again(&self) {
        let mut state = self.state.clone();
        let asked = state.borrow_and_update().asked;
        if asked.is_some_and(|asked| asked.elapsed() < self.pace.at_most_every) {
            return;
        }
        self.wanted.notify_one();
        // The task ends with `self`, and each attempt within its time.
        let _ = state.changed().await;
    }
}

#[cfg(test)]
impl Jwks {
    /// Tells of every attempt.
    pub(super) fn changes(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

async fn keep_fresh(client: Client, url: Url, pace: Pace, state: watch::Sender<State>, wanted: Arc<Notify>) {
    let place = format!("{}{}", url.origin().ascii_serialization(), url.path());
    loop {
        let asked = Instant::now();
        let fetched = fetch(&client, &url).await;
        let (had, was_stale) = (state.borrow().keys.len(), state.borrow().is_stale);
        let next = match fetched {
            Ok(keys) => {
                if was_stale {
                    tracing::info!(url = place, keys = keys.len(), "keys for tokens fetched");
                }
                state.send_replace(State { keys: keys.into(), is_stale: false, asked: Some(asked) });
                asked + pace.refresh
            }
            Err(problem) => {
                // Once for each time that it goes away, and not for every attempt.
                if !was_stale || state.borrow().asked.is_none() {
                    tracing::warn!(
                        url = place, problem, retry_in = ?pace.retry,
                        "keys for tokens cannot be fetched; the {had} keys from before go on counting"
                    );
                }
                state.send_modify(|state| (state.is_stale, state.asked) = (true, Some(asked)));
                asked + pace.retry
            }
        };
        loop {
            tokio::select! {
                () = sleep_until(next) => break,
                // What was wanted while an attempt was under way has been answered by that.
                () = wanted.notified() => if asked.elapsed() >= pace.at_most_every { break },
            }
        }
    }
}

async fn fetch(client: &Client, url: &Url) -> Result<Vec<Key>, String> {
    let answer = client.get(url.clone()).header("accept", "application/json").send().await;
    let mut answer = answer.map_err(|error| reason(&error.without_url()))?;
    if answer.status() != StatusCode::OK {
        return Err(format!("it answers {}", answer.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| reason(&error.without_url()))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(format!("it answers with more than {MAX_BODY} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    parse(&body)
}

/// Keys that are of no use here are left out: a set may have others for something else.
fn parse(body: &[u8]) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }

    let set: Set = serde_json::from_slice(body).map_err(|error| format!("it is no set of keys: {error}"))?;
    let jwks = set.keys.into_iter().take(MAX_KEYS).filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    let keys: Vec<_> = jwks.filter_map(|jwk| Key::from_jwk(&jwk)).collect();
    if keys.is_empty() {
        return Err("it has no key for ES256, RS256 or EdDSA".to_owned());
    }
    Ok(keys)
}

/// An error with what caused it, on one line.
fn reason(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
