//! What is fuzzed, apart from the fuzzer: the targets of `fuzz/` call these bodies, and so do the tests below, with seeded
//! input, on every run. It is there for tests and for the fuzzer only.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use throughline_protocol::limits::MAX_TOKEN;
use throughline_protocol::{Code, varint};

use crate::transport::Transport;
use crate::transport::open::{LinkName, MAX_RECEIVED, Open, Rejection, Resume};
pub use crate::transport::websocket::fuzzing::frames;
pub use crate::transport::webtransport::fuzzing::{capsules, gate, probe};

/// An opening. The first byte chooses the carrier; the rest is a query, or lines of offered subprotocols, or lines of headers,
/// which may name a link, too. What is read means the same when a client writes it, in every carrier.
pub fn opening(input: &[u8]) {
    let Some((&carrier, input)) = input.split_first() else { return };
    let (transport, open) = match carrier % 3 {
        0 => {
            let uri = [b"/rt/webtransport?", input].concat();
            let Ok(uri) = Uri::try_from(&uri[..]) else { return };
            (Transport::WebTransport, Open::parse(Transport::WebTransport, &uri, &HeaderMap::new(), None))
        }
        1 => {
            let lines = input.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
            let headers = appended(lines.map(|line| (header::SEC_WEBSOCKET_PROTOCOL, line)));
            (Transport::WebSocket, parse(Transport::WebSocket, &headers))
        }
        _ => {
            let headers = appended(input.split(|byte| *byte == b'\n').filter_map(header_line));
            match LinkName::parse(&headers) {
                Ok(name) => check_link_name(&name),
                Err(rejection) => check_rejection(&rejection),
            }
            (Transport::Sse, parse(Transport::Sse, &headers))
        }
    };
    match open {
        Ok(open) => {
            assert_eq!(open.transport, transport);
            check_open(&open);
        }
        Err(rejection) => check_rejection(&rejection),
    }
}

fn parse(transport: Transport, headers: &HeaderMap) -> Result<Open, Rejection> {
    Open::parse(transport, &Uri::from_static("/rt"), headers, None)
}

fn check_open(open: &Open) {
    let token = open.token.as_deref();
    assert!(token.is_none_or(|token| token.len() <= MAX_TOKEN));
    if let Some(resume) = &open.resume {
        assert!(resume.received.len() <= MAX_RECEIVED);
        assert!(resume.received.iter().all(|(stream, offset)| *stream.max(offset) <= varint::MAX));
    }

    let fields = fields(open.resume.as_ref());
    let mut query = form_urlencoded::Serializer::new(String::from("/rt/webtransport?"));
    query.append_pair("v", "1").extend_pairs(&fields).extend_pairs(token.map(|token| ("token", token)));
    let uri = query.finish().parse().expect("a query is a part of a uri");
    same(open, &Open::parse(Transport::WebTransport, &uri, &HeaderMap::new(), None));

    let mut offers = String::from("throughline.v1");
    for (name, value) in &fields {
        offers += &format!(", throughline.{name}.{value}");
    }
    if let Some(token) = token {
        offers += &format!(", throughline.token.{}", base64_url(token));
    }
    let offers = HeaderValue::try_from(offers).expect("offers are ASCII");
    same(open, &parse(Transport::WebSocket, &appended([(header::SEC_WEBSOCKET_PROTOCOL, offers)].into_iter())));

    let travels = |token: &str| token.bytes().all(|byte| matches!(byte, b' '..=b'~')) && token.trim() == token;
    if token.is_none_or(travels) {
        let mut headers = appended(fields.iter().map(|(name, value)| header_of(name, value)));
        headers.extend([header_of("version", "1")]);
        headers.extend(token.map(|token| {
            let value = HeaderValue::try_from(format!("Bearer {token}")).expect("it is printable ASCII");
            (header::AUTHORIZATION, value)
        }));
        same(open, &parse(Transport::Sse, &headers));
    }
}

fn same(open: &Open, again: &Result<Open, Rejection>) {
    let again = again.as_ref().expect("what was read can be written");
    assert_eq!((&again.resume, &again.token), (&open.resume, &open.token));
}

fn check_link_name(name: &LinkName) {
    assert!(name.link <= varint::MAX);
    let resume = Resume { session: name.session, key: name.key, received: Vec::new() };
    let mut headers = appended(fields(Some(&resume)).iter().map(|(name, value)| header_of(name, value)));
    headers.extend([header_of("link", &name.link.to_string())]);
    assert_eq!(LinkName::parse(&headers).as_ref(), Ok(name));
}

fn check_rejection(rejection: &Rejection) {
    assert_eq!(rejection.status(), StatusCode::BAD_REQUEST);
    assert!(matches!(rejection.code(), Code::BadRequest | Code::UnsupportedVersion));
    // What a client sent is quoted in part at most.
    assert!((1..300).contains(&rejection.reason().len()), "{rejection:?}");
}

/// The fields of a session to resume, as all carriers write them.
fn fields(resume: Option<&Resume>) -> Vec<(&'static str, String)> {
    let Some(Resume { session, key, received }) = resume else { return Vec::new() };
    let mut fields = vec![("session", session.to_string()), ("key", key.expose())];
    if !received.is_empty() {
        let received: Vec<_> = received.iter().map(|(stream, offset)| format!("{stream}.{offset}")).collect();
        fields.push(("received", received.join("_")));
    }
    fields
}

fn header_of(field: &str, value: &str) -> (HeaderName, HeaderValue) {
    let name = HeaderName::try_from(format!("throughline-{field}")).expect("a field is a token");
    (name, HeaderValue::try_from(value).expect("these values are printable ASCII"))
}

fn header_line(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((HeaderName::from_bytes(&line[..colon]).ok()?, HeaderValue::from_bytes(&line[colon + 1..]).ok()?))
}

/// Headers in which a name may stand twice.
fn appended(entries: impl Iterator<Item = (HeaderName, HeaderValue)>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in entries {
        headers.append(name, value);
    }
    headers
}

fn base64_url(text: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(text)
}

#[cfg(test)]
mod tests;
