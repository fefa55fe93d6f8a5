//! The hub between an engine that does as it is told, and sessions whose two sides talk when a test lets them.

mod clients;
mod logs;
mod presence;
mod state;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use throughline_protocol::limits::CLIENT_ACK_DELAY_US;
use throughline_protocol::machine::{Config as MachineConfig, LinkTraits};
use throughline_protocol::{Decoder, Frame, Machine, Message, Position, ResumeKey, channel};
use tokio::sync::watch;

use super::*;
use crate::config::Slow;
use crate::engine::memory::{Bounds, MemoryEngine};
use crate::engine::{History, Page, State};
use crate::session::Identity;
use crate::session::flusher::Flusher;
use crate::session::shared::{Shared, now};

/// The buffer of a session here: sixteen publications of [`LONG`] bytes.
const BUFFER: u64 = 16_384;
const LONG: usize = 1_000;

/// An engine that fails, hesitates, repeats and loses as it is told.
struct Scripted {
    memory: MemoryEngine,
    is_down: AtomicBool,
    /// Answers wait while it is true.
    holds: watch::Sender<bool>,
    delivery: Arc<Delivery>,
    subscriptions: AtomicUsize,
}

/// How often each publication reaches the hub.
struct Delivery {
    times: AtomicU64,
    hub: Arc<dyn Sink>,
}

impl Sink for Delivery {
    fn publication(&self, channel: &str, epoch: u64, publication: &Publication) {
        for _ in 0..self.times.load(Ordering::SeqCst) {
            self.hub.publication(channel, epoch, publication);
        }
    }

    fn change(&self, channel: &str, epoch: u64, change: &Change) {
        for _ in 0..self.times.load(Ordering::SeqCst) {
            self.hub.change(channel, epoch, change);
        }
    }
}

impl Scripted {
    async fn after_all<T>(&self, done: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(EngineError::Unavailable("it is down".into()));
        }
        let done = done.await;
        drop(self.holds.subscribe().wait_for(|holds| !holds).await);
        done
    }
}

impl Engine for Scripted {
    fn publish<'a>(
        &'a self,
        channel: &'a str,
        message: Message,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Position, EngineError>> {
        self.after_all(self.memory.publish(channel, message, retention)).boxed()
    }

    fn subscribe<'a>(&'a self, channel: &'a str, retention: Retention) -> BoxFuture<'a, Result<Position, EngineError>> {
        let subscribe = self.after_all(self.memory.subscribe(channel, retention));
        async move {
            let position = subscribe.await?;
            self.subscriptions.fetch_add(1, Ordering::SeqCst);
            Ok(position)
        }
        .boxed()
    }

    fn unsubscribe(&self, channel: &str) {
        self.memory.unsubscribe(channel);
        self.subscriptions.fetch_sub(1, Ordering::SeqCst);
    }

    fn history<'a>(
        &'a self,
        channel: &'a str,
        after: Option<Position>,
        page: Page,
    ) -> BoxFuture<'a, Result<History, EngineError>> {
        self.after_all(self.memory.history(channel, after, page)).boxed()
    }

    fn set<'a>(
        &'a self,
        channel: &'a str,
        key: &'a str,
        message: Option<Message>,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Position, EngineError>> {
        self.after_all(self.memory.set(channel, key, message, retention)).boxed()
    }

    fn values<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<State, EngineError>> {
        self.after_all(self.memory.values(channel)).boxed()
    }

    fn run(&self) -> BoxFuture<'_, ()> {
        self.memory.run()
    }
}

/// A hub in which clients may do everything, and its engine.
struct Stage {
    hub: Hub,
    engine: Arc<Scripted>,
}

impl Stage {
    fn new(namespace: Namespace) -> Self {
        Self::with(namespace, |_| None)
    }

    /// Further settings, and who decides what clients may do.
    fn with(namespace: Namespace, set: impl FnOnce(&mut ChannelsConfig) -> Option<Authorize>) -> Self {
        let mut config = ChannelsConfig::default();
        let namespace = Namespace { subscribe: true, publish: true, history: true, ..namespace };
        config.namespaces.insert(String::new(), namespace);
        let authorize = set(&mut config);
        let mut engine = None;
        let ended = CancellationToken::new();
        let hub = Hub::new(config, 1 << 20, authorize, Flusher::start(&ended), ended, |sink| {
            let delivery = Arc::new(Delivery { times: AtomicU64::new(1), hub: sink });
            let bounds = Bounds { channels: 100, bytes: 1 << 24 };
            let scripted = Arc::new(Scripted {
                memory: MemoryEngine::new(bounds, Arc::clone(&delivery) as Arc<dyn Sink>),
                is_down: AtomicBool::new(false),
                holds: watch::Sender::new(false),
                delivery,
                subscriptions: AtomicUsize::new(0),
            });
            engine = Some(Arc::clone(&scripted));
            scripted
        });
        Self { hub, engine: engine.expect("it was made") }
    }

    fn hold(&self, holds: bool) {
        self.engine.holds.send_replace(holds);
    }

    fn is_down(&self, is_down: bool) {
        self.engine.is_down.store(is_down, Ordering::SeqCst);
    }

    /// How often the hub is given what is published from now on.
    fn deliver(&self, times: u64) {
        self.engine.delivery.times.store(times, Ordering::SeqCst);
    }

    async fn publish(&self, channel: &str, len: usize) -> Position {
        self.hub.channel(channel).publish(vec![7; len]).await.expect("the engine is there")
    }

    async fn set(&self, channel: &str, key: &str, value: impl Into<Message>) -> Position {
        self.hub.channel(channel).set(key, value).await.expect("the engine is there")
    }

    async fn remove(&self, channel: &str, key: &str) -> Position {
        self.hub.channel(channel).remove(key).await.expect("the engine is there")
    }

    /// Topics, subscribers, and subscriptions of the engine.
    fn held(&self) -> [usize; 3] {
        let inner = &self.hub.0;
        let (topics, subscribers) = (inner.topics.read().len(), inner.subscribers.lock().len());
        [topics, subscribers, self.engine.subscriptions.load(Ordering::SeqCst)]
    }
}

/// A session whose two machines talk when a test lets them.
struct Pair {
    shared: Arc<Shared>,
    session: Session,
    client: Machine,
    last_request: u64,
    /// Whether values that travel as datagrams get lost.
    loses_states: bool,
}

impl Pair {
    fn new(id: u8) -> Self {
        Self::of(id, Identity::anonymous())
    }

    fn of(id: u8, who: Identity) -> Self {
        let (id, key) = (SessionId([id; 16]), ResumeKey([2; 16]));
        let config = MachineConfig { send_buffer_bytes: BUFFER, ..MachineConfig::default() };
        let mut machine = Machine::server(config, id, key);
        machine.link_opened(now(), LinkTraits::default());
        let shared = Arc::new(Shared::new(machine, id, key, who, None));
        let mut client = Machine::client(MachineConfig::default());
        client.link_opened(now(), LinkTraits::default());
        let mut pair =
            Self { session: Session::new(Arc::clone(&shared)), shared, client, last_request: 0, loses_states: false };
        pair.talk();
        assert!(pair.client.is_open());
        pair
    }

    /// Whatever one has to say reaches the other.
    fn talk(&mut self) {
        for _ in 0..3 {
            let mut core = self.shared.lock();
            while let Some(packet) = core.machine.poll_transmit(now(), 65_536) {
                let frames = frames(packet.into_bytes());
                let frames = frames.filter(|frame| !self.loses_states || !matches!(frame, Frame::State(_)));
                frames.for_each(|frame| self.client.handle_frame(now(), frame));
            }
            self.client.handle_timeout(now() + CLIENT_ACK_DELAY_US); // no ACK waits for company here
            while let Some(packet) = self.client.poll_transmit(now(), 65_536) {
                frames(packet.into_bytes()).for_each(|frame| core.machine.handle_frame(now(), frame));
            }
            self.shared.notify(&mut core);
        }
    }

    /// The driver hands on a request.
    fn ask(&mut self, stage: &Stage, request: impl FnOnce(u64) -> ChannelMessage) -> u64 {
        self.last_request += 1;
        let request = request(self.last_request);
        stage.hub.handle(&self.session, request).expect("it keeps the rules");
        self.last_request
    }

    fn subscribe(&mut self, stage: &Stage, channel: &str, position: Option<Position>) -> u64 {
        self.ask(stage, |request| ChannelMessage::Subscribe { request, channel: channel.into(), position, about: None })
    }

    fn unsubscribe(&mut self, stage: &Stage, channel: &str) -> u64 {
        self.ask(stage, |request| ChannelMessage::Unsubscribe { request, channel: channel.into() })
    }

    fn publish(&mut self, stage: &Stage, channel: &str) -> u64 {
        self.ask(stage, |request| ChannelMessage::Publish { request, channel: channel.into(), data: "x".into() })
    }

    /// Everything that the client hears until nobody has anything to do or to say.
    async fn hear(&mut self) -> Vec<ChannelMessage> {
        let mut heard = Vec::new();
        let mut quiet = 0;
        while quiet < 3 {
            settle().await;
            self.talk();
            let before = heard.len();
            while let Some(body) = self.client.poll_channel() {
                heard.push(channel::decode(body).expect("it is well-formed"));
            }
            quiet = if heard.len() == before { quiet + 1 } else { 0 };
        }
        heard
    }

    /// What the client hears until it is enough: for runtimes with several threads.
    async fn hear_until(&mut self, is_enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut heard = Vec::new();
        let listen = async {
            while !is_enough(&heard) {
                self.talk();
                let bodies = std::iter::from_fn(|| self.client.poll_channel());
                let messages: Vec<_> = bodies.map(|body| channel::decode(body).expect("it is well-formed")).collect();
                heard.extend(short(&messages));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), listen).await.is_ok();
        assert!(in_time, "it does not come: {heard:?}");
        heard
    }

    /// The same, as [`short`] says it.
    async fn hears(&mut self) -> Vec<String> {
        short(&self.hear().await)
    }

    /// The values that came as datagrams.
    fn states(&mut self) -> Vec<String> {
        let states = std::iter::from_fn(|| self.client.poll_state());
        short(&states.map(|state| channel::decode_state(state).expect("it is well-formed")).collect::<Vec<_>>())
    }

    fn end(&self, stage: &Stage) {
        self.session.close(0, "");
        stage.hub.closed(&self.session);
    }
}

fn frames(packet: Bytes) -> impl Iterator<Item = Frame> {
    let mut decoder = Decoder::new();
    decoder.push(packet);
    std::iter::from_fn(move || decoder.next_frame().expect("a machine writes frames"))
}

/// Lets every task do what it can: there is but one thread.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// What was heard, in short.
fn short(heard: &[ChannelMessage]) -> Vec<String> {
    let short = |message: &ChannelMessage| match message {
        ChannelMessage::Snapshot { .. } => "snapshot".to_owned(),
        ChannelMessage::Value { offset, key, data, .. } => {
            let data = data.as_ref().map_or("removed", |data| data.as_text().unwrap_or("bytes"));
            format!("{key}={data} at {offset}")
        }
        ChannelMessage::Settled { offset, .. } => format!("settled at {offset}"),
        ChannelMessage::Added { channel, position, .. } => format!("added to {channel} at {}", position.offset),
        ChannelMessage::Page { request, complete, more, position, publications } => {
            let offsets: Vec<_> = publications.iter().map(|(offset, _)| *offset).collect();
            let (complete, more) = (if *complete { "" } else { ", not complete" }, if *more { ", more" } else { "" });
            format!("{request} {offsets:?} of {}{complete}{more}", position.offset)
        }
        ChannelMessage::Subscribed { request, recovered, position, .. } => {
            format!("{request} subscribed at {}{}", position.offset, if *recovered { ", recovered" } else { "" })
        }
        ChannelMessage::Done { request, position } => format!("{request} done {}", position.offset),
        ChannelMessage::Failed { request, code, .. } => format!("{request} {}", name(*code)),
        ChannelMessage::Publication { offset, .. } => offset.to_string(),
        ChannelMessage::Unsubscribed { code, .. } => name(*code).to_owned(),
        ChannelMessage::Skipped { offset, .. } => format!("skipped to {offset}"),
        other => panic!("{other:?} from a server"),
    };
    heard.iter().map(short).collect()
}

fn name(code: u64) -> &'static str {
    ChannelCode::from_number(code).expect("a code of the table").name()
}

/// Offsets, as [`short`] says them.
fn offsets(offsets: impl IntoIterator<Item = u64>) -> Vec<String> {
    offsets.into_iter().map(|offset| offset.to_string()).collect()
}
