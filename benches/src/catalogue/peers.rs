//! The peers, each with its own best settings. Versions stand in the lock files of `subjects/`, and in the results by what each says of itself.

use super::{Entry, Protocol};
use crate::results::Kind;
use crate::subject::App;

const ALL: &[App] = &[App::Fanout, App::Echo, App::Idle, App::State, App::Tokens];

/// What all that stand on quinn have in common (`subjects/rust/src/quic.rs`).
macro_rules! on_quinn {
    ($what:literal) => {
        concat!(
            $what,
            "; quinn with 16 streams of each kind, 64 KiB of datagrams, socket buffers of 4 MiB, no session tickets, no keep-alive; tokio on one thread. \
             State: a loop over all sessions"
        )
    };
}

pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        name: "Bun",
        kind: Kind::Peer,
        protocols: &[Protocol::WebSocket, Protocol::Sse],
        apps: ALL,
        tls: true,
        command: &["{subjects}/node/node_modules/.bin/bun", "{subjects}/node/bun-ws.mjs"],
        needs: "{subjects}/node/node_modules/.bin/bun",
        settings: "Bun.serve (uWebSockets inside): fan-out by publish to a topic; no permessage-deflate, no pings, no idle timeout. SSE by a direct ReadableStream",
    },
    Entry {
        name: "ws",
        kind: Kind::Peer,
        protocols: &[Protocol::WebSocket, Protocol::Sse],
        apps: ALL,
        tls: true,
        command: &["node", "{subjects}/node/ws.mjs"],
        needs: "{subjects}/node/node_modules/ws",
        settings: "Node; no permessage-deflate, no check of UTF-8, no list of clients, bufferutil. Fan-out: framed once with Sender.frame, and the same bytes written to \
                   every socket. SSE by Node's own HTTP server",
    },
    Entry {
        name: "Socket.IO",
        kind: Kind::Peer,
        protocols: &[Protocol::SocketIo],
        apps: ALL,
        tls: true,
        command: &["node", "{subjects}/node/socketio.mjs"],
        needs: "{subjects}/node/node_modules/socket.io",
        settings: "Node; WebSocket from the start, no permessage-deflate, the first request of each connection forgotten, the in-memory adapter. State is volatile",
    },
    Entry {
        name: "ws game",
        kind: Kind::Peer,
        protocols: &[Protocol::WebSocket],
        apps: &[App::Game],
        tls: false,
        command: &["node", "{subjects}/node/game-ws.mjs"],
        needs: "{subjects}/node/node_modules/ws",
        settings: "the arena in JavaScript (subjects/node/game/); ws as above. A state is left out for whom more than one waits in the library",
    },
    Entry {
        name: "Socket.IO game",
        kind: Kind::Peer,
        protocols: &[Protocol::SocketIo],
        apps: &[App::Game],
        tls: false,
        command: &["node", "{subjects}/node/game-socketio.mjs"],
        needs: "{subjects}/node/node_modules/socket.io",
        settings: "the arena in JavaScript (subjects/node/game/); Socket.IO as above. States are binary and volatile, inputs text",
    },
    Entry {
        name: "Socket.IO with recovery",
        kind: Kind::Peer,
        protocols: &[Protocol::SocketIo],
        apps: &[App::Idle],
        tls: true,
        command: &["node", "{subjects}/node/socketio.mjs", "--recovery"],
        needs: "{subjects}/node/node_modules/socket.io",
        settings: "as Socket.IO, with connectionStateRecovery for two minutes, without middlewares; each connection is sent one event at its beginning, or it could not be recovered",
    },
    Entry {
        name: "SockJS",
        kind: Kind::Peer,
        protocols: &[Protocol::SockJs],
        apps: ALL,
        tls: true,
        command: &["node", "{subjects}/node/sockjs.mjs"],
        needs: "{subjects}/node/node_modules/sockjs",
        settings: "Node; WebSocket transport, no log. It has no broadcast: each connection is written to",
    },
    Entry {
        name: "socketioxide",
        kind: Kind::Peer,
        protocols: &[Protocol::SocketIo],
        apps: ALL,
        tls: false,
        command: &["{programs}/../subjects/release/socketioxide"],
        needs: "{programs}/../subjects/release/socketioxide",
        settings: "axum, tokio on one thread; WebSocket from the start, read buffers of 1 KiB instead of 4, TCP_NODELAY. State is volatile",
    },
    Entry {
        name: "nchan",
        kind: Kind::Peer,
        protocols: &[Protocol::WebSocket, Protocol::Sse, Protocol::Poll],
        // It sends nothing by itself: what it delivers is published to it, by WebSocket or by POST.
        apps: &[App::Fanout, App::Idle],
        tls: true,
        command: &["{subjects}/nginx/nchan"],
        needs: "/usr/lib/nginx/modules/ngx_nchan_module.so",
        settings: "nginx with one worker, no access log; a channel for each path that keeps the last 100. What it delivers, the load generator publishes: by WebSocket, or, for \
                   SSE and polls, by POST",
    },
    Entry {
        name: "h3-webtransport",
        kind: Kind::Peer,
        protocols: &[Protocol::WebTransport],
        apps: ALL,
        tls: false,
        command: &["{programs}/../subjects/release/h3-webtransport"],
        needs: "{programs}/../subjects/release/h3-webtransport",
        settings: on_quinn!("stock, on h3-quinn"),
    },
    Entry {
        name: "wtransport",
        kind: Kind::Peer,
        protocols: &[Protocol::WebTransport],
        apps: ALL,
        tls: false,
        command: &["{programs}/../subjects/release/wtransport"],
        needs: "{programs}/../subjects/release/wtransport",
        settings: on_quinn!("stock"),
    },
    Entry {
        name: "web-transport-quinn",
        kind: Kind::Peer,
        protocols: &[Protocol::WebTransport],
        apps: ALL,
        tls: false,
        command: &["{programs}/../subjects/release/web-transport-quinn"],
        needs: "{programs}/../subjects/release/web-transport-quinn",
        settings: on_quinn!("stock"),
    },
    Entry {
        name: "aioquic",
        kind: Kind::Peer,
        protocols: &[Protocol::WebTransport],
        apps: ALL,
        tls: false,
        command: &["{subjects}/python/.venv/bin/python", "{subjects}/python/webtransport.py"],
        needs: "{subjects}/python/.venv/bin/python",
        settings: "CPython with uvloop; no logger. State: a loop over all sessions, and fewer of them than elsewhere, since a few thousand datagrams per second fill its core",
    },
];
