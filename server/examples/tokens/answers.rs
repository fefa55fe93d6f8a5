//! Answers as channels. Each has a channel of its own, whose name nobody can guess, and whose history holds all of it: from the question to what ended it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use throughline::{Channel, Hub, Namespace, Position, PublishError, Slow};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::endpoint::{Endpoint, Failure, Next};

/// What the names of the channels begin with.
pub(crate) const NAMESPACE: &str = "answer";

/// Answers under way at once: each costs money, and what they may take of memory together stays below `channels.max_history_bytes`.
const UNDER_WAY_MAX: usize = 40;
/// Longest question, in bytes: some pages of text.
const PROMPT_BYTES_MAX: usize = 16_384;
/// Most tokens of an answer, and most bytes of their publications: what models write at once, and no more than a reader's history. What is longer ends with
/// the reason `length`, as if the model had ended it, and the endpoint is hung up on: what the field for a limit is called differs among endpoints.
const TOKENS_MAX: usize = 16_384;
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Longest time from question to end.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(600);
/// How long the first token can still be read: all of the longest answer, and a while after it.
const KEPT: Duration = Duration::from_secs(900);
/// What a history counts for each publication beside its data, in bytes (`Namespace::history_bytes`).
const PUBLICATION_OVERHEAD: usize = 256;

/// What may be done with answers, and how much is kept of each: all of it.
pub(crate) fn namespace() -> Namespace {
    let publications = TOKENS_MAX + 2; // the question, and the end
    Namespace {
        // Who knows the name may read.
        subscribe: true,
        history_count: publications,
        history_bytes: ANSWER_BYTES_MAX + 8 * PROMPT_BYTES_MAX + publications * PUBLICATION_OVERHEAD,
        history_age: KEPT,
        // Half an answer is of no use.
        slow: Slow::Disconnect,
        ..Namespace::default()
    }
}

/// What is published, in this order: one `prompt`, any number of `token`, and one `done` or `error`, the last.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Publication<'a> {
    Prompt(&'a str),
    /// The next piece of the text.
    Token(&'a str),
    /// The whole answer has come. Why the model stopped: `stop`, or `length` when it was not at its end.
    Done {
        finish_reason: &'a str,
    },
    /// There will be no more of it. `code` is for programs, `message` for people.
    Error {
        code: &'static str,
        message: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_s: Option<u64>,
    },
}

/// Where an answer can be read: `subscribe(channel, { since: { epoch, offset: 0 } })` gets all of it.
#[derive(Debug, Serialize)]
pub(crate) struct Asked {
    channel: String,
    epoch: u64,
}

/// Why a question was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("a question needs a `prompt`")]
    Empty,
    #[error("a question has at most {PROMPT_BYTES_MAX} bytes")]
    TooLong,
    #[error("{UNDER_WAY_MAX} answers are under way; ask again in a moment")]
    Busy,
    #[error("the server is going away; ask again in a moment")]
    Stopping,
    #[error(transparent)]
    Unpublished(#[from] PublishError),
}

/// The answers under way.
pub(crate) struct Answers {
    endpoint: Arc<Endpoint>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Answers {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            room: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }
    }

    /// Begins an answer. It goes on whether anybody reads it or not.
    pub(crate) async fn ask(&self, hub: &Hub, prompt: String) -> Result<Asked, AskError> {
        if prompt.trim().is_empty() {
            return Err(AskError::Empty);
        }
        if prompt.len() > PROMPT_BYTES_MAX {
            return Err(AskError::TooLong);
        }
        if self.stopping.is_cancelled() {
            return Err(AskError::Stopping);
        }
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| AskError::Busy)?;
        let channel = hub.channel(format!("{NAMESPACE}:{}", random_name()));
        let Position { epoch, .. } = channel.publish(text(&Publication::Prompt(&prompt))).await?;
        let asked = Asked { channel: channel.name().to_owned(), epoch };
        let (endpoint, stopping) = (Arc::clone(&self.endpoint), self.stopping.clone());
        self.tasks.spawn(async move {
            write(&channel, &endpoint, &prompt, &stopping).await;
            drop(room);
        });
        Ok(asked)
    }

    /// Ends those under way; their readers are told.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Publishes an answer to its end, whatever that is.
async fn write(channel: &Channel, endpoint: &Endpoint, prompt: &str, stopping: &CancellationToken) {
    let ended = tokio::select! {
        ended = timeout(ANSWER_TIME_MAX, relay(channel, endpoint, prompt)) => ended.unwrap_or(Err(Failure::TimedOut)),
        () = stopping.cancelled() => Err(Failure::Stopping),
    };
    let last = match &ended {
        Ok(finish_reason) => Publication::Done { finish_reason },
        Err(failure) => {
            tracing::warn!(channel = channel.name(), error = ?failure, "an answer failed");
            Publication::Error {
                code: failure.code(),
                message: failure.to_string(),
                retry_after_s: failure.retry_after_s(),
            }
        }
    };
    if let Err(error) = channel.publish(text(&last)).await {
        tracing::error!(channel = channel.name(), %error, "the end of an answer could not be published");
    }
}

/// Publishes token by token. Returns why the model stopped.
async fn relay(channel: &Channel, endpoint: &Endpoint, prompt: &str) -> Result<String, Failure> {
    let mut answer = endpoint.ask(prompt).await?;
    let mut bytes = 0;
    for _ in 0..TOKENS_MAX {
        let token = match answer.next().await? {
            Next::Text(token) => text(&Publication::Token(&token)),
            Next::End { finish_reason } => return Ok(finish_reason),
        };
        bytes += token.len();
        if bytes > ANSWER_BYTES_MAX {
            break;
        }
        channel.publish(token).await?;
    }
    Ok("length".to_owned())
}

fn text(publication: &Publication<'_>) -> String {
    serde_json::to_string(publication).expect("strings and numbers can always be written as JSON")
}

/// 128 random bits, in hex: the name is all that keeps an answer private.
fn random_name() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
