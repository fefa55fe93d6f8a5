//! `GET …/{name}/poll`: what comes after a position, as JSON; held while there is nothing.

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header;
use serde::Serialize;
use throughline_protocol::Message;
use throughline_protocol::channel::Position;

use super::{Query, Site, position, unreadable};
use crate::hub::{Item, Publication};
use crate::transport::open::Rejection;

/// What was published after a position.
#[derive(Serialize)]
struct Answer {
    epoch: u64,
    /// Of the newest publication, whether it is here or not.
    offset: u64,
    /// Nothing is missing between the position that was asked for and the first publication.
    complete: bool,
    publications: Vec<Published>,
    /// Where to go on.
    next: String,
}

#[derive(Serialize)]
struct Published {
    offset: u64,
    #[serde(flatten)]
    data: Data,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Data {
    Text(String),
    Base64(String),
}

pub(super) async fn answer(site: &Site, channel: &str, query: &Query) -> Result<Response, Rejection> {
    // Zeros are what `next` says while nothing has been published: from the first on.
    let since = query.since.filter(|since| *since != Position::default());
    let mut answer = Answer::page(site, channel, since, query.limit).await?;
    if answer.is_nothing() && !query.wait.is_zero() {
        answer.hold(site, channel, query).await?;
    }
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

impl Answer {
    /// What the channel keeps.
    async fn page(site: &Site, channel: &str, since: Option<Position>, limit: usize) -> Result<Self, Rejection> {
        let page = site.hub.page(channel, since, limit).await.map_err(unreadable)?;
        let Position { epoch, offset } = page.newest;
        let next = position::format(page.newest);
        let mut answer = Self { epoch, offset, complete: page.complete, publications: Vec::new(), next };
        page.publications.into_iter().for_each(|publication| answer.take(Item::Publication(epoch, publication)));
        Ok(answer)
    }

    fn is_nothing(&self) -> bool {
        self.publications.is_empty() && self.complete
    }

    /// Waits for something to be published.
    async fn hold(&mut self, site: &Site, channel: &str, query: &Query) -> Result<(), Rejection> {
        let newest = Position { epoch: self.epoch, offset: self.offset };
        let after = Some(newest).filter(|newest| *newest != Position::default());
        let mut reader = site.hub.reader(channel, after).await.map_err(unreadable)?;
        if after.is_none() && reader.position().offset > 0 {
            *self = Self::page(site, channel, None, query.limit).await?; // it was published meanwhile
            return Ok(());
        }
        let mut next = tokio::select! {
            item = reader.next() => Some(item.map_err(unreadable)?),
            () = tokio::time::sleep(query.wait.min(site.gateway.limits.poll_hold)) => None,
            () = site.gateway.leaving() => None,
            () = site.gateway.ended.cancelled() => None,
        };
        while let Some(item) = next {
            self.take(item);
            next = if self.publications.len() < query.limit { reader.ready() } else { None };
        }
        Ok(())
    }

    fn take(&mut self, item: Item) {
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

impl From<&Message> for Data {
    fn from(message: &Message) -> Self {
        match message {
            Message::Text(text) => Self::Text((**text).to_owned()),
            Message::Binary(bytes) => Self::Base64(BASE64_STANDARD.encode(bytes)),
        }
    }
}
