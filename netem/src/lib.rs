#![doc = include_str!("../README.md")]

mod command;
mod conditions;
mod path;

pub use command::{Command, CommandError, Direction};
pub use conditions::{Change, Conditions, DEFAULT_QUEUE_BYTES, MAX_DELAY};
pub use path::{MAX_FLYING_BYTES, Path, Stats};
