//! The arena: ships that glide, collect motes of energy, and knock it out of each other. Pure and seedable:
//! no clock, no IO, no randomness but its own seed. One call of [`World::step`] is one tick.

use std::collections::VecDeque;

use super::bots::{self, Mind};
use super::grid::Grid;
use super::motes::Motes;
use super::rng::Rng;
use super::ship::{DASH_SPEED, Pilot, RADIUS_MAX, Ship};
use super::wire::Input;

/// Ticks per second.
pub(super) const TICK_RATE: u32 = 30;
/// Edge of the square arena, units. With 300 bots about 20 ships are on a desktop's screen.
pub(super) const WORLD_SIZE: f32 = 4_800.0;
/// A hit scatters what it knocks out in at most this many motes, and the attacker keeps the rest: it bounds the work of a hit.
const SCATTER_MAX: usize = 8;
/// The attacker's share of what a hit knocks out. The rest lies on the ground for whoever is quick.
const ATTACKER_SHARE: f32 = 0.4;
/// Ranks are counted anew this often: half a second is as good as at once to a reader.
const RANK_EVERY_TICKS: u32 = TICK_RATE / 2;

/// How large the game is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) seed: u64,
    /// Ships that the machine flies.
    pub(super) bots: u16,
    /// People at once.
    pub(super) players_max: u16,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 0x7472_6f75_6768,
            bots: 300,
            // 256 × 30 × 1,100 B are 8.4 MB/s of states: what one core and an ordinary uplink still carry.
            players_max: 256,
        }
    }
}

/// A ship's number: stable from join to leave, and not given away again at once.
pub(super) type ShipId = u16;

#[derive(Debug)]
pub(super) struct World {
    tick: u32,
    rng: Rng,
    ships: Vec<Ship>,
    minds: Vec<Mind>,
    /// Seats for people, first in, first out, so that an id rests before somebody else gets it.
    seats: VecDeque<ShipId>,
    motes: Motes,
    ship_grid: Grid,
    ranks: Vec<u16>,
    order: Vec<ShipId>,
}

impl World {
    pub(super) fn new(setup: Setup) -> Self {
        let mut rng = Rng::new(setup.seed);
        let count = setup.bots + setup.players_max;
        let mut ships = Vec::with_capacity(usize::from(count));
        for id in 0..count {
            let mut ship = spawn(Pilot::Bot, &mut rng);
            // An arena that has been going on for a while looks better than one where all are equal.
            ship.energy += rng.unit() * rng.unit() * 160.0;
            ship.alive = id < setup.bots;
            ships.push(ship);
        }
        let minds = (0..count).map(|_| Mind::new(&mut rng)).collect();
        let motes = Motes::new(&mut rng);
        let mut world = Self {
            tick: 0,
            rng,
            minds,
            seats: (setup.bots..count).collect(),
            motes,
            // A cell that holds the two largest ships: whoever touches is in a neighbouring cell.
            ship_grid: Grid::new(WORLD_SIZE, 2.0 * RADIUS_MAX),
            ranks: vec![0; usize::from(count)],
            order: Vec::with_capacity(usize::from(count)),
            ships,
        };
        world.index();
        world.count_ranks();
        world
    }

    /// Puts a person's ship into the arena, or answers None when every seat is taken.
    pub(super) fn join(&mut self) -> Option<ShipId> {
        let id = self.seats.pop_front()?;
        self.ships[usize::from(id)] = spawn(Pilot::Human, &mut self.rng);
        // Last, until the next count.
        self.ranks[usize::from(id)] = self.ships().count() as u16;
        Some(id)
    }

    /// Takes a person's ship out. False, and nothing else, when there is none of that id.
    pub(super) fn leave(&mut self, id: ShipId) -> bool {
        match self.ships.get_mut(usize::from(id)) {
            Some(ship) if ship.alive && ship.pilot == Pilot::Human => {
                ship.alive = false;
                self.seats.push_back(id);
                true
            }
            _ => false,
        }
    }

    /// Takes an input. False when it is old, or the ship is not a person's.
    pub(super) fn steer(&mut self, id: ShipId, input: Input) -> bool {
        match self.ships.get_mut(usize::from(id)) {
            Some(ship) if ship.alive && ship.pilot == Pilot::Human => ship.steer(input, self.tick),
            _ => false,
        }
    }

    /// One tick: 1/30 s of the game's own time, whatever the clock says.
    pub(super) fn step(&mut self) {
        self.tick = self.tick.wrapping_add(1);
        self.think();
        for ship in self.ships.iter_mut().filter(|ship| ship.alive) {
            ship.advance(self.tick);
        }
        self.index();
        self.collide();
        self.motes.step(&mut self.ships, &mut self.rng);
        if self.tick.is_multiple_of(RANK_EVERY_TICKS) {
            self.count_ranks();
        }
    }

    pub(super) fn tick(&self) -> u32 {
        self.tick
    }

    /// The ship of a living id.
    pub(super) fn ship(&self, id: ShipId) -> Option<&Ship> {
        self.ships.get(usize::from(id)).filter(|ship| ship.alive)
    }

    /// All living ships, by id.
    pub(super) fn ships(&self) -> impl Iterator<Item = (ShipId, &Ship)> {
        (0..).zip(&self.ships).filter(|(_, ship)| ship.alive)
    }

    /// Living ships near a point; a few lie farther than `radius`.
    pub(super) fn ships_near(&self, x: f32, y: f32, radius: f32) -> impl Iterator<Item = (ShipId, &Ship)> {
        self.ship_grid.near(x, y, radius).filter_map(|id| self.ship(id).map(|ship| (id, ship)))
    }

    pub(super) fn motes(&self) -> &Motes {
        &self.motes
    }

    /// Place in the order of scores, from 1, as of the last count.
    pub(super) fn rank(&self, id: ShipId) -> u16 {
        self.ranks.get(usize::from(id)).copied().unwrap_or(0)
    }

    /// Living ships by score, the best first, as of the last count.
    pub(super) fn standing(&self) -> impl Iterator<Item = (ShipId, &Ship)> {
        self.order.iter().filter_map(|&id| self.ship(id).map(|ship| (id, ship)))
    }

    fn think(&mut self) {
        for id in 0..self.ships.len() {
            let ship = &self.ships[id];
            if ship.alive && ship.is_automatic(self.tick) {
                let surroundings = bots::Surroundings {
                    id: id as ShipId,
                    tick: self.tick,
                    ships: &self.ships,
                    grid: &self.ship_grid,
                    motes: &self.motes,
                };
                let helm = self.minds[id].steer(&surroundings, &mut self.rng);
                self.ships[id].helm = helm;
            }
        }
    }

    fn index(&mut self) {
        let ships = &self.ships;
        self.ship_grid.rebuild((0..).zip(ships).filter(|(_, ship)| ship.alive).map(|(id, ship)| (id, ship.x, ship.y)));
    }

    fn collide(&mut self) {
        for a in 0..self.ships.len() {
            let ship = &self.ships[a];
            if !ship.alive {
                continue;
            }
            // The grid is that of this tick before any push, so nobody is missed; the pair is met once, from its lower id.
            for b in self.ship_grid.near(ship.x, ship.y, ship.radius() + RADIUS_MAX) {
                let b = usize::from(b);
                if b > a {
                    let (low, high) = self.ships.split_at_mut(b);
                    touch(&mut low[a], &mut high[0], &mut self.motes, &mut self.rng);
                }
            }
        }
    }

    fn count_ranks(&mut self) {
        self.order.clear();
        let alive = (0..).zip(&self.ships).filter(|(_, ship)| ship.alive);
        self.order.extend(alive.map(|(id, _): (ShipId, _)| id));
        let ships = &self.ships;
        self.order.sort_unstable_by_key(|&id| (std::cmp::Reverse(ships[usize::from(id)].score()), id));
        for (rank, &id) in (1..).zip(&self.order) {
            self.ranks[usize::from(id)] = rank;
        }
    }
}

fn spawn(pilot: Pilot, rng: &mut Rng) -> Ship {
    let margin = WORLD_SIZE * 0.06;
    let (x, y) = (rng.between(margin, WORLD_SIZE - margin), rng.between(margin, WORLD_SIZE - margin));
    Ship::new(pilot, x, y, rng.between(-3.1, 3.1))
}

/// Two ships that overlap push each other apart; one that dashes knocks energy out of one that does not.
fn touch(a: &mut Ship, b: &mut Ship, motes: &mut Motes, rng: &mut Rng) {
    let (dx, dy) = (b.x - a.x, b.y - a.y);
    let reach = a.radius() + b.radius();
    let distance_squared = dx * dx + dy * dy;
    if distance_squared >= reach * reach {
        return;
    }
    let distance = distance_squared.sqrt();
    // Two ships on the very same spot part along any line.
    let (nx, ny) = if distance > 0.01 { (dx / distance, dy / distance) } else { (1.0, 0.0) };
    if a.is_dashing() && !b.is_dashing() && !b.is_shielded() {
        ram(a, b, nx, ny, motes, rng);
    } else if b.is_dashing() && !a.is_dashing() && !a.is_shielded() {
        ram(b, a, -nx, -ny, motes, rng);
    }
    let (mass_a, mass_b) = (a.radius().powi(2), b.radius().powi(2));
    let share_a = mass_b / (mass_a + mass_b);
    let overlap = reach - distance;
    a.x -= nx * overlap * share_a;
    a.y -= ny * overlap * share_a;
    b.x += nx * overlap * (1.0 - share_a);
    b.y += ny * overlap * (1.0 - share_a);
    let closing = (a.vx - b.vx) * nx + (a.vy - b.vy) * ny;
    if closing > 0.0 {
        let impulse = closing * 1.4;
        a.vx -= nx * impulse * share_a;
        a.vy -= ny * impulse * share_a;
        b.vx += nx * impulse * (1.0 - share_a);
        b.vy += ny * impulse * (1.0 - share_a);
    }
}

fn ram(attacker: &mut Ship, victim: &mut Ship, nx: f32, ny: f32, motes: &mut Motes, rng: &mut Rng) {
    let lost = victim.hit(nx, ny);
    attacker.gain(lost * ATTACKER_SHARE);
    let mut rest = lost * (1.0 - ATTACKER_SHARE);
    for _ in 0..SCATTER_MAX {
        if rest < 1.0 {
            break;
        }
        let angle = rng.between(-3.15, 3.15);
        let speed = rng.between(0.15, 0.5) * DASH_SPEED;
        rest -= motes.drop_at(victim.x, victim.y, angle.cos() * speed, angle.sin() * speed, rest);
    }
    attacker.gain(rest.max(0.0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::ship::Helm;

    fn small(bots: u16, players_max: u16) -> World {
        World::new(Setup { seed: 5, bots, players_max })
    }

    #[test]
    fn the_same_seed_and_inputs_play_the_same_game() {
        let play = |seed| {
            let mut world = World::new(Setup { seed, ..Setup::default() });
            let id = world.join().expect("a free seat");
            for sequence in 0..300 {
                world.steer(id, Input { sequence, angle: sequence as u8, thrust: 255, dash: sequence % 40 == 0 });
                world.step();
            }
            world
                .ships()
                .map(|(id, ship)| (id, ship.x.to_bits(), ship.y.to_bits(), ship.energy.to_bits()))
                .collect::<Vec<_>>()
        };
        assert_eq!(play(1), play(1));
        assert_ne!(play(1), play(2));
    }

    #[test]
    fn everybody_stays_inside_at_a_bounded_speed_for_two_minutes() {
        let mut world = World::new(Setup::default());
        let mut hits = 0;
        for _ in 0..120 * TICK_RATE {
            world.step();
            for (id, ship) in world.ships() {
                assert!(ship.x.is_finite() && ship.y.is_finite(), "ship {id}");
                let slack = 2.0 * RADIUS_MAX;
                assert!(ship.x > -slack && ship.x < WORLD_SIZE + slack, "ship {id} at {}", ship.x);
                assert!(ship.y > -slack && ship.y < WORLD_SIZE + slack, "ship {id} at {}", ship.y);
                hits += u32::from(ship.is_stunned());
            }
        }
        assert_eq!(world.ships().count(), 300);
        let best = world.standing().next().expect("somebody leads").1.energy;
        assert!(best > 100.0, "the autopilot collects: the best has {best}");
        assert!(hits > 1_000, "the autopilot fights: {hits} stunned ticks");
    }

    #[test]
    fn seats_are_bounded_and_come_back_late() {
        let mut world = small(2, 3);
        let ids: Vec<_> = std::iter::from_fn(|| world.join()).collect();
        assert_eq!(ids, [2, 3, 4]);
        assert!(world.leave(3));
        assert!(!world.leave(3), "gone already");
        assert!(!world.leave(0), "a bot does not leave");
        assert!(!world.leave(999), "nobody");
        assert!(world.ship(3).is_none());
        assert_eq!(world.join(), Some(3));
        assert_eq!(world.join(), None);
    }

    #[test]
    fn only_a_living_persons_ship_takes_inputs() {
        let mut world = small(1, 1);
        let input = Input { sequence: 1, angle: 0, thrust: 255, dash: false };
        assert!(!world.steer(0, input), "a bot");
        assert!(!world.steer(1, input), "an empty seat");
        assert!(!world.steer(u16::MAX, input), "no such ship");
        let id = world.join().expect("a seat");
        assert!(world.steer(id, input));
        assert!(!world.steer(id, input), "a repeat");
        world.leave(id);
        assert!(!world.steer(id, input));
        let id = world.join().expect("the seat again");
        assert!(world.steer(id, input), "the next person starts his own numbers");
    }

    #[test]
    fn a_dash_hurts_once_and_a_shield_protects() {
        let mut world = small(2, 0);
        for (index, x) in [(0, 1_000.0), (1, 1_060.0)] {
            world.ships[index] = Ship::new(Pilot::Bot, x, 1_000.0, 0.0);
            world.ships[index].energy = 100.0;
        }
        let [a, b] = &mut world.ships[..] else { panic!("two ships") };
        a.dash_ticks = 5;
        touch(a, b, &mut world.motes, &mut world.rng);
        assert!(!b.is_stunned(), "a newcomer is shielded");
        for tick in 0..3 * TICK_RATE {
            b.helm = Helm::default();
            b.advance(tick);
        }
        (a.x, a.y, b.x, b.y) = (1_000.0, 1_000.0, 1_030.0, 1_000.0);
        a.dash_ticks = 5;
        let before = a.energy;
        touch(a, b, &mut world.motes, &mut world.rng);
        assert!(b.is_stunned());
        assert!(a.energy > before);
        let energy = b.energy;
        (a.x, a.y, b.x, b.y) = (1_000.0, 1_000.0, 1_030.0, 1_000.0);
        a.dash_ticks = 5;
        touch(a, b, &mut world.motes, &mut world.rng);
        assert_eq!(b.energy, energy, "shielded after a hit");
    }

    #[test]
    fn ranks_follow_the_scores() {
        let mut world = small(20, 0);
        for _ in 0..RANK_EVERY_TICKS {
            world.step();
        }
        let scores: Vec<_> = world.standing().map(|(_, ship)| ship.score()).collect();
        assert_eq!(scores.len(), 20);
        assert!(scores.is_sorted_by(|a, b| a >= b));
        let first = world.standing().next().expect("a leader").0;
        assert_eq!(world.rank(first), 1);
    }
}
