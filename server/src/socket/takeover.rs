//! Taking a connection from HTTP/1.1 in the middle of a request: whoever answers it says who takes the socket, and writes
//! the answer himself. The way back is open, too.
//!
//! A request that has an [`Offer`] may be answered with [`Takeover::response`]. What comes between there and the listener sees a response like any other, and
//! may add headers. HTTP/2, HTTP/3 and other people's servers make no offer: there an answer has a body.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use parking_lot::Mutex;

use super::Socket;
use super::unwritten::Unwritten;

/// In the extensions of a request: its connection can be had.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer;

/// In the extensions of a response: who takes the connection.
#[derive(Clone)]
pub(crate) struct Takeover(Arc<Mutex<Option<Take>>>);

type Take = Box<dyn FnOnce(Taken) + Send>;

impl Takeover {
    /// An answer whose status and headers are those of the response, and which `take` writes. Dropped without a call when the connection ends before.
    pub(crate) fn response(take: impl FnOnce(Taken) + Send + 'static) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(Self(Arc::new(Mutex::new(Some(Box::new(take))))));
        response
    }

    /// Hands the connection over.
    pub(crate) fn complete(self, taken: Taken) {
        let take = self.0.lock().take();
        if let Some(take) = take {
            take(taken);
        }
    }
}

/// A connection that was taken over, and where it goes back to.
pub(crate) struct Taken {
    pub(crate) socket: Socket,
    headers: Bytes,
    peer: SocketAddr,
    origin: Arc<dyn Origin>,
}

/// Who speaks HTTP on connections.
pub(crate) trait Origin: Send + Sync {
    /// Writes what is left of an answer, and goes on with the next request.
    fn resume(self: Arc<Self>, socket: Socket, peer: SocketAddr, unwritten: Unwritten);
}

impl Taken {
    /// The answer has these headers.
    pub(crate) fn new(socket: Socket, headers: &HeaderMap, peer: SocketAddr, origin: Arc<dyn Origin>) -> Self {
        Self { socket, headers: lines(headers), peer, origin }
    }

    /// The head of the answer. `own` are the headers that only its writer knows, each line with its end.
    pub(crate) fn head(&self, status: StatusCode, own: fmt::Arguments<'_>) -> Bytes {
        let mut head = String::with_capacity(192 + self.headers.len());
        let (number, reason) = (status.as_u16(), status.canonical_reason().unwrap_or_default());
        let date = httpdate::HttpDate::from(SystemTime::now());
        // Writing into a String does not fail.
        let _ = write!(head, "HTTP/1.1 {number} {reason}\r\ndate: {date}\r\n{own}");
        let mut head = head.into_bytes();
        head.extend_from_slice(&self.headers);
        head.extend_from_slice(b"\r\n");
        head.into()
    }

    /// Gives the connection back, with what is left to be written of its answer.
    pub(crate) fn give_back(self, unwritten: Unwritten) {
        self.origin.resume(self.socket, self.peer, unwritten);
    }
}

/// Headers as they go over the wire, but for those that say how long the body is and what becomes of the connection: its writer does.
fn lines(headers: &HeaderMap) -> Bytes {
    let own = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::DATE];
    let mut lines = Vec::new();
    for (name, value) in headers.iter().filter(|(name, _)| !own.contains(name)) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
    Vec::into_boxed_slice(lines).into()
}
