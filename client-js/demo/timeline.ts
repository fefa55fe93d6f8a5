import type { Mote, Ship, State } from './wire.js';

export interface Scene {
  ownId: number;
  ships: Ship[];
  motes: Mote[];
  /** Pairs of states that the view has passed since the last scene: what happened, happened between them. */
  passed: Array<[State, State]>;
}

const TICK_MS = 1_000 / 30;
/** Two ticks and a little: one state may come late or be lost, and the picture still moves smoothly. */
const DELAY_MIN_MS = 80;
const DELAY_START_MS = 100;
const DELAY_MAX_MS = 600;
/** Beyond the newest state a ship is drawn on its course this long; then it waits. */
const EXTRAPOLATE_MAX_MS = 120;
/** Two seconds: more than the largest delay. */
const STATES_MAX = 60;
/** A mote that is farther away from one state to the next is another one with the same number. */
const MOTE_JUMP = 110;
const SHIP_JUMP = 260;

/**
 * Buffers states by tick, and shows the arena as it was a moment ago, so that movement lies between two known
 * states. The delay follows the jitter of the arrivals.
 */
export class Timeline {
  #states: State[] = [];
  /** Arrival minus game time, smoothed, ms. */
  #offset = 0;
  #jitter = 4;
  #delay = DELAY_START_MS;
  /** Game time that is shown, ms. */
  #clock = 0;
  #lastFrame = 0;
  #passedTick = -1;

  get newest(): State | undefined {
    return this.#states.at(-1);
  }

  get delayMs(): number {
    return this.#delay;
  }

  reset(): void {
    this.#states = [];
    this.#jitter = 4;
    this.#passedTick = -1;
  }

  /** `now` is the page's monotonic clock, ms. False: it was older than one already here. */
  add(state: State, now: number): boolean {
    const newest = this.newest;
    if (newest && state.tick <= newest.tick) {
      // Far in the past, it is another game (the server was started anew); otherwise a datagram that was overtaken.
      if (newest.tick - state.tick < 900) return false;
      this.reset();
    }
    const offset = now - state.tick * TICK_MS;
    if (this.#states.length === 0) {
      this.#offset = offset;
      this.#delay = DELAY_START_MS;
      this.#clock = state.tick * TICK_MS - this.#delay;
    } else {
      const deviation = offset - this.#offset;
      this.#jitter += (Math.abs(deviation) - this.#jitter) * 0.06;
      this.#offset += deviation * (Math.abs(deviation) > 400 ? 1 : 0.06);
      const wanted = Math.min(DELAY_MAX_MS, Math.max(DELAY_MIN_MS, 2 * TICK_MS + 3 * this.#jitter));
      this.#delay += (wanted - this.#delay) * 0.04;
    }
    this.#states.push(state);
    if (this.#states.length > STATES_MAX) this.#states.shift();
    return true;
  }

  /** The arena to draw now, or null before the first state. */
  scene(now: number): Scene | null {
    const newest = this.newest;
    if (!newest) return null;
    this.#advance(now);
    const at = Math.min(this.#clock, newest.tick * TICK_MS + EXTRAPOLATE_MAX_MS);
    const later = this.#states.findIndex((state) => state.tick * TICK_MS > at);
    // Before the first or after the last known state: the two that are nearest carry on.
    const index = later === -1 ? this.#states.length - 1 : Math.max(1, later);
    const b = this.#states[index] ?? newest;
    const a = this.#states[index - 1] ?? b;
    const span = (b.tick - a.tick) * TICK_MS;
    const share = span > 0 ? Math.max(0, (at - a.tick * TICK_MS) / span) : 1;
    return {
      ownId: newest.ownId,
      ships: blendShips(a, b, share),
      motes: blendMotes(a, b, share),
      passed: this.#passed(b),
    };
  }

  #advance(now: number): void {
    const elapsed = Math.min(250, Math.max(0, now - this.#lastFrame));
    this.#lastFrame = now;
    const target = now - this.#offset - this.#delay;
    this.#clock += elapsed;
    const error = target - this.#clock;
    // Small errors are made good by running a little faster or slower, which nobody sees; large ones at once.
    if (Math.abs(error) > 500) this.#clock = target;
    else this.#clock += Math.max(-0.12 * elapsed, Math.min(0.12 * elapsed, error * 0.08));
  }

  #passed(b: State): Array<[State, State]> {
    const passed: Array<[State, State]> = [];
    for (let n = 1; n < this.#states.length; n++) {
      const from = this.#states[n - 1];
      const to = this.#states[n];
      if (from && to && to.tick > this.#passedTick && to.tick <= b.tick) passed.push([from, to]);
    }
    this.#passedTick = Math.max(this.#passedTick, b.tick);
    return passed;
  }
}

function blendShips(a: State, b: State, share: number): Ship[] {
  const ships: Ship[] = [];
  for (const ship of b.ships.values()) {
    const before = a.ships.get(ship.id);
    if (!before || Math.hypot(ship.x - before.x, ship.y - before.y) > SHIP_JUMP) {
      ships.push(ship);
      continue;
    }
    ships.push({
      ...ship,
      x: before.x + (ship.x - before.x) * share,
      y: before.y + (ship.y - before.y) * share,
      heading: before.heading + shortestTurn(before.heading, ship.heading) * Math.min(1, share),
      radius: before.radius + (ship.radius - before.radius) * Math.min(1, share),
    });
  }
  return ships;
}

function blendMotes(a: State, b: State, share: number): Mote[] {
  const motes: Mote[] = [];
  const part = Math.min(1, share);
  for (const mote of b.motes.values()) {
    const before = a.motes.get(mote.id);
    if (!before || (before.x === mote.x && before.y === mote.y)) {
      motes.push(mote);
    } else if (Math.hypot(mote.x - before.x, mote.y - before.y) < MOTE_JUMP) {
      motes.push({
        ...mote,
        x: before.x + (mote.x - before.x) * part,
        y: before.y + (mote.y - before.y) * part,
      });
    } else {
      motes.push(mote);
    }
  }
  return motes;
}

function shortestTurn(from: number, to: number): number {
  const turn = (to - from) % (2 * Math.PI);
  if (turn > Math.PI) return turn - 2 * Math.PI;
  return turn < -Math.PI ? turn + 2 * Math.PI : turn;
}
