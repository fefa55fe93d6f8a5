//! The routes below the base: one for each transport, the uplink, and what a client may want to know first.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request};
use hyper::upgrade::OnUpgrade;
use serde::Serialize;
use throughline_protocol::{Close, Code, Origin, VERSION};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::Gateway;
use super::registry::{Attachment, Found, gone};
use crate::origin::request_host;
use crate::session::shared::Shared;
use crate::socket::takeover::Offer;
use crate::transport::link::Verdict;
use crate::transport::open::{LinkName, Rejection, SUBPROTOCOL};
use crate::transport::webtransport::Upgrade;
use crate::transport::{Transport, poll, sse, uplink, websocket, webtransport_link};

/// How long a browser may remember the answer to a preflight request: Chromium's own maximum.
const PREFLIGHT_MAX_AGE: std::time::Duration = std::time::Duration::from_secs(7_200);

/// Where WebTransport listens, as clients are told.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct QuicInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
    pub(crate) path: String,
}

/// The routes, without the base.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/webtransport", any(webtransport))
        .route("/websocket", any(websocket))
        .route("/sse", get(sse))
        .route("/poll", get(poll))
        .route("/send", post(send))
        .route("/info", get(info))
        .layer(cors(Arc::clone(&gateway)))
        .with_state(gateway)
}

/// For whoever starts and stops servers: whether this one lives, and whether it should be sent new clients.
pub(crate) fn health(gateway: Arc<Gateway>) -> Router {
    let ready = async |State(gateway): State<Arc<Gateway>>| match gateway.is_going_away() {
        false => health_says(StatusCode::OK, "ready\n"),
        true => health_says(StatusCode::SERVICE_UNAVAILABLE, "going away\n"),
    };
    let live = async || health_says(StatusCode::OK, "alive\n");
    Router::new().route("/readyz", get(ready)).route("/livez", get(live)).with_state(gateway)
}

fn health_says(status: StatusCode, words: &'static str) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], words).into_response()
}

async fn webtransport(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Rejection> {
    let (mut parts, _) = request.into_parts();
    let Some(upgrade) = parts.extensions.remove::<Upgrade>() else {
        return Err(Rejection::bad_request("WebTransport is opened by an extended CONNECT over HTTP/3"));
    };
    let admitted = gateway.admit(Transport::WebTransport, &parts).await?;
    let mut response = StatusCode::OK.into_response();
    if offers_subprotocol(&parts.headers) {
        response.headers_mut().insert("wt-protocol", HeaderValue::from_static("\"throughline.v1\""));
    }
    let (deadline, marks) = (gateway.limits.open_timeout, admitted.marks);
    gateway.sessions.clone().spawn(async move {
        let opened = tokio::select! {
            opened = tokio::time::timeout(deadline, webtransport_link::open(upgrade, marks)) => opened,
            () = gateway.ended.cancelled() => return,
        };
        match opened {
            Ok(Ok(link)) => gateway.begin(admitted, Box::new(link), None),
            Ok(Err(error)) => tracing::debug!(%error, "a WebTransport session ended before its link stream was open"),
            Err(_) => tracing::debug!("a WebTransport client gave no room for the link stream in time"),
        }
    });
    Ok(response)
}

/// Whether the client's list of protocols (draft-ietf-webtrans-http3, section 3.3) has ours.
fn offers_subprotocol(headers: &HeaderMap) -> bool {
    let lists = headers.get_all("wt-available-protocols").iter();
    lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|item| item.trim().strip_prefix('"').and_then(|item| item.strip_suffix('"')) == Some(SUBPROTOCOL))
}

async fn websocket(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Rejection> {
    let (mut parts, _) = request.into_parts();
    let upgrade = parts.extensions.get::<OnUpgrade>().cloned();
    // axum knows what makes a request an upgrade. What comes of it is ours.
    let checked = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = match (checked, upgrade) {
        (Ok(_), Some(upgrade)) => upgrade,
        (Ok(_), None) => return Ok(no_upgrade("the connection cannot be upgraded")),
        (Err(error), _) => return Ok(no_upgrade(&error.body_text())),
    };
    let admitted = gateway.admit(Transport::WebSocket, &parts).await?;
    tokio::spawn(async move {
        match websocket::open(upgrade).await {
            Ok(link) => gateway.begin(admitted, Box::new(link), None),
            Err(error) => tracing::debug!(%error, "a connection ended before it was a WebSocket"),
        }
    });
    Ok(websocket::accept(&parts))
}

fn no_upgrade(reason: &str) -> Response {
    let rejection = Rejection::bad_request(format!("a WebSocket upgrade is needed here: {reason}"));
    let mut response = rejection.into_response();
    *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response
}

async fn sse(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Rejection> {
    let (parts, _) = request.into_parts();
    let admitted = gateway.admit(Transport::Sse, &parts).await?;
    Ok(sse::open(offer(&parts), move |link, uplink| {
        gateway.begin(admitted, Box::new(link), Some(Attachment { uplink, held: None }));
    }))
}

/// Whether the connection itself can be had.
fn offer(parts: &request::Parts) -> Option<Offer> {
    parts.extensions.get::<Offer>().copied()
}

async fn poll(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Rejection> {
    let (parts, _) = request.into_parts();
    if parts.headers.contains_key(LinkName::HEADER) {
        let name = named_link(&gateway, &parts)?;
        let Found { shared, attachment } = gateway.registry.find(&name)?;
        let held = attachment.held.ok_or_else(Rejection::unknown_session)?;
        let closed = shared.lock().machine.closed().cloned();
        return match closed {
            // One GET may have crossed the client's own CLOSE. Who asks on is told that there is no more to come.
            Some(close) if !is_lost(&close) && held.is_first_after_end() => Ok(poll::answer_closed(close)),
            Some(_) => Err(Rejection::unknown_session()),
            None if held.is_finished() => Err(gone(&shared, name.link)),
            None => Ok(held.answer(offer(&parts), gateway.limits.poll_hold, || {}).await),
        };
    }
    let admitted = gateway.admit(Transport::Poll, &parts).await?;
    let (link, held, uplink) = poll::open();
    let (deadline, attachment) = (gateway.limits.open_timeout, Attachment { uplink, held: Some(Arc::clone(&held)) });
    let begin = move || gateway.begin(admitted, Box::new(link), Some(attachment));
    Ok(held.answer(offer(&parts), deadline, begin).await)
}

async fn send(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<StatusCode, Rejection> {
    let (parts, body) = request.into_parts();
    let name = named_link(&gateway, &parts)?;
    let Found { shared, attachment } = gateway.registry.find(&name)?;
    let packet = uplink::read_packet(body, gateway.limits.idle_timeout).await?;
    match attachment.uplink.post(packet).await {
        Verdict::Taken => Ok(StatusCode::NO_CONTENT),
        Verdict::Broke(close) => {
            let code = Code::from_number(close.code).unwrap_or(Code::ProtocolViolation);
            Err(Rejection::new(StatusCode::BAD_REQUEST, code, close.reason))
        }
        Verdict::Gone if is_crossing(&shared) => Ok(StatusCode::NO_CONTENT),
        Verdict::Gone => Err(gone(&shared, name.link)),
    }
}

/// Whether a POST has only crossed the session's CLOSE, which is on its way to the client: what arrives after that is ignored, and a 410 would
/// overtake it.
fn is_crossing(shared: &Shared) -> bool {
    let core = shared.lock();
    core.machine.closed().is_some_and(|close| !core.left && !is_lost(close))
}

/// Whether the session ended without a CLOSE.
fn is_lost(close: &Close) -> bool {
    close.origin == Origin::Protocol && close.code == Code::LinkLost as u32
}

fn named_link(gateway: &Gateway, parts: &request::Parts) -> Result<LinkName, Rejection> {
    gateway.check_origin(&parts.uri, &parts.headers)?;
    LinkName::parse(&parts.headers)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    versions: [u64; 1],
    transports: Vec<&'static str>,
    webtransport: Option<QuicInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    certificate_hashes: Vec<String>,
}

async fn info(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    let quic = gateway.quic.as_ref().map(|_| Transport::WebTransport);
    let transports = quic.into_iter().chain([Transport::WebSocket, Transport::Sse, Transport::Poll]);
    let info = Info {
        versions: [VERSION],
        transports: transports.map(Transport::name).collect(),
        webtransport: gateway.quic.clone(),
        certificate_hashes: (gateway.hashes)().iter().map(throughline_certs::base64).collect(),
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(info))
}

/// Pages of other origins that may connect need CORS for `fetch`; the same policy decides.
pub(crate) fn cors(gateway: Arc<Gateway>) -> CorsLayer {
    let allowed = AllowOrigin::predicate(move |origin: &HeaderValue, parts: &request::Parts| {
        gateway.origins.allows(origin.to_str().ok(), request_host(&parts.uri, &parts.headers))
    });
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("throughline-version"),
            HeaderName::from_static("throughline-session"),
            HeaderName::from_static("throughline-key"),
            HeaderName::from_static("throughline-received"),
            LinkName::HEADER,
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([header::RETRY_AFTER, poll::PACKET_NUMBER])
        .max_age(PREFLIGHT_MAX_AGE)
}
