//! Why a session ends (SPEC section 8), and whether a client should come back by itself.

use std::fmt;

use crate::limits::MAX_REASON;

/// Who chose a close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This protocol: the code is one of [`Code`].
    Protocol,
    /// The application: the code is its own.
    Application,
}

/// The end of a session: the content of a CLOSE frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// A [`Code`], or the application's own number.
    pub code: u32,
    /// Whose number it is.
    pub origin: Origin,
    /// For a person. At most [`MAX_REASON`] bytes.
    pub reason: String,
}

impl Close {
    /// A close by the protocol itself.
    pub fn protocol(code: Code, reason: impl Into<String>) -> Self {
        Self { code: code as u32, origin: Origin::Protocol, reason: truncated(reason.into()) }
    }

    /// A close by the application, with a code of its own. A reason over [`MAX_REASON`] bytes is cut at a character.
    pub fn application(code: u32, reason: impl Into<String>) -> Self {
        Self { code, origin: Origin::Application, reason: truncated(reason.into()) }
    }

    /// Whether a client should open a new session by itself.
    pub fn retry(&self) -> bool {
        self.origin == Origin::Protocol && Code::from_number(self.code).is_some_and(Code::retry)
    }

    /// The name of the code, for logs and answers: `application` when it is not the protocol's.
    pub fn name(&self) -> &'static str {
        match self.origin {
            Origin::Application => "application",
            Origin::Protocol => Code::from_number(self.code).map_or("UNKNOWN", Code::name),
        }
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Protocol => f.write_str(self.name())?,
            Origin::Application => write!(f, "application code {}", self.code)?,
        }
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}

fn truncated(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(MAX_REASON));
    reason
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, retry $retry:literal;)*) => {
        /// The protocol's own close codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Code { $($(#[$doc])* $variant = $number,)* }

        impl Code {
            /// Every code, in the order of its number.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The code with this number.
            pub fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The name that SPEC.md gives it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether a client should open a new session by itself.
            pub fn retry(self) -> bool {
                match self { $(Self::$variant => $retry,)* }
            }
        }
    };
}

codes! {
    /// The session ended as planned.
    Normal = 0, "NORMAL", retry false;
    /// The server failed.
    InternalError = 1, "INTERNAL_ERROR", retry true;
    /// A frame that is not allowed here, or whose values cannot be.
    ProtocolViolation = 2, "PROTOCOL_VIOLATION", retry false;
    /// A frame that cannot be read.
    MalformedFrame = 3, "MALFORMED_FRAME", retry false;
    /// A frame type that is not known.
    UnknownFrame = 4, "UNKNOWN_FRAME", retry false;
    /// A frame or packet over its limit.
    FrameTooLarge = 5, "FRAME_TOO_LARGE", retry false;
    /// Stream bytes beyond the credit.
    FlowControl = 6, "FLOW_CONTROL", retry false;
    /// A message over `max_message`.
    MessageTooLarge = 7, "MESSAGE_TOO_LARGE", retry false;
    /// An unknown kind of message, or text that is not UTF-8.
    MalformedMessage = 8, "MALFORMED_MESSAGE", retry false;
    /// A datagram over 1,100 bytes.
    DatagramTooLarge = 9, "DATAGRAM_TOO_LARGE", retry false;
    /// The client speaks another version.
    UnsupportedVersion = 10, "UNSUPPORTED_VERSION", retry false;
    /// The token was refused.
    Unauthorized = 11, "UNAUTHORIZED", retry false;
    /// The Origin, or the application, says no.
    Forbidden = 12, "FORBIDDEN", retry false;
    /// A limit of the server.
    LimitReached = 13, "LIMIT_REACHED", retry true;
    /// The session is gone, or never was.
    UnknownSession = 14, "UNKNOWN_SESSION", retry true;
    /// The client opened a link and said nothing.
    OpenTimeout = 15, "OPEN_TIMEOUT", retry true;
    /// Nothing was heard for the idle time.
    IdleTimeout = 16, "IDLE_TIMEOUT", retry true;
    /// The session was without a link for longer than its window. Never on the wire.
    LinkLost = 17, "LINK_LOST", retry true;
    /// The server is going away.
    ShuttingDown = 18, "SHUTTING_DOWN", retry true;
    /// An opening that cannot be understood.
    BadRequest = 19, "BAD_REQUEST", retry false;
    /// No transport worked. Never on the wire.
    Unreachable = 20, "UNREACHABLE", retry true;
    /// Another link carries the session. Never in a CLOSE: what a carrier is closed with.
    LinkReplaced = 21, "LINK_REPLACED", retry false;
    /// A stream beyond the number that may be opened.
    StreamLimit = 22, "STREAM_LIMIT", retry false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_names_and_retry_stand_in_the_spec_as_here() {
        let spec = include_str!("../SPEC.md");
        for code in Code::ALL {
            let retry = if code.retry() { "yes" } else { "no" };
            let row = format!("| {} | {} | {retry} |", *code as u32, code.name());
            assert!(spec.contains(&row), "SPEC.md lacks: {row}");
            assert_eq!(Code::from_number(*code as u32), Some(*code));
        }
        assert_eq!(Code::from_number(Code::ALL.len() as u32), None);
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let close = Close::application(1, "é".repeat(600));
        assert_eq!(close.reason.len(), MAX_REASON);
        let close = Close::application(1, format!("a{}", "é".repeat(600)));
        assert_eq!(close.reason.len(), MAX_REASON - 1);
    }

    #[test]
    fn an_application_code_is_never_retried() {
        assert!(Close::protocol(Code::ShuttingDown, "").retry());
        assert!(!Close::application(Code::ShuttingDown as u32, "").retry());
    }
}
