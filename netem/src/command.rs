//! The line protocol of standard input, which the command line shares.

use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::conditions::{Change, MAX_DELAY};

/// How late a reordered packet comes when nothing is said: a few packets of a busy connection pass it.
const DEFAULT_REORDER_BY: Duration = Duration::from_millis(10);

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Command {
    /// `delay 25ms`, `loss up 2%`: changes a condition, of both directions when none is named.
    Set(Option<Direction>, Change),
    /// `reset`: a perfect wire again. What is under way stays so.
    Reset,
    /// `show`: the conditions.
    Show,
    /// `stats`: what has happened to packets so far.
    Stats,
}

/// Why a line is not a command.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The first word.
    #[error(
        "{0:?} is not known; there are delay, jitter, loss, duplicate, reorder, rate, queue, blackhole, reset, show and stats"
    )]
    Unknown(String),
    /// A word is lacking.
    #[error("{0} needs {1}")]
    Needs(&'static str, &'static str),
    /// A value that cannot be.
    #[error("{value:?} is not {wanted}")]
    Value {
        /// What stood there.
        value: String,
        /// What would be one.
        wanted: &'static str,
    },
    /// Words after the last one that means something.
    #[error("{0:?} is too much")]
    TooMuch(String),
}

impl FromStr for Command {
    type Err = CommandError;

    fn from_str(line: &str) -> Result<Self, CommandError> {
        let mut words = line.split_whitespace().peekable();
        let name = words.next().unwrap_or_default();
        let direction = match words.peek() {
            Some(&"up") => Some(Direction::Up),
            Some(&"down") => Some(Direction::Down),
            _ => None,
        };
        if direction.is_some() {
            words.next();
        }
        let mut value = |name, wanted| words.next().ok_or(CommandError::Needs(name, wanted));
        let change = match name {
            "delay" => Change::Delay(duration(value("delay", "a duration, such as 25ms")?)?),
            "jitter" => Change::Jitter(duration(value("jitter", "a duration, such as 5ms")?)?),
            "loss" => Change::Loss(share(value("loss", "a share, such as 2%")?)?),
            "duplicate" => Change::Duplicate(share(value("duplicate", "a share, such as 1%")?)?),
            "reorder" => {
                let share = share(value("reorder", "a share, such as 1%, and may have a duration after it")?)?;
                Change::Reorder(share, words.next().map_or(Ok(DEFAULT_REORDER_BY), duration)?)
            }
            "rate" => Change::Rate(rate(value("rate", "a rate, such as 80kbit, or off")?)?),
            "queue" => Change::Queue(size(value("queue", "a size, such as 32KB")?)?),
            "blackhole" => Change::Blackhole(switch(value("blackhole", "on or off")?)?),
            "reset" | "show" | "stats" if direction.is_none() => {
                return match words.next() {
                    Some(word) => Err(CommandError::TooMuch(word.to_owned())),
                    None if name == "reset" => Ok(Command::Reset),
                    None if name == "show" => Ok(Command::Show),
                    None => Ok(Command::Stats),
                };
            }
            _ => return Err(CommandError::Unknown(name.to_owned())),
        };
        match words.next() {
            Some(word) => Err(CommandError::TooMuch(word.to_owned())),
            None => Ok(Command::Set(direction, change)),
        }
    }
}

fn wrong(value: &str, wanted: &'static str) -> CommandError {
    CommandError::Value { value: value.to_owned(), wanted }
}

fn duration(word: &str) -> Result<Duration, CommandError> {
    let parsed = if word == "0" { Some(Duration::ZERO) } else { humantime::parse_duration(word).ok() };
    parsed.filter(|&duration| duration <= MAX_DELAY).ok_or_else(|| wrong(word, "a duration of at most 60s"))
}

fn share(word: &str) -> Result<f64, CommandError> {
    let percent = word.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| wrong(word, "a share from 0% to 100%"))
}

fn rate(word: &str) -> Result<Option<NonZeroU64>, CommandError> {
    if word == "off" {
        return Ok(None);
    }
    let bits = scaled(word, &[("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)]);
    bits.and_then(NonZeroU64::new).map(Some).ok_or_else(|| wrong(word, "a rate in bit, kbit, mbit or gbit, or off"))
}

fn size(word: &str) -> Result<usize, CommandError> {
    let units = [("KiB", 1_024), ("MiB", 1_048_576), ("KB", 1_000), ("MB", 1_000_000), ("B", 1)];
    scaled(word, &units)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| wrong(word, "a size in B, KB, KiB, MB or MiB"))
}

fn switch(word: &str) -> Result<bool, CommandError> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(wrong(word, "on or off")),
    }
}

/// A whole number and one of `units`; the first that fits, so the longer ones stand first.
fn scaled(word: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) = units.iter().find_map(|&(unit, factor)| Some((word.strip_suffix(unit)?, factor)))?;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Command {
        line.parse().unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn every_command_is_read() {
        let both = |change| Command::Set(None, change);
        let ms = Duration::from_millis;
        assert_eq!(parsed("delay 25ms"), both(Change::Delay(ms(25))));
        assert_eq!(parsed("  delay  0 "), both(Change::Delay(Duration::ZERO)));
        assert_eq!(parsed("jitter down 5ms"), Command::Set(Some(Direction::Down), Change::Jitter(ms(5))));
        assert_eq!(parsed("loss up 2.5%"), Command::Set(Some(Direction::Up), Change::Loss(0.025)));
        assert_eq!(parsed("duplicate 100%"), both(Change::Duplicate(1.0)));
        assert_eq!(parsed("reorder 1%"), both(Change::Reorder(0.01, DEFAULT_REORDER_BY)));
        assert_eq!(parsed("reorder 1% 3ms"), both(Change::Reorder(0.01, ms(3))));
        assert_eq!(parsed("rate 80kbit"), both(Change::Rate(NonZeroU64::new(80_000))));
        assert_eq!(parsed("rate off"), both(Change::Rate(None)));
        assert_eq!(parsed("queue 32KB"), both(Change::Queue(32_000)));
        assert_eq!(parsed("queue 32KiB"), both(Change::Queue(32_768)));
        assert_eq!(parsed("blackhole up on"), Command::Set(Some(Direction::Up), Change::Blackhole(true)));
        assert_eq!(parsed("reset"), Command::Reset);
        assert_eq!(parsed("show"), Command::Show);
        assert_eq!(parsed("stats"), Command::Stats);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |line: &str| line.parse::<Command>().unwrap_err().to_string();
        assert!(said("").contains("is not known"));
        assert!(said("latency 5ms").contains("\"latency\" is not known"));
        assert!(said("stats up").contains("is not known"));
        assert_eq!(said("delay"), "delay needs a duration, such as 25ms");
        assert_eq!(said("delay 2h"), "\"2h\" is not a duration of at most 60s");
        assert_eq!(said("loss 2"), "\"2\" is not a share from 0% to 100%");
        assert_eq!(said("loss -1%"), "\"-1%\" is not a share from 0% to 100%");
        assert_eq!(said("loss NaN%"), "\"NaN%\" is not a share from 0% to 100%");
        assert!(said("rate 0kbit").contains("is not a rate"));
        assert!(said("rate 99999999999999999999gbit").contains("is not a rate"));
        assert_eq!(said("loss 2% 3%"), "\"3%\" is too much");
        assert_eq!(said("blackhole up maybe"), "\"maybe\" is not on or off");
    }
}
