//! `GET …/{name}/poll`: what comes after a position, as JSON; held while there is nothing. Of a channel of state: all that it holds.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header;
use serde::Serialize;
use throughline_protocol::channel::Position;

use super::page::{AllValues, Page};
use super::{Query, Site, position, unreadable};
use crate::hub::{Held, HistoryError, Item, ReadError, ValueItem};
use crate::transport::open::Rejection;

/// What a channel of state holds.
#[derive(Serialize)]
struct Values {
    #[serde(flatten)]
    all: AllValues,
    /// The `since` with which a request is held until something changes.
    next: String,
}

pub(super) async fn answer(site: &Site, channel: &str, query: &Query) -> Result<Response, Rejection> {
    match publications(site, channel, query).await {
        Err(ReadError::WrongKind) => values(site, channel, query).await,
        answer => answer,
    }
    .map_err(unreadable)
}

async fn publications(site: &Site, channel: &str, query: &Query) -> Result<Response, ReadError> {
    // Zeros are what `next` says while nothing has been published: from the first on.
    let since = query.since.filter(|since| *since != Position::default());
    let mut page = read(site, channel, since, query.limit).await?;
    if page.publications.is_empty() && page.complete && !query.wait.is_zero() {
        hold(site, channel, query, &mut page).await?;
    }
    Ok(fresh(page))
}

/// What the channel keeps.
async fn read(site: &Site, channel: &str, since: Option<Position>, limit: usize) -> Result<Page, ReadError> {
    let history = site.hub.page(channel, since, limit).await?;
    let mut page = Page::new(history.newest, history.complete);
    let epoch = history.newest.epoch;
    history.publications.into_iter().for_each(|publication| page.take(Item::Publication(epoch, publication)));
    Ok(page)
}

/// Waits for something to be published.
async fn hold(site: &Site, channel: &str, query: &Query, page: &mut Page) -> Result<(), ReadError> {
    let newest = Position { epoch: page.epoch, offset: page.offset };
    let after = Some(newest).filter(|newest| *newest != Position::default());
    let mut reader = site.hub.reader(channel, after).await?;
    if after.is_none() && reader.position().offset > 0 {
        *page = read(site, channel, None, query.limit).await?; // it was published meanwhile
        return Ok(());
    }
    let mut next = while_held(site, query, reader.next()).await.transpose()?;
    while let Some(item) = next {
        page.take(item);
        next = if page.publications.len() < query.limit { reader.ready() } else { None };
    }
    Ok(())
}

async fn values(site: &Site, channel: &str, query: &Query) -> Result<Response, ReadError> {
    // Before the values are read: so no change is between the two.
    let mut reader = site.hub.value_reader(channel).await?;
    let mut state = held_by(site, channel).await?;
    if query.since == Some(state.position) && !query.wait.is_zero() {
        let Position { epoch, offset } = state.position;
        // All that is there comes first.
        let is_known = |item| match item {
            ValueItem::Snapshot(position) | ValueItem::Settled(position) => position == state.position,
            ValueItem::Change(of, change) => of == epoch && change.offset <= offset,
        };
        let changed = async {
            while is_known(reader.next().await?) {}
            Ok::<_, ReadError>(())
        };
        if while_held(site, query, changed).await.transpose()?.is_some() {
            state = held_by(site, channel).await?;
        }
    }
    let next = position::format(state.position);
    Ok(fresh(Values { all: state.into(), next }))
}

async fn held_by(site: &Site, channel: &str) -> Result<Held, ReadError> {
    site.hub.channel(channel).values().await.map_err(|error| match error {
        HistoryError::BadChannel => ReadError::BadChannel,
        HistoryError::Unavailable(_) => ReadError::Unavailable,
        _ => ReadError::WrongKind,
    })
}

/// Waits for something, as long as the client wants to and may; `None`: in vain.
async fn while_held<T>(site: &Site, query: &Query, something: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        something = something => Some(something),
        () = tokio::time::sleep(query.wait.min(site.gateway.limits.poll_hold)) => None,
        () = site.gateway.leaving() => None,
        () = site.gateway.ended.cancelled() => None,
    }
}

fn fresh(answer: impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}
