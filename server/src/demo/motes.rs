//! Motes of energy: they appear, are drawn to a ship that comes near, and are collected.

use std::collections::VecDeque;

use super::grid::Grid;
use super::rng::Rng;
use super::ship::{DT, RADIUS_MAX, Ship};
use super::world::WORLD_SIZE;

/// Motes that may lie in the arena at once; an id must fit the wire's 12 bits.
const CAPACITY: u16 = 1_800;
/// New ones appear until there are this many; the room above is for what hits knock out.
const TARGET: usize = 1_100;
/// New motes per tick at most, so that a feast is not undone at once.
const SPAWN_PER_TICK: usize = 12;
/// One in this many is large.
const LARGE_ONE_IN: u64 = 12;
const SMALL_VALUE: f32 = 1.0;
const LARGE_VALUE: f32 = 6.0;
/// From this far beyond its hull a ship draws motes in, units.
const PULL_REACH: f32 = 46.0;
/// How fast a drawn mote comes, units/s: faster than any ship glides, or it would trail behind.
const PULL_SPEED: f32 = 560.0;
/// Share of a dropped mote's speed lost per second.
const DRAG: f32 = 3.2;
/// Places where motes gather, so that ships meet.
const SPRINGS: usize = 6;
/// Each spring moves elsewhere after about this many of its motes.
const SPRING_LIFE: u32 = 260;
const SPRING_SPREAD: f32 = 330.0;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mote {
    pub(super) x: f32,
    pub(super) y: f32,
    vx: f32,
    vy: f32,
    /// 0: nothing lies here.
    value: f32,
}

impl Mote {
    pub(super) fn is_large(self) -> bool {
        self.value >= LARGE_VALUE * 0.5
    }
}

#[derive(Debug)]
pub(super) struct Motes {
    all: Vec<Mote>,
    /// First in, first out: an id rests before it is used again, so that a page never mistakes one mote for another.
    free: VecDeque<u16>,
    grid: Grid,
    springs: [(f32, f32, u32); SPRINGS],
}

impl Motes {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let mut motes = Self {
            all: vec![Mote::default(); usize::from(CAPACITY)],
            free: (0..CAPACITY).collect(),
            grid: Grid::new(WORLD_SIZE, 120.0),
            springs: [(0.0, 0.0, 0); SPRINGS],
        };
        for spring in &mut motes.springs {
            *spring = new_spring(rng);
        }
        while motes.count() < TARGET {
            motes.appear(rng);
        }
        motes.index();
        motes
    }

    /// One tick: moves what moves, feeds the ships, and lets new motes appear.
    pub(super) fn step(&mut self, ships: &mut [Ship], rng: &mut Rng) {
        for mote in &mut self.all {
            if mote.value > 0.0 && (mote.vx != 0.0 || mote.vy != 0.0) {
                mote.drift();
            }
        }
        self.index();
        for ship in ships.iter_mut().filter(|ship| ship.alive && !ship.is_stunned()) {
            self.feed(ship);
        }
        for _ in 0..SPAWN_PER_TICK {
            if self.count() < TARGET {
                self.appear(rng);
            }
        }
    }

    /// Drops a mote worth at most `value`, and answers what it is worth: 0 when the arena is full.
    pub(super) fn drop_at(&mut self, x: f32, y: f32, vx: f32, vy: f32, value: f32) -> f32 {
        let value = if value >= LARGE_VALUE { LARGE_VALUE } else { SMALL_VALUE };
        match self.free.pop_front() {
            Some(id) => {
                self.all[usize::from(id)] = Mote { x, y, vx, vy, value };
                value
            }
            None => 0.0,
        }
    }

    /// Motes near a point; a few lie farther than `radius`.
    pub(super) fn near(&self, x: f32, y: f32, radius: f32) -> impl Iterator<Item = (u16, Mote)> + '_ {
        self.grid.near(x, y, radius).map(|id| (id, self.all[usize::from(id)])).filter(|(_, mote)| mote.value > 0.0)
    }

    pub(super) fn count(&self) -> usize {
        self.all.len() - self.free.len()
    }

    fn feed(&mut self, ship: &mut Ship) {
        let (radius, reach) = (ship.radius(), ship.radius() + PULL_REACH);
        for id in self.grid.near(ship.x, ship.y, RADIUS_MAX + PULL_REACH) {
            let mote = &mut self.all[usize::from(id)];
            if mote.value == 0.0 {
                continue;
            }
            let (dx, dy) = (ship.x - mote.x, ship.y - mote.y);
            let distance = dx.hypot(dy);
            if distance < radius {
                ship.gain(mote.value);
                mote.value = 0.0;
                self.free.push_back(id);
            } else if distance < reach {
                let step = (PULL_SPEED * DT / distance).min(1.0);
                mote.x += dx * step;
                mote.y += dy * step;
            }
        }
    }

    fn appear(&mut self, rng: &mut Rng) {
        let Some(id) = self.free.pop_front() else { return };
        let margin = 30.0;
        let (x, y) = if rng.unit() < 0.45 {
            let spring = &mut self.springs[rng.next_u64() as usize % SPRINGS];
            let angle = rng.between(-3.15, 3.15);
            let distance = rng.unit() * SPRING_SPREAD;
            let place = (spring.0 + angle.cos() * distance, spring.1 + angle.sin() * distance);
            spring.2 -= 1;
            if spring.2 == 0 {
                *spring = new_spring(rng);
            }
            place
        } else {
            (rng.between(0.0, WORLD_SIZE), rng.between(0.0, WORLD_SIZE))
        };
        let large = rng.next_u64().is_multiple_of(LARGE_ONE_IN);
        self.all[usize::from(id)] = Mote {
            x: x.clamp(margin, WORLD_SIZE - margin),
            y: y.clamp(margin, WORLD_SIZE - margin),
            vx: 0.0,
            vy: 0.0,
            value: if large { LARGE_VALUE } else { SMALL_VALUE },
        };
    }

    fn index(&mut self) {
        let all = &self.all;
        self.grid.rebuild((0..).zip(all).filter(|(_, mote)| mote.value > 0.0).map(|(id, mote)| (id, mote.x, mote.y)));
    }
}

impl Mote {
    fn drift(&mut self) {
        self.x = (self.x + self.vx * DT).clamp(0.0, WORLD_SIZE);
        self.y = (self.y + self.vy * DT).clamp(0.0, WORLD_SIZE);
        self.vx -= self.vx * DRAG * DT;
        self.vy -= self.vy * DRAG * DT;
        if self.vx.abs() + self.vy.abs() < 4.0 {
            (self.vx, self.vy) = (0.0, 0.0);
        }
    }
}

fn new_spring(rng: &mut Rng) -> (f32, f32, u32) {
    let margin = SPRING_SPREAD;
    (
        rng.between(margin, WORLD_SIZE - margin),
        rng.between(margin, WORLD_SIZE - margin),
        SPRING_LIFE / 2 + rng.next_u64() as u32 % SPRING_LIFE,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::ship::Pilot;

    #[test]
    fn a_ship_draws_in_and_collects_what_is_near() {
        let mut rng = Rng::new(3);
        let mut motes = Motes::new(&mut rng);
        let mut ships = [Ship::new(Pilot::Bot, 2_400.0, 2_400.0, 0.0)];
        let before = ships[0].energy;
        let value = motes.drop_at(2_400.0 + ships[0].radius() + 30.0, 2_400.0, 0.0, 0.0, 9.0);
        for _ in 0..10 {
            motes.step(&mut ships, &mut rng);
        }
        assert!(ships[0].energy >= before + value);
    }

    #[test]
    fn the_number_of_motes_is_bounded_and_comes_back() {
        let mut rng = Rng::new(3);
        let mut motes = Motes::new(&mut rng);
        let mut dropped = 0;
        while motes.drop_at(10.0, 10.0, 900.0, -900.0, 1.0) > 0.0 {
            dropped += 1;
        }
        assert_eq!(motes.count(), usize::from(CAPACITY));
        assert_eq!(dropped, usize::from(CAPACITY) - TARGET);
        let mut ships = [Ship::new(Pilot::Bot, 60.0, 60.0, 0.0)];
        for _ in 0..100 {
            motes.step(&mut ships, &mut rng);
            assert!(motes.near(0.0, 0.0, WORLD_SIZE).count() <= usize::from(CAPACITY));
        }
        assert!(motes.count() >= TARGET);
    }
}
