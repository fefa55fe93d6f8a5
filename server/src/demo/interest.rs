//! Interest: of all that is in the arena, what one player gets to see in one tick.

use super::motes::Mote;
use super::ship::{DASH_COOLDOWN_TICKS, Pilot, Ship};
use super::wire::{self, Header, MoteRecord, STATE_SHIPS_MAX, ShipRecord};
use super::world::{ShipId, World};

/// How far a player sees, units: the corner of any page's view, at whose scale the area shown is the same
/// (see `camera.ts`), and a little more, for what comes into view meanwhile.
const SIGHT: f32 = 960.0;

/// Buffers that live as long as the loop, so that a tick allocates nothing here.
#[derive(Debug, Default)]
pub(super) struct Observer {
    ships: Vec<(f32, ShipId)>,
    motes: Vec<(f32, u16, Mote)>,
}

impl Observer {
    /// Writes what the player of ship `own_id` sees into `out`. False, and nothing written, when there is no such ship.
    pub(super) fn observe(&mut self, world: &World, own_id: ShipId, time_us: u64, out: &mut Vec<u8>) -> bool {
        let Some(own) = world.ship(own_id) else {
            return false;
        };
        self.look_for_ships(world, own_id, own);
        self.look_for_motes(world, own);
        let header = Header {
            tick: world.tick(),
            time_us,
            input_sequence: own.input_sequence(),
            own_id,
            score: own.score(),
            rank: world.rank(own_id),
            dash: 255 - (own.cooldown_ticks * 255 / DASH_COOLDOWN_TICKS).min(255) as u8,
        };
        let ships = self.ships.iter().filter_map(|&(_, id)| world.ship(id).map(|ship| record(id, ship, world.tick())));
        let motes =
            self.motes.iter().map(|&(_, id, mote)| MoteRecord { id, x: mote.x, y: mote.y, large: mote.is_large() });
        wire::encode_state(&header, ships, motes, out);
        true
    }

    fn look_for_ships(&mut self, world: &World, own_id: ShipId, own: &Ship) {
        self.ships.clear();
        // A ship that has joined since the last step is not in the grid yet; its own player sees it all the same.
        self.ships.push((-1.0, own_id));
        for (id, ship) in world.ships_near(own.x, own.y, SIGHT) {
            let distance = squared(ship.x - own.x, ship.y - own.y);
            if id != own_id && distance < SIGHT * SIGHT {
                self.ships.push((distance, id));
            }
        }
        self.ships.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    }

    fn look_for_motes(&mut self, world: &World, own: &Ship) {
        self.motes.clear();
        for (id, mote) in world.motes().near(own.x, own.y, SIGHT) {
            let distance = squared(mote.x - own.x, mote.y - own.y);
            if distance < SIGHT * SIGHT {
                self.motes.push((distance, id, mote));
            }
        }
        // Only which ones are the nearest matters, not their order: selecting is cheaper than sorting.
        let room = wire::mote_room(self.ships.len().min(STATE_SHIPS_MAX));
        if self.motes.len() > room {
            self.motes.select_nth_unstable_by(room, |a, b| a.0.total_cmp(&b.0));
            self.motes.truncate(room);
        }
    }
}

fn record(id: ShipId, ship: &Ship, tick: u32) -> ShipRecord {
    let mut flags = 0;
    for (is_set, flag) in [
        (ship.pilot == Pilot::Human, wire::FLAG_HUMAN),
        (ship.is_dashing(), wire::FLAG_DASHING),
        (ship.is_stunned(), wire::FLAG_STUNNED),
        (ship.is_shielded(), wire::FLAG_SHIELDED),
        (ship.helm.thrust > 0.05, wire::FLAG_THRUSTING),
        (ship.is_automatic(tick), wire::FLAG_AUTOMATIC),
    ] {
        if is_set {
            flags |= flag;
        }
    }
    ShipRecord { id, x: ship.x, y: ship.y, heading: ship.heading, radius: ship.radius(), flags }
}

fn squared(dx: f32, dy: f32) -> f32 {
    dx * dx + dy * dy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::wire::STATE_MAX;
    use crate::demo::world::Setup;

    #[test]
    fn a_player_sees_himself_first_then_the_nearest_within_the_budget() {
        let mut world = World::new(Setup::default());
        let id = world.join().expect("a seat");
        let mut observer = Observer::default();
        let mut out = Vec::new();
        assert!(observer.observe(&world, id, 1, &mut out), "even before the first step");
        for _ in 0..90 {
            world.step();
            assert!(observer.observe(&world, id, 1, &mut out));
            assert!(out.len() <= STATE_MAX);
            assert_eq!(u16::from_le_bytes([out[25], out[26]]), id);
            let ships = &observer.ships;
            assert!(ships.is_sorted_by(|a, b| a.0 <= b.0));
            assert!(ships.len() > 5 && observer.motes.len() > 20, "{} ships", ships.len());
        }
        assert!(world.leave(id));
        assert!(!observer.observe(&world, id, 1, &mut out));
    }

    #[test]
    fn a_crowd_leaves_room_for_motes() {
        let mut world = World::new(Setup { seed: 1, bots: 2_000, players_max: 1 });
        let id = world.join().expect("a seat");
        world.step();
        let (mut observer, mut out) = (Observer::default(), Vec::new());
        assert!(observer.observe(&world, id, 1, &mut out));
        assert!(out.len() <= STATE_MAX);
        assert_eq!(usize::from(out[23]), STATE_SHIPS_MAX);
        assert!(out[24] > 30);
    }
}
