// Motes of energy: they appear, are drawn to a ship that comes near, and are collected. The rules of server/src/demo/motes.rs.

import { Grid } from './grid.mjs';
import { clamp, DT, RADIUS_MAX, WORLD_SIZE } from './ship.mjs';

const CAPACITY = 1_800;
const TARGET = 1_100;
const SPAWN_PER_TICK = 12;
const LARGE_ONE_IN = 12;
const SMALL_VALUE = 1;
const LARGE_VALUE = 6;
const PULL_REACH = 46;
const PULL_SPEED = 560;
const DRAG = 3.2;
const SPRINGS = 6;
const SPRING_LIFE = 260;
const SPRING_SPREAD = 330;
const MARGIN = 30;

const isThere = (mote) => mote.value > 0;

export class Motes {
  all = Array.from({ length: CAPACITY }, () => ({ x: 0, y: 0, vx: 0, vy: 0, value: 0 }));
  /** First in, first out: a ring of free ids. */
  #free = Uint16Array.from({ length: CAPACITY }, (_, id) => id);
  #firstFree = 0;
  #freeCount = CAPACITY;
  #grid = new Grid(WORLD_SIZE, 120, CAPACITY);
  #springs;

  constructor(rng) {
    this.#springs = Array.from({ length: SPRINGS }, () => newSpring(rng));
    while (this.count() < TARGET) {
      this.#appear(rng);
    }
    this.#grid.rebuild(this.all, isThere);
  }

  step(ships, rng) {
    for (const mote of this.all) {
      if (mote.value > 0 && (mote.vx !== 0 || mote.vy !== 0)) {
        drift(mote);
      }
    }
    this.#grid.rebuild(this.all, isThere);
    for (const ship of ships) {
      if (ship.alive && ship.stunTicks === 0) {
        this.#feed(ship);
      }
    }
    for (let i = 0; i < SPAWN_PER_TICK && this.count() < TARGET; i++) {
      this.#appear(rng);
    }
  }

  /** Drops a mote worth at most `value`, and answers what it is worth: 0 when the arena is full. */
  dropAt(x, y, vx, vy, value) {
    const id = this.#takeFree();
    if (id < 0) {
      return 0;
    }
    const mote = this.all[id];
    Object.assign(mote, { x, y, vx, vy });
    mote.value = value >= LARGE_VALUE ? LARGE_VALUE : SMALL_VALUE;
    return mote.value;
  }

  near(x, y, radius, visit) {
    this.#grid.near(x, y, radius, (id) => {
      const mote = this.all[id];
      if (mote.value > 0) {
        visit(id, mote);
      }
    });
  }

  count() {
    return CAPACITY - this.#freeCount;
  }

  #feed(ship) {
    const radius = ship.radius();
    const reach = radius + PULL_REACH;
    this.#grid.near(ship.x, ship.y, RADIUS_MAX + PULL_REACH, (id) => {
      const mote = this.all[id];
      if (mote.value === 0) {
        return;
      }
      const dx = ship.x - mote.x;
      const dy = ship.y - mote.y;
      const distance = Math.sqrt(dx * dx + dy * dy);
      if (distance < radius) {
        ship.gain(mote.value);
        mote.value = 0;
        this.#giveFree(id);
      } else if (distance < reach) {
        const step = Math.min((PULL_SPEED * DT) / distance, 1);
        mote.x += dx * step;
        mote.y += dy * step;
      }
    });
  }

  #appear(rng) {
    const id = this.#takeFree();
    if (id < 0) {
      return;
    }
    let x = 0;
    let y = 0;
    if (rng.unit() < 0.45) {
      const at = rng.nextU32() % SPRINGS;
      const spring = this.#springs[at];
      const angle = rng.between(-3.15, 3.15);
      const distance = rng.unit() * SPRING_SPREAD;
      x = spring.x + Math.cos(angle) * distance;
      y = spring.y + Math.sin(angle) * distance;
      spring.left--;
      if (spring.left === 0) {
        this.#springs[at] = newSpring(rng);
      }
    } else {
      x = rng.between(0, WORLD_SIZE);
      y = rng.between(0, WORLD_SIZE);
    }
    const mote = this.all[id];
    mote.x = clamp(x, MARGIN, WORLD_SIZE - MARGIN);
    mote.y = clamp(y, MARGIN, WORLD_SIZE - MARGIN);
    mote.vx = 0;
    mote.vy = 0;
    mote.value = rng.nextU32() % LARGE_ONE_IN === 0 ? LARGE_VALUE : SMALL_VALUE;
  }

  #takeFree() {
    if (this.#freeCount === 0) {
      return -1;
    }
    const id = this.#free[this.#firstFree];
    this.#firstFree = (this.#firstFree + 1) % CAPACITY;
    this.#freeCount--;
    return id;
  }

  #giveFree(id) {
    this.#free[(this.#firstFree + this.#freeCount) % CAPACITY] = id;
    this.#freeCount++;
  }
}

export function isLarge(mote) {
  return mote.value >= LARGE_VALUE * 0.5;
}

function drift(mote) {
  mote.x = clamp(mote.x + mote.vx * DT, 0, WORLD_SIZE);
  mote.y = clamp(mote.y + mote.vy * DT, 0, WORLD_SIZE);
  mote.vx -= mote.vx * DRAG * DT;
  mote.vy -= mote.vy * DRAG * DT;
  if (Math.abs(mote.vx) + Math.abs(mote.vy) < 4) {
    mote.vx = 0;
    mote.vy = 0;
  }
}

function newSpring(rng) {
  return {
    x: rng.between(SPRING_SPREAD, WORLD_SIZE - SPRING_SPREAD),
    y: rng.between(SPRING_SPREAD, WORLD_SIZE - SPRING_SPREAD),
    left: SPRING_LIFE / 2 + (rng.nextU32() % SPRING_LIFE),
  };
}
