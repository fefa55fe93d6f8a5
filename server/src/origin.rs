//! Which pages may connect: those of the request's own host, and those that the configuration lists.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, Uri, header, uri::Authority};

/// Decides about the `Origin` of an opening (RFC 6454). Browsers send it with every WebTransport, WebSocket and cross-origin
/// request; a page cannot forge it. What sends none is not a page, and nothing is gained by refusing it.
///
/// The request's own host is allowed whatever the scheme and port, since QUIC, TCP and proxies listen on different ones.
/// `localhost`, `127.0.0.1` and `[::1]` are the same host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OriginPolicy {
    any: bool,
    extra: Vec<Origin>,
}

/// This is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an origin: scheme://host or scheme://host:port, or *")]
pub(crate) struct BadOrigin(String);

impl OriginPolicy {
    /// A policy that also allows `extra`: exact origins, or `*` for every page, even one without an origin of its own (`null`).
    ///
    /// # Errors
    /// The first of them that is no origin.
    pub(crate) fn new(extra: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, BadOrigin> {
        let mut policy = Self::default();
        for text in extra {
            let text = text.as_ref();
            if text == "*" {
                policy.any = true;
            } else {
                policy.extra.push(Origin::parse(text).ok_or_else(|| BadOrigin(text.to_owned()))?);
            }
        }
        Ok(policy)
    }

    /// Whether a request with this `Origin` may open a session. `host` is the request's own, from [`request_host`].
    #[must_use]
    pub(crate) fn allows(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self.any {
            return true;
        }
        let Some(origin) = Origin::parse(origin) else { return false };
        // Other schemes, such as a browser extension's, have hosts that are not names on the network.
        let is_page = matches!(origin.scheme.as_str(), "http" | "https");
        (is_page && host.and_then(host_of).is_some_and(|host| host == origin.host)) || self.extra.contains(&origin)
    }

    /// [`OriginPolicy::allows`] for a request's target and headers. Two `Origin` headers, or one that is not text, are refused.
    #[must_use]
    pub(crate) fn allows_request(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (None, _) => None,
            (Some(one), None) => match one.to_str() {
                Ok(text) => Some(text),
                Err(_) => return self.any,
            },
            (Some(_), Some(_)) => return false,
        };
        self.allows(origin, request_host(uri, headers))
    }
}

/// The host, perhaps with a port, that a request was sent to: `:authority` in HTTP/2 and HTTP/3, `Host` in HTTP/1.1.
#[must_use]
pub(crate) fn request_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(header::HOST)?.to_str().ok(),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: Host,
    port: Option<u16>,
}

/// Names in lower case; addresses by value, however they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Loopback,
    Address(IpAddr),
    Name(String),
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let scheme_is_fine = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !scheme_is_fine || authority.contains('@') {
            return None;
        }
        let authority: Authority = authority.parse().ok()?;
        let port = match authority.port() {
            Some(port) => Some(port.as_str().parse().ok()?),
            // A port that is empty, or above 65,535.
            None if authority.as_str() != authority.host() => return None,
            None => default_port(&scheme),
        };
        Some(Self { host: Host::parse(authority.host())?, scheme, port })
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        let address = match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inside) => Some(IpAddr::V6(inside.parse::<Ipv6Addr>().ok()?).to_canonical()),
            None => text.parse().ok(),
        };
        if let Some(address) = address {
            let is_loopback = matches!(address.to_string().as_str(), "127.0.0.1" | "::1");
            return Some(if is_loopback { Self::Loopback } else { Self::Address(address) });
        }
        // A dot at the end only says that the name is complete.
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        match name.as_str() {
            "localhost" => Some(Self::Loopback),
            "" => None,
            _ if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) => {
                Some(Self::Name(name))
            }
            _ => None,
        }
    }
}

fn host_of(authority: &str) -> Option<Host> {
    Host::parse(authority.parse::<Authority>().ok()?.host())
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn same_host(origin: &str, host: &str) -> bool {
        OriginPolicy::default().allows(Some(origin), Some(host))
    }

    #[test]
    fn what_is_not_a_browser_is_allowed() {
        assert!(OriginPolicy::default().allows(None, Some("a.test")));
        assert!(OriginPolicy::default().allows(None, None));
    }

    #[test]
    fn the_same_host_is_allowed_on_any_port_and_scheme() {
        for (origin, host) in [
            ("https://a.test", "a.test"),
            ("https://a.test:8443", "a.test:4433"),
            ("http://A.Test", "a.test:80"),
            ("http://a.test", "a.test."),
            ("http://localhost:8080", "127.0.0.1:4433"),
            ("http://127.0.0.1:8080", "[::1]:4433"),
            ("http://[::1]", "localhost"),
            ("http://192.0.2.1", "192.0.2.1:9"),
            ("http://[2001:DB8::1]", "[2001:db8:0::1]:9"),
            ("http://[::ffff:192.0.2.1]", "192.0.2.1"),
        ] {
            assert!(same_host(origin, host), "{origin} {host}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for (origin, host) in [
            ("https://b.test", "a.test"),
            ("https://a.test.evil.test", "a.test"),
            ("https://evila.test", "a.test"),
            ("https://a.test@evil.test", "a.test"),
            ("https://evil.test@a.test", "a.test"),
            ("https://a.test/path", "a.test"),
            ("https://a.test:", "a.test"),
            ("https://a.test:99999", "a.test"),
            ("chrome-extension://a.test", "a.test"),
            ("http://127.0.0.2", "localhost"),
            ("http://localhost.", "a.test"),
            ("null", "a.test"),
            ("", "a.test"),
            ("a.test", "a.test"),
            ("://a.test", "a.test"),
        ] {
            assert!(!same_host(origin, host), "{origin} {host}");
        }
        assert!(!OriginPolicy::default().allows(Some("https://a.test"), None));
    }

    #[test]
    fn listed_origins_are_exact() {
        let policy = OriginPolicy::new(["https://a.test", "http://b.test:8080", "tauri://localhost"]).unwrap();
        let allows = |origin| policy.allows(Some(origin), Some("c.test"));
        assert!(allows("https://a.test"));
        assert!(allows("https://A.test:443"));
        assert!(allows("http://b.test:8080"));
        assert!(allows("tauri://localhost"));
        assert!(!allows("http://a.test"));
        assert!(!allows("https://a.test:8443"));
        assert!(!allows("http://b.test"));
        assert!(!allows("null"));
    }

    #[test]
    fn a_star_allows_all_and_rubbish_is_no_policy() {
        assert!(OriginPolicy::new(["*"]).unwrap().allows(Some("null"), Some("a.test")));
        for text in ["", "a.test", "https://", "https://*", "https://a.test/"] {
            assert!(OriginPolicy::new([text]).is_err(), "{text}");
        }
    }

    #[test]
    fn the_request_says_its_host_in_either_way() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("a.test:80"));
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://b.test"));
        let policy = OriginPolicy::default();
        assert!(!policy.allows_request(&Uri::from_static("/rt/sse"), &headers));
        assert!(policy.allows_request(&Uri::from_static("https://b.test:4433/rt/sse"), &headers));
        headers.append(header::ORIGIN, HeaderValue::from_static("https://b.test"));
        assert!(!policy.allows_request(&Uri::from_static("https://b.test:4433/rt/sse"), &headers));
    }
}
