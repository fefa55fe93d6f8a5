//! The demo: an arena game, authoritative on the server at 30 ticks per second, in which every open page is a player.
//!
//! It is an application like any other: it knows [`Session`](crate::Session), and no transport.
//! - [`Arena`] runs the game and is the handler of its sessions.
//! - [`assets()`] serves the page and the browser client, [`client()`] the latter alone.
//!
//! From the inside out: `world` (with `ship`, `motes`, `bots`, `grid`, `rng`) is the game, pure and seedable; `wire` and
//! `messages` are what travels; `interest` chooses what one player sees; `stage` serves all players in one loop;
//! `arena` gives it a task and sessions. `ledger` (with `tally`) and `upload` are there to show that a session outlives its links: it counts
//! reliable messages, and hashes what a page uploads.

mod arena;
mod assets;
mod bots;
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

pub use arena::Arena;
pub use assets::{assets, client};
