//! What a client holds of a channel of state, by the rules of SPEC section 10.1.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use throughline::Message;
use throughline_protocol::{ChannelMessage, channel};

use crate::client::Channels;

/// A subscription of a client that asks for nothing else meanwhile.
pub(crate) struct Replica<'a> {
    client: &'a Channels,
    pub(crate) number: u64,
    /// By key: offset and value, removals included until the next SETTLED.
    held: BTreeMap<String, (u64, Option<Message>)>,
    /// From before a snapshot that goes on.
    doubtful: BTreeSet<String>,
    /// What came before it was asked for.
    heard: VecDeque<ChannelMessage>,
    /// Whether values that come as datagrams are looked at.
    pub(crate) takes_datagrams: bool,
    /// Values that came, and how many of them as datagrams.
    pub(crate) came: [usize; 2],
    pub(crate) snapshots: usize,
    /// Whether nothing is doubtful.
    pub(crate) is_settled: bool,
}

impl<'a> Replica<'a> {
    pub(crate) async fn subscribe(client: &'a Channels, channel: &str) -> Self {
        let number = client.subscribe(channel, None).await.expect("it may").number;
        Self::of(client, number)
    }

    /// Of a subscription that there is.
    pub(crate) fn of(client: &'a Channels, number: u64) -> Self {
        Self {
            client,
            number,
            held: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            heard: client.take_heard(),
            takes_datagrams: true,
            came: [0, 0],
            snapshots: 0,
            is_settled: false,
        }
    }

    /// Takes what comes until it holds exactly these values, and nothing is doubtful.
    pub(crate) async fn until_it_is(&mut self, expected: &BTreeMap<String, Message>) {
        while !self.is_settled || self.values() != *expected {
            self.step().await;
        }
    }

    /// Takes what comes until this holds.
    pub(crate) async fn until(&mut self, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            self.step().await;
        }
    }

    pub(crate) fn values(&self) -> BTreeMap<String, Message> {
        let values = self.held.iter().filter_map(|(key, (_, value))| Some((key.clone(), value.clone()?)));
        values.collect()
    }

    async fn step(&mut self) {
        let message = match self.heard.pop_front() {
            Some(message) => message,
            None => {
                let takes_datagrams = self.takes_datagrams;
                let (body, is_datagram) = self
                    .client
                    .until("a message or a value", |machine| {
                        let message = machine.poll_channel().map(|body| (body, false));
                        let state = || machine.poll_state().filter(|_| takes_datagrams).map(|state| (state, true));
                        message.or_else(state)
                    })
                    .await;
                self.came[1] += usize::from(is_datagram);
                if is_datagram { channel::decode_state(body) } else { channel::decode(body) }.expect("it can be read")
            }
        };
        self.take(message);
    }

    fn take(&mut self, message: ChannelMessage) {
        match message {
            ChannelMessage::Snapshot { number } => {
                assert_eq!(number, self.number);
                self.doubtful = self.held.keys().cloned().collect();
                self.snapshots += 1;
                self.is_settled = false;
            }
            ChannelMessage::Value { number, offset, key, data } => {
                assert_eq!(number, self.number);
                self.came[0] += 1;
                self.doubtful.remove(&*key);
                let held = self.held.entry(key.to_string()).or_insert((0, None));
                if held.0 < offset {
                    *held = (offset, data);
                }
            }
            ChannelMessage::Settled { number, offset } => {
                assert_eq!(number, self.number);
                let doubtful = std::mem::take(&mut self.doubtful);
                self.held.retain(|key, (of, value)| *of > offset || !doubtful.contains(key) && value.is_some());
                self.is_settled = true;
            }
            other => panic!("{other:?} of a channel of state"),
        }
    }
}
