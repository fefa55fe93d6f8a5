//! The four transports. Each turns bytes into packets and back; nobody above can tell which one carries a session,
//! except by asking for its name.

use std::fmt;

pub(crate) mod link;
pub(crate) mod open;
pub(crate) mod poll;
pub(crate) mod sse;
pub(crate) mod uplink;
pub(crate) mod websocket;
#[allow(dead_code, reason = "the layer is whole and tested whole; a session uses no streams that go one way")]
pub(crate) mod webtransport;
pub(crate) mod webtransport_link;

/// The kind of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// HTTP/3 WebTransport: streams and native datagrams.
    WebTransport,
    /// WebSocket over HTTP/1.1 or HTTP/2.
    WebSocket,
    /// Server-Sent Events down, POST up.
    Sse,
    /// Long-polling down, POST up.
    Poll,
}

impl Transport {
    /// The name that the protocol, the client and the logs use.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebTransport => "webtransport",
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Poll => "poll",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
