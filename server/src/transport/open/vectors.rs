//! Every opening of `protocol/vectors/opening.json`, in all of its carriers (`protocol/vectors/README.md`).

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use serde::Deserialize;

use super::super::Transport;
use super::{Open, Rejection};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    #[serde(rename = "about")]
    _about: String,
    valid: Vec<Valid>,
    invalid: Vec<Invalid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Valid {
    why: String,
    fields: Fields,
    query: Option<String>,
    protocols: Option<Vec<String>>,
    headers: Option<Vec<(String, String)>>,
    /// Whether a client writes just these; a server reads them either way.
    #[serde(default, rename = "canonical")]
    _canonical: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    version: u64,
    session: Option<String>,
    key: Option<String>,
    received: Option<Vec<(u64, u64)>>,
    token: Option<String>,
    #[serde(default)]
    marks: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invalid {
    why: String,
    query: Option<String>,
    protocols: Option<Vec<String>>,
    headers: Option<Vec<(String, String)>>,
    status: u16,
    code: String,
}

fn vectors() -> Vectors {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/vectors/opening.json");
    let vectors: Vectors =
        serde_json::from_str(&std::fs::read_to_string(path).expect(path)).expect("as the README describes it");
    assert!(vectors.valid.len() > 10 && vectors.invalid.len() > 50);
    vectors
}

/// Reads the same opening from each carrier that a vector has, and in each form of that carrier.
fn read_all(
    query: Option<&String>,
    protocols: Option<&Vec<String>>,
    headers: Option<&Vec<(String, String)>>,
) -> Vec<Result<Open, Rejection>> {
    let mut read = Vec::new();
    if let Some(query) = query {
        let uri = format!("/rt/webtransport?{query}").parse().expect("a uri");
        read.push(Open::parse(Transport::WebTransport, &uri, &HeaderMap::new(), None));
    }
    if let Some(protocols) = protocols {
        // One header, or one for each offer: HTTP says that they mean the same.
        for lines in [vec![protocols.join(", ")], vec![protocols.join(",")], protocols.clone()] {
            let lines = lines.into_iter().map(|line| (header::SEC_WEBSOCKET_PROTOCOL, line.parse().expect("a value")));
            let headers = appended(lines.filter(|(_, line): &(_, HeaderValue)| !line.is_empty()));
            read.push(Open::parse(Transport::WebSocket, &Uri::from_static("/rt/websocket"), &headers, None));
        }
    }
    if let Some(headers) = headers {
        let headers = appended(headers.iter().map(|(name, value)| {
            (name.parse().expect("the name of a header"), HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
        }));
        for transport in [Transport::Sse, Transport::Poll] {
            read.push(Open::parse(transport, &Uri::from_static("/rt"), &headers, None));
        }
    }
    assert!(!read.is_empty(), "a vector has a carrier");
    read
}

/// Headers in which a name may stand twice.
fn appended(entries: impl Iterator<Item = (HeaderName, HeaderValue)>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in entries {
        headers.append(name, value);
    }
    headers
}

#[test]
fn every_valid_opening_is_read_in_every_carrier() {
    for Valid { why, fields, query, protocols, headers, .. } in vectors().valid {
        for open in read_all(query.as_ref(), protocols.as_ref(), headers.as_ref()) {
            let open = open.unwrap_or_else(|rejection| panic!("{why}: {rejection:?}"));
            let read = Fields {
                version: throughline_protocol::VERSION, // another one is refused
                session: open.resume.as_ref().map(|resume| resume.session.to_string()),
                key: open.resume.as_ref().map(|resume| resume.key.expose()),
                received: open.resume.map(|resume| resume.received),
                token: open.token,
                marks: open.marks,
            };
            assert_eq!(read, fields, "{why}, on {}", open.transport);
        }
    }
}

#[test]
fn every_invalid_opening_is_refused_in_every_carrier() {
    for Invalid { why, query, protocols, headers, status, code } in vectors().invalid {
        for open in read_all(query.as_ref(), protocols.as_ref(), headers.as_ref()) {
            let rejection = open.expect_err(&why);
            assert_eq!(rejection.status(), StatusCode::from_u16(status).expect("a status"), "{why}");
            assert_eq!(rejection.code().name(), code, "{why}: {}", rejection.reason());
        }
    }
}
