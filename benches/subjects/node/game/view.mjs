// What one player gets to see in one tick, in the bytes of server/src/demo/wire.rs.

import { isLarge } from './motes.mjs';
import { DASH_COOLDOWN_TICKS, WORLD_SIZE } from './ship.mjs';

export const STATE_MAX = 1_100;
const VERSION = 1;
const KIND_STATE = 1;
const KIND_MAP = 2;
const KIND_INPUT = 3;
const HEADER_LEN = 25;
const SHIP_LEN = 9;
const MOTE_LEN = 6;
const SHIPS_MAX = 64;
const MAP_SHIPS_MAX = (STATE_MAX - 4) / 2;
const SIGHT = 960;
const TAU = 2 * Math.PI;

/** What a player asks for; null when these bytes are not an input. */
export function decodeInput(bytes) {
  if (bytes.length !== 7 || bytes[0] !== VERSION || bytes[1] !== KIND_INPUT) {
    return null;
  }
  return { sequence: bytes[2] | (bytes[3] << 8), angle: bytes[4], thrust: bytes[5], dash: (bytes[6] & 1) !== 0 };
}

/** The state of player `ownId`, in a buffer of its own. */
export function encodeState(world, ownId, timeUs) {
  const own = world.ships[ownId];
  const ships = [];
  world.shipsNear(own.x, own.y, SIGHT, (id) => {
    const ship = world.ships[id];
    const distance = squared(ship.x - own.x, ship.y - own.y);
    if (id !== ownId && distance < SIGHT * SIGHT) {
      ships.push({ distance, id });
    }
  });
  ships.sort(byDistance);
  const shipCount = Math.min(ships.length + 1, SHIPS_MAX);
  const motes = [];
  world.motes.near(own.x, own.y, SIGHT, (id, mote) => {
    const distance = squared(mote.x - own.x, mote.y - own.y);
    if (distance < SIGHT * SIGHT) {
      motes.push({ distance, id });
    }
  });
  const room = Math.min(Math.trunc((STATE_MAX - HEADER_LEN - shipCount * SHIP_LEN) / MOTE_LEN), 255);
  if (motes.length > room) {
    motes.sort(byDistance);
    motes.length = room;
  }
  const out = Buffer.allocUnsafe(HEADER_LEN + shipCount * SHIP_LEN + motes.length * MOTE_LEN);
  out[0] = VERSION;
  out[1] = KIND_STATE;
  out.writeUInt32LE(world.tick, 2);
  out.writeUInt32LE(timeUs % 4_294_967_296, 6);
  out.writeUInt32LE(Math.trunc(timeUs / 4_294_967_296), 10);
  out.writeUInt16LE(Math.max(own.sequence, 0), 14);
  out.writeUInt16LE(ownId, 16);
  out.writeUInt16LE(own.score(), 18);
  out.writeUInt16LE(world.ranks[ownId], 20);
  out[22] = 255 - Math.min(Math.trunc((own.cooldownTicks * 255) / DASH_COOLDOWN_TICKS), 255);
  out[23] = shipCount;
  out[24] = motes.length;
  let at = writeShip(out, HEADER_LEN, ownId, own, world.tick);
  for (let i = 0; i < shipCount - 1; i++) {
    at = writeShip(out, at, ships[i].id, world.ships[ships[i].id], world.tick);
  }
  for (const { id } of motes) {
    const mote = world.motes.all[id];
    out.writeUInt16LE(id | (isLarge(mote) ? 0x1000 : 0), at);
    out.writeUInt16LE(quantise(mote.x), at + 2);
    out.writeUInt16LE(quantise(mote.y), at + 4);
    at += MOTE_LEN;
  }
  return out;
}

/** Where all ships are, people first. */
export function encodeMap(world) {
  const people = world.ships.filter((ship) => ship.alive && ship.isHuman);
  const bots = world.ships.filter((ship) => ship.alive && !ship.isHuman);
  const ships = people.concat(bots).slice(0, MAP_SHIPS_MAX);
  const out = Buffer.alloc(4 + ships.length * 2);
  out[0] = VERSION;
  out[1] = KIND_MAP;
  out.writeUInt16LE(ships.length, 2);
  ships.forEach(({ x, y }, index) => {
    out[4 + index * 2] = quantise(x) >> 8;
    out[5 + index * 2] = quantise(y) >> 8;
  });
  return out;
}

function writeShip(out, at, id, ship, tick) {
  out.writeUInt16LE(id, at);
  out.writeUInt16LE(quantise(ship.x), at + 2);
  out.writeUInt16LE(quantise(ship.y), at + 4);
  out[at + 6] = Math.round((ship.heading / TAU) * 256) & 255;
  out[at + 7] = Math.round(ship.radius());
  out[at + 8] =
    (ship.isHuman ? 1 : 0) |
    (ship.dashTicks > 0 ? 2 : 0) |
    (ship.stunTicks > 0 ? 4 : 0) |
    (ship.shieldTicks > 0 ? 8 : 0) |
    (ship.thrust > 0.05 ? 16 : 0) |
    (ship.isAutomatic(tick) ? 32 : 0);
  return at + SHIP_LEN;
}

function quantise(coordinate) {
  return Math.min(Math.max(Math.round((coordinate / WORLD_SIZE) * 65_535), 0), 65_535);
}

function squared(dx, dy) {
  return dx * dx + dy * dy;
}

function byDistance(a, b) {
  return a.distance - b.distance;
}
