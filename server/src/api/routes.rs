//! One path for each command.

use axum::Extension;
use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header, request};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::batch::{perform, perform_all};
use super::body::Body;
use super::commands::*;
use super::problem::Problem;
use super::{Api, Caller, document};
use crate::http::page::{AllValues, Page};

/// The routes, below the base of the configuration.
pub(crate) fn router(api: Api, base: &str) -> Router {
    let (commands, document) = OpenApiRouter::with_openapi(document::begin(base))
        .routes(routes!(publish))
        .routes(routes!(broadcast))
        .routes(routes!(set))
        .routes(routes!(remove))
        .routes(routes!(history))
        .routes(routes!(values))
        .routes(routes!(presence))
        .routes(routes!(disconnect))
        .routes(routes!(subscribe))
        .routes(routes!(unsubscribe))
        .routes(routes!(channels))
        .routes(routes!(info))
        .routes(routes!(batch))
        .split_for_parts();
    let commands = commands
        .route_layer(middleware::from_fn_with_state(api.clone(), authenticate))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", "there is nothing here"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "commands are asked for with POST")
        })
        .with_state(api);
    Router::new().nest(base, commands).merge(document::routes(document, base))
}

/// Who calls, before anything of the body is read.
async fn authenticate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let caller = bearer(request.headers()).and_then(|key| api.0.keys.find(key));
    let Some(caller) = caller else {
        let reason = "a key is wanted: Authorization: Bearer, with one of `api.keys`";
        return Problem::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", reason).into_response();
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(one), None) = (all.next(), all.next()) else { return None };
    let (scheme, key) = one.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// The header `Idempotency-Key`.
struct Key(Option<IdempotencyKey>);

impl FromRequestParts<Api> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, _: &Api) -> Result<Self, Problem> {
        let mut all = parts.headers.get_all("idempotency-key").iter();
        let Some(key) = all.next() else { return Ok(Self(None)) };
        let key = key.to_str().ok().filter(|key| (1..=255).contains(&key.len()) && all.next().is_none());
        let reason = "an idempotency key has 1 to 255 characters of ASCII, and stands there once";
        let key = key.ok_or_else(|| Problem::invalid("Idempotency-Key", reason))?;
        Ok(Self(Some(IdempotencyKey(key.to_owned()))))
    }
}

type Answer = Result<Response, Problem>;

fn json(answer: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], answer).into_response()
}

macro_rules! command {
    ($(#[doc = $doc:literal])* $name:ident($command:ident) -> $answer:ident, [$($status:literal: $when:literal),*]) => {
        $(#[doc = $doc])*
        #[utoipa::path(
            post,
            path = concat!("/", stringify!($name)),
            request_body = $command,
            params(("Idempotency-Key" = Option<IdempotencyKey>, Header, nullable = false, description = "What was done with this key is not done again, but answered as it was")),
            responses(
                (status = 200, description = "It is done", body = $answer),
                (status = 400, description = "The body is not JSON", body = Problem),
                (status = 401, description = "The key is missing, or none", body = Problem),
                (status = 408, description = "The body did not come in time", body = Problem),
                (status = 413, description = "The body, or what is to be published, is too long", body = Problem),
                (status = 415, description = "The body is not said to be JSON", body = Problem),
                (status = 422, description = "The body is not what is asked for, and `at` says where; or the idempotency key was used with something else", body = Problem),
                (status = 503, description = "What keeps the channels cannot be reached, or has no room; asking again later may help", body = Problem),
                $((status = $status, description = $when, body = Problem),)*
            ),
        )]
        async fn $name(
            State(api): State<Api>,
            Extension(caller): Extension<Caller>,
            Key(key): Key,
            Body(command): Body<$command>,
        ) -> Answer {
            perform(&api, caller, key, command).await.map(json)
        }
    };
}

command! {
    /// Publish in a channel
    ///
    /// Everybody who is subscribed gets it. The answer says where it stands.
    publish(Publish) -> Done, [403: "The name is one of the server's own", 409: "The channel is not a log"]
}

command! {
    /// Publish the same in many channels
    ///
    /// Each has a result of its own; one that fails does not stop the others.
    broadcast(Broadcast) -> Broadcasted, []
}

command! {
    /// Set the value of a key in a channel of state
    ///
    /// Everybody who is subscribed gets it, or a newer one. The answer says where the change stands.
    set(Set) -> Done, [403: "The name is one of the server's own", 409: "The channel is not one of state, or has no room for a further key or a longer value"]
}

command! {
    /// Remove a key from a channel of state
    ///
    /// To remove what is not there is no mistake, and no change.
    remove(Remove) -> Done, [403: "The name is one of the server's own", 409: "The channel is not one of state"]
}

command! {
    /// What a channel keeps
    ///
    /// The oldest first, page by page: `next` is the `since` of the next page.
    history(History) -> Page, [409: "The channel is not a log"]
}

command! {
    /// The values of a channel of state
    values(Values) -> AllValues, [409: "The channel is not one of state"]
}

command! {
    /// Who is subscribed to a channel
    ///
    /// On all servers.
    presence(Presence) -> Members, [409: "The channel's namespace does not keep who is subscribed"]
}

command! {
    /// End the sessions of a user, or one session
    ///
    /// Their clients are told the code and the reason, and do not come back by themselves.
    disconnect(Disconnect) -> Sessions, []
}

command! {
    /// Subscribe the sessions of a user, or one session, to a channel
    ///
    /// Their clients need not ask, and need no right to. A session that is subscribed stays so.
    subscribe(Subscribe) -> Subscribed, []
}

command! {
    /// End the subscriptions of a user's sessions, or of one session, to a channel
    ///
    /// The answer counts the sessions, whether they were subscribed or not.
    unsubscribe(Unsubscribe) -> Sessions, []
}

command! {
    /// The channels that have subscribers on this server
    ///
    /// Sorted by name, page by page: the last name is the `after` of the next page.
    channels(Channels) -> ChannelList, []
}

command! {
    /// How the server is
    info(Info) -> ServerInfo, []
}

/// Do several things at once
///
/// They are done in order, and each has a result of its own; one that fails does not stop the others. When one of them is not what can be asked for, nothing is done.
#[utoipa::path(
    post,
    path = "/batch",
    request_body = Batch,
    params(("Idempotency-Key" = Option<IdempotencyKey>, Header, nullable = false, description = "Counts for each command that has no key of its own")),
    responses(
        (status = 200, description = "Each is done, or has a problem", body = Outcomes),
        (status = 400, description = "The body is not JSON", body = Problem),
        (status = 401, description = "The key is missing, or none", body = Problem),
        (status = 408, description = "The body did not come in time", body = Problem),
        (status = 413, description = "The body is too long", body = Problem),
        (status = 415, description = "The body is not said to be JSON", body = Problem),
        (status = 422, description = "The body is not what is asked for, and `at` says where; or the idempotency key was used with something else", body = Problem),
    ),
)]
async fn batch(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Key(key): Key,
    Body(batch): Body<Batch>,
) -> Answer {
    perform_all(&api, caller, key, batch).await.map(json)
}
