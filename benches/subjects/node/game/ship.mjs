// One ship: how it moves, dashes, grows and gets hurt. The rules and numbers of server/src/demo/ship.rs.

export const TICK_RATE = 30;
export const WORLD_SIZE = 4_800;
export const DT = 1 / TICK_RATE;
export const DASH_SPEED = 980;
export const DASH_COOLDOWN_TICKS = (TICK_RATE * 3) / 2;
export const RADIUS_MAX = 52;

const THRUST = 820;
const DRAG = 2;
const TURN_RATE = 9;
const DASH_TICKS = TICK_RATE / 5;
const DASH_COST = 1;
const STUN_TICKS = (TICK_RATE * 3) / 5;
const SHIELD_TICKS = TICK_RATE * 2;
const HIT_SHARE = 0.34;
const ENERGY_MIN = 10;
const ENERGY_MAX = 9_999;
const UPKEEP = 0.02;
const UPKEEP_FROM = 50;
const COAST_AFTER_TICKS = 2 * TICK_RATE;
const AUTOPILOT_AFTER_TICKS = 12 * TICK_RATE;
const TAU = 2 * Math.PI;

export class Ship {
  alive = true;
  vx = 0;
  vy = 0;
  energy = ENERGY_MIN;
  thrust = 0;
  dash = false;
  dashTicks = 0;
  cooldownTicks = 0;
  stunTicks = 0;
  shieldTicks = SHIELD_TICKS;
  /** The newest input taken, and the tick of its arrival; -1 before the first. */
  sequence = -1;
  inputTick = 0;

  constructor(isHuman, x, y, heading) {
    this.isHuman = isHuman;
    this.x = x;
    this.y = y;
    this.heading = heading;
    this.angle = heading;
  }

  /** Takes an input unless it is older than one already taken. */
  steer({ sequence, angle, thrust, dash }, tick) {
    if (this.sequence >= 0 && ((sequence - this.sequence) << 16) >> 16 <= 0) {
      return;
    }
    this.sequence = sequence;
    this.inputTick = tick;
    this.angle = (angle / 256) * TAU;
    this.thrust = thrust / 255;
    this.dash = dash;
  }

  isAutomatic(tick) {
    return !this.isHuman || this.sequence < 0 || tick - this.inputTick > AUTOPILOT_AFTER_TICKS;
  }

  advance(tick) {
    if (this.isHuman && this.sequence >= 0 && tick - this.inputTick > COAST_AFTER_TICKS && !this.isAutomatic(tick)) {
      this.thrust = 0;
      this.dash = false;
    }
    this.dashTicks = Math.max(this.dashTicks - 1, 0);
    this.cooldownTicks = Math.max(this.cooldownTicks - 1, 0);
    this.stunTicks = Math.max(this.stunTicks - 1, 0);
    this.shieldTicks = Math.max(this.shieldTicks - 1, 0);
    if (this.stunTicks > 0) {
      this.heading = wrapAngle(this.heading + 14 * DT);
    } else {
      this.#fly();
    }
    const drag = this.dashTicks > 0 ? 0 : DRAG;
    this.vx -= this.vx * drag * DT;
    this.vy -= this.vy * drag * DT;
    const speed = Math.sqrt(this.vx * this.vx + this.vy * this.vy);
    if (speed > DASH_SPEED) {
      this.vx *= DASH_SPEED / speed;
      this.vy *= DASH_SPEED / speed;
    }
    this.x += this.vx * DT;
    this.y += this.vy * DT;
    this.#bounceOffWalls();
    if (this.energy > UPKEEP_FROM) {
      this.energy -= (this.energy - UPKEEP_FROM) * UPKEEP * DT;
    }
  }

  #fly() {
    const most = TURN_RATE * DT;
    if (this.thrust > 0) {
      const turn = wrapAngle(this.angle - this.heading);
      this.heading = wrapAngle(this.heading + Math.min(Math.max(turn, -most), most));
    }
    if (this.dash && this.cooldownTicks === 0) {
      this.dashTicks = DASH_TICKS;
      this.cooldownTicks = DASH_COOLDOWN_TICKS;
      this.energy = Math.max(this.energy - DASH_COST, Math.min(ENERGY_MIN, this.energy));
      this.vx = Math.cos(this.angle) * DASH_SPEED;
      this.vy = Math.sin(this.angle) * DASH_SPEED;
      this.heading = this.angle;
    }
    if (this.dashTicks === 0) {
      const push = THRUST * (1.15 - (0.45 * this.radius()) / RADIUS_MAX) * this.thrust * DT;
      this.vx += Math.cos(this.heading) * push;
      this.vy += Math.sin(this.heading) * push;
    }
  }

  #bounceOffWalls() {
    const radius = this.radius();
    const x = clamp(this.x, radius, WORLD_SIZE - radius);
    if (x !== this.x) {
      this.x = x;
      this.vx *= -0.5;
    }
    const y = clamp(this.y, radius, WORLD_SIZE - radius);
    if (y !== this.y) {
      this.y = y;
      this.vy *= -0.5;
    }
  }

  /** Takes the hit of a dash: spins away in the given direction, and returns the energy knocked out of it. */
  hit(nx, ny) {
    const lost = Math.max((this.energy - ENERGY_MIN) * HIT_SHARE, 0);
    this.energy -= lost;
    this.stunTicks = STUN_TICKS;
    this.shieldTicks = SHIELD_TICKS;
    this.dashTicks = 0;
    this.vx = nx * DASH_SPEED * 0.6;
    this.vy = ny * DASH_SPEED * 0.6;
    return lost;
  }

  gain(energy) {
    this.energy = Math.min(this.energy + energy, ENERGY_MAX);
  }

  radius() {
    return Math.min(9 + 2.3 * Math.sqrt(this.energy), RADIUS_MAX);
  }

  score() {
    return Math.trunc(this.energy);
  }
}

export function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/** Into (-π, π]. */
export function wrapAngle(angle) {
  const wrapped = angle - TAU * Math.floor(angle / TAU);
  return wrapped > Math.PI ? wrapped - TAU : wrapped;
}
