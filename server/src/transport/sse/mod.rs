//! Server-Sent Events: one event is one packet, in base64 (SPEC section 7.3). The uplink is POST.

mod body;
mod event;

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};
use parking_lot::Mutex;
use throughline_protocol::{Close, Packet};

use super::Transport;
use super::link::{Direct, Line, Link, LinkEnd, Received};
use super::uplink::Uplink;
use crate::socket::endless::Endless;
use crate::socket::takeover::{Offer, Takeover};
use event::{chunk, event};

/// Longest packet in one event, in bytes: short, since an event is handed over whole and datagrams wait behind it.
const MAX_EVENT_PACKET: usize = 65_536;

/// Answers with an event stream. Hands over the link, and the place where its POSTs wait: at once, or when the connection was taken over, if that is on offer.
pub(crate) fn open(offer: Option<Offer>, on_link: impl FnOnce(SseLink, Arc<Uplink>) + Send + 'static) -> Response {
    let mut response = match offer {
        Some(Offer) => Takeover::response(move |taken| {
            let stream = Stream { answer: Endless::new(taken), sent: 0 };
            let (link, uplink) = SseLink::new(Carrier::Socket(Arc::new(Mutex::new(stream))));
            on_link(link, uplink);
        }),
        None => {
            let (writer, body) = body::pair();
            let (link, uplink) = SseLink::new(Carrier::Body(writer, 0));
            on_link(link, uplink);
            Response::new(Body::new(body))
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // Asks nginx not to collect the events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// An event stream that carries a session.
pub(crate) struct SseLink {
    carrier: Carrier,
    uplink: Arc<Uplink>,
}

enum Carrier {
    /// The connection itself.
    Socket(Arc<Mutex<Stream>>),
    /// The body of a response, and the events so far. One event deep: whatever else is to be sent stays where newer things can replace it.
    Body(body::Writer, u64),
}

/// A connection that an event stream has for itself.
struct Stream {
    answer: Endless,
    /// Packets so far: the `id:` of the last event.
    sent: u64,
}

impl SseLink {
    fn new(carrier: Carrier) -> (Self, Arc<Uplink>) {
        let uplink = Arc::new(Uplink::default());
        (Self { carrier, uplink: Arc::clone(&uplink) }, uplink)
    }
}

impl Stream {
    fn put(&mut self, packet: &Packet) {
        self.sent += 1;
        self.answer.put(chunk(self.sent, packet));
    }
}

impl Line for Stream {
    const MAX_PACKET: usize = MAX_EVENT_PACKET;

    fn is_blocked(&self) -> bool {
        !self.answer.is_written()
    }

    fn write(&mut self, packet: &mut Packet) -> bool {
        self.sent += 1;
        self.answer.write_now(chunk(self.sent, packet))
    }
}

impl Link for SseLink {
    fn transport(&self) -> Transport {
        Transport::Sse
    }

    fn peer_sends_requests(&self) -> bool {
        true
    }

    fn max_packet(&self) -> usize {
        MAX_EVENT_PACKET
    }

    fn direct(&self) -> Option<Arc<dyn Direct>> {
        match &self.carrier {
            Carrier::Socket(stream) => Some(Arc::clone(stream) as Arc<dyn Direct>),
            Carrier::Body(..) => None,
        }
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, LinkEnd>> {
        // The POSTs first: a CLOSE may be among them, after which the client left.
        if let Poll::Ready(posted) = self.uplink.poll_recv(cx) {
            return Poll::Ready(Ok(Received::Posted(posted)));
        }
        ready!(match &self.carrier {
            Carrier::Socket(stream) => stream.lock().answer.poll_abandoned(cx),
            Carrier::Body(writer, _) => writer.poll_abandoned(cx),
        });
        Poll::Ready(Err(abandoned()))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        match &self.carrier {
            Carrier::Socket(stream) => stream.lock().answer.poll_write(cx).map_err(|_| abandoned()),
            Carrier::Body(writer, _) => {
                writer.poll_ready(cx).map(|is_there| if is_there { Ok(()) } else { Err(abandoned()) })
            }
        }
    }

    fn send(&mut self, packet: Packet) {
        match &mut self.carrier {
            Carrier::Socket(stream) => stream.lock().put(&packet),
            Carrier::Body(writer, sent) => {
                *sent += 1;
                writer.put(event(*sent, &packet));
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        match &self.carrier {
            Carrier::Socket(stream) => stream.lock().answer.poll_write(cx).map_err(|_| abandoned()),
            Carrier::Body(..) => Poll::Ready(Ok(())), // the body asks for what it can take
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, _: &Close) -> Poll<()> {
        self.uplink.close();
        match &self.carrier {
            Carrier::Socket(stream) => stream.lock().answer.poll_close(cx).map(drop),
            Carrier::Body(writer, _) => {
                writer.finish();
                writer.poll_abandoned(cx)
            }
        }
    }
}

impl Drop for SseLink {
    fn drop(&mut self) {
        self.uplink.close();
    }
}

fn abandoned() -> LinkEnd {
    LinkEnd::Lost("the client left the event stream".into())
}
