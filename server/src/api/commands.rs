//! What can be asked for, and what is answered.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, de};
use throughline_protocol::channel::{self, Position};
use throughline_protocol::limits::MAX_KEY;
use throughline_protocol::{Message, SessionId};
use utoipa::ToSchema;

use super::body::{object, present};
use super::problem::Problem;
use crate::http::position;
use crate::hub::ReadError;

/// Channels of one broadcast. A back end that has more asks several times; meanwhile others get their turn.
pub(super) const MAX_CHANNELS: usize = 1_000;

/// Commands of one batch: a page of a back end's work, whose answers still fit into memory when each is a history.
pub(super) const MAX_COMMANDS: usize = 100;

/// What a list has at most (SPEC section 10).
pub(super) const MAX_LIMIT: u16 = 1_000;

/// What a list has when nobody says.
const DEFAULT_LIMIT: u16 = 100;

/// Publishes in a channel.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish {
    pub(super) channel: ChannelName,
    /// What is published, as text.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) text: Option<String>,
    /// What is published, as bytes in base64, with padding.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, format = Byte)]
    pub(super) base64: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) idempotency_key: Option<IdempotencyKey>,
}

/// Publishes the same in many channels.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Broadcast {
    #[serde(deserialize_with = "some::<_, _, MAX_CHANNELS>")]
    #[schema(min_items = 1, max_items = 1_000)]
    pub(super) channels: Vec<ChannelName>,
    /// What is published, as text.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) text: Option<String>,
    /// What is published, as bytes in base64, with padding.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, format = Byte)]
    pub(super) base64: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) idempotency_key: Option<IdempotencyKey>,
}

/// Asks what a channel keeps.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    pub(super) channel: ChannelName,
    /// A position: what comes after it. Otherwise from the oldest on.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) since: Option<Since>,
    /// At most so many publications; there may be fewer, so that the answer stays small. 100 if it is not said.
    #[serde(default)]
    pub(super) limit: Limit,
}

/// Ends sessions: those of a user, or one.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Disconnect {
    /// Whose sessions.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) user: Option<String>,
    /// Which session.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) session: Option<Id>,
    /// The code of the application's own that the client is told.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 4_294_967_295_u32)]
    pub(super) code: u32,
    /// For a person; what is beyond 1,024 bytes is cut.
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) idempotency_key: Option<IdempotencyKey>,
}

/// Sets the value of a key in a channel of state.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Set {
    pub(super) channel: ChannelName,
    pub(super) key: ValueKey,
    /// The value, as text.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) text: Option<String>,
    /// The value, as bytes in base64, with padding.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, format = Byte)]
    pub(super) base64: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) idempotency_key: Option<IdempotencyKey>,
}

/// Removes a key from a channel of state.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Remove {
    pub(super) channel: ChannelName,
    pub(super) key: ValueKey,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) idempotency_key: Option<IdempotencyKey>,
}

/// Asks for the values of a channel of state.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Values {
    pub(super) channel: ChannelName,
}

/// Asks who is subscribed to a channel.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Presence {
    pub(super) channel: ChannelName,
}

/// Subscribes the sessions of a user, or one, to a channel.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscribe {
    /// Whose sessions.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) user: Option<String>,
    /// Which session.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) session: Option<Id>,
    pub(super) channel: ChannelName,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) idempotency_key: Option<IdempotencyKey>,
}

/// Ends the subscriptions of a user's sessions, or of one, to a channel.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Unsubscribe {
    /// Whose sessions.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) user: Option<String>,
    /// Which session.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) session: Option<Id>,
    pub(super) channel: ChannelName,
    /// For a person; what is beyond 512 bytes is cut.
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) idempotency_key: Option<IdempotencyKey>,
}

/// Asks which channels have subscribers on this server.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Channels {
    /// What their names begin with.
    #[serde(default)]
    pub(super) prefix: String,
    /// The last name of the page before.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(super) after: Option<String>,
    /// At most so many; 100 if it is not said.
    #[serde(default)]
    pub(super) limit: Limit,
}

/// Asks how the server is.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Info {}

/// One command of a batch.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum One {
    #[serde(deserialize_with = "object")]
    Publish(Publish),
    #[serde(deserialize_with = "object")]
    Broadcast(Broadcast),
    #[serde(deserialize_with = "object")]
    Set(Set),
    #[serde(deserialize_with = "object")]
    Remove(Remove),
    #[serde(deserialize_with = "object")]
    History(History),
    #[serde(deserialize_with = "object")]
    Values(Values),
    #[serde(deserialize_with = "object")]
    Presence(Presence),
    #[serde(deserialize_with = "object")]
    Disconnect(Disconnect),
    #[serde(deserialize_with = "object")]
    Subscribe(Subscribe),
    #[serde(deserialize_with = "object")]
    Unsubscribe(Unsubscribe),
    #[serde(deserialize_with = "object")]
    Channels(Channels),
    #[serde(deserialize_with = "object")]
    Info(Info),
}

/// Does several things, one after the other. One that fails does not stop the others.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    #[serde(deserialize_with = "some::<_, _, MAX_COMMANDS>")]
    #[schema(min_items = 1, max_items = 100)]
    pub(super) commands: Vec<One>,
}

// ---- answers ----

/// Where it stands.
#[derive(Serialize, ToSchema)]
pub(super) struct Done {
    pub(super) epoch: u64,
    pub(super) offset: u64,
}

/// What became of a broadcast.
#[derive(Serialize, ToSchema)]
pub(super) struct Broadcasted {
    /// One for each channel, in their order.
    pub(super) results: Vec<Sent>,
}

/// What became of it in one channel: where it stands, or why it was not published.
#[derive(Serialize, ToSchema)]
pub(super) struct Sent {
    pub(super) channel: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) problem: Option<Problem>,
}

/// Who is subscribed, on all servers.
#[derive(Serialize, ToSchema)]
pub(super) struct Members {
    pub(super) members: Vec<Member>,
}

/// One subscription.
#[derive(Serialize, ToSchema)]
pub(super) struct Member {
    /// Of this subscription, and of no other.
    pub(super) id: String,
    /// Whose it is, if that is known.
    pub(super) user: Option<String>,
    /// What the application tells others of him.
    pub(super) info: serde_json::Value,
    /// What the client said of itself when it subscribed.
    pub(super) about: Option<String>,
}

/// Channels, sorted by name.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelList {
    pub(super) channels: Vec<ListedChannel>,
}

/// A channel with subscribers.
#[derive(Serialize, ToSchema)]
pub(super) struct ListedChannel {
    pub(super) name: String,
    /// Sessions of this server.
    pub(super) subscribers: usize,
}

/// What became of the subscriptions.
#[derive(Serialize, ToSchema)]
pub(super) struct Subscribed {
    /// Sessions of this server that are subscribed now, by this or from before.
    pub(super) sessions: usize,
    /// Those that are not.
    pub(super) failed: Vec<NotSubscribed>,
}

/// A session that could not be subscribed.
#[derive(Serialize, ToSchema)]
pub(super) struct NotSubscribed {
    pub(super) session: String,
    pub(super) problem: Problem,
}

/// How many sessions of this server it concerned.
#[derive(Serialize, ToSchema)]
pub(super) struct Sessions {
    pub(super) sessions: usize,
}

/// How the server is.
#[derive(Serialize, ToSchema)]
pub(super) struct ServerInfo {
    pub(super) version: &'static str,
    /// Sessions of this server, those that wait for another link included.
    pub(super) sessions: usize,
    /// It takes no new sessions any more.
    pub(super) going_away: bool,
    /// Subscriptions of these sessions.
    pub(super) subscriptions: u64,
    /// Publications, and changes of values, that came to a channel with subscribers on this server since it began.
    pub(super) publications: u64,
}

/// What became of a batch.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is put together from answers that are JSON already")]
pub(super) struct Outcomes {
    /// One for each command, in their order.
    results: Vec<Outcome>,
}

/// What became of one command: its answer, or why there is none.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is put together from answers that are JSON already")]
pub(super) struct Outcome {
    /// What the command alone would have been answered.
    status: u16,
    /// What the command alone would have been answered.
    #[schema(nullable = false, value_type = Option<Object>)]
    answer: Option<serde_json::Value>,
    #[schema(nullable = false)]
    problem: Option<Problem>,
}

// ---- fields ----

/// The name of a channel: 1 to 255 bytes of UTF-8, without control characters.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f]+$")]
pub(super) struct ChannelName(pub(super) String);

/// A key of a channel of state: 0 to 255 bytes of UTF-8.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(value_type = String, max_length = 255)]
pub(super) struct ValueKey(pub(super) String);

/// A key of one's own, such as a UUID: what was done with it is not done again for some minutes.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 255)]
pub(super) struct IdempotencyKey(pub(super) String);

/// A position: `<epoch>-<offset>`.
#[derive(Debug, Clone, Copy, ToSchema)]
#[schema(value_type = String, pattern = "^[0-9]{1,16}-[0-9]{1,16}$")]
pub(super) struct Since(pub(super) Position);

/// From 1 to 1,000.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(value_type = u16, minimum = 1, maximum = 1_000)]
pub(super) struct Limit(pub(super) u16);

/// The id of a session.
#[derive(Debug, Clone, Copy, ToSchema)]
#[schema(value_type = String, pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
pub(super) struct Id(pub(super) SessionId);

impl<'de> Deserialize<'de> for ChannelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(deserializer, ReadError::BadChannel, |name| channel::is_name(&name).then_some(Self(name)))
    }
}

impl<'de> Deserialize<'de> for ValueKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(deserializer, format!("a key has at most {MAX_KEY} bytes"), |key| {
            (key.len() <= MAX_KEY).then_some(Self(key))
        })
    }
}

impl<'de> Deserialize<'de> for IdempotencyKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(deserializer, "an idempotency key has 1 to 255 characters", |key| {
            (1..=255).contains(&key.chars().count()).then_some(Self(key))
        })
    }
}

impl<'de> Deserialize<'de> for Since {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(deserializer, "not a position: <epoch>-<offset>", |text| position::parse(&text).map(Self))
    }
}

impl Serialize for Since {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&position::format(self.0))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(deserializer, "not the id of a session: 22 characters of base64url", |id| id.parse().ok().map(Self))
    }
}

impl Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let limit = u64::deserialize(deserializer)?;
        let fine = u16::try_from(limit).ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
        fine.map(Self).ok_or_else(|| de::Error::custom(format!("{limit}; allowed is 1 to {MAX_LIMIT}")))
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(DEFAULT_LIMIT)
    }
}

fn checked<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    wanted: impl fmt::Display,
    check: impl FnOnce(String) -> Option<T>,
) -> Result<T, D::Error> {
    check(String::deserialize(deserializer)?).ok_or_else(|| de::Error::custom(wanted))
}

/// A list that is not empty, and not too long.
fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let list = Vec::deserialize(deserializer)?;
    if list.is_empty() || list.len() > MAX {
        return Err(de::Error::custom(format!("a list of {}; allowed is 1 to {MAX}", list.len())));
    }
    Ok(list)
}

/// One of the two, as a message.
pub(super) fn message(text: Option<&str>, base64: Option<&str>) -> Result<Message, Problem> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => match BASE64_STANDARD.decode(base64) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(Problem::invalid("base64", format!("not base64 with padding: {error}"))),
        },
        _ => Err(Problem::invalid("text", "either `text` or `base64` is wanted")),
    }
}

impl From<Position> for Done {
    fn from(position: Position) -> Self {
        Self { epoch: position.epoch, offset: position.offset }
    }
}
