//! The demo: an arena game, authoritative on the server at 30 ticks per second, in which every open page is a player.
//!
//! It is an application like any other: it knows [`Session`](crate::Session), and no transport.
//! - [`Arena`] runs the game and is the handler of its sessions. [`Arena::report`] keeps its live numbers in a channel of state, for the dashboard.
//! - [`namespaces()`] says what the page's channels are: the chat is a log with history and presence, in which only the pages speak.
//! - [`assets()`] serves the page and the browser client, [`client()`] the latter alone.
//!
//! From the inside out: `world` (with `ship`, `motes`, `bots`, `grid`, `rng`) is the game, pure and seedable; `wire` and
//! `messages` are what travels; `interest` chooses what one player sees; `stage` serves all players in one loop;
//! `arena` gives it a task and sessions. `ledger` (with `tally`) and `upload` are there to show that a session outlives its links: it counts
//! reliable messages, and hashes what a page uploads.

use std::time::Duration;

use crate::{Kind, Namespace};

mod arena;
mod assets;
mod bots;
mod dashboard;
mod grid;
mod interest;
mod ledger;
mod messages;
mod motes;
mod rng;
mod ship;
mod stage;
mod tally;
mod upload;
mod wire;
mod world;

/// Where the page chats.
const CHAT: &str = "chat:arena";
/// How long a line can still be read: until tomorrow.
const CHAT_AGE: Duration = Duration::from_secs(24 * 3_600);

pub use arena::Arena;
pub use assets::{assets, client};

/// What the page needs to be allowed, by namespace: everybody may chat, and see the dashboard.
pub fn namespaces() -> [(&'static str, Namespace); 2] {
    let chat = Namespace {
        subscribe: true,
        publish: true,
        history: true,
        presence: true,
        history_count: 200,
        history_age: CHAT_AGE,
        ..Namespace::default()
    };
    let dashboard = Namespace { kind: Kind::State, subscribe: true, ..Namespace::default() };
    [("chat", chat), ("dashboard", dashboard)]
}
