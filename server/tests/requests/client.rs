//! A client's side of requests: it says what the test wants, and hands out what it heard.

use std::ops::Deref;

use parking_lot::Mutex;
use throughline::{Message, Transport};
use throughline_protocol::RequestMessage;

use crate::common::{Client, Place};

/// A session whose client speaks of requests. Takes nothing from the server that was not asked for.
pub(crate) struct Peer {
    client: Client,
    last: Mutex<u64>,
}

impl Deref for Peer {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Peer {
    pub(crate) async fn connect(place: &Place, transport: Transport) -> Self {
        Self { client: Client::connect(place, transport).await, last: Mutex::default() }
    }

    /// Asks, and does not wait for the answer. Returns the number of the request.
    pub(crate) fn ask(&self, method: &str, data: impl Into<Option<Message>>) -> u64 {
        let id = {
            let mut last = self.last.lock();
            *last += 1;
            *last
        };
        self.say(&RequestMessage::Request { id, method: method.into(), data: data.into() });
        id
    }

    /// Says this, whether it may be said or not.
    pub(crate) fn say(&self, message: &RequestMessage) {
        self.client.change(|machine| machine.say_request(message)).unwrap();
    }

    /// What the server says next about requests.
    pub(crate) async fn next(&self) -> RequestMessage {
        let arrived = self
            .client
            .until("a message about requests", |machine| {
                machine.poll_request().map(Ok).or_else(|| machine.closed().cloned().map(Err))
            })
            .await
            .unwrap_or_else(|close| panic!("{}: the session ended: {close}", self.client.transport))
            .expect("the server's messages can be read");
        self.client.change(|machine| machine.request_taken(arrived.cost));
        arrived.message
    }
}
