//! Requests over TCP, for the transports that are made of them and for tests that ask by hand.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming as Body;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use throughline_protocol::Welcome;

use super::wire::{Opening, Refusal};

/// A pool of connections.
pub(crate) type Pool = Client<HttpConnector, Full<Bytes>>;

pub(crate) fn pool() -> Pool {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Headers by name and text.
pub(crate) fn headers(entries: &[(&'static str, &str)]) -> HeaderMap {
    entries.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
}

/// What names a link in a POST or a further poll.
pub(crate) fn link_headers(welcome: &Welcome) -> HeaderMap {
    headers(&[
        ("throughline-session", &welcome.session.to_string()),
        ("throughline-key", &welcome.key.expose()),
        ("throughline-link", &welcome.link.to_string()),
    ])
}

/// The opening's fields as headers.
pub(crate) fn opening_headers(opening: &Opening) -> HeaderMap {
    let mut all = HeaderMap::new();
    if let Some(version) = opening.version {
        all.extend(headers(&[("throughline-version", version)]));
    }
    if let Some(token) = &opening.token {
        all.extend(headers(&[("authorization", &format!("Bearer {token}"))]));
    }
    if let Some([session, key, received]) = &opening.resume {
        all.extend(headers(&[
            ("throughline-session", session),
            ("throughline-key", key),
            ("throughline-received", received),
        ]));
    }
    if let Some(origin) = &opening.origin {
        all.extend(headers(&[("origin", origin)]));
    }
    all
}

/// One request; the answer's body is not read.
pub(crate) async fn send(
    pool: &Pool,
    method: &str,
    url: &str,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, String> {
    let mut request = Request::builder().method(method).uri(url).body(Full::new(body)).expect("a request");
    request.headers_mut().extend(headers);
    pool.request(request).await.map_err(|error| format!("{error:?}"))
}

/// The answer, with its body.
pub(crate) async fn whole(response: Response<Body>) -> Result<Refusal, String> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok(Refusal { status: parts.status, headers: parts.headers, body })
}

/// One request on a connection of its own, and the whole answer.
pub(crate) async fn ask(method: &str, url: &str, headers: HeaderMap, body: impl Into<Bytes>) -> Refusal {
    let pool = pool();
    let answer = async {
        let response = send(&pool, method, url, headers, body.into()).await?;
        whole(response).await
    };
    super::within("an answer", answer).await.unwrap_or_else(|error| panic!("{method} {url}: {error}"))
}
