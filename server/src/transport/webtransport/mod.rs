//! HTTP/3 and WebTransport on one UDP port.
//!
//! [`h3`] speaks HTTP/3 for requests, the CONNECT request included; WebTransport's streams and
//! datagrams stay on [`quinn`] itself. `h3-quinn`, `h3-datagram` and `h3-webtransport` are
//! deliberately absent: ARCHITECTURE.md says why.
//!
//! - [`endpoint`] admits connections, [`connection`] is the one task that each of them has; [`quic`] and [`crypto`] say how QUIC is set up;
//! - [`adapter`] implements `h3::quic` over quinn, and tells the streams apart as they come in
//!   ([`probe`]), caps what h3 would buffer ([`gate`]) and completes its SETTINGS ([`settings`]);
//! - [`table`] knows the sessions of a connection and hands them their streams and datagrams;
//! - [`request`] turns requests into calls of an [`axum::Router`], [`upgrade`] a CONNECT into a
//!   [`WebTransport`] ([`session`], [`capsule`], [`stream`], [`datagram`]).
//!
//! Nothing here knows what Throughline says inside a session.

mod adapter;
mod capsule;
mod codes;
mod connection;
mod crypto;
mod datagram;
mod endpoint;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gate;
mod limits;
mod probe;
mod quic;
mod request;
mod session;
mod settings;
mod stream;
mod table;
mod upgrade;
mod varint;

pub(crate) use datagram::DatagramSender;
pub(crate) use endpoint::{bind, serve};
pub(crate) use limits::Limits;
pub(crate) use quic::quic_config;
pub(crate) use session::{Closed, How, WebTransport};
pub(crate) use stream::{OpenError, RecvStream, SendStream, StreamError};
pub(crate) use upgrade::{Upgrade, UpgradeError};

#[cfg(test)]
mod tests;
