//! Channel messages: what client and server say to each other about channels (SPEC section 10).

mod code;
mod codec;

use bytestring::ByteString;

use crate::limits::{MAX_CHANNEL_NAME, MAX_CHANNEL_REASON};
use crate::message::Message;

pub use code::ChannelCode;
pub use codec::{decode, decode_state};

/// A place in a channel: that of the publication with this offset, or of none yet, when it is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Position {
    /// In which count: from 1, and another when the count has begun anew. 0 where there is no position to tell.
    pub epoch: u64,
    /// The publications of the channel, counted from 1.
    pub offset: u64,
}

/// What client and server say to each other about channels. A client says those with a channel's name and a request's number, which are requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelMessage {
    /// The client wants what is published.
    Subscribe {
        /// One above the last.
        request: u64,
        /// Not checked yet: see [`is_name`].
        channel: ByteString,
        /// The last publication that it has had.
        position: Option<Position>,
        /// What it says of itself to those who look at who is there: at most [`MAX_ABOUT`](crate::limits::MAX_ABOUT) bytes.
        about: Option<ByteString>,
    },
    /// The client wants no more of it.
    Unsubscribe {
        /// One above the last.
        request: u64,
        /// Not checked yet: see [`is_name`].
        channel: ByteString,
    },
    /// The client publishes.
    Publish {
        /// One above the last.
        request: u64,
        /// Not checked yet: see [`is_name`].
        channel: ByteString,
        /// What.
        data: Message,
    },
    /// An answer to SUBSCRIBE.
    Subscribed {
        /// The client's.
        request: u64,
        /// Stands for the channel from now on.
        number: u64,
        /// Whether everything after the position that was asked for follows.
        recovered: bool,
        /// Whether it is a channel of state.
        state: bool,
        /// The next publication is the one after it.
        position: Position,
    },
    /// An answer to UNSUBSCRIBE, PUBLISH and SET.
    Done {
        /// The client's.
        request: u64,
        /// Of what was published; zeros after UNSUBSCRIBE.
        position: Position,
    },
    /// An answer to any request.
    Failed {
        /// The client's.
        request: u64,
        /// A [`ChannelCode`], of this version or another.
        code: u64,
        /// For a person.
        reason: String,
    },
    /// What was published.
    Publication {
        /// The channel's.
        number: u64,
        /// Its place in the channel.
        offset: u64,
        /// What.
        data: Message,
    },
    /// The server has ended a subscription.
    Unsubscribed {
        /// The channel's.
        number: u64,
        /// A [`ChannelCode`], of this version or another.
        code: u64,
        /// For a person.
        reason: String,
    },
    /// Publications are lost to this subscription.
    Skipped {
        /// The channel's.
        number: u64,
        /// Of the last of them.
        offset: u64,
    },
    /// What the client holds of a channel of state is doubtful now; all its values follow.
    Snapshot {
        /// The channel's.
        number: u64,
    },
    /// What a key of a channel of state stands for.
    Value {
        /// The channel's.
        number: u64,
        /// Of the change.
        offset: u64,
        /// At most [`MAX_KEY`](crate::limits::MAX_KEY) bytes.
        key: ByteString,
        /// `None`: it was removed.
        data: Option<Message>,
    },
    /// What is still doubtful does not exist any more.
    Settled {
        /// The channel's.
        number: u64,
        /// What the values that came are those of, at least.
        offset: u64,
    },
    /// The client changes a value.
    Set {
        /// One above the last.
        request: u64,
        /// Not checked yet: see [`is_name`].
        channel: ByteString,
        /// At most [`MAX_KEY`](crate::limits::MAX_KEY) bytes.
        key: ByteString,
        /// `None`: to remove it.
        data: Option<Message>,
    },
    /// The client wants to see what the channel keeps.
    History {
        /// One above the last.
        request: u64,
        /// Not checked yet: see [`is_name`].
        channel: ByteString,
        /// After which publication; otherwise from the oldest on.
        after: Option<Position>,
        /// Whether the last of these are wanted, and not the first.
        newest: bool,
        /// At most so many publications, from 1. Beyond [`MAX_HISTORY_LIMIT`](crate::limits::MAX_HISTORY_LIMIT) it means that.
        limit: u64,
    },
    /// An answer to HISTORY.
    Page {
        /// The client's.
        request: u64,
        /// Whether nothing is missing between what was asked for and the first of them.
        complete: bool,
        /// Whether there is more after the last of them.
        more: bool,
        /// Of the channel's newest publication.
        position: Position,
        /// Each with its offset, the oldest first.
        publications: Vec<(u64, Message)>,
    },
    /// The server has subscribed the session by itself.
    Added {
        /// Stands for the channel from now on.
        number: u64,
        /// Its name.
        channel: ByteString,
        /// Whether it is a channel of state.
        state: bool,
        /// The next publication is the one after it.
        position: Position,
    },
}

impl ChannelMessage {
    /// FAILED. A reason over [`MAX_CHANNEL_REASON`] bytes is cut at a character.
    pub fn failed(request: u64, code: ChannelCode, reason: impl Into<String>) -> Self {
        Self::Failed { request, code: code as u64, reason: cut(reason.into()) }
    }

    /// UNSUBSCRIBED. A reason over [`MAX_CHANNEL_REASON`] bytes is cut at a character.
    pub fn unsubscribed(number: u64, code: ChannelCode, reason: impl Into<String>) -> Self {
        Self::Unsubscribed { number, code: code as u64, reason: cut(reason.into()) }
    }

    /// The number of a request; `None` for what a server says.
    pub fn request(&self) -> Option<u64> {
        match self {
            Self::Subscribe { request, .. }
            | Self::Unsubscribe { request, .. }
            | Self::Publish { request, .. }
            | Self::Set { request, .. }
            | Self::History { request, .. } => Some(*request),
            _ => None,
        }
    }
}

fn cut(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(MAX_CHANNEL_REASON));
    reason
}

/// Whether a channel may have this name: 1 to 255 bytes, and no control characters.
pub fn is_name(name: &str) -> bool {
    let is_control = |byte: &u8| *byte < 0x20 || *byte == 0x7f;
    (1..=MAX_CHANNEL_NAME).contains(&name.len()) && !name.as_bytes().iter().any(is_control)
}

/// The namespace of a channel of this name: what comes before its first `:`, and without one the namespace without a name.
pub fn namespace(name: &str) -> &str {
    name.split_once(':').map_or("", |(namespace, _)| namespace)
}

/// What the name of the channel begins with that tells who is subscribed to the one whose name follows.
pub const PRESENCE_PREFIX: &str = "$presence:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_1_to_255_bytes_and_no_control_characters() {
        let longest = "é".repeat(127) + "x";
        assert_eq!(longest.len(), 255);
        for name in ["a", ":", "room:42", "späť 🦀", "\u{80}", &longest] {
            assert!(is_name(name), "{name:?}");
        }
        for name in ["", "a\n", "\u{0}", "\u{1f}a", "a\u{7f}", &(longest + "x")] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn the_namespace_is_what_comes_before_the_first_colon() {
        for (name, expected) in [("room:42", "room"), ("a:b:c", "a"), ("lobby", ""), (":x", ""), ("x:", "x")] {
            assert_eq!(namespace(name), expected);
        }
    }
}
