//! An OpenAI-compatible endpoint: `POST /v1/chat/completions` with `stream: true`, and the Server-Sent Events that it answers with.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use sse_stream::SseByteStream;
use throughline::PublishError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// All that an answer's stream may have, in bytes: chunks of some hundred bytes around each token. The parser keeps a line until it ends.
const STREAM_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What is read of an error's body, in bytes, and shown of its message, in characters.
const ERROR_BYTES_MAX: usize = 16 * 1024;
const MESSAGE_CHARS_MAX: usize = 300;

/// Where a model is asked.
#[derive(Debug)]
pub(crate) struct Endpoint {
    client: Client,
    url: Url,
    model: String,
}

/// Why there is no (more) answer. Shown to readers, so nothing here tells of the key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the model's endpoint refused this server's key")]
    Refused,
    #[error("the model's endpoint is asked too much")]
    Busy { retry_after_s: Option<u64> },
    #[error("the model's endpoint failed: {0}")]
    Failed(String),
    #[error("the model's endpoint cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the answer broke off")]
    BrokeOff(#[source] Option<sse_stream::Error>),
    #[error("nothing came from the model's endpoint for too long")]
    Stalled,
    #[error("the answer took too long")]
    TimedOut,
    #[error("the server is going away")]
    Stopping,
    #[error("the answer could not be published: {0}")]
    Unpublished(#[from] PublishError),
}

impl Failure {
    /// For programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Busy { .. } => "busy",
            Self::Failed(_) => "failed",
            Self::Unreachable(_) => "unreachable",
            Self::BrokeOff(_) => "broke_off",
            Self::Stalled => "stalled",
            Self::TimedOut => "timed_out",
            Self::Stopping => "stopping",
            Self::Unpublished(_) => "unpublished",
        }
    }

    /// When asking again may help, in seconds, if the endpoint has said so.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        if let Self::Busy { retry_after_s } = self { *retry_after_s } else { None }
    }
}

/// An answer that is being written.
pub(crate) struct Answer {
    events: Events,
    /// Said by the last chunk with text; the usage and `[DONE]` follow.
    finish_reason: Option<String>,
}

type Events = SseByteStream<Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>>;

/// What comes next of an answer.
#[derive(Debug)]
pub(crate) enum Next {
    Text(String),
    End { finish_reason: String },
}

/// One event of the stream, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Delta {
    content: Option<String>,
    /// Instead of content, when the model will not answer.
    refusal: Option<String>,
}

impl Endpoint {
    /// `base` with its `/v1`, as the endpoint's makers write it, or without.
    pub(crate) fn new(
        base: &str,
        key: Option<&str>,
        model: String,
        stall_timeout: Duration,
    ) -> Result<Self, Box<dyn Error>> {
        let base = base.trim_end_matches('/');
        let has_path = Url::parse(base)?.path() != "/";
        let url = Url::parse(&format!("{base}{}/chat/completions", if has_path { "" } else { "/v1" }))?;
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let mut value = HeaderValue::try_from(format!("Bearer {key}"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let client = Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            // From one read to the next, the first included. Comments that say that the endpoint is still at it count: `ANSWER_TIME_MAX` bounds those.
            .read_timeout(stall_timeout)
            .build()?;
        Ok(Self { client, url, model })
    }

    /// Asks. Nothing is tried again: the reader decides.
    pub(crate) async fn ask(&self, prompt: &str) -> Result<Answer, Failure> {
        let body = json!({
            "model": self.model,
            "messages": [{ "role": "user", "content": prompt }],
            "stream": true,
        });
        let sent = self.client.post(self.url.clone()).json(&body).send().await;
        let response = sent.map_err(|error| {
            if error.is_timeout() && !error.is_connect() { Failure::Stalled } else { Failure::Unreachable(error) }
        })?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let mut left = STREAM_BYTES_MAX;
        let bytes = response.bytes_stream().map_err(io::Error::other).and_then(move |bytes| {
            let rest = left.checked_sub(bytes.len());
            left = rest.unwrap_or(0);
            std::future::ready(rest.map(|_| bytes).ok_or_else(|| io::Error::other("more than an answer can have")))
        });
        Ok(Answer { events: SseByteStream::new(bytes.boxed()), finish_reason: None })
    }
}

impl Answer {
    /// What comes next. After an end or an error there is nothing more.
    pub(crate) async fn next(&mut self) -> Result<Next, Failure> {
        loop {
            let data = match self.events.next().await {
                Some(Ok(event)) => event.data.unwrap_or_default(),
                // The model has said that it was at its end: not even `[DONE]` is missing to the reader.
                None | Some(Err(_)) if self.finish_reason.is_some() => return Ok(self.end()),
                None => return Err(Failure::BrokeOff(None)),
                Some(Err(error)) if is_timeout(&error) => return Err(Failure::Stalled),
                Some(Err(error)) => return Err(Failure::BrokeOff(Some(error))),
            };
            if data == "[DONE]" {
                return Ok(self.end());
            }
            if data.is_empty() {
                continue;
            }
            let chunk: Chunk =
                serde_json::from_str(&data).map_err(|error| Failure::Failed(format!("not a chunk: {error}")))?;
            if let Some(error) = chunk.error {
                return Err(Failure::Failed(message(&error)));
            }
            // One choice was asked for. The chunk with the usage has none.
            let Some(choice) = chunk.choices.into_iter().next() else { continue };
            self.finish_reason = self.finish_reason.take().or(choice.finish_reason);
            // The first chunk has the role and an empty text.
            if let Some(text) = choice.delta.content.or(choice.delta.refusal).filter(|text| !text.is_empty()) {
                return Ok(Next::Text(text));
            }
        }
    }

    fn end(&mut self) -> Next {
        Next::End { finish_reason: self.finish_reason.take().unwrap_or_else(|| "stop".to_owned()) }
    }
}

/// Why an endpoint answered with another status than 200.
async fn refusal(mut response: Response) -> Failure {
    let status = response.status();
    let retry_after_s = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = Vec::new();
    while body.len() < ERROR_BYTES_MAX
        && let Ok(Some(bytes)) = response.chunk().await
    {
        body.extend_from_slice(&bytes);
    }
    let said = serde_json::from_slice::<Value>(&body).ok().map(|body| message(body.get("error").unwrap_or(&body)));
    let said = said.unwrap_or_else(|| status.to_string());
    // What it says may have a part of the key in it: it is for the log.
    tracing::warn!(%status, said, "the endpoint refused");
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Refused,
        StatusCode::TOO_MANY_REQUESTS => Failure::Busy { retry_after_s },
        _ => Failure::Failed(said),
    }
}

/// What an error object says: `{"message": "…"}`, or whatever it is.
fn message(error: &Value) -> String {
    let said = error.get("message").unwrap_or(error);
    let said = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
    said.chars().take(MESSAGE_CHARS_MAX).collect()
}

fn is_timeout(error: &sse_stream::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout) {
            return true;
        }
        // An `io::Error` is not the source of what it is made of: it is transparent.
        source = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}
