//! The game as its players meet it: who sits where, what each one asked for, and who is told what, tick by tick.
//!
//! One call of [`Stage::tick`] serves everybody, and never waits: sessions only fill their mailbox, and whatever cannot
//! be sent at once is handled here, so that a slow player holds up nobody.
//! - States and maps are datagrams: the newest wins, there is nothing to wait for.
//! - The leaderboard is dropped for a player whose buffer is full, or who has no link now: the next comes in a second.
//! - Who came, left, and has another name, waits for room, [`WAITING_MAX`] notices at most. Beyond that they are forgotten,
//!   and the player gets a new welcome, which says everything again, as soon as there is room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::dashboard::Census;
use super::interest::Observer;
use super::messages::{Leader, Notice, SayError, bot_name, error_text};
use super::ship::Pilot;
use super::wire::{self, Input, KEY_MAP, KEY_STATE};
use super::world::{Setup, ShipId, TICK_RATE, WORLD_SIZE, World};
use crate::{Message, Transport};

/// Notices that wait for a slow player. With at most 2 KB each they are a bounded 64 KB.
const WAITING_MAX: usize = 32;
/// Names in a welcome; beyond them the page shows numbers. It keeps the welcome below 16 KB.
const ROSTER_MAX: usize = 100;
const LEADERS: usize = 10;
/// New names that one player may have waiting for the next tick.
const NAMES_MAX: usize = 8;
/// New names: a few at once, then one every 1.5 s. Everybody has to read them.
const NAME_BURST: u32 = 4;
const NAME_EVERY_TICKS: u32 = TICK_RATE * 3 / 2;
const LEADERBOARD_EVERY_TICKS: u32 = TICK_RATE;
const MAP_EVERY_TICKS: u32 = TICK_RATE / 2;

/// What the stage needs of a session.
pub(super) trait Audience: Send + Sync + 'static {
    /// Sends a reliable message now or not at all.
    fn tell(&self, message: Message) -> Result<(), Refusal>;
    /// Sends a datagram; a newer one of the same key replaces it.
    fn show(&self, datagram: Bytes, key: u64);
    /// What carries the session now.
    fn transport(&self) -> Option<Transport>;
    /// Whether nothing does: what grows old is not worth keeping for it.
    fn is_away(&self) -> bool {
        self.transport().is_none()
    }
    /// Ends the session, because there is no seat.
    fn turn_away(&self);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No room now.
    Full,
    /// Never again.
    Gone,
}

/// A player's place: his session on one side, the loop on the other.
#[derive(Debug)]
pub(super) struct Seat<A> {
    audience: A,
    mailbox: Mutex<Mailbox>,
    left: AtomicBool,
}

#[derive(Debug, Default)]
struct Mailbox {
    input: Option<Input>,
    names: VecDeque<String>,
}

impl<A> Seat<A> {
    pub(super) fn new(audience: A) -> Self {
        Self { audience, mailbox: Mutex::default(), left: AtomicBool::new(false) }
    }

    /// Leaves an input for the next tick; of several, the newest counts, and a dash among them is not forgotten.
    pub(super) fn steer(&self, input: Input) {
        let waiting = &mut self.mailbox.lock().input;
        *waiting = Some(match *waiting {
            Some(older) if input.sequence.wrapping_sub(older.sequence) as i16 <= 0 => older,
            Some(older) => Input { dash: input.dash || older.dash, ..input },
            None => input,
        });
    }

    /// Leaves a new name for the next tick, if there are not too many already.
    pub(super) fn rename(&self, name: String) -> Result<(), SayError> {
        let names = &mut self.mailbox.lock().names;
        if names.len() >= NAMES_MAX {
            return Err(SayError::TooMany);
        }
        names.push_back(name);
        Ok(())
    }

    /// The player is gone; the next tick clears his place.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }
}

#[derive(Debug)]
struct Player<A> {
    seat: Arc<Seat<A>>,
    id: ShipId,
    name: String,
    waiting: VecDeque<Message>,
    /// Has to be told everything (again).
    welcome_due: bool,
    names_left: u32,
}

#[derive(Debug)]
pub(super) struct Stage<A> {
    world: World,
    players: Vec<Player<A>>,
    observer: Observer,
    buffer: Vec<u8>,
    states_sent: u64,
}

impl<A: Audience> Stage<A> {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            world: World::new(setup),
            players: Vec::new(),
            observer: Observer::default(),
            buffer: Vec::with_capacity(wire::STATE_MAX),
            states_sent: 0,
        }
    }

    /// Who plays, over what, and how many states were sent so far.
    pub(super) fn census(&self) -> Census {
        let mut census = Census { states_sent: self.states_sent, ..Census::default() };
        for player in &self.players {
            census.add(player.seat.audience.transport());
        }
        census
    }

    /// One tick for everybody. `arrivals` are taken in; `time_us` is the server's clock, microseconds since the Unix epoch.
    pub(super) fn tick(&mut self, arrivals: &mut Vec<Arc<Seat<A>>>, time_us: u64) {
        self.see_off();
        for seat in arrivals.drain(..) {
            self.seat(seat);
        }
        self.read_mailboxes();
        self.world.step();
        self.send_states(time_us);
        let tick = self.world.tick();
        if tick.is_multiple_of(MAP_EVERY_TICKS) {
            self.send_map();
        }
        if tick.is_multiple_of(LEADERBOARD_EVERY_TICKS) {
            self.send_leaderboard();
        }
        self.catch_up();
    }

    fn see_off(&mut self) {
        let gone = |player: &Player<A>| player.seat.left.load(Ordering::Acquire);
        for index in (0..self.players.len()).rev() {
            if gone(&self.players[index]) {
                let id = self.players.swap_remove(index).id;
                self.world.leave(id);
                self.announce(&Notice::Left { id });
            }
        }
    }

    fn seat(&mut self, seat: Arc<Seat<A>>) {
        let Some(id) = self.world.join() else {
            seat.audience.turn_away();
            return;
        };
        let name = format!("Guest {}", u32::from(id) % 1_000);
        self.announce(&Notice::Player { id, name: &name });
        self.players.push(Player {
            seat,
            id,
            name,
            waiting: VecDeque::new(),
            welcome_due: true,
            names_left: NAME_BURST,
        });
    }

    fn read_mailboxes(&mut self) {
        let refill = self.world.tick().is_multiple_of(NAME_EVERY_TICKS);
        for index in 0..self.players.len() {
            let player = &mut self.players[index];
            if refill {
                player.names_left = (player.names_left + 1).min(NAME_BURST);
            }
            let Mailbox { input, names } = std::mem::take(&mut *player.seat.mailbox.lock());
            if let Some(input) = input {
                self.world.steer(player.id, input);
            }
            for name in names {
                self.rename(index, name);
            }
        }
    }

    fn rename(&mut self, index: usize, name: String) {
        let player = &mut self.players[index];
        if name == player.name {
            return;
        }
        let Some(left) = player.names_left.checked_sub(1) else {
            // If there is no room for it, there is none for more of his messages either.
            let _ = player.seat.audience.tell(error_text(&SayError::TooMany).into());
            return;
        };
        player.names_left = left;
        player.name.clone_from(&name);
        let id = player.id;
        self.announce(&Notice::Player { id, name: &name });
    }

    fn send_states(&mut self, time_us: u64) {
        for player in &self.players {
            if self.observer.observe(&self.world, player.id, time_us, &mut self.buffer) {
                let state = Bytes::copy_from_slice(&self.buffer);
                player.seat.audience.show(state, KEY_STATE);
                self.states_sent += 1;
            }
        }
    }

    fn send_map(&mut self) {
        if self.players.is_empty() {
            return;
        }
        // People first: of an overfull arena the map leaves out bots.
        let on_map = |pilot| move |&(_, ship): &(ShipId, &super::ship::Ship)| ship.pilot == pilot;
        let people = self.world.ships().filter(on_map(Pilot::Human));
        let bots = self.world.ships().filter(on_map(Pilot::Bot));
        wire::encode_map(people.chain(bots).map(|(_, ship)| (ship.x, ship.y)), &mut self.buffer);
        let map = Bytes::copy_from_slice(&self.buffer);
        for player in &self.players {
            player.seat.audience.show(map.clone(), KEY_MAP);
        }
    }

    fn send_leaderboard(&mut self) {
        if self.players.is_empty() {
            return;
        }
        let leaders: Vec<_> = self.world.standing().take(LEADERS).collect();
        let names: Vec<String> = leaders.iter().map(|&(id, _)| self.name_of(id)).collect();
        let top = leaders
            .iter()
            .zip(&names)
            .map(|(&(id, ship), name)| Leader { id, name, score: ship.score(), bot: ship.pilot == Pilot::Bot })
            .collect();
        let text = Notice::Leaderboard { top, players: self.present(), bots: self.bots() }.to_text();
        let message = Message::from(text);
        for player in &self.players {
            // Whoever has something waiting, or no room, goes without until the next one.
            if player.waiting.is_empty() && !player.welcome_due && !player.seat.audience.is_away() {
                let _ = player.seat.audience.tell(message.clone());
            }
        }
    }

    /// Tells everybody, in order, now or later.
    fn announce(&mut self, notice: &Notice<'_>) {
        let message = Message::from(notice.to_text());
        for player in &mut self.players {
            // Whoever is due a welcome will read it there.
            if player.welcome_due {
                continue;
            }
            if player.waiting.len() == WAITING_MAX {
                player.waiting.clear();
                player.welcome_due = true;
            } else {
                player.waiting.push_back(message.clone());
            }
        }
    }

    /// Sends what waits, as far as there is room.
    fn catch_up(&mut self) {
        for index in 0..self.players.len() {
            if self.players[index].welcome_due {
                let welcome = self.welcome(&self.players[index]);
                let player = &mut self.players[index];
                if player.seat.audience.tell(welcome).is_err() {
                    continue;
                }
                player.welcome_due = false;
            }
            let Player { seat, waiting, .. } = &mut self.players[index];
            while let Some(message) = waiting.front() {
                if seat.audience.tell(message.clone()) == Err(Refusal::Full) {
                    break;
                }
                waiting.pop_front();
            }
        }
    }

    fn welcome(&self, player: &Player<A>) -> Message {
        let others = self.players.iter().take(ROSTER_MAX);
        Notice::Welcome {
            id: player.id,
            name: &player.name,
            world_size: WORLD_SIZE,
            tick_rate: TICK_RATE,
            players: others.map(|other| (other.id, other.name.as_str())).collect(),
            player_count: self.present(),
            bots: self.bots(),
        }
        .to_text()
        .into()
    }

    fn name_of(&self, id: ShipId) -> String {
        match self.players.iter().find(|player| player.id == id) {
            Some(player) => player.name.clone(),
            None => bot_name(id),
        }
    }

    /// Players with a link. Whoever has left without a word keeps his ship until his session ends, and is not counted.
    fn present(&self) -> usize {
        self.players.iter().filter(|player| !player.seat.audience.is_away()).count()
    }

    fn bots(&self) -> usize {
        self.world.ships().count() - self.players.len()
    }
}

#[cfg(test)]
mod tests;
