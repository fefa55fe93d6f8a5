//! What keeps the channels: counts what is published, remembers the newest of it, and hands each to the hubs of all nodes that want it.
//!
//! An engine knows nothing of sessions. What it promises stands here, at the trait, and is checked by its `conformance` suite, which every engine passes.

#[cfg(test)]
mod conformance;
pub(crate) mod memory;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use throughline_protocol::Message;
use throughline_protocol::channel::Position;

/// What was published, and where it stands in its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// 1, 2, 3, … within an epoch, without a gap.
    pub offset: u64,
    /// What was published.
    pub message: Message,
}

/// A piece of what a channel keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Of the newest publication, whether it is in this piece or not. Zeros when nothing is known of the channel: nobody is subscribed, and nothing was
    /// published lately.
    pub newest: Position,
    /// Whether nothing is missing between the position that was asked for and what follows it here.
    pub complete: bool,
    /// One behind the other, the oldest first.
    pub publications: Vec<Arc<Publication>>,
}

/// What a key of a channel of state stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// At most 255 bytes.
    pub key: Arc<str>,
    /// That of the change that set it.
    pub offset: u64,
    /// What was set.
    pub message: Message,
}

/// The values of a channel of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Of the newest change. Zeros when nothing is known of the channel.
    pub position: Position,
    /// One for each key, in the order of their offsets.
    pub values: Vec<Value>,
}

/// A change of a channel of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: Arc<str>,
    /// Counted as those of publications.
    pub(crate) offset: u64,
    /// `None`: it was removed.
    pub(crate) message: Option<Message>,
}

/// How much of a channel is kept. What goes beyond one of these bounds is forgotten, the oldest first; only values are refused instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    /// Publications.
    pub(crate) count: usize,
    /// Bytes of their data, or of values with their keys, and [`PUBLICATION_OVERHEAD`] for each of them.
    pub(crate) bytes: usize,
    /// How old they get; values do not age. So long is the channel itself remembered, too, once nobody is subscribed and nothing is published.
    pub(crate) age: Duration,
    /// Keys of a channel of state.
    pub(crate) keys: usize,
}

/// What a publication or a value is counted with beside its data, in bytes: where it stands in memory, twice, so that empty ones are not for free.
pub(crate) const PUBLICATION_OVERHEAD: usize = 256;

/// How much is read of a history at once. One publication comes in any case, when there is one and `publications` is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) publications: usize,
    pub(crate) bytes: usize,
    /// Whether these are the last ones, and not the first: what is left out before them is missing.
    pub(crate) newest: bool,
}

/// Why an engine could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// There is no room for a further channel.
    #[error("the server has no room for a further channel")]
    Full,
    /// The channel has as many keys as it may.
    #[error("the channel has as many keys as it may")]
    TooManyKeys,
    /// The channel's values would be longer than they may, or those of all channels.
    #[error("the channel's values would be longer than they may")]
    TooLarge,
    /// What keeps the channels cannot be reached. Asking again later may help.
    #[cfg_attr(not(test), expect(dead_code, reason = "the engine of one node is always there"))]
    #[error("{0}")]
    Unavailable(String),
}

/// What an engine gives publications to: the node.
pub(crate) trait Sink: Send + Sync {
    /// Called for every publication of a channel that was subscribed to, at least once, in order as long as nothing is lost on the way. Does not wait, and
    /// does not call the engine.
    fn publication(&self, channel: &str, epoch: u64, publication: &Publication);

    /// The same for changes of a channel of state.
    fn change(&self, channel: &str, epoch: u64, change: &Change);
}

/// What keeps the channels. It is given a [`Sink`] when it is made, and counts by itself: nobody else chooses epochs or offsets.
///
/// Names of channels were checked before. An engine bounds by itself how long it tries, and then says [`EngineError::Unavailable`].
pub(crate) trait Engine: Send + Sync {
    /// Appends to a channel, and says where it stands. A publication that fails may have been made in spite of that.
    fn publish<'a>(
        &'a self,
        channel: &'a str,
        message: Message,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Position, EngineError>>;

    /// Changes a value of a channel of state, or removes it: `None`. Says where the change stands; to remove what is not there is none, and says where the channel is.
    /// A change that fails as [`EngineError::Unavailable`] may have been made in spite of that.
    fn set<'a>(
        &'a self,
        channel: &'a str,
        key: &'a str,
        message: Option<Message>,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Position, EngineError>>;

    /// Hands over from now on what is published or changed in a channel: everything after the position that this returns, part of which the sink may have had before.
    /// Counted: it lasts until [`Engine::unsubscribe`] was called as often as this has succeeded. The channel is not forgotten meanwhile.
    fn subscribe<'a>(&'a self, channel: &'a str, retention: Retention) -> BoxFuture<'a, Result<Position, EngineError>>;

    /// Takes one [`Engine::subscribe`] back, soon. What is under way may still come.
    fn unsubscribe(&self, channel: &str);

    /// What is kept after a position, as much as a page takes; from the oldest on, if some of it is gone; without a position, as if everything was asked for.
    /// After a position that is of another epoch or beyond the newest, nothing, and it is not complete. What the sink was given is in it, as long as it is kept.
    fn history<'a>(
        &'a self,
        channel: &'a str,
        after: Option<Position>,
        page: Page,
    ) -> BoxFuture<'a, Result<History, EngineError>>;

    /// All values of a channel of state. What the sink was given is in it.
    fn values<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<State, EngineError>>;

    /// What the engine has to do beside. Runs for as long as the node.
    fn run(&self) -> BoxFuture<'_, ()>;
}
