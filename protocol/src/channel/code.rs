//! Why something about channels was not done, or has ended (SPEC section 10).

/// Why a request failed, or a subscription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum ChannelCode {
    /// The server's application ended the subscription.
    Normal = 0,
    /// This session may not do that with this channel.
    NotAllowed = 1,
    /// Not a name of a channel.
    BadChannel = 2,
    /// More subscriptions than a session may have, or more channels than the server has room for.
    TooMany = 3,
    /// A publication longer than the namespace allows.
    TooLarge = 4,
    /// UNSUBSCRIBE of a channel that the session is not subscribed to.
    NotSubscribed = 5,
    /// The session is subscribed to it.
    AlreadySubscribed = 6,
    /// The server could not reach what keeps the channels.
    Unavailable = 7,
    /// The session did not take what was published in time.
    TooSlow = 8,
    /// The channel is not of the kind that this can be done with.
    WrongKind = 9,
    /// A channel of state has as many keys as the server allows.
    TooManyKeys = 10,
    /// The session asks for more per second than the server allows.
    TooFast = 11,
}

impl ChannelCode {
    /// Every code, in the order of its number.
    pub const ALL: [Self; 12] = [
        Self::Normal,
        Self::NotAllowed,
        Self::BadChannel,
        Self::TooMany,
        Self::TooLarge,
        Self::NotSubscribed,
        Self::AlreadySubscribed,
        Self::Unavailable,
        Self::TooSlow,
        Self::WrongKind,
        Self::TooManyKeys,
        Self::TooFast,
    ];

    /// The code with this number.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u64 == number)
    }

    /// The name that SPEC.md gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::BadChannel => "BAD_CHANNEL",
            Self::TooMany => "TOO_MANY",
            Self::TooLarge => "TOO_LARGE",
            Self::NotSubscribed => "NOT_SUBSCRIBED",
            Self::AlreadySubscribed => "ALREADY_SUBSCRIBED",
            Self::Unavailable => "UNAVAILABLE",
            Self::TooSlow => "TOO_SLOW",
            Self::WrongKind => "WRONG_KIND",
            Self::TooManyKeys => "TOO_MANY_KEYS",
            Self::TooFast => "TOO_FAST",
        }
    }
}
