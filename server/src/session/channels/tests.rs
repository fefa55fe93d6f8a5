use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::poll;
use parking_lot::Mutex;
use throughline_protocol::limits::{CLIENT_ACK_DELAY_US, MAX_CHANNEL_ANSWERS};
use throughline_protocol::machine::{Config, LinkTraits};
use throughline_protocol::{Decoder, Machine, Message, Packet, Position, ResumeKey, SessionId, TrySendError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::session::driver::Driver;
use crate::session::shared::now;
use crate::session::{Event as SessionEvent, Identity};
use crate::transport::Transport;
use crate::transport::link::{Link, LinkEnd, Received};

/// A link that takes everything at once.
struct Pipe {
    incoming: mpsc::UnboundedReceiver<Bytes>,
    outgoing: Arc<Mutex<Vec<Packet>>>,
}

impl Link for Pipe {
    fn transport(&self) -> Transport {
        Transport::WebSocket
    }

    fn max_packet(&self) -> usize {
        65_536
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, LinkEnd>> {
        let received = self.incoming.poll_recv(cx);
        received.map(|packet| packet.map(Received::Packet).ok_or_else(|| LinkEnd::Lost("cut".into())))
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, packet: Packet) {
        self.outgoing.lock().push(packet);
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>, _: &Close) -> Poll<()> {
        Poll::Ready(())
    }
}

/// Writes down what it is asked, and does what it is told.
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<ChannelMessage>>,
    ended: Mutex<Vec<SessionId>>,
    /// Answers come later.
    is_slow: bool,
    /// This request is a mistake, or the end of the application.
    refuses: Option<u64>,
    panics: Option<u64>,
}

impl ChannelHandler for Fake {
    fn handle(&self, session: &Session, request: ChannelMessage) -> Result<(), Close> {
        session.stats(); // it would wait for ever if the session were locked
        let number = request.request().expect("the driver asks for nothing else");
        self.asked.lock().push(request);
        assert_ne!(self.panics, Some(number), "as it should");
        if self.refuses == Some(number) {
            return Err(Close::application(7, "no"));
        }
        if !self.is_slow {
            session.answer(&done(number));
        }
        Ok(())
    }

    fn closed(&self, session: &Session) {
        session.stats();
        self.ended.lock().push(session.id());
    }
}

impl Fake {
    fn asked(&self) -> Vec<u64> {
        self.asked.lock().iter().filter_map(ChannelMessage::request).collect()
    }
}

/// A session, and its client.
struct Pair {
    client: Machine,
    decoder: Decoder,
    wire: mpsc::UnboundedSender<Bytes>,
    outgoing: Arc<Mutex<Vec<Packet>>>,
    shared: Arc<Shared>,
    session: Session,
    driver: JoinHandle<(Close, bool)>,
}

impl Pair {
    async fn new(handler: Option<&Arc<Fake>>) -> Self {
        Self::with_buffer(handler, 262_144).await
    }

    async fn with_buffer(handler: Option<&Arc<Fake>>, send_buffer_bytes: u64) -> Self {
        let (id, key) = (SessionId([1; 16]), ResumeKey([2; 16]));
        let mut machine = Machine::server(Config { send_buffer_bytes, ..Config::default() }, id, key);
        machine.link_opened(now(), LinkTraits::default());
        let handler = handler.map(|handler| Arc::clone(handler) as Arc<dyn ChannelHandler>);
        let shared = Arc::new(Shared::new(machine, id, key, Identity::anonymous(), handler));
        let (wire, incoming) = mpsc::unbounded_channel();
        let outgoing = Arc::default();
        let link = Box::new(Pipe { incoming, outgoing: Arc::clone(&outgoing) });
        let driver = tokio::spawn(Driver::new(Arc::clone(&shared), link, None, || {}));
        let mut client = Machine::client(Config::default());
        client.link_opened(now(), LinkTraits::default());
        let session = Session::new(Arc::clone(&shared));
        let mut pair = Self { client, decoder: Decoder::new(), wire, outgoing, shared, session, driver };
        pair.settle().await;
        assert!(pair.client.is_open());
        pair
    }

    /// The client says what it wants to, in one packet if it can.
    fn say(&mut self) {
        while let Some(packet) = self.client.poll_transmit(now(), 65_536) {
            drop(self.wire.send(packet.into_bytes()));
        }
    }

    /// Lets the driver do what it can.
    async fn drive(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    fn hear(&mut self) {
        for packet in std::mem::take(&mut *self.outgoing.lock()) {
            self.decoder.push(packet.into_bytes());
            while let Some(frame) = self.decoder.next_frame().expect("a machine writes frames") {
                self.client.handle_frame(now(), frame);
            }
        }
    }

    /// Until neither side has anything to say.
    async fn settle(&mut self) {
        for _ in 0..5 {
            // No ACK waits for company here.
            self.client.handle_timeout(now() + CLIENT_ACK_DELAY_US);
            self.say();
            self.drive().await;
            self.hear();
        }
    }

    fn ask(&mut self, request: &ChannelMessage) {
        self.client.send_channel(request.encode()).expect("there is room");
    }

    /// What the server has said about channels.
    fn heard(&mut self) -> Vec<ChannelMessage> {
        std::iter::from_fn(|| self.client.poll_channel())
            .map(|body| channel::decode(body).expect("it is well-formed"))
            .collect()
    }

    /// How the session ended for its client.
    async fn end(&mut self) -> Close {
        self.settle().await;
        self.client.closed().expect("it has ended").clone()
    }
}

fn subscribe(request: u64) -> ChannelMessage {
    ChannelMessage::Subscribe { request, channel: "room:42".into(), position: None, about: None }
}

fn unsubscribe(request: u64) -> ChannelMessage {
    ChannelMessage::Unsubscribe { request, channel: "room:42".into() }
}

fn publish(request: u64) -> ChannelMessage {
    ChannelMessage::Publish { request, channel: "room:42".into(), data: Message::from("hi") }
}

fn done(request: u64) -> ChannelMessage {
    ChannelMessage::Done { request, position: Position { epoch: 1, offset: request } }
}

#[tokio::test]
async fn a_server_without_channels_says_so_and_goes_on() {
    let mut pair = Pair::new(None).await;
    for request in [subscribe(1), unsubscribe(2), publish(3)] {
        pair.ask(&request);
    }
    pair.client.send(Message::from("hello")).expect("there is room");
    pair.settle().await;
    let failed = |request| ChannelMessage::failed(request, ChannelCode::NotAllowed, "this server has no channels");
    assert_eq!(pair.heard(), [failed(1), failed(2), failed(3)]);
    let Some(SessionEvent::Message(message)) = pair.session.recv().await else { panic!("there is a message") };
    assert_eq!(message, Message::from("hello"));
    assert!(pair.client.is_open());
}

#[tokio::test]
async fn requests_are_handled_in_order_and_the_end_is_told_once() {
    let fake = Arc::new(Fake::default());
    let mut pair = Pair::new(Some(&fake)).await;
    let requests = [subscribe(1), publish(2), unsubscribe(9)];
    requests.iter().for_each(|request| pair.ask(request));
    pair.settle().await;
    assert_eq!(*fake.asked.lock(), requests);
    assert_eq!(pair.heard(), [done(1), done(2), done(9)]);
    assert!(fake.ended.lock().is_empty());
    pair.client.close(now(), Close::application(0, ""));
    pair.end().await;
    assert_eq!(*fake.ended.lock(), [pair.session.id()]);
    drop(pair.driver.await.expect("it does not panic"));
    pair.shared.cut("again");
    assert_eq!(fake.ended.lock().len(), 1);
}

#[tokio::test]
async fn a_session_that_is_cut_has_ended_too() {
    let fake = Arc::new(Fake::default());
    let mut pair = Pair::new(Some(&fake)).await;
    pair.ask(&subscribe(1));
    pair.settle().await;
    pair.driver.abort();
    pair.shared.cut("the server has stopped");
    assert_eq!(*fake.ended.lock(), [pair.session.id()]);
}

#[tokio::test]
async fn the_end_of_a_session_that_asked_nothing_is_not_told() {
    let fake = Arc::new(Fake::default());
    let mut pair = Pair::new(Some(&fake)).await;
    pair.session.close(0, "");
    pair.end().await;
    assert!(fake.ended.lock().is_empty());
}

#[tokio::test]
async fn what_was_asked_in_one_go_with_the_end_is_handled_before_it() {
    let fake = Arc::new(Fake::default());
    let mut pair = Pair::new(Some(&fake)).await;
    // More than are handled in one turn.
    (1..=100).for_each(|request| pair.ask(&publish(request)));
    pair.client.close(now(), Close::application(0, ""));
    pair.end().await;
    assert_eq!(fake.asked(), (1..=100).collect::<Vec<_>>());
    assert_eq!(fake.ended.lock().len(), 1);
}

#[tokio::test]
async fn a_mistake_ends_the_session_and_nothing_after_it_is_handled() {
    let fake = Arc::new(Fake { refuses: Some(2), ..Fake::default() });
    let mut pair = Pair::new(Some(&fake)).await;
    (1..=3).for_each(|request| pair.ask(&publish(request)));
    assert_eq!(pair.end().await, Close::application(7, "no"));
    assert_eq!(fake.asked(), [1, 2]);
    assert_eq!(fake.ended.lock().len(), 1);
}

#[tokio::test]
async fn a_panic_ends_its_session_alone() {
    let fake = Arc::new(Fake { panics: Some(2), ..Fake::default() });
    let mut pair = Pair::new(Some(&fake)).await;
    (1..=3).for_each(|request| pair.ask(&publish(request)));
    let close = pair.end().await;
    assert_eq!(close.code, Code::InternalError as u32);
    assert_eq!((fake.asked(), fake.ended.lock().len()), (vec![1, 2], 1));
    drop(pair.driver.await.expect("the panic does not reach it"));
}

#[tokio::test]
async fn requests_are_numbered_upwards_and_only_a_clients_own() {
    let skipped = ChannelMessage::Skipped { number: 3, offset: 9 };
    for (asked, code) in [
        (vec![publish(3).encode(), publish(3).encode()], Code::ProtocolViolation),
        (vec![publish(3).encode(), publish(2).encode()], Code::ProtocolViolation),
        (vec![publish(0).encode()], Code::ProtocolViolation),
        (vec![publish(3).encode(), done(4).encode()], Code::MalformedMessage),
        (vec![skipped.encode()], Code::MalformedMessage),
        (vec![publish(3).encode(), Bytes::from_static(&[2, 1, 1])], Code::MalformedMessage),
    ] {
        // With or without somebody who handles them.
        for handler in [Some(Arc::new(Fake::default())), None] {
            let mut pair = Pair::new(handler.as_ref()).await;
            for message in &asked {
                pair.client.send_channel(message.clone()).expect("there is room");
            }
            assert_eq!(pair.end().await.code, code as u32, "{asked:?}");
            let handled = handler.map_or(vec![], |fake| fake.asked());
            assert!(handled.len() < asked.len());
        }
    }
}

#[tokio::test]
async fn further_requests_wait_while_too_many_are_not_answered() {
    let fake = Arc::new(Fake { is_slow: true, ..Fake::default() });
    let mut pair = Pair::new(Some(&fake)).await;
    let most = MAX_CHANNEL_ANSWERS as u64;
    (1..=most + 2).for_each(|request| pair.ask(&publish(request)));
    pair.settle().await;
    assert_eq!(fake.asked(), (1..=most).collect::<Vec<_>>());
    // In whatever order, and nothing else wakes the driver.
    pair.session.answer(&done(2));
    pair.drive().await;
    assert_eq!(fake.asked().len() as u64, most + 1);
    pair.settle().await;
    assert_eq!(pair.heard(), [done(2)]);
}

#[tokio::test]
async fn a_full_buffer_takes_answers_and_has_room_when_the_client_has_read() {
    let fake = Arc::new(Fake::default());
    let mut pair = Pair::with_buffer(Some(&fake), 1_000).await;
    pair.session.room().await;
    let publication = ChannelMessage::Publication { number: 3, offset: 1, data: vec![7; 2_000].into() };
    pair.session.try_send_channel(publication.encode()).expect("there is room");
    assert_eq!(pair.session.try_send_channel(publication.encode()), Err(TrySendError::Full));
    pair.ask(&publish(1));
    pair.say();
    pair.drive().await;
    assert_eq!(fake.asked(), [1]);

    let session = pair.session.clone();
    let mut room = std::pin::pin!(session.room());
    assert!(poll!(&mut room).is_pending());
    pair.hear();
    pair.settle().await;
    assert!(poll!(&mut room).is_ready());
    assert_eq!(pair.heard(), [publication.clone(), done(1)]);

    // And whoever waits for room learns that the session ends.
    pair.session.try_send_channel(publication.encode()).expect("there is room");
    let mut room = std::pin::pin!(session.room());
    assert!(poll!(&mut room).is_pending());
    pair.session.close(0, "");
    assert!(poll!(&mut room).is_ready());
    assert!(matches!(pair.session.try_send_channel(publication.encode()), Err(TrySendError::Closed(_))));
}
