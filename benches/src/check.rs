//! Before anything is measured: does each subject do its work? One that is wrong must not be taken for one that is slow, or fast.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use throughline_protocol::Decoder;
use tokio::sync::Notify;

use crate::Failure;
use crate::catalogue::{Contender, Protocol, Transport};
use crate::load::client::{Client, OnMessage, Target};
use crate::load::webtransport::{self, Link, Session};
use crate::load::{self, payload};
use crate::settings::Settings;
use crate::subject::{App, Subject};

/// As in the workloads.
const MESSAGE: usize = 100;
const STATE: usize = 150;

/// What is published, to how many.
const PUBLICATIONS: u64 = 5;
const SUBSCRIBERS: usize = 3;

/// For one application in all.
const LIMIT: Duration = Duration::from_secs(15);

/// After all has arrived: whatever comes twice has come by then.
const MORE: Duration = Duration::from_millis(50);

/// Datagrams may be lost.
const TRIES: u32 = 20;
const TRY: Duration = Duration::from_millis(100);

/// What is wrong with a subject, over this protocol.
pub(crate) fn check(contender: &Contender, settings: &Settings) -> Result<(), Failure> {
    for app in apps(contender) {
        let subject = Subject::start(contender, app, settings)?;
        let found = match contender.protocol {
            Protocol::WebTransport | Protocol::Throughline(Transport::WebTransport) => {
                load::block_on(LIMIT, datagrams(&subject, contender.protocol, app))
            }
            protocol => load::block_on(LIMIT, messages(&load::target(&subject, false)?, protocol, app)),
        };
        found.map_err(|error| format!("/{}: {error}", app.name()))?;
    }
    Ok(())
}

/// What can be checked of it.
fn apps(contender: &Contender) -> Vec<App> {
    let of_protocol: &[App] = match contender.protocol {
        Protocol::Tcp | Protocol::Tls | Protocol::Udp | Protocol::Quic => &[],
        Protocol::WebTransport | Protocol::Throughline(Transport::WebTransport) => &[App::Echo, App::State],
        Protocol::Events => &[App::Tokens],
        // Nothing can be sent to them; what publishes itself is enough then.
        Protocol::Sse | Protocol::Poll if contender.entry.apps.contains(&App::Tokens) => &[App::Tokens],
        Protocol::Sse | Protocol::Poll => &[App::Fanout],
        _ => &[App::Echo, App::Fanout],
    };
    of_protocol.iter().copied().filter(|app| contender.entry.apps.contains(app)).collect()
}

/// What a client has got.
#[derive(Clone, Default)]
struct Inbox(Rc<(RefCell<Vec<Vec<u8>>>, Notify)>);

impl Inbox {
    fn ear(&self) -> OnMessage {
        let Self(inbox) = self.clone();
        Box::new(move |message| {
            inbox.0.borrow_mut().push(message.to_vec());
            inbox.1.notify_one();
        })
    }

    /// Waits until there are so many, and a little longer.
    async fn wait_for(&self, count: usize) -> Vec<Vec<u8>> {
        while self.0.0.borrow().len() < count {
            self.0.1.notified().await;
        }
        tokio::time::sleep(MORE).await;
        self.0.0.borrow().clone()
    }
}

async fn messages(target: &Target, protocol: Protocol, app: App) -> Result<(), Failure> {
    let count = if app == App::Fanout { SUBSCRIBERS } else { 1 };
    let (mut inboxes, mut clients) = (Vec::new(), Vec::new());
    for number in 1..=count {
        let inbox = Inbox::default();
        clients.push(Client::open(target, number, load::wire(protocol, app, number)?, inbox.ear()).await?);
        inboxes.push(inbox);
    }
    if app == App::Tokens {
        let tokens = inboxes[0].wait_for(2).await;
        let are_tokens = tokens.iter().all(|token| payload::read_text(token).is_some());
        return if are_tokens { Ok(()) } else { Err("what it sends are no tokens".into()) };
    }
    // A poll that waits looks to its client like one that has not arrived yet.
    tokio::time::sleep(MORE).await;
    let sender = match app {
        App::Fanout => Client::open(target, 0, load::publisher(protocol, app)?, Box::new(|_| {})).await?,
        _ => clients.remove(0),
    };
    let mut sent = Vec::new();
    for number in 0..PUBLICATIONS {
        let mut message = vec![0; MESSAGE];
        payload::write_as(load::is_text(protocol), &mut message, Instant::now(), number);
        sender.send(Bytes::copy_from_slice(&message));
        sent.push(message);
    }
    for inbox in inboxes {
        let got = inbox.wait_for(sent.len()).await;
        if got != sent {
            return Err(format!("of {} messages it delivered {}, and not as they were", sent.len(), got.len()).into());
        }
    }
    Ok(())
}

async fn datagrams(subject: &Subject, protocol: Protocol, app: App) -> Result<(), Failure> {
    let endpoint = webtransport::endpoint()?;
    let path = format!("/{}", app.name());
    let (session, _link) = match protocol {
        Protocol::WebTransport => (Session::open(&endpoint, subject.quic()?, &path).await?, None),
        _ => {
            let mut link = Link::open(&endpoint, subject.quic()?, &path).await?;
            link.begin(&mut Decoder::new()).await?;
            (link.session, Some((link.send, link.recv)))
        }
    };
    for number in 0..TRIES {
        let mut message = vec![0; MESSAGE];
        payload::write(&mut message, Instant::now(), number.into());
        session.send_datagram(&message);
        if let Ok(datagram) = tokio::time::timeout(TRY, session.recv_datagram()).await {
            let datagram = datagram?;
            let is_right = if app == App::Echo { datagram == message } else { datagram.len() == STATE };
            return if is_right { Ok(()) } else { Err("a datagram that it sent is another one".into()) };
        }
    }
    Err("no datagram came".into())
}
