//! Who may do what with channels.

use throughline_protocol::channel::{self, PRESENCE_PREFIX};

use super::Inner;
use crate::config::{ChannelsConfig, Namespace};
use crate::session::Identity;

/// What a client wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// To get what is published in a channel from now on, and what it keeps.
    Subscribe {
        /// Its name, which is one.
        channel: &'a str,
    },
    /// To publish in a channel, or to change its values.
    Publish {
        /// Its name, which is one.
        channel: &'a str,
    },
    /// To see what a channel keeps, without a subscription.
    History {
        /// Its name, which is one.
        channel: &'a str,
    },
    /// To see who is subscribed to a channel, now and from now on. Nobody may where its namespace does not keep that, whatever is decided here.
    Presence {
        /// The name of the channel that others are subscribed to.
        channel: &'a str,
    },
}

/// Why a client may not do what it wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Denied {
    pub(super) reason: String,
}

impl Denied {
    /// With a reason for a person: the client gets it.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// Decides what a client may do.
pub(crate) type Authorize = Box<dyn Fn(&Identity, Action<'_>) -> Result<(), Denied> + Send + Sync>;

impl Inner {
    /// Whether he may do that. The name of the channel was checked.
    pub(super) fn authorize(&self, who: &Identity, action: Action<'_>) -> Result<(), Denied> {
        let action = action.meant();
        match action {
            Action::Presence { channel } if self.presence_name(channel).is_none() => {
                return Err(Denied::new("who is subscribed to this channel is not kept"));
            }
            Action::Publish { channel } if channel.starts_with('$') => {
                return Err(Denied::new("names that begin with $ are the server's own"));
            }
            _ => {}
        }
        self.authorize.as_ref().map_or_else(|| action.allowed_by(&self.config), |authorize| authorize(who, action))
    }
}

impl<'a> Action<'a> {
    /// Whether the channel's namespace allows that to every client: what counts without [`Builder::authorize`](crate::Builder::authorize), and what a decision of
    /// one's own may begin with.
    ///
    /// # Errors
    /// [`Denied`], if it does not.
    pub fn allowed_by(self, channels: &ChannelsConfig) -> Result<(), Denied> {
        let namespace = |name| channels.namespace(channel::namespace(name));
        let (is_allowed, what) = match self {
            Action::Subscribe { channel } => (namespace(channel).subscribe, "subscribe to this channel"),
            Action::Publish { channel } => (namespace(channel).publish, "publish in this channel"),
            Action::History { channel } => (namespace(channel).history, "see the history of this channel"),
            Action::Presence { channel } => {
                let Namespace { presence, subscribe, .. } = namespace(channel);
                (presence && subscribe, "see who is subscribed to this channel")
            }
        };
        if is_allowed { Ok(()) } else { Err(Denied::new(format!("clients may not {what}"))) }
    }

    /// To read the channel that tells who is subscribed to another one is to see who is there.
    fn meant(self) -> Self {
        match self {
            Self::Subscribe { channel } | Self::History { channel } => match channel.strip_prefix(PRESENCE_PREFIX) {
                Some(channel) => Self::Presence { channel },
                None => self,
            },
            _ => self,
        }
    }
}
