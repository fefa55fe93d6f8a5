//! A client's side of channels: it asks, and says what it heard.

use std::collections::VecDeque;
use std::ops::Deref;

use parking_lot::Mutex;
use throughline::{Message, Position, Transport};
use throughline_protocol::{ChannelCode, ChannelMessage, channel};

use crate::common::{Client, Opening, Place};

/// A session that uses channels. Takes nothing from the server that was not asked for.
pub(crate) struct Channels {
    client: Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_request: u64,
    /// What came while an answer was waited for.
    heard: VecDeque<ChannelMessage>,
    answers: Vec<ChannelMessage>,
}

/// The content of SUBSCRIBED.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscribed {
    pub(crate) number: u64,
    pub(crate) recovered: bool,
    pub(crate) position: Position,
}

impl Deref for Channels {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Channels {
    pub(crate) async fn connect(place: &Place, transport: Transport) -> Self {
        let opening = Opening { marks: true, ..Opening::default() };
        let client = Client::open(place, transport, &opening).await;
        Self::over(client.unwrap_or_else(|refusal| panic!("{transport} was refused: {refusal:?}")))
    }

    pub(crate) fn over(client: Client) -> Self {
        Self { client, state: Mutex::default() }
    }

    // ---- asking ----

    /// Asks, and does not wait for the answer. Returns the number of the request.
    pub(crate) fn ask(&self, request: impl FnOnce(u64) -> ChannelMessage) -> u64 {
        let number = {
            let mut state = self.state.lock();
            state.last_request += 1;
            state.last_request
        };
        self.say(&request(number));
        number
    }

    /// Says this, whether it may be said or not.
    pub(crate) fn say(&self, message: &ChannelMessage) {
        self.client.change(|machine| machine.send_channel(message.encode())).expect("there is room");
    }

    pub(crate) fn ask_to_subscribe(&self, channel: &str, position: Option<Position>) -> u64 {
        self.ask(|request| ChannelMessage::Subscribe { request, channel: channel.into(), position, about: None })
    }

    pub(crate) fn ask_to_publish(&self, channel: &str, data: impl Into<Message>) -> u64 {
        self.ask(|request| ChannelMessage::Publish { request, channel: channel.into(), data: data.into() })
    }

    pub(crate) async fn subscribe(&self, channel: &str, since: Option<Position>) -> Result<Subscribed, ChannelCode> {
        match self.answer(self.ask_to_subscribe(channel, since)).await {
            ChannelMessage::Subscribed { number, recovered, position, .. } => {
                Ok(Subscribed { number, recovered, position })
            }
            other => Err(failure(other)),
        }
    }

    pub(crate) async fn unsubscribe(&self, channel: &str) -> Result<(), ChannelCode> {
        let request = self.ask(|request| ChannelMessage::Unsubscribe { request, channel: channel.into() });
        match self.answer(request).await {
            ChannelMessage::Done { position, .. } => {
                assert_eq!(position, Position::default());
                Ok(())
            }
            other => Err(failure(other)),
        }
    }

    pub(crate) async fn publish(&self, channel: &str, data: impl Into<Message>) -> Result<Position, ChannelCode> {
        match self.answer(self.ask_to_publish(channel, data)).await {
            ChannelMessage::Done { position, .. } => Ok(position),
            other => Err(failure(other)),
        }
    }

    pub(crate) async fn set(
        &self,
        channel: &str,
        key: &str,
        data: impl Into<Option<Message>>,
    ) -> Result<Position, ChannelCode> {
        let (channel, key, data) = (channel.into(), key.into(), data.into());
        match self.answer(self.ask(|request| ChannelMessage::Set { request, channel, key, data })).await {
            ChannelMessage::Done { position, .. } => Ok(position),
            other => Err(failure(other)),
        }
    }

    // ---- hearing ----

    /// The answer to a request.
    pub(crate) async fn answer(&self, request: u64) -> ChannelMessage {
        loop {
            let answer = {
                let answers = &mut self.state.lock().answers;
                let index = answers.iter().position(|answer| answered(answer) == Some(request));
                index.map(|index| answers.remove(index))
            };
            match answer {
                Some(answer) => return answer,
                None => self.hear().await,
            }
        }
    }

    /// The next message about channels that is no answer.
    pub(crate) async fn next(&self) -> ChannelMessage {
        loop {
            let heard = self.state.lock().heard.pop_front();
            match heard {
                Some(heard) => return heard,
                None => self.hear().await,
            }
        }
    }

    /// What came while an answer was waited for, and was not asked for since.
    pub(crate) fn take_heard(&self) -> VecDeque<ChannelMessage> {
        std::mem::take(&mut self.state.lock().heard)
    }

    /// The next publication: the channel's number, its offset, and what was published.
    pub(crate) async fn publication(&self) -> (u64, u64, Message) {
        match self.next().await {
            ChannelMessage::Publication { number, offset, data } => (number, offset, data),
            other => panic!("{}: {other:?} instead of a publication", self.transport),
        }
    }

    async fn hear(&self) {
        let body = self
            .client
            .until("a message about channels", |machine| {
                machine.poll_channel().map(Ok).or_else(|| machine.closed().cloned().map(Err))
            })
            .await
            .unwrap_or_else(|close| panic!("{}: the session ended: {close}", self.client.transport));
        let message = channel::decode(body).expect("the server's messages can be read");
        let mut state = self.state.lock();
        match answered(&message) {
            Some(_) => state.answers.push(message),
            None => state.heard.push_back(message),
        }
    }
}

fn answered(message: &ChannelMessage) -> Option<u64> {
    match message {
        ChannelMessage::Subscribed { request, .. }
        | ChannelMessage::Done { request, .. }
        | ChannelMessage::Page { request, .. }
        | ChannelMessage::Failed { request, .. } => Some(*request),
        _ => None,
    }
}

pub(crate) fn failure(answer: ChannelMessage) -> ChannelCode {
    match answer {
        ChannelMessage::Failed { code, reason, .. } => {
            assert!(!reason.is_empty(), "a person wants to know why");
            ChannelCode::from_number(code).expect("a code of the table")
        }
        other => panic!("{other:?} is no answer to that"),
    }
}
