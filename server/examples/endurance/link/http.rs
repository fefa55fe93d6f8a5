//! Requests over TCP, one after the other on one connection, and the uplink that is made of them (SPEC section 7.5).

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming as Body;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use throughline_protocol::{Decoder, Frame, Welcome};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Incoming, Place};
use crate::Failure;
use crate::fault::{self, Fault};

/// How long a client that was answered 410 reads on (SPEC section 7.5).
const LAST_WORDS: Duration = Duration::from_secs(3);

/// A client of one server, with one connection.
pub(crate) struct Requests {
    place: Place,
    fault: Fault,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// Drives the connection.
    driver: JoinSet<()>,
}

impl Requests {
    pub(crate) fn new(place: &Place, fault: &Fault) -> Self {
        Self { place: *place, fault: fault.clone(), connection: None, driver: JoinSet::new() }
    }

    /// Sends a request; the body of the answer is not read, and must be before the next request.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<Response<Body>, Failure> {
        let to: SocketAddr = self.place.tcp;
        let mut request = Request::builder().method(method).uri(path).header("host", to.to_string());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body))?;
        let kept = match self.connection.take() {
            Some(mut connection) => connection.ready().await.is_ok().then_some(connection),
            None => None,
        };
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let stream = fault::connect(to, self.place.from, &self.fault).await?;
                let (connection, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                self.driver.spawn(async move { drop(driver.await) }); // the request says how it ended
                connection
            }
        };
        let answer = connection.send_request(request).await?;
        self.connection = Some(connection);
        Ok(answer)
    }

    /// Sends a request, and returns the status and the body of the answer.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let (head, body) = self.send(method, path, headers, body).await?.into_parts();
        Ok((head.status, body.collect().await?.to_bytes()))
    }
}

/// What names a link in a POST or a further poll.
pub(super) fn link_headers(welcome: &Welcome) -> Vec<(&'static str, String)> {
    vec![
        ("throughline-session", welcome.session.to_string()),
        ("throughline-key", welcome.key.expose()),
        ("throughline-link", welcome.link.to_string()),
    ]
}

/// The WELCOME that a packet begins with.
pub(super) fn welcome(packet: &Bytes) -> Result<Welcome, Failure> {
    let mut decoder = Decoder::new();
    decoder.push(packet.clone());
    match decoder.next_frame()? {
        Some(Frame::Welcome(welcome)) => Ok(welcome),
        other => Err(format!("{other:?} instead of WELCOME").into()),
    }
}

/// One POST after the other.
pub(super) async fn post_all(
    place: Place,
    fault: Fault,
    names: Vec<(&'static str, String)>,
    mut outgoing: mpsc::Receiver<Bytes>,
    incoming: mpsc::Sender<Incoming>,
) {
    let mut requests = Requests::new(&place, &fault);
    while let Some(packet) = outgoing.recv().await {
        let lost = match requests.ask(Method::POST, "/rt/send", &names, packet).await {
            Ok((StatusCode::NO_CONTENT, _)) => continue,
            Ok((status, body)) => {
                // The reason may be on its way down.
                tokio::time::sleep(LAST_WORDS).await;
                format!("POST was answered {status}: {}", String::from_utf8_lossy(&body))
            }
            Err(error) => format!("POST: {error}"),
        };
        drop(incoming.send(Incoming::Lost(lost)).await); // nobody reads it when the link is left
        return;
    }
}
