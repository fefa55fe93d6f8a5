//! Channels over plain HTTP, for clients without our library: an event stream, and a GET that is held. They ask the same `authenticate` as openings, and the same rights.

mod event;
mod events;
pub(crate) mod page;
mod poll;
pub(crate) mod position;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use http::{HeaderMap, StatusCode, request};
use throughline_protocol::Code;
use throughline_protocol::channel::{self, Position};

use crate::gateway::routes::cors;
use crate::gateway::{Gateway, Visitor};
use crate::hub::{Action, Hub, ReadError};
use crate::transport::Transport;
use crate::transport::open::Rejection;
use events::{Audiences, Source};

/// What the routes need.
#[derive(Clone)]
struct Site {
    gateway: Arc<Gateway>,
    hub: Hub,
    audiences: Arc<Audiences>,
}

/// The routes, without their base.
pub(crate) fn router(gateway: Arc<Gateway>, hub: Hub) -> Router {
    let audiences = Audiences::new(gateway.limits.heartbeat_interval, gateway.ended.clone());
    Router::new()
        .route("/{name}/events", get(events))
        .route("/{name}/poll", get(poll))
        // A name that is empty is one that is wrong, and not a path that is.
        .route("//events", get(nameless))
        .route("//poll", get(nameless))
        .layer(cors(Arc::clone(&gateway)))
        .with_state(Site { gateway, hub, audiences })
}

type Name = Result<Path<String>, PathRejection>;

async fn events(State(site): State<Site>, name: Name, parts: request::Parts) -> Result<Response, Rejection> {
    let query = Query::parse(&parts)?;
    let (channel, visitor) = site.admit(name, Transport::Sse, &parts).await?;
    let source = match site.hub.reader(&channel, query.since).await {
        Ok(reader) => Source::Log(reader),
        Err(ReadError::WrongKind) => Source::State(site.hub.value_reader(&channel).await.map_err(unreadable)?),
        Err(error) => return Err(unreadable(error)),
    };
    Ok(events::open(&site, channel, source, visitor, parts.extensions.get().copied()))
}

async fn poll(State(site): State<Site>, name: Name, parts: request::Parts) -> Result<Response, Rejection> {
    let query = Query::parse(&parts)?;
    let (channel, _visitor) = site.admit(name, Transport::Poll, &parts).await?;
    poll::answer(&site, &channel, &query).await
}

async fn nameless() -> Rejection {
    bad_channel()
}

impl Site {
    /// Decides who reads which channel: cheap questions first, the application's last.
    async fn admit(
        &self,
        name: Name,
        transport: Transport,
        parts: &request::Parts,
    ) -> Result<(String, Visitor), Rejection> {
        // Percent-encoded, and not UTF-8 perhaps.
        let Path(channel) = name.map_err(|_| bad_channel())?;
        if !channel::is_name(&channel) {
            return Err(bad_channel());
        }
        let visitor = self.gateway.visit(transport, parts).await?;
        let authorize = || self.hub.authorize(&visitor.identity, Action::Subscribe { channel: &channel });
        // The application decides: a panic would take along the connection, and whoever else is on it.
        let authorized = catch_unwind(AssertUnwindSafe(authorize)).map_err(|_| failed())?;
        authorized.map_err(|denied| Rejection::forbidden(denied.to_string()))?;
        Ok((channel, visitor))
    }
}

fn bad_channel() -> Rejection {
    Rejection::bad_request(ReadError::BadChannel.to_string())
}

fn failed() -> Rejection {
    Rejection::new(StatusCode::SERVICE_UNAVAILABLE, Code::InternalError, "the server's application failed")
}

fn unreadable(error: ReadError) -> Rejection {
    let (status, code) = match error {
        ReadError::BadChannel | ReadError::WrongKind => (StatusCode::BAD_REQUEST, Code::BadRequest),
        ReadError::TooManyChannels => (StatusCode::SERVICE_UNAVAILABLE, Code::LimitReached),
        ReadError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Code::InternalError),
    };
    let rejection = Rejection::new(status, code, error.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE { rejection.retry_after(RETRY_WHEN_UNAVAILABLE) } else { rejection }
}

/// What a client is told to wait when the channel cannot be read now: it is somebody's work to mend that.
const RETRY_WHEN_UNAVAILABLE: Duration = Duration::from_secs(5);

/// Most publications in an answer, whatever is asked for (SPEC section 10).
const MAX_LIMIT: usize = 1_000;

/// Publications in an answer when the client does not say: as many as a namespace keeps by default.
const DEFAULT_LIMIT: usize = 100;

/// What stands after the `?`, and the header that browsers send when they come back.
struct Query {
    since: Option<Position>,
    limit: usize,
    wait: Duration,
}

impl Query {
    fn parse(parts: &request::Parts) -> Result<Self, Rejection> {
        let (mut since, mut limit, mut wait) = (None, None, None);
        for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            let field = match &*name {
                "since" | "last_event_id" => &mut since,
                "limit" => &mut limit,
                "wait" => &mut wait,
                _ => continue, // the application's own
            };
            if field.replace(value.into_owned()).is_some() {
                return Err(Rejection::bad_request(format!("{name} stands there twice")));
            }
        }
        // A browser that comes back has had more than its address says.
        let since = match last_event_id(&parts.headers)? {
            Some(id) => Some(id),
            None => since,
        };
        let wanted = |what: &str| Rejection::bad_request(what.to_owned());
        let since = since.map(|since| position::parse(&since).ok_or_else(|| wanted(BAD_SINCE))).transpose()?;
        let limit = limit.map(|limit| whole(&limit).filter(|limit| *limit > 0).ok_or_else(|| wanted(BAD_LIMIT)));
        let limit = limit.transpose()?.map_or(DEFAULT_LIMIT, |limit| limit.min(MAX_LIMIT as u64) as usize);
        let wait = wait.map(|wait| whole(&wait).ok_or_else(|| wanted(BAD_WAIT))).transpose()?;
        Ok(Self { since, limit, wait: Duration::from_secs(wait.unwrap_or(0)) })
    }
}

const BAD_SINCE: &str = "since, or Last-Event-ID, is not a position: <epoch>-<offset>, such as 1985529216486895-42";
const BAD_LIMIT: &str = "limit is not a number from 1 to 1000";
const BAD_WAIT: &str = "wait is not a whole number of seconds";

fn last_event_id(headers: &HeaderMap) -> Result<Option<String>, Rejection> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let id = id.to_str().map_err(|_| Rejection::bad_request(BAD_SINCE))?;
    Ok((!id.is_empty()).then(|| id.to_owned()))
}

/// Digits only: `parse` alone would take a sign.
fn whole(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}
