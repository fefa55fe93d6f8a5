//! The limit of a fan-out: one thread writes the same bytes to one socket after the other.
//!
//! It speaks as much WebSocket as the load generator needs, so that the bytes, and the clients, are those of every other subject.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio_tungstenite::tungstenite;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Bytes, Message};

use super::{Arguments, Ports};
use crate::Failure;

/// Of a thread that waits for what a publisher says; there is one for each connection.
const STACK: usize = 128 * 1_024;

/// Subscribers say next to nothing.
const READ_BUFFER: usize = 512;

/// Everybody, by number.
type Sockets = Arc<Mutex<Vec<(u64, TcpStream)>>>;

pub(super) fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let listener = TcpListener::bind(arguments.tcp)?;
    Ports { tcp: Some(listener.local_addr()?.port()), ..Ports::default() }.announce()?;
    let sockets = Sockets::default();
    let numbers = AtomicU64::new(0);
    for stream in listener.incoming() {
        let (stream, sockets) = (stream?, Arc::clone(&sockets));
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        thread::Builder::new().stack_size(STACK).spawn(move || {
            drop(follow(number, stream, &sockets)); // the connection has ended, in whatever way
            lock(&sockets).retain(|(other, _)| *other != number);
        })?;
    }
    Ok(())
}

/// Hands on what comes on this connection.
fn follow(number: u64, stream: TcpStream, sockets: &Sockets) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let writing = stream.try_clone()?;
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER).write_buffer_size(0);
    let mut reading =
        tungstenite::accept_with_config(stream, Some(config)).map_err(|_| "the handshake of WebSocket failed")?;
    lock(sockets).push((number, writing));
    loop {
        let (payload, kind) = match reading.read()? {
            Message::Binary(payload) => (payload, Data::Binary),
            Message::Text(payload) => (payload.into(), Data::Text),
            _ => continue,
        };
        let frame = encoded(payload, kind)?;
        for (_, socket) in lock(sockets).iter_mut().filter(|(other, _)| *other != number) {
            drop(socket.write_all(&frame)); // its own thread finds out that it has gone
        }
    }
}

fn encoded(payload: Bytes, kind: Data) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    Frame::message(payload, OpCode::Data(kind), true).format(&mut bytes)?;
    Ok(bytes)
}

fn lock(sockets: &Sockets) -> std::sync::MutexGuard<'_, Vec<(u64, TcpStream)>> {
    sockets.lock().unwrap_or_else(PoisonError::into_inner)
}
