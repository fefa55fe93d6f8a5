//! Sessions of any transport that only stay.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use throughline_protocol::{Decoder, Frame, FrameError, Welcome};

use crate::tcp::Server;
use crate::{poll, sse, websocket, webtransport};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Keeps one session for as long as it is polled, and ends only when that fails.
pub(crate) type Holding = BoxFuture<'static, Result<(), Failure>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    #[value(name = "webtransport")]
    WebTransport,
    #[value(name = "websocket")]
    WebSocket,
    Sse,
    Poll,
}

/// Opens sessions at one server.
pub(crate) enum Opener {
    WebTransport(webtransport::Server),
    Tcp(Kind, Server),
}

impl Opener {
    pub(crate) fn new(transport: Kind, address: SocketAddr, base: &str, tls: bool) -> Result<Self, Failure> {
        Ok(match transport {
            Kind::WebTransport => Self::WebTransport(webtransport::Server::new(address, base)?),
            _ => Self::Tcp(transport, Server::new(address, base, tls)?),
        })
    }

    /// Opens the session with this number, from 0, and says its first PING.
    pub(crate) async fn open(&self, number: usize) -> Result<Holding, Failure> {
        match self {
            Self::WebTransport(server) => webtransport::open(server).await,
            Self::Tcp(Kind::Sse, server) => sse::open(server, number).await,
            Self::Tcp(Kind::Poll, server) => poll::open(server, number).await,
            Self::Tcp(_, server) => websocket::open(server, number).await,
        }
    }
}

/// What a session begins with.
pub(crate) fn first_ping() -> Bytes {
    encoded(&Frame::Ping { id: 1 })
}

/// The WELCOME among what has arrived.
pub(crate) fn welcome(decoder: &mut Decoder) -> Result<Option<Welcome>, FrameError> {
    while let Some(frame) = decoder.next_frame()? {
        if let Frame::Welcome(welcome) = frame {
            return Ok(Some(welcome));
        }
    }
    Ok(None)
}

/// What the frames that have arrived must be answered with, so that the server keeps the session; empty when nothing.
pub(crate) fn answer(decoder: &mut Decoder) -> Result<Bytes, Failure> {
    let mut answer = BytesMut::new();
    while let Some(frame) = decoder.next_frame()? {
        match frame {
            Frame::Ping { id } => Frame::Pong { id, time_us: 0 }.encode(&mut answer),
            Frame::Close(close) => return Err(format!("the server closed a session: {close}").into()),
            _ => {}
        }
    }
    Ok(answer.freeze())
}

fn encoded(frame: &Frame) -> Bytes {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    bytes.freeze()
}
