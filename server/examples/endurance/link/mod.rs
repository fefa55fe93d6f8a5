//! One connection that carries a session, of any of the four transports.

mod http;
mod poll;
mod sse;
mod udp;
mod websocket;
mod webtransport;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use throughline::{SessionId, Transport};
use throughline_protocol::{Decoder, Frame, ResumeKey, Welcome};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Failure;
use crate::fault::Fault;

pub(crate) use http::Requests;
pub(crate) use webtransport::{Connected, Natives};

/// All of them, from the best to the one that always works.
pub(crate) const TRANSPORTS: [Transport; 4] =
    [Transport::WebTransport, Transport::WebSocket, Transport::Sse, Transport::Poll];

/// From the request to WELCOME. On loopback only a server that is overwhelmed takes longer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a server listens, and which address its client has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) tcp: SocketAddr,
    pub(crate) quic: SocketAddr,
    pub(crate) from: Ipv4Addr,
}

/// What names a session that is to be resumed.
#[derive(Debug, Clone)]
pub(crate) struct Resume {
    pub(crate) session: SessionId,
    pub(crate) key: ResumeKey,
    /// Of the message stream, in bytes.
    pub(crate) received: u64,
}

/// What comes from the server.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Bytes of the link: whole frames, except on webtransport.
    Bytes(Bytes),
    /// Bytes of a native stream beside the link stream, by the number that [`Natives`] gave it; none at its end.
    Native(u64, Option<Bytes>),
    /// The connection is gone.
    Lost(String),
}

/// A connection whose WELCOME has arrived. Dropping it ends it.
pub(crate) struct Link {
    pub(crate) transport: Transport,
    pub(crate) welcome: Welcome,
    pub(crate) fault: Fault,
    /// What came behind WELCOME.
    pub(crate) decoder: Decoder,
    pub(crate) natives: Option<Natives>,
    /// On webtransport. It is dropped before the tasks are.
    pub(crate) connected: Option<Connected>,
    outgoing: mpsc::Sender<Bytes>,
    incoming: mpsc::Receiver<Incoming>,
    _tasks: JoinSet<()>,
}

/// What a transport gives a link to work with. Each direction is one packet deep.
struct Ends {
    outgoing: mpsc::Sender<Bytes>,
    incoming: mpsc::Receiver<Incoming>,
    natives: Option<Natives>,
    connected: Option<Connected>,
    tasks: JoinSet<()>,
}

impl Link {
    /// Opens a link for a new session, or a further one of a session.
    pub(crate) async fn open(
        place: &Place,
        transport: Transport,
        resume: Option<&Resume>,
        fault: &Fault,
    ) -> Result<Self, Failure> {
        let opening = async {
            let mut ends = match transport {
                Transport::WebTransport => webtransport::open(place, resume, fault).await?,
                Transport::WebSocket => websocket::open(place, resume, fault).await?,
                Transport::Sse => sse::open(place, resume, fault).await?,
                _ => poll::open(place, resume, fault).await?,
            };
            let mut decoder = Decoder::new();
            let welcome = loop {
                match ends.incoming.recv().await {
                    Some(Incoming::Bytes(bytes)) => decoder.push(bytes),
                    other => return Err(format!("{transport}: {other:?} instead of WELCOME").into()),
                }
                match decoder.next_frame()? {
                    Some(Frame::Welcome(welcome)) => break welcome,
                    Some(other) => return Err(format!("{transport}: {other:?} instead of WELCOME").into()),
                    None => {}
                }
            };
            let Ends { outgoing, incoming, natives, connected, tasks } = ends;
            let fault = fault.clone();
            Ok(Self { transport, welcome, fault, decoder, natives, connected, outgoing, incoming, _tasks: tasks })
        };
        tokio::select! {
            opened = opening => opened,
            () = fault.broken() => Err(format!("{transport}: cut while it was opened").into()),
            () = tokio::time::sleep(OPEN_TIMEOUT) => Err(format!("{transport}: no WELCOME in time").into()),
        }
    }

    pub(crate) async fn next(&mut self) -> Incoming {
        let gone = || Incoming::Lost("the connection ended".into());
        self.incoming.recv().await.unwrap_or_else(gone)
    }

    pub(crate) fn outgoing(&self) -> &mpsc::Sender<Bytes> {
        &self.outgoing
    }
}

/// The fields of section 7 as `(name, value)`, with the names of headers.
fn headers(resume: Option<&Resume>) -> Vec<(&'static str, String)> {
    let mut all = vec![("throughline-version", "1".to_owned())];
    if let Some(Resume { session, key, received }) = resume {
        all.push(("throughline-session", session.to_string()));
        all.push(("throughline-key", key.expose()));
        all.push(("throughline-received", format!("0.{received}")));
    }
    all
}
