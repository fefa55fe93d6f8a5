//! What is kept of an opening for as long as its session goes on: whoever authenticates is asked about it again, with another token (SPEC section 12).

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use throughline_protocol::Token;

use super::Open;
use crate::transport::Transport;

/// An opening without its token, and without what else is secret or was for the transport alone. All sessions have one, and hardly any needs it again: so it is
/// one piece of memory, a fifth of what a map of the headers takes.
pub(crate) struct Kept {
    transport: Transport,
    marks: bool,
    remote_addr: Option<IpAddr>,
    /// The address, and behind it each header, as `\nname:value`. None of these can contain a line feed, nor a name a colon.
    text: Box<[u8]>,
}

/// Fields of the query that an opening has been read from.
const FIELDS: [&str; 4] = ["session", "key", "received", "token"];

const OF_THE_TRANSPORT: [HeaderName; 7] = [
    header::AUTHORIZATION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_EXTENSIONS,
    HeaderName::from_static("throughline-session"),
    HeaderName::from_static("throughline-key"),
    HeaderName::from_static("throughline-received"),
];

impl Kept {
    /// All that may be looked at again.
    pub(crate) fn whole(open: &Open) -> Self {
        let mut text = without_fields(&open.uri).into_bytes();
        for (name, value) in open.headers.iter().filter(|(name, _)| !OF_THE_TRANSPORT.contains(name)) {
            text.extend([b"\n", name.as_str().as_bytes(), b":", value.as_bytes()].concat());
        }
        Self { text: text.into(), ..Self::bare(open) }
    }

    /// Neither address nor headers: for whoever looks at nothing but tokens.
    pub(crate) fn bare(open: &Open) -> Self {
        let Open { transport, marks, remote_addr, .. } = *open;
        Self { transport, marks, remote_addr, text: Box::default() }
    }

    /// The opening again, with this token.
    pub(crate) fn open(&self, Token(token): Token) -> Open {
        let mut lines = self.text.split(|byte| *byte == b'\n');
        let uri = lines.next().and_then(|uri| Uri::try_from(uri).ok()).unwrap_or_default();
        let headers: HeaderMap = lines.filter_map(entry).collect();
        Open {
            transport: self.transport,
            token: Some(token.into()),
            resume: None,
            marks: self.marks,
            origin: super::origin(&headers),
            remote_addr: self.remote_addr,
            uri,
            headers,
        }
    }
}

fn entry(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((HeaderName::try_from(&line[..colon]).ok()?, HeaderValue::from_bytes(&line[colon + 1..]).ok()?))
}

/// The address without the fields of an opening in its query.
fn without_fields(uri: &Uri) -> String {
    let whole = uri.to_string();
    let Some((path, query)) = whole.split_once('?') else { return whole };
    let is_field = |pair: &&str| FIELDS.contains(&pair.split('=').next().unwrap_or_default());
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_field(pair)).collect();
    format!("{path}?{}", rest.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AAECAwQFBgcICQoLDA0ODw";

    #[test]
    fn it_has_no_secrets_and_can_be_asked_about_again() {
        let query = format!("/rt/webtransport?room=7&v=1&session={ID}&key={ID}&received=0.1&token=hush&token2=x");
        let entries = [
            ("authorization", "Bearer hush"),
            ("origin", "https://example.org"),
            ("throughline-key", ID),
            ("sec-websocket-protocol", "throughline.token.aHVzaA"),
            ("cookie", "a=1"),
            ("cookie", "b=2: é"),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in entries {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        let uri: Uri = query.parse().expect("a uri");
        let first = Open::parse(Transport::WebTransport, &uri, &headers, None).expect("a valid opening");
        let kept = Kept::whole(&first);
        assert!(!String::from_utf8_lossy(&kept.text).contains("hush"));
        let open = kept.open(Token("new".into()));
        assert_eq!((open.token.as_deref(), &open.resume), (Some("new"), &None));
        assert_eq!((&open.origin, open.transport), (&first.origin, Transport::WebTransport));
        assert_eq!(open.uri, "/rt/webtransport?room=7&v=1&token2=x");
        assert_eq!(open.headers.keys().collect::<Vec<_>>(), ["origin", "cookie"]);
        assert_eq!(open.headers.get_all("cookie"), headers.get_all("cookie"));
        let bare = Kept::bare(&first).open(Token("new".into()));
        assert_eq!((bare.token.as_deref(), bare.headers.len()), (Some("new"), 0));
    }

    #[test]
    fn an_absolute_address_stays_one() {
        let absolute: Uri = "https://localhost:4433/rt/webtransport?token=hush&v=1".parse().expect("a uri");
        assert_eq!(without_fields(&absolute), "https://localhost:4433/rt/webtransport?v=1");
    }
}
