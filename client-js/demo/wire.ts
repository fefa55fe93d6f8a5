// The datagrams of the game; server/src/demo/wire.rs is the description.

export const VERSION = 1;
const KIND_STATE = 1;
const KIND_MAP = 2;
const KIND_INPUT = 3;
const HEADER_BYTES = 25;
const SHIP_BYTES = 9;
const MOTE_BYTES = 6;

export const FLAG_HUMAN = 1;
export const FLAG_DASHING = 2;
export const FLAG_STUNNED = 4;
export const FLAG_SHIELDED = 8;
export const FLAG_THRUSTING = 16;
export const FLAG_AUTOMATIC = 32;

/** Radians and units of the arena, whose edge is 1 on the wire. */
export interface Ship {
  id: number;
  x: number;
  y: number;
  heading: number;
  radius: number;
  flags: number;
}

export interface Mote {
  id: number;
  x: number;
  y: number;
  large: boolean;
}

export interface State {
  kind: 'state';
  tick: number;
  /** Server clock when it was sent, milliseconds since the Unix epoch. */
  timeMs: number;
  inputSequence: number;
  ownId: number;
  score: number;
  rank: number;
  /** 0: just used; 1: ready. */
  dash: number;
  ships: Map<number, Ship>;
  motes: Map<number, Mote>;
}

export interface ArenaMap {
  kind: 'map';
  /** x and y of each ship, in turn, as shares of the arena's edge times 256. */
  points: Uint8Array;
}

/** Reads one datagram, or answers null when it is not one of this version, or is cut short. */
export function decode(bytes: Uint8Array, worldSize: number): State | ArenaMap | null {
  if (bytes.length < 4 || bytes[0] !== VERSION) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes[1] === KIND_MAP) {
    const count = view.getUint16(2, true);
    return bytes.length === 4 + 2 * count ? { kind: 'map', points: bytes.slice(4) } : null;
  }
  return bytes[1] === KIND_STATE ? decodeState(view, worldSize) : null;
}

function decodeState(view: DataView, worldSize: number): State | null {
  if (view.byteLength < HEADER_BYTES) return null;
  const shipCount = view.getUint8(23);
  const moteCount = view.getUint8(24);
  if (view.byteLength !== HEADER_BYTES + shipCount * SHIP_BYTES + moteCount * MOTE_BYTES) return null;
  const unit = worldSize / 65_535;
  const ships = new Map<number, Ship>();
  const motes = new Map<number, Mote>();
  let at = HEADER_BYTES;
  for (let n = 0; n < shipCount; n++, at += SHIP_BYTES) {
    const id = view.getUint16(at, true);
    ships.set(id, {
      id,
      x: view.getUint16(at + 2, true) * unit,
      y: view.getUint16(at + 4, true) * unit,
      heading: (view.getUint8(at + 6) / 256) * 2 * Math.PI,
      radius: view.getUint8(at + 7),
      flags: view.getUint8(at + 8),
    });
  }
  for (let n = 0; n < moteCount; n++, at += MOTE_BYTES) {
    const tagged = view.getUint16(at, true);
    const id = tagged & 0x0fff;
    motes.set(id, {
      id,
      x: view.getUint16(at + 2, true) * unit,
      y: view.getUint16(at + 4, true) * unit,
      large: tagged >> 12 !== 0,
    });
  }
  return {
    kind: 'state',
    tick: view.getUint32(2, true),
    timeMs: Number(view.getBigUint64(6, true)) / 1_000,
    inputSequence: view.getUint16(14, true),
    ownId: view.getUint16(16, true),
    score: view.getUint16(18, true),
    rank: view.getUint16(20, true),
    dash: view.getUint8(22) / 255,
    ships,
    motes,
  };
}

/** `angle` in radians, `thrust` from 0 to 1. */
export function encodeInput(sequence: number, angle: number, thrust: number, dash: boolean): Uint8Array {
  const turn = Math.round((angle / (2 * Math.PI)) * 256) & 0xff;
  const push = Math.round(Math.min(1, Math.max(0, thrust)) * 255);
  return Uint8Array.of(
    VERSION,
    KIND_INPUT,
    sequence & 0xff,
    (sequence >> 8) & 0xff,
    turn,
    push,
    dash ? 1 : 0,
  );
}
