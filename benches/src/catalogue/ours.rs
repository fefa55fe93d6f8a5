//! Throughline itself: the library with its defaults, but for limits per address, since here everybody comes from one.

use super::{Entry, Protocol, Transport};
use crate::results::Kind;
use crate::subject::App;

pub(super) const ENTRIES: &[Entry] = &[Entry {
    name: "throughline",
    kind: Kind::Ours,
    protocols: &[
        Protocol::Throughline(Transport::WebTransport),
        Protocol::Throughline(Transport::WebSocket),
        Protocol::Throughline(Transport::Sse),
        Protocol::Throughline(Transport::Poll),
        Protocol::Events,
    ],
    apps: &[App::Fanout, App::Echo, App::Idle, App::State, App::Tokens, App::Game],
    tls: true,
    command: &["{programs}/examples/subject", "--app", "{app}"],
    needs: "{programs}/examples/subject",
    settings: "the library's defaults, but for limits per address; tokio on one thread. Fan-out: publications in a channel that all are subscribed to, \
               which keeps the last 100. State: a loop over all sessions with send_datagram, newest wins. Tokens: a message to each session, or publications in a channel. Sessions that can be resumed",
}];
