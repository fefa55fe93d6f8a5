//! The datagrams of the game. Everything is little-endian; coordinates are a share of the arena's edge.
//!
//! **State** (server to page, key 0, at most [`STATE_MAX`] bytes, one per player and tick):
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | u8 | [`VERSION`] |
//! | 1 | u8 | 1: state |
//! | 2 | u32 | tick |
//! | 6 | u64 | server time when the tick was sent, microseconds since the Unix epoch (below 2^53) |
//! | 14 | u16 | newest input taken from this player, 0 before the first |
//! | 16 | u16 | the player's own ship |
//! | 18 | u16 | its score |
//! | 20 | u16 | its rank among all ships, from 1 |
//! | 22 | u8 | its dash: 0 just used, 255 ready |
//! | 23 | u8 | number of ships, S |
//! | 24 | u8 | number of motes, M |
//! | 25 | S × 9 | ships, the player's own first, then nearest first |
//! | … | M × 6 | motes, the nearest |
//!
//! Ship: `id u16 | x u16 | y u16 | heading u8 | radius u8 | flags u8`. Heading is a 256th of a turn, clockwise from
//! east; radius is in world units; flags are [`FLAG_HUMAN`] and its neighbours. Mote: `id u16 | x u16 | y u16`; the
//! four high bits of a mote's id are its value class (0 small, 1 large).
//!
//! **Map** (server to page, key 1, twice a second): `version u8 | 2 u8 | count u16`, then `x u8 | y u8` per ship.
//!
//! **Input** (page to server, key 0): `version u8 | 3 u8 | sequence u16 | angle u8 | thrust u8 | buttons u8`.
//! Sequence numbers grow by one and wrap; an old one is ignored. Bit 0 of the buttons is the dash.

use std::f32::consts::TAU;

use super::ship::Helm;
use super::world::WORLD_SIZE;

/// First byte of every datagram of the game.
pub(super) const VERSION: u8 = 1;
/// The largest datagram that every transport carries.
pub(super) const STATE_MAX: usize = 1_100;
/// Most ships in one state. 64 leave room for at least 83 motes, so that a crowd does not hide the food.
pub(super) const STATE_SHIPS_MAX: usize = 64;

pub(super) const KEY_STATE: u64 = 0;
pub(super) const KEY_MAP: u64 = 1;

const KIND_STATE: u8 = 1;
const KIND_MAP: u8 = 2;
const KIND_INPUT: u8 = 3;

const HEADER_LEN: usize = 25;
const SHIP_LEN: usize = 9;
const MOTE_LEN: usize = 6;
const INPUT_LEN: usize = 7;
const MAP_SHIPS_MAX: usize = (STATE_MAX - 4) / 2;

/// A person steers this ship.
pub(super) const FLAG_HUMAN: u8 = 1;
/// It is dashing: whoever it touches is hit.
pub(super) const FLAG_DASHING: u8 = 1 << 1;
/// It was hit and spins.
pub(super) const FLAG_STUNNED: u8 = 1 << 2;
/// It cannot be hit now.
pub(super) const FLAG_SHIELDED: u8 = 1 << 3;
/// Its engine burns.
pub(super) const FLAG_THRUSTING: u8 = 1 << 4;
/// The autopilot flies it, until its player steers.
pub(super) const FLAG_AUTOMATIC: u8 = 1 << 5;

/// What a player asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) sequence: u16,
    /// A 256th of a turn.
    pub(super) angle: u8,
    /// 255 is full.
    pub(super) thrust: u8,
    pub(super) dash: bool,
}

impl Input {
    /// None when these bytes are not an input. Every value of every field is a legal wish; what it can do is the world's affair.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; INPUT_LEN] = bytes.try_into().ok()?;
        let &[VERSION, KIND_INPUT, low, high, angle, thrust, buttons] = bytes else {
            return None;
        };
        Some(Self { sequence: u16::from_le_bytes([low, high]), angle, thrust, dash: buttons & 1 != 0 })
    }

    pub(super) fn helm(self) -> Helm {
        Helm { angle: f32::from(self.angle) / 256.0 * TAU, thrust: f32::from(self.thrust) / 255.0, dash: self.dash }
    }
}

/// The part of a state before its entities.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) tick: u32,
    pub(super) time_us: u64,
    pub(super) input_sequence: u16,
    pub(super) own_id: u16,
    pub(super) score: u16,
    pub(super) rank: u16,
    pub(super) dash: u8,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct ShipRecord {
    pub(super) id: u16,
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) heading: f32,
    pub(super) radius: f32,
    pub(super) flags: u8,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct MoteRecord {
    pub(super) id: u16,
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) large: bool,
}

/// How many motes fit beside this many ships.
pub(super) fn mote_room(ships: usize) -> usize {
    ((STATE_MAX - HEADER_LEN - ships.min(STATE_SHIPS_MAX) * SHIP_LEN) / MOTE_LEN).min(usize::from(u8::MAX))
}

/// Writes one state into `out`, which it clears first. What exceeds the budget is left out, the last of each first.
pub(super) fn encode_state(
    header: &Header,
    ships: impl Iterator<Item = ShipRecord>,
    motes: impl Iterator<Item = MoteRecord>,
    out: &mut Vec<u8>,
) {
    out.clear();
    out.extend_from_slice(&[VERSION, KIND_STATE]);
    out.extend_from_slice(&header.tick.to_le_bytes());
    out.extend_from_slice(&header.time_us.to_le_bytes());
    for field in [header.input_sequence, header.own_id, header.score, header.rank] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&[header.dash, 0, 0]);
    let mut ship_count = 0u8;
    for ship in ships.take(STATE_SHIPS_MAX) {
        push_position(out, ship.id, ship.x, ship.y);
        let heading = (ship.heading / TAU * 256.0).round() as i32 as u8;
        out.extend_from_slice(&[heading, ship.radius.round() as u8, ship.flags]);
        ship_count += 1;
    }
    let mut mote_count = 0u8;
    for mote in motes.take(mote_room(usize::from(ship_count))) {
        push_position(out, mote.id & 0x0fff | u16::from(mote.large) << 12, mote.x, mote.y);
        mote_count += 1;
    }
    out[HEADER_LEN - 2] = ship_count;
    out[HEADER_LEN - 1] = mote_count;
}

/// Writes the map of all ships into `out`, which it clears first.
pub(super) fn encode_map(ships: impl Iterator<Item = (f32, f32)>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[VERSION, KIND_MAP, 0, 0]);
    let mut count = 0u16;
    for (x, y) in ships.take(MAP_SHIPS_MAX) {
        out.extend_from_slice(&[(quantise(x) >> 8) as u8, (quantise(y) >> 8) as u8]);
        count += 1;
    }
    out[2..4].copy_from_slice(&count.to_le_bytes());
}

fn push_position(out: &mut Vec<u8>, id: u16, x: f32, y: f32) {
    for field in [id, quantise(x), quantise(y)] {
        out.extend_from_slice(&field.to_le_bytes());
    }
}

/// 65,535 is the far edge; a step is 0.07 units. A float-to-integer cast saturates, so nothing wraps.
fn quantise(coordinate: f32) -> u16 {
    (coordinate / WORLD_SIZE * 65_535.0).round() as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        tick: 0x0403_0201,
        time_us: 1_800_000_000_000_000,
        input_sequence: 7,
        own_id: 300,
        score: 42,
        rank: 3,
        dash: 255,
    };

    fn ship(id: u16) -> ShipRecord {
        ShipRecord { id, x: WORLD_SIZE, y: 0.0, heading: -TAU / 4.0, radius: 20.0, flags: FLAG_HUMAN | FLAG_SHIELDED }
    }

    fn mote(id: u16) -> MoteRecord {
        MoteRecord { id, x: WORLD_SIZE / 2.0, y: -5.0, large: true }
    }

    #[test]
    fn a_state_has_the_documented_bytes() {
        let mut out = vec![9; 5];
        encode_state(&HEADER, [ship(300)].into_iter(), [mote(2)].into_iter(), &mut out);
        assert_eq!(
            hex(&out),
            "01 01 01020304 0080982817650600 0700 2c01 2a00 0300 ff 01 01 \
             2c01 ffff 0000 c0 14 09 0210 0080 0000"
                .replace(' ', "")
        );
    }

    #[test]
    fn the_budget_holds_however_many_there_are() {
        for ships in [0, 1, 63, 64, 65, 500] {
            for motes in [0, 10, 1_000] {
                let mut out = Vec::new();
                encode_state(&HEADER, (0..ships).map(ship), (0..motes).map(mote), &mut out);
                assert!(out.len() <= STATE_MAX, "{} bytes", out.len());
                let (s, m) = (usize::from(out[23]), usize::from(out[24]));
                assert_eq!(out.len(), HEADER_LEN + s * SHIP_LEN + m * MOTE_LEN);
                assert_eq!(s, usize::from(ships).min(STATE_SHIPS_MAX));
                assert_eq!(m, usize::from(motes).min(mote_room(s)));
            }
        }
        let mut out = Vec::new();
        encode_map((0..2_000).map(|n| (n as f32, n as f32)), &mut out);
        assert!(out.len() <= STATE_MAX);
        assert_eq!(usize::from(u16::from_le_bytes([out[2], out[3]])) * 2 + 4, out.len());
    }

    #[test]
    fn only_an_exact_input_is_an_input() {
        let good = [VERSION, KIND_INPUT, 0x34, 0x12, 64, 255, 1];
        let input = Input::decode(&good).expect("an input");
        assert_eq!((input.sequence, input.dash), (0x1234, true));
        assert!((input.helm().angle - TAU / 4.0).abs() < 1e-6);
        for end in 0..good.len() {
            assert_eq!(Input::decode(&good[..end]), None, "cut to {end}");
        }
        assert_eq!(Input::decode(&[good.as_slice(), &[0]].concat()), None, "one too long");
        assert_eq!(Input::decode(&[2, 3, 0, 0, 0, 0, 0]), None, "another version");
        assert_eq!(Input::decode(&[1, 1, 0, 0, 0, 0, 0]), None, "another kind");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
