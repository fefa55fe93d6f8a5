//! The default configuration as a file that explains itself. Its comments are the doc comments of the configuration's types.

use std::fmt::{Display, Write as _};

use documented::DocumentedFields;
use serde::{Serialize, Serializer};
use toml::{Table, Value};

use super::{
    ApiConfig, Application, AuthConfig, AuthKey, ChannelsConfig, ClaimNames, Config, HttpConfig, Kind, Limits,
    LogConfig, LogFormat, Namespace, QuicConfig, Slow, TcpConfig, TokenAlgorithm, load::RawCertificate,
};

/// Widest line of a comment.
const WIDTH: usize = 100;

/// Larger numbers are written in groups of digits.
const GROUPED_FROM: i64 = 10_000;

/// One table of the file.
struct Section {
    /// Its name, without the brackets. `*` stands for any name.
    path: &'static str,
    /// The name of its type, as doc comments may mention it.
    type_name: &'static str,
    keys: &'static [&'static str],
    docs: &'static [&'static str],
    /// Its values in a table of which there is none by default.
    example: fn() -> Option<Value>,
}

macro_rules! sections {
    ($($path:literal $type_name:ident $(= $example:expr)?;)*) => {
        &[$(Section {
            path: $path,
            type_name: stringify!($type_name),
            keys: <$type_name as DocumentedFields>::FIELD_NAMES,
            docs: <$type_name as DocumentedFields>::FIELD_DOCS,
            example: || None::<Value>$(.or_else(|| Some(value(&$example))))?,
        }),*]
    };
}

const SECTIONS: &[Section] = sections! {
    "" Config;
    "tcp" TcpConfig;
    "quic" QuicConfig;
    "certificate" RawCertificate;
    "log" LogConfig;
    "limits" Limits;
    "channels" ChannelsConfig;
    "channels.namespaces.*" Namespace = Namespace::default();
    "http" HttpConfig;
    "api" ApiConfig;
    "auth" AuthConfig;
    "auth.claims" ClaimNames;
    "auth.keys.*" AuthKey = AuthKey::new(TokenAlgorithm::HS256);
};

/// What a key may be set to, when there are few things.
struct Choices {
    /// The key, by its whole name.
    key: &'static str,
    names: &'static [&'static str],
    docs: &'static [&'static str],
    /// How a name is written.
    write: fn(&str) -> String,
}

impl Choices {
    const fn of<T: DocumentedFields>(key: &'static str, write: fn(&str) -> String) -> Self {
        Self { key, names: T::FIELD_NAMES, docs: T::FIELD_DOCS, write }
    }
}

const CHOICES: &[Choices] = &[
    Choices::of::<Application>("application", str::to_lowercase),
    Choices::of::<LogFormat>("log.format", str::to_lowercase),
    Choices::of::<Kind>("channels.namespaces.*.kind", str::to_lowercase),
    Choices::of::<Slow>("channels.namespaces.*.slow", str::to_lowercase),
    Choices::of::<TokenAlgorithm>("auth.keys.*.algorithm", str::to_owned),
];

impl Config {
    /// The default configuration, as TOML: every key with what it is for, its default and the reason. What has no value by default is commented out
    /// (`#key =`), and so is an example of what there may be several of.
    pub fn default_toml() -> String {
        let mut text = String::from(
            "# The configuration of Throughline: every key, with its default.\n\
             # A variable of the environment overrides it: THROUGHLINE_LIMITS__MAX_SESSIONS=500 is max_sessions of [limits].\n",
        );
        let defaults = value(&Self::default());
        for section in SECTIONS {
            section.write(&defaults, &mut text);
        }
        text
    }
}

/// The key of some section that a mistyped one may have meant, by its whole name. Of `known`, the keys of the same section, rather than of another.
pub(super) fn nearest(mistyped: &str, known: &[&str]) -> Option<String> {
    let (section, name) = mistyped.rsplit_once('.').unwrap_or(("", mistyped));
    let near = known.iter().map(|key| (strsim::damerau_levenshtein(name, key), key)).min();
    // A third of the letters may be wrong: `max_session` is meant, and `port` is not `path`.
    if let Some((_, key)) = near.filter(|(distance, key)| distance * 3 <= key.len().max(name.len())) {
        return Some((*key).to_owned());
    }
    let elsewhere = SECTIONS.iter().filter(|other| other.path != section && other.keys.contains(&name));
    elsewhere.map(|section| section.name_of(name)).next()
}

/// `"off"` for what there is none of, since TOML has no null.
pub(super) fn or_off<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_str("off"),
    }
}

impl Section {
    fn write(&self, defaults: &Value, text: &mut String) {
        let example = (self.example)();
        let (values, mark) = match &example {
            Some(example) => (example.as_table(), "#"),
            None => (self.table(defaults), ""),
        };
        if !self.path.is_empty() {
            text.push('\n');
            self.write_head(mark, text);
        }
        for (key, docs) in self.keys.iter().zip(self.docs) {
            if SECTIONS.iter().any(|section| section.path.trim_end_matches(".*") == self.name_of(key)) {
                continue; // a section of its own, with its comment there
            }
            comment(docs, text);
            for choices in CHOICES.iter().filter(|choices| choices.key == self.name_of(key)) {
                for (name, docs) in choices.names.iter().zip(choices.docs) {
                    comment(&format!("\"{}\": {docs}", (choices.write)(name)), text);
                }
            }
            match values.and_then(|values| values.get(*key)) {
                Some(value) => writeln!(text, "{mark}{key} = {}", literal(value)),
                None => writeln!(text, "#{key} ="),
            }
            .expect(INTO_A_STRING);
        }
    }

    /// The name of the section between brackets, below what its parent says of it.
    fn write_head(&self, mark: &str, text: &mut String) {
        let path = self.path.trim_end_matches(".*");
        let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
        let parent = SECTIONS.iter().find(|section| section.path == parent);
        let about = parent.and_then(|parent| parent.keys.iter().zip(parent.docs).find(|(name, _)| **name == key));
        if let Some((_, docs)) = about {
            comment(docs, text);
        }
        match self.path {
            "auth.keys.*" => writeln!(text, "{mark}[[{path}]]"),
            _ if path != self.path => writeln!(text, "{mark}[{path}.NAME]"),
            _ => writeln!(text, "{mark}[{path}]"),
        }
        .expect(INTO_A_STRING);
    }

    fn table<'a>(&self, defaults: &'a Value) -> Option<&'a Table> {
        let parts = self.path.split('.').filter(|part| !part.is_empty());
        let table = parts.into_iter().try_fold(defaults, |table, part| table.get(part));
        table.and_then(Value::as_table)
    }

    /// A key of the section by its whole name.
    fn name_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

const INTO_A_STRING: &str = "writing into a String cannot fail";

fn value(of: &impl Serialize) -> Value {
    Value::try_from(of).expect("the configuration's types can be written as TOML")
}

/// Doc comments, in lines of [`WIDTH`], with the names of keys in place of links to fields.
fn comment(docs: &str, text: &mut String) {
    let docs = docs.replace("[`", "`").replace("`]", "`");
    let mut line = String::from("#");
    for word in docs.split_whitespace() {
        let word = as_key(word);
        if line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(&word);
    }
    text.push_str(&line);
    text.push('\n');
}

/// `Limits::max_sessions`, between backticks, as `limits.max_sessions`.
fn as_key(word: &str) -> String {
    for section in SECTIONS {
        let type_name = section.type_name;
        let field = word.replacen(&format!("`{type_name}::"), &format!("`{}", section.name_of("")), 1);
        if field != word {
            return field;
        }
        if word.starts_with(&format!("`{type_name}`")) {
            return word.replacen(type_name, section.path, 1);
        }
    }
    word.to_owned()
}

fn literal(value: &Value) -> String {
    match value {
        Value::Integer(number) if *number >= GROUPED_FROM => {
            let digits = number.to_string();
            let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
            groups.join("_")
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The text with what is commented out in it, but for keys that have no value.
    fn uncommented(text: &str) -> String {
        let lines = text.lines().filter(|line| !line.ends_with(" ="));
        let is_commented_out = |line: &&str| line.starts_with('#') && !line.starts_with("# ");
        lines.map(|line| if is_commented_out(&line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn it_is_exactly_the_default() {
        assert_eq!(toml::from_str::<Config>(&Config::default_toml()).unwrap(), Config::default());
    }

    #[test]
    fn its_examples_have_the_defaults_of_what_there_may_be_several_of() {
        let config: Config = toml::from_str(&uncommented(&Config::default_toml())).unwrap();
        assert_eq!(config.channels.namespaces, [("NAME".to_owned(), Namespace::default())].into());
        assert_eq!(config.auth.keys, [AuthKey::new(TokenAlgorithm::HS256)]);
    }

    #[test]
    fn every_key_is_there_once_with_its_comment() {
        let text = Config::default_toml();
        let mut expected = BTreeSet::new();
        for section in SECTIONS {
            for key in section.keys {
                expected.insert(section.name_of(key));
            }
        }
        let mut found = BTreeSet::new();
        let (mut section, mut before) = (String::new(), "");
        for line in text.lines() {
            let line = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line);
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_matches(['[', ']']).replace(".NAME", ".*");
                section += if name.starts_with('[') { ".*." } else { "." };
                found.insert(section.trim_end_matches(['.', '*']).to_owned());
                assert!(before.starts_with("# "), "{line} without a comment");
            } else if let Some((key, _)) = line.split_once(" =").filter(|_| !line.starts_with("# ")) {
                assert!(found.insert(format!("{section}{key}")), "{section}{key} stands there twice");
                assert!(before.starts_with("# "), "{section}{key} without a comment");
            }
            assert!(line.len() <= 160, "{line}");
            before = if line.is_empty() { before } else { line };
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn comments_speak_of_keys_and_not_of_types() {
        let text = Config::default_toml();
        assert!(text.contains("\n[limits]\n") && text.contains("\nmax_sessions = 10_000\n"), "{text}");
        assert!(text.contains("`limits.max_message_bytes`") && text.contains("\nresume_window = \"2m\"\n"));
        assert!(text.contains("\n#advertised_host =\n") && text.contains("\nlisten = \"127.0.0.1:8080\"\n"));
        assert!(SECTIONS.iter().all(|section| !text.contains(&format!("{}::", section.type_name))), "{text}");
        assert!(!text.contains("[`") && !text.contains("crate"), "{text}");
    }

    #[test]
    fn the_values_of_choices_are_listed_as_they_are_written() {
        let text = Config::default_toml();
        for line in ["# \"arena\": The game of", "# \"json\": One", "# \"disconnect\": Its", "# \"EdDSA\": Ed25519."] {
            assert!(text.contains(line), "{line}");
        }
        let written = |name: &str| format!("format = \"{name}\"");
        let formats = CHOICES.iter().find(|choices| choices.key == "log.format").unwrap();
        for name in formats.names {
            toml::from_str::<LogConfig>(&written(&(formats.write)(name))).unwrap();
        }
        assert!(CHOICES.iter().all(|choices| {
            let (section, key) = choices.key.rsplit_once('.').unwrap_or(("", choices.key));
            SECTIONS.iter().any(|found| found.path == section && found.keys.contains(&key))
        }));
    }

    #[test]
    fn a_mistyped_key_is_near_the_right_one() {
        let known = Limits::FIELD_NAMES;
        for (mistyped, wanted) in [
            ("limits.max_session", Some("max_sessions")),
            ("limits.pol_hold", Some("poll_hold")),
            ("limits.idel_timeout", Some("idle_timeout")),
            ("limits.jwks_url", Some("auth.jwks_url")),
            ("limits.colour", None),
        ] {
            assert_eq!(nearest(mistyped, known).as_deref(), wanted, "{mistyped}");
        }
        assert_eq!(nearest("max_sessions", Config::FIELD_NAMES).as_deref(), Some("limits.max_sessions"));
        assert_eq!(nearest("limit", Config::FIELD_NAMES).as_deref(), Some("limits"));
    }
}
