use std::{
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use documented::DocumentedFields;
use figment::{
    Figment,
    error::Kind,
    providers::{Env, Format as _, Toml},
};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{CertificateConfig, Config, document::nearest};

/// The prefix of the environment's variables.
const PREFIX: &str = "THROUGHLINE_";

/// Why a configuration cannot be used: one line that says what, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file is not TOML, or a key is unknown, or a value has the wrong type.
    #[error("{origin}: {problem}")]
    Invalid {
        /// The file or the variable.
        origin: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A value that no server can work with.
    #[error("configuration: {key} is {value}; allowed is {allowed}")]
    Range {
        /// The key, such as `limits.max_sessions`.
        key: &'static str,
        /// The value, as it was given.
        value: String,
        /// What would do.
        allowed: String,
    },
}

impl Config {
    /// The defaults, overridden by `file`, overridden by the environment's `THROUGHLINE_*`, and checked.
    ///
    /// # Errors
    /// [`ConfigError`], for the first thing that is wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(path) = file {
            // Read here, because figment takes a missing file for an empty one.
            let text = fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
            // Parsed twice: figment's error does not name the file, and does not fit on a line.
            if let Err(error) = Toml::from_str::<de::IgnoredAny>(&text) {
                let origin = path.display().to_string();
                return Err(ConfigError::Invalid { origin, problem: one_line(&error.to_string()) });
            }
            figment = figment.merge(Toml::file_exact(path));
        }
        let config: Self = figment.merge(Env::prefixed(PREFIX).split("__")).extract().map_err(explain)?;
        config.validate()?;
        Ok(config)
    }
}

/// The flat form of `[certificate]`. An untagged enum would answer every mistake with "matches no variant".
#[derive(Default, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCertificate {
    /// The folder that keeps the development certificate, which is made when it is missing. Default none: `certs/dev` in a checkout, otherwise the user's state folder.
    dir: Option<PathBuf>,
    /// Host names and IP addresses in the development certificate, beside `localhost`, `127.0.0.1` and `::1`.
    names: Vec<String>,
    /// In place of that, a certificate of your own, in PEM: the server's, and those between it and a root. Read anew when it changes. Default none.
    chain: Option<PathBuf>,
    /// The private key of `chain`, in PEM. Default none.
    key: Option<PathBuf>,
}

impl From<CertificateConfig> for RawCertificate {
    fn from(config: CertificateConfig) -> Self {
        match config {
            CertificateConfig::Development { dir, names } => Self { dir, names, ..Self::default() },
            CertificateConfig::Files { chain, key } => Self { chain: Some(chain), key: Some(key), ..Self::default() },
        }
    }
}

impl TryFrom<RawCertificate> for CertificateConfig {
    type Error = &'static str;

    fn try_from(raw: RawCertificate) -> Result<Self, Self::Error> {
        match raw {
            RawCertificate { chain: Some(_), key: None, .. } => Err("`chain` needs its `key`"),
            RawCertificate { chain: None, key: Some(_), .. } => Err("`key` needs its `chain`"),
            RawCertificate { chain: Some(chain), key: Some(key), dir: None, names } if names.is_empty() => {
                Ok(Self::Files { chain, key })
            }
            RawCertificate { chain: Some(_), .. } => {
                Err("`dir` and `names` are for the development certificate, `chain` and `key` for your own; not both")
            }
            RawCertificate { dir, names, .. } => Ok(Self::Development { dir, names }),
        }
    }
}

/// `"127.0.0.1:8080"`, or `"off"`, since TOML has no null.
pub(super) fn address_or_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    struct AddressOrOff;

    impl de::Visitor<'_> for AddressOrOff {
        type Value = Option<SocketAddr>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an address with a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\", or \"off\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            if text == "off" {
                return Ok(None);
            }
            text.parse().map(Some).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_str(AddressOrOff)
}

/// `"/path"`, or `"off"`, since TOML has no null.
pub(super) fn path_or_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok((text != "off").then_some(text))
}

/// Names the key in full, and the file or the variable that it stands in.
fn explain(error: figment::Error) -> ConfigError {
    let key = error.path.join(".");
    let problem = match &error.kind {
        Kind::UnknownField(_, known) => match nearest(&key, known) {
            Some(meant) => format!("unknown key `{key}`; did you mean `{meant}`?"),
            None => format!("unknown key `{key}`; there are {}", known.join(", ")),
        },
        Kind::InvalidType(found, wanted) => format!("`{key}` is {found}; {} is wanted", plain(wanted)),
        kind if key.is_empty() => kind.to_string(),
        kind => format!("`{key}`: {kind}"),
    };
    let file = error.metadata.as_ref().and_then(|metadata| metadata.source.as_ref()?.file_path().map(Path::to_owned));
    let origin = match file {
        Some(path) => path.display().to_string(),
        None => format!("the environment's {PREFIX}{}", key.replace('.', "__").to_uppercase()),
    };
    ConfigError::Invalid { origin, problem: one_line(&problem) }
}

/// What serde calls a type, for people.
fn plain(wanted: &str) -> &str {
    match wanted {
        "usize" | "u64" | "u32" | "u16" => "a whole number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        other => other.strip_prefix("struct ").map_or(other, |_| "a table"),
    }
}

/// A parser's error without the picture of the line: its place and its reason.
fn one_line(text: &str) -> String {
    let picture = |line: &&str| line.contains(" | ") || line.trim_end().ends_with('|') || line.trim().is_empty();
    text.lines().filter(|line| !picture(line)).map(str::trim).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
#[expect(clippy::result_large_err, reason = "figment's Jail wants its own error")]
mod tests {
    use std::time::Duration;

    use figment::Jail;

    use super::*;
    use crate::config::{Application, AuthKey, LogFormat, Namespace, Slow};

    fn load_text(jail: &mut Jail, text: &str) -> Result<Config, ConfigError> {
        jail.create_file("t.toml", text).unwrap();
        Config::load(Some(Path::new("t.toml")))
    }

    #[test]
    fn an_empty_file_and_no_file_are_the_defaults() {
        Jail::expect_with(|jail| {
            assert_eq!(load_text(jail, "").unwrap(), Config::default());
            assert_eq!(Config::load(None).unwrap(), Config::default());
            Ok(())
        });
    }

    #[test]
    fn the_file_overrides_defaults_and_the_environment_overrides_the_file() {
        Jail::expect_with(|jail| {
            jail.set_env("THROUGHLINE_LIMITS__MAX_SESSIONS", "7");
            jail.set_env("THROUGHLINE_QUIC__LISTEN", "off");
            jail.set_env("THROUGHLINE_LIMITS__POLL_HOLD", "1500ms");
            jail.set_env("THROUGHLINE_CHANNELS__NAMESPACES__ROOM__HISTORY_COUNT", "7");
            jail.set_env("THROUGHLINE_AUTH__KEYS", "[{algorithm=\"HS256\",secret=\"s\"}]");
            jail.set_env("THROUGHLINE_ORIGINS", "[\"https://a.test\"]");
            let config = load_text(
                jail,
                r#"
                application = "arena"
                trusted_proxies = ["10.0.0.0/8", "::1/128"]
                tcp = { listen = "[::1]:0", tls = true }
                log = { format = "json" }
                certificate = { chain = "c.pem", key = "k.pem" }
                [limits]
                max_sessions = 5
                max_sessions_per_ip = 5
                idle_timeout = "1m 30s"
                [channels]
                max_subscriptions = 9
                [channels.namespaces.room]
                subscribe = true
                history_age = "1h"
                slow = "disconnect"
                [channels.namespaces.""]
                publish = true
                "#,
            )
            .unwrap();
            assert_eq!(config.auth.keys, [AuthKey::secret("s")]);
            assert_eq!(config.limits.max_sessions, 7);
            assert_eq!(config.limits.max_sessions_per_ip, 5);
            assert_eq!(config.limits.idle_timeout, Duration::from_secs(90));
            assert_eq!(config.limits.poll_hold, Duration::from_millis(1_500));
            assert_eq!(config.quic.listen, None);
            assert_eq!(config.tcp.listen.unwrap().to_string(), "[::1]:0");
            assert_eq!(config.origins, ["https://a.test"]);
            assert_eq!(config.application, Application::Arena);
            assert_eq!(config.log.format, LogFormat::Json);
            assert_eq!(config.channels.max_subscriptions, 9);
            let hour = Duration::from_secs(3_600);
            let [nameless, room] = ["", "room"].map(|name| config.channels.namespace(name));
            let expected = Namespace { history_count: 7, history_age: hour, slow: Slow::Disconnect, ..room.clone() };
            assert_eq!((&room, room.subscribe, room.publish), (&expected, true, false));
            assert_eq!(nameless, Namespace { publish: true, ..Namespace::default() });
            assert_eq!(config.channels.namespace("another"), Namespace::default());
            assert_eq!(config.certificate, CertificateConfig::Files { chain: "c.pem".into(), key: "k.pem".into() });
            Ok(())
        });
    }

    #[test]
    fn every_mistake_is_one_line_with_its_key_and_its_place() {
        Jail::expect_with(|jail| {
            for (text, wanted) in [
                ("nonsense = 1", &["t.toml: ", "unknown key `nonsense`; there are tcp, quic, "][..]),
                (
                    "[limits]\nmax_session = 1",
                    &["t.toml: unknown key `limits.max_session`; did you mean `max_sessions`?"],
                ),
                ("max_sessions = 1", &["t.toml: unknown key `max_sessions`; did you mean `limits.max_sessions`?"]),
                (
                    "[limits]\nmax_sessions = \"many\"",
                    &["t.toml: `limits.max_sessions` is string \"many\"; a whole number is wanted"],
                ),
                ("[tcp]\ntls = 1", &["t.toml: `tcp.tls` is ", "true or false is wanted"]),
                ("origins = true", &["t.toml: `origins` is bool true; a list is wanted"]),
                ("limits = 5", &["t.toml: `limits` is ", "a table is wanted"]),
                ("[auth]\nanonymus = true", &["t.toml: unknown key `auth.anonymus`; did you mean `anonymous`?"]),
                ("[[auth.keys]]\nsecret = \"hush\"", &["t.toml: ", "auth.keys", "missing field `algorithm`"]),
                ("[[auth.keys]]\nalgorithm = \"none\"", &["t.toml: ", "auth.keys", "none", "`HS256`"]),
                ("[[auth.keys]]\nalgorithm = \"HS256\"\nsecret = 4711", &["auth.keys", "a text is wanted"]),
                (
                    "[[auth.keys]]\nalgorithm = \"HS256\"\nfile = 1",
                    &["unknown key `auth.keys.0.file`; there are algorithm, "],
                ),
                ("[limits]\nopen_timeout = 10", &["t.toml: ", "`limits.open_timeout`", "with its unit"]),
                ("[limits]\nopen_timeout = \"soon\"", &["t.toml: ", "`limits.open_timeout`", "\"soon\""]),
                ("tcp = { listen = \"8080\" }", &["t.toml: ", "`tcp.listen`", "an address with a port"]),
                ("[channels.namespaces.a]\nslow = \"no\"", &["t.toml: ", "`channels.namespaces.a.slow`", "no"]),
                ("[channels.namespaces.a]\nread = true", &["t.toml: ", "unknown key `channels.namespaces.a.read`"]),
                ("application = \"chess\"", &["t.toml: ", "`application`", "chess"]),
                ("trusted_proxies = [\"ten\"]", &["t.toml: ", "trusted_proxies", "invalid"]),
                ("certificate = { chain = \"a\" }", &["t.toml: ", "`certificate`", "needs its `key`"]),
                ("certificate = { chain = \"a\", key = \"b\", dir = \"c\" }", &["t.toml: ", "not both"]),
                ("certificate = { file = \"a\" }", &["t.toml: ", "unknown key `certificate.file`"]),
                ("a = [", &["t.toml: ", "line 1"]),
            ] {
                let error = load_text(jail, text).unwrap_err().to_string();
                assert!(!error.contains('\n'), "{error}");
                for part in wanted {
                    assert!(error.contains(part), "{error:?} should name {part:?}");
                }
            }
            Ok(())
        });
    }

    #[test]
    fn a_mistake_in_the_environment_names_the_variable() {
        Jail::expect_with(|jail| {
            jail.set_env("THROUGHLINE_LIMITS__MAX_SESSION", "1");
            let error = Config::load(None).unwrap_err().to_string();
            assert!(error.starts_with("the environment's THROUGHLINE_LIMITS__MAX_SESSION: unknown key"), "{error}");
            Ok(())
        });
        Jail::expect_with(|jail| {
            jail.set_env("THROUGHLINE_LIMITS__MAX_SESSIONS", "many");
            let error = Config::load(None).unwrap_err().to_string();
            assert!(error.starts_with("the environment's THROUGHLINE_LIMITS__MAX_SESSIONS: "), "{error}");
            Ok(())
        });
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = Config::load(Some(Path::new("/nowhere/t.toml"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/t.toml cannot be read"), "{error}");
    }
}
