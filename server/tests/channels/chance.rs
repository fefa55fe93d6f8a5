//! Subscribers that come, go, move, sleep and come back, by chance: each hears every publication once and in order, or is told what it has lost.

use std::sync::Arc;

use futures_util::future::join_all;
use throughline::{Channel, Message, Position, Slow};
use throughline_protocol::{ChannelCode, ChannelMessage};
use tokio::sync::{Semaphore, watch};

use crate::client::{Channels, Subscribed};
use crate::common::{Place, Running, TRANSPORTS, start, within};
use crate::{config, open};

/// The last one ends the subscriptions of those that are too slow.
const CHANNELS: [&str; 3] = ["room:0", "room:1", "strict:2"];
const PUBLICATIONS: u64 = 1_500;
const VISITORS: u64 = 8;
/// Publications that a sleeper lets pass: more than its session's buffer, its client's window and the history hold.
const NAP: u64 = 400;

/// Numbers that look like chance, the same for the same seed (xorshift64).
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Publishes as fast as the visitors want it, and says how far it is.
struct Publishing {
    wanted: Semaphore,
    progress: watch::Sender<[u64; CHANNELS.len()]>,
}

impl Publishing {
    async fn publish(&self, index: usize, channel: Channel) {
        for offset in 1..=PUBLICATIONS {
            self.wanted.acquire().await.expect("it is never closed").forget();
            assert_eq!(channel.publish(data(index, offset)).await.unwrap().offset, offset);
            self.progress.send_modify(|progress| progress[index] = offset);
        }
    }

    fn is_over(&self) -> bool {
        *self.progress.borrow() == [PUBLICATIONS; CHANNELS.len()]
    }
}

/// What stands in a channel at an offset.
fn data(index: usize, offset: u64) -> Message {
    let mut data = vec![index as u8; 1_000 + (offset % 7 * 500) as usize];
    data[..8].copy_from_slice(&offset.to_be_bytes());
    data.into()
}

/// One visitor's view of one channel.
#[derive(Debug, Default, Clone, Copy)]
struct View {
    /// What stands for it, while the visitor is subscribed.
    number: Option<u64>,
    /// The last publication that it knows of.
    reached: Position,
    heard: u64,
    recovered: u64,
    lost: u64,
}

struct Visitor {
    chance: Chance,
    place: Place,
    client: Channels,
    views: [View; CHANNELS.len()],
    publishing: Arc<Publishing>,
}

impl Visitor {
    async fn new(seed: u64, place: &Place, publishing: &Arc<Publishing>) -> Self {
        let client = Channels::connect(place, TRANSPORTS[seed as usize % 4]).await;
        let views = [View::default(); CHANNELS.len()];
        Self { chance: Chance::new(seed), place: place.clone(), client, views, publishing: Arc::clone(publishing) }
    }

    async fn visit(mut self) -> [View; CHANNELS.len()] {
        while !self.publishing.is_over() {
            self.publishing.wanted.add_permits(3);
            let index = self.chance.below(CHANNELS.len() as u64) as usize;
            match (self.chance.below(64), self.views[index].number) {
                (0, _) => self.nap().await,
                (1..4, _) => self.move_away().await,
                (4..8, _) => self.come_anew().await,
                (8..12, Some(_)) => self.unsubscribe(index).await,
                (_, None) => self.subscribe(index).await,
                _ => self.take().await,
            }
        }
        self.take().await;
        self.views
    }

    /// Takes nothing while others go on.
    async fn nap(&self) {
        let mut progress = self.publishing.progress.subscribe();
        let until = (progress.borrow().iter().sum::<u64>() + NAP).min(PUBLICATIONS * CHANNELS.len() as u64);
        self.publishing.wanted.add_permits(NAP as usize);
        let passed = progress.wait_for(|progress| progress.iter().sum::<u64>() >= until);
        within("publications", passed).await.expect("the publishing goes on");
    }

    async fn move_away(&mut self) {
        let transport = TRANSPORTS[self.chance.below(4) as usize];
        if self.chance.below(2) == 0 {
            self.client.cut().await;
        }
        self.client.move_to(&self.place, transport).await;
    }

    /// Loses its session, and opens another one.
    async fn come_anew(&mut self) {
        self.client = Channels::connect(&self.place, TRANSPORTS[self.chance.below(4) as usize]).await;
        self.views.iter_mut().for_each(|view| view.number = None);
    }

    async fn subscribe(&mut self, index: usize) {
        let reached = self.views[index].reached;
        let since = (reached.epoch > 0 && self.chance.below(4) > 0).then_some(reached);
        let subscribed = self.client.subscribe(CHANNELS[index], since).await.unwrap();
        let Subscribed { number, recovered, position } = subscribed;
        let view = &mut self.views[index];
        view.number = Some(number);
        if recovered {
            assert_eq!(Some(position), since);
            view.recovered += 1;
        } else {
            // Without a position it begins at what the hub was given last. The history, from which this visitor may have read, is ahead of that for a moment.
            let goes_on = since.is_none() || reached.offset <= position.offset;
            assert!(reached.epoch == 0 || reached.epoch == position.epoch && goes_on);
            view.lost += position.offset.saturating_sub(reached.offset);
        }
        view.reached = position;
    }

    async fn unsubscribe(&mut self, index: usize) {
        let done = self.client.unsubscribe(CHANNELS[index]).await;
        // What came before the answer.
        self.client.take_heard().into_iter().for_each(|message| self.hear(message));
        // The server may have ended it at the same time.
        assert_eq!(done.is_err(), self.views[index].number.is_none(), "{done:?}");
        self.views[index].number = None;
    }

    /// Takes what has been published until now.
    async fn take(&mut self) {
        let progress = *self.publishing.progress.borrow();
        while self.views.iter().zip(progress).any(|(view, to)| view.number.is_some() && view.reached.offset < to) {
            let message = self.client.next().await;
            self.hear(message);
        }
    }

    fn hear(&mut self, message: ChannelMessage) {
        let (ChannelMessage::Publication { number, .. }
        | ChannelMessage::Skipped { number, .. }
        | ChannelMessage::Unsubscribed { number, .. }) = message
        else {
            panic!("{message:?} was not asked for")
        };
        let index = self.views.iter().position(|view| view.number == Some(number));
        let index = index.unwrap_or_else(|| panic!("{message:?} without a subscription"));
        let view = &mut self.views[index];
        match message {
            ChannelMessage::Publication { offset, data: came, .. } => {
                assert_eq!(offset, view.reached.offset + 1, "{}", CHANNELS[index]);
                assert!(came == data(index, offset), "{} has something else at {offset}", CHANNELS[index]);
                view.heard += 1;
                view.reached.offset = offset;
            }
            ChannelMessage::Skipped { offset, .. } => {
                assert!(offset > view.reached.offset && index < 2, "{view:?} is told to skip to {offset}");
                view.lost += offset - view.reached.offset;
                view.reached.offset = offset;
            }
            ChannelMessage::Unsubscribed { code, .. } => {
                assert_eq!((code, index), (ChannelCode::TooSlow as u64, 2));
                view.number = None;
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_hear_everything_once_and_in_order_or_what_they_lost() {
    for seed in 0..2 {
        let mut config = config();
        config.limits.session_buffer_bytes = 16_384;
        for (name, slow) in [("room", Slow::Skip), ("strict", Slow::Disconnect)] {
            let namespace = throughline::Namespace { history_count: 40, slow, ..open() };
            config.channels.namespaces.insert(name.into(), namespace);
        }
        let Running { server, place, .. } = &start(config, |builder| builder).await;
        let publishing = Arc::new(Publishing { wanted: Semaphore::new(0), progress: watch::Sender::default() });
        let publishers = CHANNELS.iter().enumerate();
        let publishers = publishers.map(|(index, name)| publishing.publish(index, server.hub().channel(*name)));
        let visitors = (0..VISITORS).map(|name| {
            let (place, publishing) = (place.clone(), Arc::clone(&publishing));
            tokio::spawn(async move { Visitor::new(seed * VISITORS + name, &place, &publishing).await.visit().await })
        });
        let (_, visited) = tokio::join!(join_all(publishers), join_all(visitors));
        let views: Vec<_> = visited.into_iter().flat_map(|views| views.expect("no visitor fails")).collect();
        let of = |count: fn(&View) -> u64| views.iter().map(count).sum::<u64>();
        let [heard, recovered, lost] = [of(|view| view.heard), of(|view| view.recovered), of(|view| view.lost)];
        println!("seed {seed}: {heard} heard, {recovered} subscriptions recovered, {lost} lost");
        assert!(heard > 1_000 && recovered > 10 && lost > 0, "too little has happened");
    }
}
