//! Reading a log inside the server, without a session: what plain HTTP hands on.
//!
//! A reader is a cursor, as a subscriber is. What comes while it is at the head reaches it by a short queue that all readers of a channel share; whoever falls out of that reads the
//! engine's history. So a slow reader holds one piece of history, and delays nobody.

pub(super) mod values;

use std::collections::VecDeque;
use std::sync::Arc;

use throughline_protocol::channel::{self, Position};
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};

use super::topic::{Body, Topic};
use super::{Hub, Inner};
use crate::config::Kind;
use crate::engine::{EngineError, History, Page, Publication};

/// Publications of one channel that wait for its readers, in all: as many as a reader reads of the history at once.
const ARRIVALS: usize = 64;

/// What a reader reads of the history at once, and holds while its client takes it.
const PIECE: Page = Page { publications: ARRIVALS, bytes: 64 * 1024, newest: false };

/// What one answer takes of a history, in bytes: four times the longest publication of the default configuration.
const PAGE_BYTES: usize = 256 * 1024;

/// Reads what is published in a channel, in order and each once.
pub(crate) struct Reader {
    joined: Joined,
    arrivals: broadcast::Receiver<Arrived>,
    /// Where the last item stood.
    cursor: Position,
    /// It reads the history before it looks at what arrives.
    is_behind: bool,
    piece: VecDeque<Arc<Publication>>,
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// The next publication, of this epoch.
    Publication(u64, Arc<Publication>),
    /// What was between the position before and this one is lost to the reader.
    Skipped(Position),
}

/// Why a channel cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// The channel's name is none.
    #[error("not a name of a channel: it takes 1 to 255 bytes, without control characters")]
    BadChannel,
    /// It is a channel of state, or a log.
    #[error("the channel is not of the kind that can be read so")]
    WrongKind,
    /// There are `channels.max_channels` with subscribers.
    #[error("the server has no room for a further channel")]
    TooManyChannels,
    /// What keeps the channels cannot be reached.
    #[error("what keeps the channels cannot be reached")]
    Unavailable,
}

/// What was published, or changed, with its position.
pub(super) type Arrived<T = Publication> = (Position, Arc<T>);

/// The side of the topic: a queue, for as long as somebody reads it.
pub(super) struct Readers<T = Publication>(Option<broadcast::Sender<Arrived<T>>>);

impl<T> Default for Readers<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl Hub {
    /// Begins to read a channel: after a position, or with the next publication.
    pub(crate) async fn reader(&self, channel: &str, after: Option<Position>) -> Result<Reader, ReadError> {
        if !channel::is_name(channel) {
            return Err(ReadError::BadChannel);
        }
        let joined = Joined { topic: self.0.join(channel), hub: Arc::clone(&self.0) };
        let Body::Log(log) = &joined.topic.body else { return Err(ReadError::WrongKind) };
        self.0.start(&joined.topic).await?;
        // From now on, what is published arrives; what was before is in the history.
        let (newest, arrivals) = log.read();
        let cursor = after.unwrap_or(newest);
        Ok(Reader { joined, arrivals, cursor, is_behind: after.is_some(), piece: VecDeque::new() })
    }

    /// What a channel keeps after a position, as much as one answer takes; from the oldest on when the position is none of this channel's, which is not complete then.
    pub(crate) async fn page(
        &self,
        channel: &str,
        after: Option<Position>,
        limit: usize,
    ) -> Result<History, ReadError> {
        if !channel::is_name(channel) {
            return Err(ReadError::BadChannel);
        }
        if self.0.namespace(channel).kind != Kind::Log {
            return Err(ReadError::WrongKind);
        }
        Ok(self.0.read_on(channel, after, Page { publications: limit, bytes: PAGE_BYTES, newest: false }).await?)
    }
}

impl Reader {
    /// Where it stands: after the last item.
    pub(crate) fn position(&self) -> Position {
        self.cursor
    }

    /// The next item. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Item, ReadError> {
        loop {
            if let Some(item) = self.ready() {
                return Ok(item);
            }
            if self.is_behind {
                if let Some(skipped) = self.read().await? {
                    return Ok(skipped);
                }
                continue;
            }
            match self.arrivals.recv().await {
                Ok(arrived) => self.take(arrived),
                // Never: the topic is there as long as its readers.
                Err(RecvError::Closed) => return Err(ReadError::Unavailable),
                Err(RecvError::Lagged(_)) => self.is_behind = true,
            }
        }
    }

    /// The next item, if it is there already.
    pub(crate) fn ready(&mut self) -> Option<Item> {
        while self.piece.is_empty() && !self.is_behind {
            match self.arrivals.try_recv() {
                Ok(arrived) => self.take(arrived),
                Err(TryRecvError::Lagged(_)) => self.is_behind = true,
                Err(_) => return None,
            }
        }
        let publication = self.piece.pop_front()?;
        self.cursor.offset = publication.offset;
        Some(Item::Publication(self.cursor.epoch, publication))
    }

    /// Looks at what arrived, when there is nothing before it.
    fn take(&mut self, (position, publication): Arrived) {
        if position.epoch != self.cursor.epoch || position.offset > self.cursor.offset + 1 {
            self.is_behind = true;
        } else if position.offset > self.cursor.offset {
            self.piece.push_back(publication);
        } // otherwise it was in the history
    }

    /// Reads a piece of the history. Says when it does not begin where the reader is.
    async fn read(&mut self) -> Result<Option<Item>, ReadError> {
        let Joined { hub, topic } = &self.joined;
        let history = hub.read_on(&topic.name, Some(self.cursor), PIECE).await?;
        let History { newest, complete, publications } = history;
        let last = publications.last().map_or(newest.offset, |last| last.offset);
        self.is_behind = last < newest.offset;
        let before = publications.first().map_or(newest.offset, |first| first.offset - 1);
        self.piece = publications.into();
        if complete {
            return Ok(None);
        }
        self.cursor = Position { epoch: newest.epoch, offset: before };
        Ok(Some(Item::Skipped(self.cursor)))
    }
}

impl Inner {
    async fn read_on(&self, channel: &str, after: Option<Position>, page: Page) -> Result<History, EngineError> {
        let history = self.engine.history(channel, after, page).await?;
        let is_known = |after: Position| after.epoch == history.newest.epoch && after.offset <= history.newest.offset;
        if after.is_none_or(is_known) {
            return Ok(history);
        }
        Ok(History { complete: false, ..self.engine.history(channel, None, page).await? })
    }
}

impl<T: Clone> Readers<T> {
    pub(super) fn add(&mut self) -> broadcast::Receiver<Arrived<T>> {
        self.0.get_or_insert_with(|| broadcast::channel(ARRIVALS).0).subscribe()
    }

    /// Gives a publication to all of them.
    pub(super) fn deliver(&mut self, position: Position, publication: &T) {
        let sent = self.0.as_ref().map(|readers| readers.send((position, Arc::new(publication.clone()))));
        if sent.is_some_and(|sent| sent.is_err()) {
            self.0 = None; // the last one has gone
        }
    }
}

impl From<EngineError> for ReadError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Full => Self::TooManyChannels,
            _ => Self::Unavailable, // why is for the server's operator
        }
    }
}

/// Keeps a topic.
struct Joined {
    hub: Arc<Inner>,
    topic: Arc<Topic>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.hub.release(&self.topic);
    }
}

#[cfg(test)]
mod tests;
