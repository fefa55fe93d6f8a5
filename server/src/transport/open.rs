//! Opening requests: the same fields in three carriers, read by one piece of code (SPEC section 7).

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use throughline_protocol::limits::MAX_TOKEN;
use throughline_protocol::{Code, ResumeKey, SessionId, VERSION, varint};

use super::Transport;

mod kept;

pub(crate) use kept::Kept;

/// The subprotocol that a server answers with.
pub(crate) const SUBPROTOCOL: &str = "throughline.v1";

/// Most streams that a resuming client may list: there are none but stream 0 yet, and no more than this will be allowed.
pub(crate) const MAX_RECEIVED: usize = 256;

/// A request to open a link: what [`authenticate`](crate::Builder::authenticate) decides on.
#[derive(Clone)]
#[non_exhaustive]
pub struct Open {
    /// The kind of link. Of a request for a channel's events, `Sse`; of one for what comes after a position, `Poll`.
    pub transport: Transport,
    /// What the client authenticates with, if anything. A secret.
    pub token: Option<String>,
    /// The session that the client wants to resume, if any.
    pub resume: Option<Resume>,
    /// The client wants marks in front of native datagrams (SPEC section 5).
    pub(crate) marks: bool,
    /// The page that the request comes from; absent when it is not a browser's.
    pub origin: Option<String>,
    /// Where the client is, as far as it is known: behind a trusted proxy, what that proxy says.
    pub remote_addr: Option<IpAddr>,
    /// The address that was asked for. On webtransport its query carries the secrets.
    pub uri: Uri,
    /// The request's headers. They may carry the secrets.
    pub headers: HeaderMap,
}

/// A session that a client wants to go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Its id.
    pub session: SessionId,
    /// The key that proves whose it is.
    pub key: ResumeKey,
    /// For each stream, the bytes that the client has received.
    pub received: Vec<(u64, u64)>,
}

/// A refused opening: an HTTP status, and a reason for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    status: StatusCode,
    code: Code,
    reason: String,
    retry_after: Option<Duration>,
}

impl Rejection {
    /// 401: the token was refused. A client does not try again with it.
    pub fn unauthorized(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, reason)
    }

    /// 403: known, and not allowed.
    pub fn forbidden(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, Code::Forbidden, reason)
    }

    /// 429: too many; the client comes back after `retry_after`.
    pub fn too_many(reason: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, Code::LimitReached, reason).retry_after(retry_after)
    }

    /// 503: it cannot be decided now; the client comes back after `retry_after`.
    pub fn unavailable(reason: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::InternalError, reason).retry_after(retry_after)
    }

    pub(crate) fn new(status: StatusCode, code: Code, reason: impl Into<String>) -> Self {
        Self { status, code, reason: reason.into(), retry_after: None }
    }

    pub(crate) fn bad_request(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::BadRequest, reason)
    }

    pub(crate) fn unknown_session() -> Self {
        let reason = "there is no such session or link, or the key is not its key: open a new one";
        Self::new(StatusCode::GONE, Code::UnknownSession, reason)
    }

    pub(crate) fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "code": self.code as u32, "name": self.code.name(), "reason": self.reason, "retry": self.code.retry(),
        });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl fmt::Debug for Open {
    /// Without what is secret, or may be: an opening is logged sooner or later.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open")
            .field("transport", &self.transport)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("resume", &self.resume)
            .field("origin", &self.origin)
            .field("remote_addr", &self.remote_addr)
            .field("path", &self.uri.path())
            .finish_non_exhaustive()
    }
}

impl Open {
    /// Reads the fields from where this transport carries them.
    pub(crate) fn parse(
        transport: Transport,
        uri: &Uri,
        headers: &HeaderMap,
        remote_addr: Option<IpAddr>,
    ) -> Result<Self, Rejection> {
        let fields = match transport {
            Transport::WebTransport => Fields::from_query(uri.query().unwrap_or_default()),
            Transport::WebSocket => Fields::from_subprotocols(headers),
            Transport::Sse | Transport::Poll => Fields::from_headers(headers),
        }?;
        fields.check_version()?;
        Self::of(transport, fields, uri, headers, remote_addr)
    }

    /// A request that opens no session, of a client that need not know the protocol.
    pub(crate) fn visit(
        transport: Transport,
        uri: &Uri,
        headers: &HeaderMap,
        remote_addr: Option<IpAddr>,
    ) -> Result<Self, Rejection> {
        let fields = Fields { token: Fields::from_headers(headers)?.token, ..Fields::default() };
        Self::of(transport, fields, uri, headers, remote_addr)
    }

    fn of(
        transport: Transport,
        fields: Fields,
        uri: &Uri,
        headers: &HeaderMap,
        remote_addr: Option<IpAddr>,
    ) -> Result<Self, Rejection> {
        let resume = fields.resume()?;
        let marks = fields.marks.as_deref() == Some("1");
        if fields.token.as_ref().is_some_and(|token| token.len() > MAX_TOKEN) {
            return Err(Rejection::bad_request(format!("a token of more than {MAX_TOKEN} bytes")));
        }
        Ok(Self {
            transport,
            token: fields.token,
            resume,
            marks,
            origin: origin(headers),
            remote_addr,
            uri: uri.clone(),
            headers: headers.clone(),
        })
    }
}

fn origin(headers: &HeaderMap) -> Option<String> {
    headers.get(header::ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()).into_owned())
}

/// What names the link that a POST or a further poll belongs to (SPEC sections 7.4 and 7.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkName {
    pub(crate) session: SessionId,
    pub(crate) key: ResumeKey,
    pub(crate) link: u64,
}

impl LinkName {
    pub(crate) const HEADER: HeaderName = HeaderName::from_static("throughline-link");

    pub(crate) fn parse(headers: &HeaderMap) -> Result<Self, Rejection> {
        let fields = Fields::from_headers(headers)?;
        let link = text(headers, &Self::HEADER)?.and_then(|link| number(&link));
        match (fields.resume()?, link) {
            (Some(Resume { session, key, .. }), Some(link)) => Ok(Self { session, key, link }),
            _ => Err(Rejection::bad_request("Throughline-Session, Throughline-Key and Throughline-Link are needed")),
        }
    }
}

/// The fields as text, before they are understood.
#[derive(Debug, Default)]
struct Fields {
    version: Option<String>,
    session: Option<String>,
    key: Option<String>,
    received: Option<String>,
    token: Option<String>,
    marks: Option<String>,
}

impl Fields {
    fn from_query(query: &str) -> Result<Self, Rejection> {
        let mut fields = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "v" => set(&mut fields.version, "v", value.into_owned())?,
                "session" => set(&mut fields.session, "session", value.into_owned())?,
                "key" => set(&mut fields.key, "key", value.into_owned())?,
                "received" => set(&mut fields.received, "received", value.into_owned())?,
                "token" => set(&mut fields.token, "token", value.into_owned())?,
                "marks" => set(&mut fields.marks, "marks", value.into_owned())?,
                _ => {} // the application's own
            }
        }
        Ok(fields)
    }

    fn from_subprotocols(headers: &HeaderMap) -> Result<Self, Rejection> {
        let mut fields = Self::default();
        for line in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
            let line = line.to_str().map_err(|_| Rejection::bad_request("Sec-WebSocket-Protocol is not ASCII"))?;
            for offer in line.split(',').map(str::trim) {
                let Some(field) = offer.strip_prefix("throughline.") else { continue };
                match field.split_once('.') {
                    Some(("session", value)) => set(&mut fields.session, "session", value.to_owned())?,
                    Some(("key", value)) => set(&mut fields.key, "key", value.to_owned())?,
                    Some(("received", value)) => set(&mut fields.received, "received", value.to_owned())?,
                    Some(("token", value)) => set(&mut fields.token, "token", decode_token(value)?)?,
                    _ => {
                        if let Some(version) = field.strip_prefix('v') {
                            // A client may offer several versions; the one that is spoken here wins.
                            let spoken = VERSION.to_string();
                            if fields.version.as_ref() != Some(&spoken) {
                                fields.version = Some(version.to_owned());
                            } else if version == spoken {
                                return Err(twice(SUBPROTOCOL));
                            }
                        }
                    }
                }
            }
        }
        Ok(fields)
    }

    fn from_headers(headers: &HeaderMap) -> Result<Self, Rejection> {
        const VERSION: HeaderName = HeaderName::from_static("throughline-version");
        const SESSION: HeaderName = HeaderName::from_static("throughline-session");
        const KEY: HeaderName = HeaderName::from_static("throughline-key");
        const RECEIVED: HeaderName = HeaderName::from_static("throughline-received");
        let token = match text(headers, &header::AUTHORIZATION)? {
            None => None,
            Some(authorization) => match authorization.split_once(' ') {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Some(token.trim().to_owned()),
                _ => None, // a proxy's own, perhaps
            },
        };
        Ok(Self {
            version: text(headers, &VERSION)?,
            session: text(headers, &SESSION)?,
            key: text(headers, &KEY)?,
            received: text(headers, &RECEIVED)?,
            token,
            marks: None,
        })
    }

    fn check_version(&self) -> Result<(), Rejection> {
        match self.version.as_deref() {
            Some(version) if version == VERSION.to_string() => Ok(()),
            Some(version) => {
                let reason = format!("version {:?} is not spoken here; {VERSION} is", clip(version));
                Err(Rejection::new(StatusCode::BAD_REQUEST, Code::UnsupportedVersion, reason))
            }
            None => Err(Rejection::bad_request("the opening names no protocol version")),
        }
    }

    fn resume(&self) -> Result<Option<Resume>, Rejection> {
        let (session, key) = match (&self.session, &self.key) {
            (None, None) => return Ok(None),
            (Some(session), Some(key)) => (session, key),
            _ => return Err(Rejection::bad_request("session and key go together")),
        };
        let session = session.parse().map_err(|error| Rejection::bad_request(format!("session {error}")))?;
        let key = key.parse().map_err(|error| Rejection::bad_request(format!("key {error}")))?;
        let received = match self.received.as_deref() {
            None | Some("") => Vec::new(),
            Some(list) => parse_received(list)
                .ok_or_else(|| Rejection::bad_request("received must be stream.offset, joined by _, such as 0.4711"))?,
        };
        Ok(Some(Resume { session, key, received }))
    }
}

fn set(field: &mut Option<String>, name: &str, value: String) -> Result<(), Rejection> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(twice(name)),
    }
}

fn twice(name: &str) -> Rejection {
    Rejection::bad_request(format!("{name} stands there twice"))
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(twice(name.as_str()));
    }
    let text = value.to_str().map_err(|_| Rejection::bad_request(format!("{name} is not ASCII")))?;
    Ok(Some(text.to_owned()))
}

fn decode_token(value: &str) -> Result<String, Rejection> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(value).ok();
    let token = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    token.ok_or_else(|| Rejection::bad_request("the token is not base64url of UTF-8, without padding"))
}

fn parse_received(list: &str) -> Option<Vec<(u64, u64)>> {
    let mut received = Vec::new();
    for entry in list.split('_') {
        let (stream, offset) = entry.split_once('.')?;
        received.push((number(stream)?, number(offset)?));
        if received.len() > MAX_RECEIVED {
            return None;
        }
    }
    Some(received)
}

/// A decimal number of the protocol: digits only, below 2^53.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number <= varint::MAX)
}

/// The start of a text that somebody else chose, for a message.
fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(40)]
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AAECAwQFBgcICQoLDA0ODw";

    fn headers(entries: &[(&'static str, &str)]) -> HeaderMap {
        entries.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value"))).collect()
    }

    fn open(transport: Transport, uri: &str, entries: &[(&'static str, &str)]) -> Result<Open, Rejection> {
        Open::parse(transport, &uri.parse().expect("a uri"), &headers(entries), None)
    }

    #[test]
    fn the_three_carriers_mean_the_same() {
        let query = format!("/rt/webtransport?v=1&session={ID}&key={ID}&received=0.12_4.5&token=a%20b&room=7");
        let offers = format!(
            "throughline.v1, throughline.session.{ID}, throughline.key.{ID},throughline.received.0.12_4.5, throughline.token.YSBi"
        );
        let all = [
            open(Transport::WebTransport, &query, &[]),
            open(Transport::WebSocket, "/rt/websocket", &[("sec-websocket-protocol", &offers)]),
            open(
                Transport::Sse,
                "/rt/sse",
                &[
                    ("throughline-version", "1"),
                    ("throughline-session", ID),
                    ("throughline-key", ID),
                    ("throughline-received", "0.12_4.5"),
                    ("authorization", "Bearer a b"),
                ],
            ),
        ];
        for opening in all {
            let opening = opening.expect("a valid opening");
            assert_eq!(opening.token.as_deref(), Some("a b"));
            let resume = opening.resume.expect("it resumes");
            assert_eq!(resume.session.to_string(), ID);
            assert_eq!(resume.received, [(0, 12), (4, 5)]);
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_a_reason() {
        for (query, reason) in [
            ("", "names no protocol version"),
            ("v=2", "is not spoken here"),
            ("v=1&v=1", "twice"),
            ("v=1&session=x", "go together"),
            ("v=1&session=x&key=x", "22 characters"),
            (&format!("v=1&session={ID}&key={ID}&received=0"), "stream.offset"),
            (&format!("v=1&session={ID}&key={ID}&received=0.-1"), "stream.offset"),
            (&format!("v=1&session={ID}&key={ID}&received=0.9007199254740992"), "stream.offset"),
            (&format!("v=1&token={}", "x".repeat(4_097)), "token of more than 4096"),
        ] {
            let rejection = open(Transport::WebTransport, &format!("/?{query}"), &[]).expect_err(query);
            assert_eq!(rejection.status(), StatusCode::BAD_REQUEST);
            assert!(rejection.reason().contains(reason), "{query}: {}", rejection.reason());
        }
        assert!(open(Transport::WebTransport, &format!("/?v=1&token={}", "x".repeat(4_096)), &[]).is_ok());
    }

    #[test]
    fn a_websocket_may_offer_newer_versions_beside_this_one() {
        for offers in ["throughline.v1, throughline.v2", "throughline.v2, throughline.v1", "chat, throughline.v1"] {
            assert!(open(Transport::WebSocket, "/", &[("sec-websocket-protocol", offers)]).is_ok(), "{offers}");
        }
        assert!(open(Transport::WebSocket, "/", &[("sec-websocket-protocol", "throughline.v2")]).is_err());
    }

    #[test]
    fn an_opening_is_printed_without_its_secrets() {
        let query = format!("/rt/webtransport?v=1&session={ID}&key={ID}&token=hush");
        let printed = format!("{:?}", open(Transport::WebTransport, &query, &[("authorization", "Bearer hush")]));
        assert!(printed.contains("/rt/webtransport") && printed.contains(ID), "{printed}");
        assert!(!printed.contains("hush") && printed.matches(ID).count() == 1, "{printed}");
    }

    #[test]
    fn a_link_needs_all_three_of_its_names() {
        let all = [("throughline-session", ID), ("throughline-key", ID), ("throughline-link", "3")];
        assert_eq!(LinkName::parse(&headers(&all)).expect("complete").link, 3);
        for missing in 0..3 {
            let some: Vec<_> = all.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, entry)| *entry).collect();
            assert!(LinkName::parse(&headers(&some)).is_err());
        }
    }
}
