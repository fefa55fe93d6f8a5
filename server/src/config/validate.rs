use std::{fmt::Display, net::IpAddr, ops::RangeInclusive, time::Duration};

use throughline_protocol::channel;
use tracing_subscriber::EnvFilter;

use super::{Config, ConfigError, TokenAlgorithm};
use crate::origin::OriginPolicy;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const MINUTE: Duration = Duration::from_secs(60);

impl Config {
    /// Checks what types cannot: ranges, and values that contradict each other. [`Config::load`] and the start of a server do it.
    ///
    /// # Errors
    /// [`ConfigError::Range`], for the first value that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let second = Duration::from_secs(1);
        let instant = Duration::from_millis(100);
        count("limits.max_sessions", limits.max_sessions, 1..=10_000_000)?;
        count("limits.max_sessions_per_ip", limits.max_sessions_per_ip, 1..=10_000_000)?;
        count("limits.opens_per_ip_per_second", limits.opens_per_ip_per_second, 1..=1_000_000)?;
        count("limits.opens_per_ip_burst", limits.opens_per_ip_burst, 1..=1_000_000)?;
        count("limits.max_message_bytes", limits.max_message_bytes, KIB..=256 * MIB)?;
        count("limits.session_buffer_bytes", limits.session_buffer_bytes, 16 * KIB..=64 * MIB)?;
        count("limits.receive_window_bytes", limits.receive_window_bytes, 16 * KIB..=64 * MIB)?;
        count("limits.max_streams", limits.max_streams, 4..=65_536)?;
        count("limits.max_session_streams", limits.max_session_streams, 0..=10_000)?;
        count("limits.stream_window_bytes", limits.stream_window_bytes, 16 * KIB..=64 * MIB)?;
        count("limits.stream_buffer_bytes", limits.stream_buffer_bytes, 16 * KIB..=64 * MIB)?;
        count("limits.session_stream_bytes", limits.session_stream_bytes, 0..=1_024 * MIB)?;
        count("limits.max_tcp_connections", limits.max_tcp_connections, 1..=10_000_000)?;
        time("limits.open_timeout", limits.open_timeout, instant..=5 * MINUTE)?;
        time("limits.idle_timeout", limits.idle_timeout, second..=60 * MINUTE)?;
        time("limits.heartbeat_interval", limits.heartbeat_interval, instant..=10 * MINUTE)?;
        time("limits.poll_hold", limits.poll_hold, instant..=10 * MINUTE)?;
        time("limits.resume_window", limits.resume_window, Duration::ZERO..=24 * 60 * MINUTE)?;
        time("limits.drain_spread", limits.drain_spread, Duration::ZERO..=60 * MINUTE)?;
        time("limits.drain_timeout", limits.drain_timeout, Duration::ZERO..=60 * MINUTE)?;
        time("limits.header_read_timeout", limits.header_read_timeout, instant..=10 * MINUTE)?;
        time("limits.tls_handshake_timeout", limits.tls_handshake_timeout, instant..=5 * MINUTE)?;
        // One lost PING must not be taken for a dead link.
        below(
            "limits.heartbeat_interval",
            limits.heartbeat_interval,
            limits.idle_timeout / 2,
            "half of limits.idle_timeout",
        )?;
        // Who is asked to leave at the last moment has to have one.
        below("limits.drain_spread", limits.drain_spread, limits.drain_timeout, "limits.drain_timeout")?;
        // A client whose poll is held is silent meanwhile.
        below("limits.poll_hold", limits.poll_hold, limits.idle_timeout, "limits.idle_timeout")?;

        let channels = &self.channels;
        count("channels.max_subscriptions", channels.max_subscriptions, 1..=10_000)?;
        count("channels.max_channels", channels.max_channels, 1..=10_000_000)?;
        count("channels.max_publication_bytes", channels.max_publication_bytes, 1..=256 * MIB)?;
        count("channels.publishes_per_second", channels.publishes_per_second, 1..=1_000_000)?;
        count("channels.publish_burst", channels.publish_burst, 1..=1_000_000)?;
        for (name, namespace) in &channels.namespaces {
            // Names that begin with $ are the server's.
            let fine = name.is_empty() || channel::is_name(name) && !name.contains(':') && !name.starts_with('$');
            check(
                "channels.namespaces",
                &format!("{name:?}"),
                fine,
                "what may stand before the : of a channel's name",
            )?;
            count("channels.namespaces.*.history_count", namespace.history_count, 0..=1_000_000)?;
            count("channels.namespaces.*.history_bytes", namespace.history_bytes, 0..=1_024 * MIB)?;
            count("channels.namespaces.*.max_keys", namespace.max_keys, 1..=100_000)?;
            time("channels.namespaces.*.history_age", namespace.history_age, second..=7 * 24 * 60 * MINUTE)?;
        }

        let api = &self.api;
        count("api.max_body_bytes", api.max_body_bytes, KIB..=256 * MIB)?;
        time("api.idempotency_age", api.idempotency_age, second..=24 * 60 * MINUTE)?;
        count("api.max_idempotency_keys", api.max_idempotency_keys, 1..=1_000_000)?;
        for key in &api.keys {
            let fine = (16..=1_024).contains(&key.expose().len()) && key.expose().bytes().all(|b| b.is_ascii_graphic());
            check("api.keys", "one that is not said here", fine, "16 to 1024 visible characters of ASCII")?;
        }

        path("base", &self.base)?;
        path("api.base", &api.base)?;
        apart("api.base", &api.base, &[("base", &self.base)])?;
        if let Some(base) = &self.http.base {
            path("http.base", base)?;
            apart("http.base", base, &[("base", &self.base), ("api.base", &api.base)])?;
        }
        self.validate_auth()?;
        for origin in &self.origins {
            let fine = OriginPolicy::new([origin]).is_ok();
            check("origins", origin, fine, "scheme://host or scheme://host:port, or *")?;
        }
        if let Some(host) = &self.quic.advertised_host {
            let fine = !host.is_empty() && !host.contains(['/', ' ', '@']);
            check("quic.advertised_host", host, fine, "a host name or an IP address")?;
        }
        check("quic.advertised_port", "0", self.quic.advertised_port != Some(0), "1 to 65535")?;
        let filter = EnvFilter::try_new(&self.log.filter).is_ok();
        check("log.filter", &self.log.filter, filter, "a list such as info,throughline=debug")
    }
}

impl Config {
    fn validate_auth(&self) -> Result<(), ConfigError> {
        let auth = &self.auth;
        time("auth.jwks_refresh", auth.jwks_refresh, Duration::from_secs(10)..=24 * 60 * MINUTE)?;
        time("auth.leeway", auth.leeway, Duration::ZERO..=10 * MINUTE)?;
        if let Some(url) = &auth.jwks_url {
            let fine = "a URL with https, or with http on this machine, and without a password";
            check("auth.jwks_url", url, jwks_url_is_fine(url), fine)?;
        }
        if let Some(cookie) = &auth.cookie {
            // A token of RFC 9110.
            let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            check("auth.cookie", cookie, !cookie.is_empty() && cookie.bytes().all(fine), "the name of a cookie")?;
        }
        let claims = &auth.claims;
        for (key, name) in [
            ("auth.claims.user", &claims.user),
            ("auth.claims.info", &claims.info),
            ("auth.claims.channels", &claims.channels),
        ] {
            check(key, "\"\"", !name.is_empty(), "the name of a claim")?;
        }
        for key in &auth.keys {
            let secrets = [key.secret.is_some(), key.secret_file.is_some()];
            let public_keys = [key.public_key.is_some(), key.public_key_file.is_some()];
            let (wanted, others, allowed) = match key.algorithm {
                TokenAlgorithm::HS256 => (secrets, public_keys, "one of `secret` and `secret_file`"),
                _ => (public_keys, secrets, "one of `public_key` and `public_key_file`"),
            };
            let fine = (wanted[0] != wanted[1]) && !others.contains(&true);
            check("auth.keys", &format!("a key of {:?} with something else", key.algorithm), fine, allowed)?;
        }
        Ok(())
    }
}

/// Keys that anybody between here and there could have put in are no keys.
fn jwks_url_is_fine(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| {
        let host = url.host_str().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        let is_plain = url.username().is_empty() && url.password().is_none();
        is_plain && (url.scheme() == "https" || url.scheme() == "http" && is_here)
    })
}

fn count<N: PartialOrd + Display>(key: &'static str, value: N, range: RangeInclusive<N>) -> Result<(), ConfigError> {
    check(key, &value.to_string(), range.contains(&value), &format!("{} to {}", range.start(), range.end()))
}

fn time(key: &'static str, value: Duration, range: RangeInclusive<Duration>) -> Result<(), ConfigError> {
    let allowed = format!("{} to {}", text(*range.start()), text(*range.end()));
    check(key, &text(value), range.contains(&value), &allowed)
}

fn below(key: &'static str, value: Duration, bound: Duration, bound_is: &str) -> Result<(), ConfigError> {
    check(key, &text(value), value <= bound, &format!("at most {bound_is}, which is {}", text(bound)))
}

fn check(key: &'static str, value: &str, fine: bool, allowed: &str) -> Result<(), ConfigError> {
    if fine {
        return Ok(());
    }
    Err(ConfigError::Range { key, value: value.to_owned(), allowed: allowed.to_owned() })
}

fn path(key: &'static str, value: &str) -> Result<(), ConfigError> {
    check(key, value, base_is_fine(value), "a path such as /rt, of letters, digits and -._~, without a / at its end")
}

/// Neither may hide what lies below the other.
fn apart(key: &'static str, value: &str, others: &[(&str, &str)]) -> Result<(), ConfigError> {
    let within =
        |path: &str, base: &str| path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let other = others.iter().find(|(_, other)| within(value, other) || within(other, value));
    let allowed = other.map(|(key, other)| format!("a path apart from {key}, which is {other}")).unwrap_or_default();
    check(key, value, other.is_none(), &allowed)
}

fn text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Only what means itself in a route of axum and in a URL.
fn base_is_fine(base: &str) -> bool {
    base.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').all(|segment| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AuthKey, Namespace};

    const SECOND: Duration = Duration::from_secs(1);

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        let error = config.validate().unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    }

    #[test]
    fn the_defaults_are_allowed_and_so_are_the_edges() {
        Config::default().validate().unwrap();
        let mut config = Config::default();
        config.limits.max_sessions = 1;
        config.limits.max_streams = 65_536;
        config.limits.drain_timeout = Duration::ZERO;
        config.limits.drain_spread = Duration::ZERO;
        config.limits.resume_window = Duration::ZERO;
        config.limits.max_session_streams = 0;
        config.limits.stream_window_bytes = 16 * KIB;
        config.limits.stream_buffer_bytes = 16 * KIB;
        config.limits.session_stream_bytes = 0;
        config.limits.heartbeat_interval = config.limits.idle_timeout / 2;
        config.limits.poll_hold = config.limits.idle_timeout;
        config.limits.max_message_bytes = KIB;
        let namespace = Namespace { history_count: 0, history_bytes: 0, history_age: SECOND, ..Namespace::default() };
        config.channels.namespaces =
            ["", "room", "a b", "räume"].map(|name| (name.to_owned(), namespace.clone())).into();
        config.validate().unwrap();
    }

    #[test]
    fn what_is_beyond_an_edge_is_refused_with_key_value_and_range() {
        assert_eq!(
            refused(|config| config.limits.max_sessions = 0),
            "configuration: limits.max_sessions is 0; allowed is 1 to 10000000"
        );
        assert_eq!(
            refused(|config| config.limits.open_timeout = Duration::ZERO),
            "configuration: limits.open_timeout is 0s; allowed is 100ms to 5m"
        );
        assert_eq!(
            refused(|config| config.limits.heartbeat_interval = Duration::from_millis(15_001)),
            "configuration: limits.heartbeat_interval is 15s 1ms; allowed is at most half of limits.idle_timeout, which is 15s"
        );
        assert!(refused(|config| config.limits.poll_hold = Duration::from_secs(31)).contains("limits.idle_timeout"));
        assert_eq!(
            refused(|config| config.limits.drain_spread = Duration::from_secs(9)),
            "configuration: limits.drain_spread is 9s; allowed is at most limits.drain_timeout, which is 8s"
        );
        assert_eq!(
            refused(|config| config.limits.resume_window = Duration::from_secs(86_401)),
            "configuration: limits.resume_window is 1day 1s; allowed is 0s to 1day"
        );
        assert!(refused(|config| config.limits.max_session_streams = 10_001).contains("limits.max_session_streams"));
        assert!(refused(|config| config.limits.stream_window_bytes = 16 * KIB - 1).contains("stream_window_bytes"));
        assert!(refused(|config| config.limits.stream_buffer_bytes = 64 * MIB + 1).contains("stream_buffer_bytes"));
        assert!(refused(|config| config.limits.session_stream_bytes = 1_025 * MIB).contains("session_stream_bytes"));
        assert!(refused(|config| config.limits.session_buffer_bytes = 16 * KIB - 1).contains("session_buffer_bytes"));
        assert_eq!(
            refused(|config| config.channels.max_publication_bytes = 0),
            "configuration: channels.max_publication_bytes is 0; allowed is 1 to 268435456"
        );
        assert!(refused(|config| config.channels.max_subscriptions = 0).contains("channels.max_subscriptions"));
        assert!(refused(|config| config.channels.max_channels = 0).contains("channels.max_channels"));
        assert!(refused(|config| config.channels.publishes_per_second = 0).contains("publishes_per_second"));
        assert!(refused(|config| config.channels.publish_burst = 0).contains("publish_burst"));
        for name in ["a:b", "a\nb", "$presence", &"a".repeat(256)] {
            let namespaces = [(name.to_owned(), Namespace::default())].into();
            assert!(refused(|config| config.channels.namespaces = namespaces).contains("channels.namespaces is"));
        }
        let namespace = Namespace { history_age: SECOND / 2, ..Namespace::default() };
        let namespaces = [("room".to_owned(), namespace)].into();
        assert!(refused(|config| config.channels.namespaces = namespaces).contains("*.history_age is 500ms"));
        for max_keys in [0, 100_001] {
            let namespaces = [("room".to_owned(), Namespace { max_keys, ..Namespace::default() })].into();
            assert!(refused(|config| config.channels.namespaces = namespaces).contains("*.max_keys is"));
        }
        assert!(refused(|config| config.origins = vec!["example.com".into()]).contains("origins is example.com"));
        assert!(refused(|config| config.auth.jwks_refresh = 9 * SECOND).contains("auth.jwks_refresh is 9s"));
        assert!(refused(|config| config.auth.leeway = 601 * SECOND).contains("auth.leeway"));
        assert!(refused(|config| config.auth.cookie = Some("a b".into())).contains("auth.cookie is a b"));
        assert!(refused(|config| config.auth.claims.user = String::new()).contains("auth.claims.user is \"\""));
        assert!(refused(|config| config.log.filter = "a=b=c".into()).contains("log.filter"));
        assert!(refused(|config| config.quic.advertised_port = Some(0)).contains("advertised_port"));
    }

    #[test]
    fn a_key_has_what_its_algorithm_needs_and_nothing_else() {
        let secret = AuthKey::secret("s");
        let public = AuthKey::public(TokenAlgorithm::ES256, "p");
        let file = Some("f".into());
        for key in [
            AuthKey { secret: None, ..secret.clone() },
            AuthKey { secret_file: file.clone(), ..secret.clone() },
            AuthKey { public_key_file: file.clone(), ..secret.clone() },
            AuthKey { algorithm: TokenAlgorithm::EdDSA, ..secret.clone() },
            AuthKey { public_key: None, ..public.clone() },
            AuthKey { public_key_file: file.clone(), ..public.clone() },
            AuthKey { secret_file: file, ..public.clone() },
        ] {
            assert!(refused(|config| config.auth.keys = vec![key]).contains("auth.keys is a key of "));
        }
        let mut config = Config::default();
        config.auth.keys = vec![secret, public];
        config.validate().unwrap();
    }

    #[test]
    fn keys_are_fetched_only_where_nobody_can_change_them() {
        for url in [
            "keys",
            "http://a.test/keys",
            "ftp://localhost/keys",
            "https://user@a.test/",
            "http://10.0.0.1/",
            "https://",
            "http://localhost.a.test/",
            "http://127.0.0.1.a.test/",
        ] {
            assert!(refused(|config| config.auth.jwks_url = Some(url.into())).contains("auth.jwks_url is"), "{url}");
        }
        for url in ["https://a.test/k?x=1", "http://localhost:1/", "http://127.0.0.1/", "http://[::1]:80/keys"] {
            let mut config = Config::default();
            config.auth.jwks_url = Some(url.into());
            config.validate().unwrap();
        }
    }

    #[test]
    fn a_base_must_be_a_plain_path() {
        for base in ["", "/", "rt", "/rt/", "//", "/a//b", "/{x}", "/*x", "/a?b", "/ü", "/..", "/a b"] {
            assert!(refused(|config| config.base = base.into()).contains("base is"), "{base}");
        }
        for base in ["/rt", "/a/b-c", "/v1.0/_x"] {
            Config { base: base.into(), ..Config::default() }.validate().unwrap();
        }
    }
}
