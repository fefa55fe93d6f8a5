//! What a session promises, on every transport: the server, through its public interface, and a client on the other end of loopback.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod closing;
mod embedding;
mod flow;
mod limits;
mod messages;
mod opening;
mod refresh;
mod resume;
mod shutdown;
mod sockets;
mod streams;
mod uplink;
