//! One ship: how it moves, dashes, grows and gets hurt. It knows nothing of the ships around it.

use std::f32::consts::{PI, TAU};

use super::wire::Input;
use super::world::{TICK_RATE, WORLD_SIZE};

/// Seconds per tick.
pub(super) const DT: f32 = 1.0 / TICK_RATE as f32;

/// Acceleration at full thrust, units/s². With `DRAG` it gives a small ship about 400 units/s: the arena's width in 12 s.
const THRUST: f32 = 820.0;
/// Share of the velocity lost per second. Low enough to glide, high enough to turn.
const DRAG: f32 = 2.0;
/// How fast the nose follows the helm, radians per second.
const TURN_RATE: f32 = 9.0;
/// Speed of a dash, units/s, and the bound of every speed in the arena.
pub(super) const DASH_SPEED: f32 = 980.0;
/// A dash lasts a fifth of a second: about one screen-width in eight.
const DASH_TICKS: u16 = (TICK_RATE / 5) as u16;
/// Ticks between two dashes, so that a dash is a decision: 1.5 s.
pub(super) const DASH_COOLDOWN_TICKS: u16 = (TICK_RATE * 3 / 2) as u16;
/// A dash costs energy, but is always possible: nobody is locked out of fighting back.
const DASH_COST: f32 = 1.0;
/// A hit ship spins without control for 0.6 s …
const STUN_TICKS: u16 = (TICK_RATE * 3 / 5) as u16;
/// … and cannot be hit again for 2 s, so that a crowd cannot keep somebody down.
const SHIELD_TICKS: u16 = (TICK_RATE * 2) as u16;
/// Share of the energy that a hit knocks out.
const HIT_SHARE: f32 = 0.34;
/// What a ship starts with and never falls below: a loser is small, not out.
pub(super) const ENERGY_MIN: f32 = 10.0;
/// Fits the wire's u16 with room, and is out of reach in practice (see `UPKEEP`).
const ENERGY_MAX: f32 = 9_999.0;
/// Energy above `UPKEEP_FROM` leaks at this share per second: a leader has to keep playing.
const UPKEEP: f32 = 0.02;
const UPKEEP_FROM: f32 = 50.0;
/// Radius of the largest ship, units. The grid of ships relies on it.
pub(super) const RADIUS_MAX: f32 = 52.0;
/// Without an input for this long a ship coasts: the page repeats a held course twice a second, so silence means trouble.
const COAST_AFTER_TICKS: u32 = 2 * TICK_RATE;
/// Without an input for this long the autopilot flies: a page that is only watched stays worth watching.
const AUTOPILOT_AFTER_TICKS: u32 = 12 * TICK_RATE;

/// Who steers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pilot {
    Bot,
    Human,
}

/// Where a pilot wants to go: the whole influence that an input has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Helm {
    /// Radians, clockwise from east (y grows downwards).
    pub(super) angle: f32,
    /// 0 to 1.
    pub(super) thrust: f32,
    pub(super) dash: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Ship {
    pub(super) alive: bool,
    pub(super) pilot: Pilot,
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) vx: f32,
    pub(super) vy: f32,
    pub(super) heading: f32,
    /// Size and score in one.
    pub(super) energy: f32,
    pub(super) helm: Helm,
    pub(super) dash_ticks: u16,
    pub(super) cooldown_ticks: u16,
    stun_ticks: u16,
    shield_ticks: u16,
    /// The newest input taken, and the tick of its arrival.
    input: Option<(u16, u32)>,
}

impl Ship {
    pub(super) fn new(pilot: Pilot, x: f32, y: f32, heading: f32) -> Self {
        Self {
            alive: true,
            pilot,
            x,
            y,
            vx: 0.0,
            vy: 0.0,
            heading,
            energy: ENERGY_MIN,
            helm: Helm { angle: heading, ..Helm::default() },
            dash_ticks: 0,
            cooldown_ticks: 0,
            stun_ticks: 0,
            // Nobody is hit in the moment he arrives.
            shield_ticks: SHIELD_TICKS,
            input: None,
        }
    }

    /// Takes an input unless it is older than one already taken (RFC 1982 serial numbers, so the u16 may wrap).
    pub(super) fn steer(&mut self, input: Input, tick: u32) -> bool {
        if let Some((newest, _)) = self.input
            && input.sequence.wrapping_sub(newest) as i16 <= 0
        {
            return false;
        }
        self.input = Some((input.sequence, tick));
        self.helm = input.helm();
        true
    }

    /// Sequence number of the newest input taken, 0 before the first.
    pub(super) fn input_sequence(&self) -> u16 {
        self.input.map_or(0, |(sequence, _)| sequence)
    }

    /// Whether the machine flies: a bot, or a person who has not touched anything for a while.
    pub(super) fn is_automatic(&self, tick: u32) -> bool {
        match (self.pilot, self.input) {
            (Pilot::Bot, _) | (Pilot::Human, None) => true,
            (Pilot::Human, Some((_, at))) => tick.wrapping_sub(at) > AUTOPILOT_AFTER_TICKS,
        }
    }

    /// Moves the ship by one tick. Speed depends on the ship alone: the helm gives a direction and at most full thrust.
    pub(super) fn advance(&mut self, tick: u32) {
        let silent = match (self.pilot, self.input) {
            (Pilot::Human, Some((_, at))) => tick.wrapping_sub(at) > COAST_AFTER_TICKS,
            _ => false,
        };
        if silent && !self.is_automatic(tick) {
            self.helm.thrust = 0.0;
            self.helm.dash = false;
        }
        for ticks in [&mut self.dash_ticks, &mut self.cooldown_ticks, &mut self.stun_ticks, &mut self.shield_ticks] {
            *ticks = ticks.saturating_sub(1);
        }
        if self.is_stunned() {
            self.heading = wrap_angle(self.heading + 14.0 * DT);
        } else {
            self.fly();
        }
        let drag = if self.is_dashing() { 0.0 } else { DRAG };
        self.vx -= self.vx * drag * DT;
        self.vy -= self.vy * drag * DT;
        let speed = self.vx.hypot(self.vy);
        if speed > DASH_SPEED {
            self.vx *= DASH_SPEED / speed;
            self.vy *= DASH_SPEED / speed;
        }
        self.x += self.vx * DT;
        self.y += self.vy * DT;
        self.bounce_off_walls();
        if self.energy > UPKEEP_FROM {
            self.energy -= (self.energy - UPKEEP_FROM) * UPKEEP * DT;
        }
    }

    fn fly(&mut self) {
        let turn = wrap_angle(self.helm.angle - self.heading);
        let most = TURN_RATE * DT;
        if self.helm.thrust > 0.0 {
            self.heading = wrap_angle(self.heading + turn.clamp(-most, most));
        }
        if self.helm.dash && self.cooldown_ticks == 0 {
            self.dash_ticks = DASH_TICKS;
            self.cooldown_ticks = DASH_COOLDOWN_TICKS;
            self.energy = (self.energy - DASH_COST).max(ENERGY_MIN.min(self.energy));
            self.vx = self.helm.angle.cos() * DASH_SPEED;
            self.vy = self.helm.angle.sin() * DASH_SPEED;
            self.heading = self.helm.angle;
        }
        if !self.is_dashing() {
            // Large ships are slower, by a third at most: growing must cost something.
            let push = THRUST * (1.15 - 0.45 * self.radius() / RADIUS_MAX) * self.helm.thrust * DT;
            self.vx += self.heading.cos() * push;
            self.vy += self.heading.sin() * push;
        }
    }

    fn bounce_off_walls(&mut self) {
        let radius = self.radius();
        for (position, velocity) in [(&mut self.x, &mut self.vx), (&mut self.y, &mut self.vy)] {
            let bounded = position.clamp(radius, WORLD_SIZE - radius);
            if bounded != *position {
                *position = bounded;
                *velocity *= -0.5;
            }
        }
    }

    /// Takes the hit of a dash: spins away in the given direction, and returns the energy knocked out of it.
    pub(super) fn hit(&mut self, nx: f32, ny: f32) -> f32 {
        let lost = ((self.energy - ENERGY_MIN) * HIT_SHARE).max(0.0);
        self.energy -= lost;
        self.stun_ticks = STUN_TICKS;
        self.shield_ticks = SHIELD_TICKS;
        self.dash_ticks = 0;
        self.vx = nx * DASH_SPEED * 0.6;
        self.vy = ny * DASH_SPEED * 0.6;
        lost
    }

    pub(super) fn gain(&mut self, energy: f32) {
        self.energy = (self.energy + energy).min(ENERGY_MAX);
    }

    /// Units; grows with the square root of the energy, so that area means energy.
    pub(super) fn radius(&self) -> f32 {
        (9.0 + 2.3 * self.energy.sqrt()).min(RADIUS_MAX)
    }

    pub(super) fn score(&self) -> u16 {
        self.energy as u16
    }

    pub(super) fn is_dashing(&self) -> bool {
        self.dash_ticks > 0
    }

    pub(super) fn is_stunned(&self) -> bool {
        self.stun_ticks > 0
    }

    pub(super) fn is_shielded(&self) -> bool {
        self.shield_ticks > 0
    }
}

/// Into (−π, π].
pub(super) fn wrap_angle(angle: f32) -> f32 {
    let angle = angle.rem_euclid(TAU);
    if angle > PI { angle - TAU } else { angle }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(sequence: u16, thrust: u8) -> Input {
        Input { sequence, angle: 0, thrust, dash: false }
    }

    #[test]
    fn old_and_repeated_inputs_are_ignored_across_the_wrap() {
        let mut ship = Ship::new(Pilot::Human, 100.0, 100.0, 0.0);
        assert!(ship.steer(input(65_534, 10), 0), "any first number will do");
        assert!(!ship.steer(input(65_534, 255), 0), "a repeat");
        assert!(!ship.steer(input(65_000, 255), 0), "late");
        assert!(ship.steer(input(2, 20), 1), "after the wrap");
        assert!(!ship.steer(input(65_535, 255), 1), "late, before the wrap");
        assert_eq!(ship.input_sequence(), 2);
        assert!((ship.helm.thrust - 20.0 / 255.0).abs() < 1e-6);
    }

    #[test]
    fn walls_hold_a_dashing_ship_of_any_size() {
        for energy in [ENERGY_MIN, 300.0, ENERGY_MAX] {
            let mut ship = Ship::new(Pilot::Bot, WORLD_SIZE - 60.0, 60.0, 0.0);
            ship.energy = energy;
            for tick in 0..300 {
                ship.helm = Helm { angle: -0.5, thrust: 1.0, dash: true };
                ship.advance(tick);
                let radius = ship.radius();
                assert!(ship.x >= radius && ship.x <= WORLD_SIZE - radius);
                assert!(ship.y >= radius && ship.y <= WORLD_SIZE - radius);
            }
        }
    }

    #[test]
    fn a_thousand_inputs_per_tick_are_no_faster_than_one() {
        let (mut calm, mut spammer) =
            (Ship::new(Pilot::Human, 900.0, 900.0, 0.0), Ship::new(Pilot::Human, 900.0, 900.0, 0.0));
        let mut sequence = 0u16;
        for tick in 0..30 {
            calm.steer(input(tick as u16 + 1, 255), tick);
            for _ in 0..1_000 {
                sequence = sequence.wrapping_add(1);
                spammer.steer(input(sequence, 255), tick);
            }
            calm.advance(tick);
            spammer.advance(tick);
        }
        assert_eq!(calm.x, spammer.x);
        assert!(calm.vx < DASH_SPEED / 2.0);
    }

    #[test]
    fn silence_coasts_and_then_hands_over_to_the_autopilot() {
        let mut ship = Ship::new(Pilot::Human, 2_000.0, 2_000.0, 0.0);
        assert!(ship.is_automatic(0), "until the first input");
        ship.steer(input(1, 255), 0);
        assert!(!ship.is_automatic(0));
        ship.advance(COAST_AFTER_TICKS + 1);
        assert_eq!(ship.helm.thrust, 0.0);
        assert!(ship.is_automatic(AUTOPILOT_AFTER_TICKS + 1));
        ship.steer(input(2, 255), AUTOPILOT_AFTER_TICKS + 2);
        assert!(!ship.is_automatic(AUTOPILOT_AFTER_TICKS + 2));
    }

    #[test]
    fn a_dash_waits_for_its_cooldown() {
        let mut ship = Ship::new(Pilot::Bot, 2_000.0, 2_000.0, 0.0);
        ship.helm.dash = true;
        let mut dashes = 0;
        for tick in 0..TICK_RATE * 3 {
            let before = ship.cooldown_ticks;
            ship.advance(tick);
            dashes += u32::from(ship.cooldown_ticks > before);
        }
        assert_eq!(dashes, 2, "3 s are room for two");
    }

    #[test]
    fn a_hit_takes_a_share_and_never_the_last_energy() {
        let mut ship = Ship::new(Pilot::Bot, 2_000.0, 2_000.0, 0.0);
        ship.energy = 110.0;
        assert!((ship.hit(1.0, 0.0) - 34.0).abs() < 0.1);
        for _ in 0..100 {
            ship.hit(1.0, 0.0);
        }
        assert!(ship.energy >= ENERGY_MIN);
    }
}
