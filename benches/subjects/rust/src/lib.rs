//! What the subjects on Rust share: arguments and the ready line, what is sent by the clock, and, for WebTransport, the socket, TLS and
//! the behaviours. Their libraries differ; the work that they are asked to do does not.

pub mod clock;
pub mod contract;
pub mod quic;
pub mod webtransport;
