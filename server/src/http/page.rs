//! Publications and values as JSON.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use throughline_protocol::Message;
use throughline_protocol::channel::Position;
use utoipa::ToSchema;

use super::position;
use crate::hub::{Held, HeldValue, Item, Publication};

/// What was published after a position.
#[derive(Serialize, ToSchema)]
pub(crate) struct Page {
    pub(crate) epoch: u64,
    /// Of the newest publication, whether it is here or not.
    pub(crate) offset: u64,
    /// Nothing is missing between the position that was asked for and the first publication.
    pub(crate) complete: bool,
    /// The oldest first.
    pub(crate) publications: Vec<Published>,
    /// Where to go on: the `since` of what comes after this.
    pub(crate) next: String,
}

/// A publication.
#[derive(Serialize, ToSchema)]
pub(crate) struct Published {
    pub(crate) offset: u64,
    #[serde(flatten)]
    pub(crate) data: Data,
}

/// The values of a channel of state.
#[derive(Serialize, ToSchema)]
pub(crate) struct AllValues {
    pub(crate) epoch: u64,
    /// Of the newest change.
    pub(crate) offset: u64,
    /// One for each key, in the order of their offsets.
    pub(crate) values: Vec<Value>,
}

/// The value of a key.
#[derive(Serialize, ToSchema)]
pub(crate) struct Value {
    pub(crate) key: String,
    /// Of the change that set it.
    pub(crate) offset: u64,
    #[serde(flatten)]
    pub(crate) data: Data,
}

/// Text as it is, or bytes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Data {
    /// As it was published.
    Text(String),
    /// In base64, with padding.
    Base64(String),
}

impl Page {
    /// Nothing yet, of a channel whose newest publication stands there.
    pub(crate) fn new(newest: Position, complete: bool) -> Self {
        let next = position::format(newest);
        Self { epoch: newest.epoch, offset: newest.offset, complete, publications: Vec::new(), next }
    }

    /// Goes on with an item.
    pub(crate) fn take(&mut self, item: Item) {
        let position = match item {
            Item::Publication(epoch, publication) => {
                let Publication { offset, message } = &*publication;
                self.publications.push(Published { offset: *offset, data: message.into() });
                Position { epoch, offset: *offset }
            }
            Item::Skipped(position) => {
                self.complete = false;
                position
            }
        };
        self.epoch = position.epoch;
        self.offset = self.offset.max(position.offset);
        self.next = position::format(position);
    }
}

impl From<Held> for AllValues {
    fn from(held: Held) -> Self {
        let Position { epoch, offset } = held.position;
        Self { epoch, offset, values: held.values.iter().map(Into::into).collect() }
    }
}

impl From<&HeldValue> for Value {
    fn from(value: &HeldValue) -> Self {
        Self { key: value.key.to_string(), offset: value.offset, data: (&value.message).into() }
    }
}

impl From<&Message> for Data {
    fn from(message: &Message) -> Self {
        match message {
            Message::Text(text) => Self::Text((**text).to_owned()),
            Message::Binary(bytes) => Self::Base64(BASE64_STANDARD.encode(bytes)),
        }
    }
}
