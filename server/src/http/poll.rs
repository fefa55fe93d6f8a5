//! `GET …/{name}/poll`: what comes after a position, as JSON; held while there is nothing.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header;
use throughline_protocol::channel::Position;

use super::page::Page;
use super::{Query, Site, unreadable};
use crate::hub::Item;
use crate::transport::open::Rejection;

pub(super) async fn answer(site: &Site, channel: &str, query: &Query) -> Result<Response, Rejection> {
    // Zeros are what `next` says while nothing has been published: from the first on.
    let since = query.since.filter(|since| *since != Position::default());
    let mut page = read(site, channel, since, query.limit).await?;
    if page.publications.is_empty() && page.complete && !query.wait.is_zero() {
        hold(site, channel, query, &mut page).await?;
    }
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(page)).into_response())
}

/// What the channel keeps.
async fn read(site: &Site, channel: &str, since: Option<Position>, limit: usize) -> Result<Page, Rejection> {
    let history = site.hub.page(channel, since, limit).await.map_err(unreadable)?;
    let mut page = Page::new(history.newest, history.complete);
    let epoch = history.newest.epoch;
    history.publications.into_iter().for_each(|publication| page.take(Item::Publication(epoch, publication)));
    Ok(page)
}

/// Waits for something to be published.
async fn hold(site: &Site, channel: &str, query: &Query, page: &mut Page) -> Result<(), Rejection> {
    let newest = Position { epoch: page.epoch, offset: page.offset };
    let after = Some(newest).filter(|newest| *newest != Position::default());
    let mut reader = site.hub.reader(channel, after).await.map_err(unreadable)?;
    if after.is_none() && reader.position().offset > 0 {
        *page = read(site, channel, None, query.limit).await?; // it was published meanwhile
        return Ok(());
    }
    let mut next = tokio::select! {
        item = reader.next() => Some(item.map_err(unreadable)?),
        () = tokio::time::sleep(query.wait.min(site.gateway.limits.poll_hold)) => None,
        () = site.gateway.leaving() => None,
        () = site.gateway.ended.cancelled() => None,
    };
    while let Some(item) = next {
        page.take(item);
        next = if page.publications.len() < query.limit { reader.ready() } else { None };
    }
    Ok(())
}
