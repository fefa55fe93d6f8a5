//! `socketioxide` on axum. Each behaviour is a namespace of its name; events are called `message`.
//!
//! Settings: Nagle's algorithm off, 1 KiB read buffers instead of 4.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::serve::ListenerExt;
use bytes::Bytes;
use clap::Parser;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};
use socketioxide::SocketIo;
use socketioxide::extract::{Data, SocketRef};
use throughline_bench_subjects::clock::{Clock, Seat};
use throughline_bench_subjects::contract::{Arguments, Failure, Listens, ready, terminated};
use tokio::net::{TcpListener, TcpSocket};

const READ_BUFFER: usize = 1_024;

/// Thousands connect at once.
const BACKLOG: u32 = 16_384;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let listener = listen(Arguments::parse().tcp)?;
    let port = listener.local_addr()?.port();
    let (layer, io) = SocketIo::builder().ws_read_buffer_size(READ_BUFFER).build_layer();
    behave(&io);
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    tokio::spawn(axum::serve(listener, Router::new().layer(layer)).into_future());
    ready(Listens::Tcp(port), "socketioxide");
    terminated().await
}

fn listen(addr: SocketAddr) -> Result<TcpListener, Failure> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(addr)?;
    Ok(socket.listen(BACKLOG)?)
}

fn behave(io: &SocketIo) {
    let clock = Arc::new(Clock::default());
    io.ns("/fanout", async |socket: SocketRef| {
        socket.on("message", async |socket: SocketRef, Data(payload): Data<Payload>| {
            let _ = socket.broadcast().emit("message", &payload).await;
        });
    });
    io.ns("/echo", async |socket: SocketRef| {
        socket.on("message", async |socket: SocketRef, Data(payload): Data<Payload>| {
            let _ = socket.emit("message", &payload);
        });
    });
    io.ns("/idle", async || {});
    let states = Arc::clone(&clock);
    io.ns("/state", async move |socket: SocketRef| {
        let to = socket.clone();
        // Volatile: what cannot be sent now is dropped.
        let send = move |state: &Bytes| drop(to.volatile().emit("message", state));
        let seat = states.states(query(&socket), send);
        leave(&socket, seat);
    });
    io.ns("/tokens", async move |socket: SocketRef| {
        let to = socket.clone();
        let send = move |token: &Bytes| drop(to.emit("message", std::str::from_utf8(token).unwrap_or_default()));
        let seat = clock.tokens(query(&socket), send);
        leave(&socket, seat);
    });
}

fn leave(socket: &SocketRef, seat: Seat) {
    let seat = Arc::new(Mutex::new(Some(seat)));
    // Taken out, and not dropped: what is registered here lives as long as the socket, which the seat holds.
    socket.on_disconnect(async move || drop(seat.lock().map(|mut seat| seat.take())));
}

fn query(socket: &SocketRef) -> &str {
    socket.req_parts().uri.query().unwrap_or_default()
}

/// What a client sends, to be sent on as it is.
#[derive(Debug, Clone)]
enum Payload {
    Text(String),
    Binary(Bytes),
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Binary(bytes) => serializer.serialize_bytes(bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl Visitor<'_> for Any {
            type Value = Payload;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text or bytes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Payload, E> {
                Ok(Payload::Text(text.to_owned()))
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Payload, E> {
                Ok(Payload::Binary(bytes.into()))
            }
        }

        deserializer.deserialize_any(Any)
    }
}
