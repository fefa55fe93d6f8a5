//! The autopilot: it looks for motes, hunts the richer, and otherwise wanders. Cheap, a little stupid, never still.

use super::grid::Grid;
use super::motes::Motes;
use super::rng::Rng;
use super::ship::{Helm, Ship, wrap_angle};
use super::world::{ShipId, TICK_RATE, WORLD_SIZE};

/// A mind decides anew this often, not at every tick: a fifth of the cost, and it looks less like a machine.
const THINK_EVERY_TICKS: u32 = TICK_RATE / 5;
const MOTE_SIGHT: f32 = 240.0;
const RIVAL_SIGHT: f32 = 300.0;
/// A hunter dashes from within this distance of the hulls, units.
const DASH_REACH: f32 = 135.0;
/// Turns away from a wall this near.
const WALL_MARGIN: f32 = 130.0;

/// What one pilot has in mind.
#[derive(Debug, Clone)]
pub(super) struct Mind {
    /// 0 to 1: how readily it hunts.
    temper: f32,
    course: f32,
    thrust: f32,
    prey: Option<ShipId>,
}

/// What a mind can see.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) id: ShipId,
    pub(super) tick: u32,
    pub(super) ships: &'a [Ship],
    /// As of the last tick; good enough to look at.
    pub(super) grid: &'a Grid,
    pub(super) motes: &'a Motes,
}

impl Mind {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self { temper: rng.unit(), course: rng.between(-3.1, 3.1), thrust: 0.8, prey: None }
    }

    /// Where to go at this tick.
    pub(super) fn steer(&mut self, seen: &Surroundings<'_>, rng: &mut Rng) -> Helm {
        let own = &seen.ships[usize::from(seen.id)];
        // Spread over the ticks by id, so that no tick does all the thinking.
        if (seen.tick + u32::from(seen.id)).is_multiple_of(THINK_EVERY_TICKS) {
            self.think(own, seen, rng);
        }
        let mut dash = false;
        if let Some(prey) = self.prey.map(|id| &seen.ships[usize::from(id)])
            && is_prey(own, prey)
        {
            let (dx, dy) = (prey.x + prey.vx * 0.15 - own.x, prey.y + prey.vy * 0.15 - own.y);
            self.course = dy.atan2(dx);
            let aligned = wrap_angle(self.course - own.heading).abs() < 0.3;
            dash = aligned && dx.hypot(dy) < DASH_REACH + own.radius() + prey.radius();
        }
        Helm { angle: self.course, thrust: self.thrust, dash }
    }

    fn think(&mut self, own: &Ship, seen: &Surroundings<'_>, rng: &mut Rng) {
        self.prey = None;
        self.thrust = 0.75;
        if own.cooldown_ticks == 0 && rng.unit() < 0.02 + 0.16 * self.temper {
            self.prey = nearest(own, seen);
        }
        if self.prey.is_some() {
            self.thrust = 1.0;
            return;
        }
        if let Some((x, y)) = best_mote(own, seen.motes) {
            self.course = (y - own.y).atan2(x - own.x);
            return;
        }
        self.course += rng.between(-0.5, 0.5);
        let wall = |at: f32| !(WALL_MARGIN..=WORLD_SIZE - WALL_MARGIN).contains(&at);
        if wall(own.x) || wall(own.y) {
            let to_centre = (WORLD_SIZE / 2.0 - own.y).atan2(WORLD_SIZE / 2.0 - own.x);
            self.course = to_centre + rng.between(-0.8, 0.8);
        }
    }
}

/// Worth a dash: has something to lose, and can be hit.
fn is_prey(own: &Ship, other: &Ship) -> bool {
    other.alive && !other.is_shielded() && other.energy > 24.0 && other.energy > own.energy * 0.4
}

fn nearest(own: &Ship, seen: &Surroundings<'_>) -> Option<ShipId> {
    let mut best = None;
    let mut best_distance = RIVAL_SIGHT;
    for id in seen.grid.near(own.x, own.y, RIVAL_SIGHT) {
        let other = &seen.ships[usize::from(id)];
        let distance = (other.x - own.x).hypot(other.y - own.y);
        if id != seen.id && distance < best_distance && is_prey(own, other) {
            best = Some(id);
            best_distance = distance;
        }
    }
    best
}

/// The mote that is soonest reached: near, ahead, and rather large.
fn best_mote(own: &Ship, motes: &Motes) -> Option<(f32, f32)> {
    let mut best = None;
    let mut best_cost = f32::MAX;
    for (_, mote) in motes.near(own.x, own.y, MOTE_SIGHT) {
        let (dx, dy) = (mote.x - own.x, mote.y - own.y);
        let turn = wrap_angle(dy.atan2(dx) - own.heading).abs();
        let cost = (dx.hypot(dy) + 60.0 * turn) * if mote.is_large() { 0.4 } else { 1.0 };
        if cost < best_cost {
            best = Some((mote.x, mote.y));
            best_cost = cost;
        }
    }
    best
}
