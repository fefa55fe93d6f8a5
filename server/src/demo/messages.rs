//! The reliable text messages of the game: JSON, one object each, told apart by `type`.

use serde::{Deserialize, Serialize};

use super::tally::{NUMBER_MAX, Tally};
use super::world::ShipId;

/// Longest text message taken from a page, bytes: a name in any script, and its JSON, with room to spare.
const TEXT_MAX: usize = 2_048;
/// Longest name, characters: fits a line of the leaderboard on a phone.
const NAME_MAX: usize = 18;

/// What a page says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// To be called this.
    Name(String),
    /// The next of the page's numbered messages. With a new `run` it begins at 1 again: a page does so after a gap, and what it
    /// had not sent before may still follow.
    Count { run: u32, number: u64 },
}

/// Why a message was not taken; the page is told in these words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SayError {
    #[error("a message is at most {TEXT_MAX} bytes of JSON")]
    TooLong,
    #[error("not a message of this game: {0}")]
    Malformed(String),
    #[error("a name needs at least one visible character")]
    EmptyName,
    #[error("messages are numbered from 1 to {NUMBER_MAX}")]
    Number,
    #[error("binary messages mean nothing here")]
    Binary,
    #[error("too many messages; wait a moment")]
    TooMany,
}

impl SayError {
    fn code(&self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Malformed(_) => "malformed",
            Self::EmptyName => "empty-name",
            Self::Number => "number",
            Self::Binary => "binary",
            Self::TooMany => "too-many",
        }
    }
}

impl Said {
    /// Reads one text message. Overlong names are cut, and what cannot be seen is taken out.
    pub(super) fn parse(text: &str) -> Result<Self, SayError> {
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "camelCase")]
        enum Wire {
            Join { name: String },
            Count { run: u32, n: u64 },
        }
        if text.len() > TEXT_MAX {
            return Err(SayError::TooLong);
        }
        match serde_json::from_str(text).map_err(|error| SayError::Malformed(error.to_string()))? {
            Wire::Join { name } => match clean(&name, NAME_MAX) {
                name if name.is_empty() => Err(SayError::EmptyName),
                name => Ok(Self::Name(name)),
            },
            Wire::Count { run, n } if (1..=NUMBER_MAX).contains(&n) => Ok(Self::Count { run, number: n }),
            Wire::Count { .. } => Err(SayError::Number),
        }
    }
}

/// To a page.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(super) enum Notice<'a> {
    /// First after joining, and again when a page was too slow to take every notice: everything that it has to know.
    #[serde(rename_all = "camelCase")]
    Welcome {
        id: ShipId,
        name: &'a str,
        world_size: f32,
        tick_rate: u32,
        players: Vec<(ShipId, &'a str)>,
        player_count: usize,
        bots: usize,
    },
    /// A person is here, or has changed his name.
    Player {
        id: ShipId,
        name: &'a str,
    },
    Left {
        id: ShipId,
    },
    /// The ten best, once per second.
    Leaderboard {
        top: Vec<Leader<'a>>,
        players: usize,
        bots: usize,
    },
    /// The next of the numbered messages to this page, and what has become of the page's own.
    Count {
        n: u64,
        up: &'a Tally,
    },
    Error {
        code: &'a str,
        message: &'a str,
    },
}

#[derive(Debug, Serialize)]
pub(super) struct Leader<'a> {
    pub(super) id: ShipId,
    pub(super) name: &'a str,
    pub(super) score: u16,
    pub(super) bot: bool,
}

impl Notice<'_> {
    pub(super) fn to_text(&self) -> String {
        // Strings, numbers and lists of them: serde_json has nothing to refuse. An empty object is ignored by the page.
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }
}

/// The notice that tells a page what was wrong.
pub(super) fn error_text(error: &SayError) -> String {
    let message = error.to_string();
    Notice::Error { code: error.code(), message: &message }.to_text()
}

/// What a bot is called: the same name for the same id on every server.
pub(super) fn bot_name(id: ShipId) -> String {
    const NAMES: [&str; 40] = [
        "Altair",
        "Antares",
        "Arcturus",
        "Atlas",
        "Bellatrix",
        "Calypso",
        "Capella",
        "Castor",
        "Ceres",
        "Corvus",
        "Deneb",
        "Draco",
        "Electra",
        "Enif",
        "Hadar",
        "Helios",
        "Io",
        "Juno",
        "Kepler",
        "Lyra",
        "Maia",
        "Mimas",
        "Mira",
        "Naos",
        "Nova",
        "Orion",
        "Pallas",
        "Pavo",
        "Pollux",
        "Rhea",
        "Rigel",
        "Sirius",
        "Spica",
        "Talos",
        "Tethys",
        "Titan",
        "Umbra",
        "Vega",
        "Vesta",
        "Zephyr",
    ];
    let name = NAMES[usize::from(id) % NAMES.len()];
    match usize::from(id) / NAMES.len() {
        0 => name.to_owned(),
        round => format!("{name} {}", round + 1),
    }
}

/// One line of visible text of at most `most` characters: white space becomes single blanks; controls, and the marks
/// that reorder or hide what stands beside them, go.
fn clean(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most * 4));
    let mut length = 0;
    let mut gap = false;
    for c in text.chars() {
        if c.is_whitespace() {
            gap = true;
        } else if !c.is_control() && !is_deceptive(c) {
            if gap && length > 0 && length < most {
                out.push(' ');
                length += 1;
            }
            gap = false;
            if length >= most {
                break;
            }
            out.push(c);
            length += 1;
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Zero-width and bidirectional controls, tags, and the byte order mark. The zero-width joiner stays: it makes emoji.
fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}' | '\u{200c}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(raw: &str) -> Result<Said, SayError> {
        Said::parse(&serde_json::json!({ "type": "join", "name": raw }).to_string())
    }

    #[test]
    fn names_are_cleaned_and_cut() {
        let named = |text: &str| Ok(Said::Name(text.to_owned()));
        assert_eq!(name("  Ann \n\t Lee "), named("Ann Lee"));
        assert_eq!(name("<b>Ann</b>"), named("<b>Ann</b>"), "the page shows text, not markup");
        assert_eq!(name("\u{202e}live\u{200b}\u{0}"), named("live"));
        assert_eq!(name(&"ß".repeat(500)), named(&"ß".repeat(NAME_MAX)));
        assert_eq!(name("12345678901234567 x"), named("12345678901234567"), "no blank at the cut");
        assert_eq!(name(" \u{feff} "), Err(SayError::EmptyName));
    }

    #[test]
    fn what_is_not_a_message_is_refused_with_a_reason() {
        for text in [
            "",
            "{",
            "null",
            "[]",
            "{}",
            r#"{"type":"join"}"#,
            r#"{"type":"join","name":5}"#,
            r#"{"type":"cheat","name":"Ann"}"#,
            r#"{"type":"count","run":1,"n":-1}"#,
            r#"{"type":"count","n":1}"#,
            "\u{0}\u{ffff}",
        ] {
            assert!(matches!(Said::parse(text), Err(SayError::Malformed(_))), "{text:?}");
        }
        for n in [0, NUMBER_MAX + 1, u64::MAX] {
            assert_eq!(Said::parse(&format!(r#"{{"type":"count","run":1,"n":{n}}}"#)), Err(SayError::Number));
        }
        assert_eq!(Said::parse(r#"{"type":"count","run":2,"n":7}"#), Ok(Said::Count { run: 2, number: 7 }));
        assert_eq!(Said::parse(&"[".repeat(TEXT_MAX + 1)), Err(SayError::TooLong));
        assert!(Said::parse(&"[".repeat(TEXT_MAX)).is_err(), "deep nesting is bounded by the parser");
        assert!(error_text(&SayError::Malformed("\"\n".into())).starts_with(r#"{"type":"error","code":"malformed""#));
    }

    #[test]
    fn notices_look_as_the_page_expects() {
        let mut up = Tally::default();
        up.take(2);
        assert_eq!(
            Notice::Count { n: 9, up: &up }.to_text(),
            r#"{"type":"count","n":9,"up":{"received":1,"missing":1,"repeated":0,"outOfOrder":0}}"#
        );
        let welcome = Notice::Welcome {
            id: 301,
            name: "Ann",
            world_size: 4800.0,
            tick_rate: 30,
            players: vec![(301, "Ann")],
            player_count: 1,
            bots: 300,
        };
        assert_eq!(
            welcome.to_text(),
            r#"{"type":"welcome","id":301,"name":"Ann","worldSize":4800.0,"tickRate":30,"players":[[301,"Ann"]],"playerCount":1,"bots":300}"#
        );
    }

    #[test]
    fn bots_have_distinct_names() {
        let mut names: Vec<_> = (0..300).map(bot_name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 300);
    }
}
