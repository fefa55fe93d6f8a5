//! Why something about channels was not done, for whoever holds them in Rust and for clients.

use throughline_protocol::ChannelCode;
use throughline_protocol::limits::MAX_KEY;

use crate::engine::EngineError;

const BAD_CHANNEL: &str = "not a name of a channel: it takes 1 to 255 bytes, without control characters";

/// Why [`Channel::publish`](super::Channel::publish), [`set`](super::Channel::set) or [`remove`](super::Channel::remove) did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The channel's name is none.
    #[error("{BAD_CHANNEL}")]
    BadChannel,
    /// The channel's name begins with `$`: the server keeps it by itself.
    #[error("names that begin with $ are the server's own")]
    Reserved,
    /// It is a channel of state, or is not one: its namespace says what it is.
    #[error("{0}")]
    WrongKind(&'static str),
    /// The publication or value is longer than `channels.max_publication_bytes`.
    #[error("a publication of {len} bytes; at most {max} are allowed")]
    TooLarge {
        /// Its length, in bytes.
        len: usize,
        /// The longest allowed, in bytes.
        max: usize,
    },
    /// The key is longer than 255 bytes.
    #[error("a key of {0} bytes; at most {MAX_KEY} are allowed")]
    BadKey(usize),
    /// The channel has as many keys as its namespace allows, in `max_keys`.
    #[error("the channel has as many keys as it may")]
    TooManyKeys,
    /// The channel's values would be longer than its namespace allows in `history_bytes`, or those of all channels than `channels.max_history_bytes`.
    #[error("the channel's values would be longer than they may")]
    Full,
    /// There are `channels.max_channels` with subscribers.
    #[error("the server has no room for a further channel")]
    TooManyChannels,
    /// What keeps the channels cannot be reached. It may have been done in spite of that; doing it again may repeat it.
    #[error("what keeps the channels cannot be reached: {0}")]
    Unavailable(String),
}

/// Why [`Channel::history`](super::Channel::history), [`values`](super::Channel::values) or [`presence`](super::Channel::presence) could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The channel's name is none.
    #[error("{BAD_CHANNEL}")]
    BadChannel,
    /// It is a channel of state, or is not one: its namespace says what it is.
    #[error("{0}")]
    WrongKind(&'static str),
    /// Its namespace does not keep who is subscribed.
    #[error("who is subscribed is not kept: `presence` of the channel's namespace is off")]
    NoPresence,
    /// What keeps the channels cannot be reached. Asking again later may help.
    #[error("what keeps the channels cannot be reached: {0}")]
    Unavailable(String),
}

/// Why [`Channel::subscribe`](super::Channel::subscribe) did not subscribe the session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The channel's name is none.
    #[error("{BAD_CHANNEL}")]
    BadChannel,
    /// The session has `channels.max_subscriptions`.
    #[error("the session has as many subscriptions as it may")]
    TooMany,
    /// There are `channels.max_channels` with subscribers.
    #[error("the server has no room for a further channel")]
    TooManyChannels,
    /// What keeps the channels cannot be reached. Asking again later may help.
    #[error("what keeps the channels cannot be reached: {0}")]
    Unavailable(String),
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
}

impl From<EngineError> for PublishError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Full => Self::TooManyChannels,
            EngineError::TooManyKeys => Self::TooManyKeys,
            EngineError::TooLarge => Self::Full,
            EngineError::Unavailable(reason) => Self::Unavailable(reason),
        }
    }
}

impl From<EngineError> for HistoryError {
    fn from(error: EngineError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Why a request fails, as the client is told.
pub(super) type Failure = (ChannelCode, String);

impl PublishError {
    pub(super) fn failure(&self) -> Failure {
        let code = match self {
            Self::BadChannel => ChannelCode::BadChannel,
            Self::Reserved => ChannelCode::NotAllowed,
            Self::WrongKind(_) => ChannelCode::WrongKind,
            Self::TooLarge { .. } | Self::BadKey(_) | Self::Full => ChannelCode::TooLarge,
            Self::TooManyKeys => ChannelCode::TooManyKeys,
            Self::TooManyChannels => ChannelCode::TooMany,
            Self::Unavailable(_) => return unavailable(),
        };
        (code, self.to_string())
    }
}

impl HistoryError {
    pub(super) fn failure(&self) -> Failure {
        let code = match self {
            Self::BadChannel => ChannelCode::BadChannel,
            Self::WrongKind(_) => ChannelCode::WrongKind,
            Self::NoPresence => ChannelCode::NotAllowed,
            Self::Unavailable(_) => return unavailable(),
        };
        (code, self.to_string())
    }
}

impl SubscribeError {
    pub(super) fn failure(&self) -> Failure {
        let code = match self {
            Self::BadChannel => ChannelCode::BadChannel,
            Self::TooMany | Self::TooManyChannels => ChannelCode::TooMany,
            Self::Unavailable(_) | Self::Ended => return unavailable(),
        };
        (code, self.to_string())
    }
}

impl From<EngineError> for SubscribeError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Full => Self::TooManyChannels,
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// Why is for the server's operator, and not for its clients.
fn unavailable() -> Failure {
    (ChannelCode::Unavailable, "what keeps the channels cannot be reached".into())
}
