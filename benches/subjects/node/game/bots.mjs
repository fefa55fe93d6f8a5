// The autopilot: it looks for motes, hunts the richer, and otherwise wanders. The rules of server/src/demo/bots.rs.

import { isLarge } from './motes.mjs';
import { TICK_RATE, WORLD_SIZE, wrapAngle } from './ship.mjs';

const THINK_EVERY_TICKS = TICK_RATE / 5;
const MOTE_SIGHT = 240;
const RIVAL_SIGHT = 300;
const DASH_REACH = 135;
const WALL_MARGIN = 130;

export class Mind {
  #temper;
  #course;
  #thrust = 0.8;
  #prey = -1;

  constructor(rng) {
    this.#temper = rng.unit();
    this.#course = rng.between(-3.1, 3.1);
  }

  /** Sets the helm of ship `id` for this tick. */
  steer(id, tick, ships, grid, motes, rng) {
    const own = ships[id];
    // Spread over the ticks by id, so that no tick does all the thinking.
    if ((tick + id) % THINK_EVERY_TICKS === 0) {
      this.#think(id, own, ships, grid, motes, rng);
    }
    let dash = false;
    if (this.#prey >= 0 && isPrey(own, ships[this.#prey])) {
      const prey = ships[this.#prey];
      const dx = prey.x + prey.vx * 0.15 - own.x;
      const dy = prey.y + prey.vy * 0.15 - own.y;
      this.#course = Math.atan2(dy, dx);
      const aligned = Math.abs(wrapAngle(this.#course - own.heading)) < 0.3;
      dash = aligned && Math.sqrt(dx * dx + dy * dy) < DASH_REACH + own.radius() + prey.radius();
    }
    own.angle = this.#course;
    own.thrust = this.#thrust;
    own.dash = dash;
  }

  #think(id, own, ships, grid, motes, rng) {
    this.#prey = -1;
    this.#thrust = 0.75;
    if (own.cooldownTicks === 0 && rng.unit() < 0.02 + 0.16 * this.#temper) {
      this.#prey = nearest(id, own, ships, grid);
    }
    if (this.#prey >= 0) {
      this.#thrust = 1;
      return;
    }
    const mote = bestMote(own, motes);
    if (mote !== null) {
      this.#course = Math.atan2(mote.y - own.y, mote.x - own.x);
      return;
    }
    this.#course += rng.between(-0.5, 0.5);
    const isAtWall = (at) => at < WALL_MARGIN || at > WORLD_SIZE - WALL_MARGIN;
    if (isAtWall(own.x) || isAtWall(own.y)) {
      this.#course = Math.atan2(WORLD_SIZE / 2 - own.y, WORLD_SIZE / 2 - own.x) + rng.between(-0.8, 0.8);
    }
  }
}

/** Worth a dash: has something to lose, and can be hit. */
function isPrey(own, other) {
  return other.alive && other.shieldTicks === 0 && other.energy > 24 && other.energy > own.energy * 0.4;
}

function nearest(id, own, ships, grid) {
  let best = -1;
  let bestDistance = RIVAL_SIGHT;
  grid.near(own.x, own.y, RIVAL_SIGHT, (otherId) => {
    const other = ships[otherId];
    const distance = Math.sqrt((other.x - own.x) ** 2 + (other.y - own.y) ** 2);
    if (otherId !== id && distance < bestDistance && isPrey(own, other)) {
      best = otherId;
      bestDistance = distance;
    }
  });
  return best;
}

/** The mote that is soonest reached: near, ahead, and rather large. */
function bestMote(own, motes) {
  let best = null;
  let bestCost = Number.POSITIVE_INFINITY;
  motes.near(own.x, own.y, MOTE_SIGHT, (_, mote) => {
    const dx = mote.x - own.x;
    const dy = mote.y - own.y;
    const turn = Math.abs(wrapAngle(Math.atan2(dy, dx) - own.heading));
    const cost = (Math.sqrt(dx * dx + dy * dy) + 60 * turn) * (isLarge(mote) ? 0.4 : 1);
    if (cost < bestCost) {
      best = mote;
      bestCost = cost;
    }
  });
  return best;
}
