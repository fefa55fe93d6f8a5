import type { Camera } from './camera.js';
import { prefersReducedMotion } from './dom.js';
import { shipColor } from './sprites.js';
import { FLAG_DASHING, FLAG_HUMAN, FLAG_STUNNED, type Ship, type State } from './wire.js';

interface Spark {
  x: number;
  y: number;
  vx: number;
  vy: number;
  age: number;
  life: number;
  size: number;
  color: string;
}

interface Ring {
  x: number;
  y: number;
  age: number;
  life: number;
  radius: number;
  color: string;
}

interface Trail {
  xs: number[];
  ys: number[];
  seenAt: number;
  wait: number;
}

const SPARKS_MAX = 400;
const TRAIL_POINTS = 16;
/** A trail gets a point this often, ms; it lasts about half a second. */
const TRAIL_EVERY_MS = 30;
/** A mote that vanishes this near to a hull was collected, and not only left out of sight. */
const COLLECT_REACH = 70;

/** Trails, sparks and rings: what moves on the page alone. It is derived from states, and changes nothing. */
export class Effects {
  #sparks: Spark[] = [];
  #rings: Ring[] = [];
  #trails = new Map<number, Trail>();
  #calm = prefersReducedMotion();
  /** How much the picture shakes now, CSS pixels. */
  shake = 0;

  /** Compares two states in turn: who was hit, who dashed, which mote was collected. */
  observe(from: State, to: State): void {
    for (const ship of to.ships.values()) {
      const before = from.ships.get(ship.id);
      if (!before) continue;
      const rose = ship.flags & ~before.flags;
      const isOwn = ship.id === to.ownId;
      const color = shipColor(ship.id, isOwn, (ship.flags & FLAG_HUMAN) !== 0);
      if (rose & FLAG_STUNNED) {
        this.#burst(ship.x, ship.y, '#ffd9a0', 22, 420);
        this.#rings.push({
          x: ship.x,
          y: ship.y,
          age: 0,
          life: 0.45,
          radius: ship.radius * 3.4,
          color: '#ffffff',
        });
        if (isOwn && !this.#calm) this.shake = 12;
      }
      if (rose & FLAG_DASHING) {
        this.#rings.push({ x: ship.x, y: ship.y, age: 0, life: 0.35, radius: ship.radius * 2.2, color });
      }
    }
    for (const mote of from.motes.values()) {
      if (to.motes.has(mote.id)) continue;
      for (const ship of to.ships.values()) {
        if (Math.hypot(ship.x - mote.x, ship.y - mote.y) < ship.radius + COLLECT_REACH) {
          this.#burst(mote.x, mote.y, mote.large ? '#ffc46b' : '#ffe9b0', mote.large ? 7 : 2, 110);
          break;
        }
      }
    }
  }

  step(seconds: number): void {
    this.shake *= Math.exp(-seconds * 9);
    for (const spark of this.#sparks) {
      spark.age += seconds;
      spark.x += spark.vx * seconds;
      spark.y += spark.vy * seconds;
      const drag = Math.exp(-seconds * 3.5);
      spark.vx *= drag;
      spark.vy *= drag;
    }
    for (const ring of this.#rings) ring.age += seconds;
    this.#sparks = this.#sparks.filter((spark) => spark.age < spark.life);
    this.#rings = this.#rings.filter((ring) => ring.age < ring.life);
  }

  drawTrails(c: CanvasRenderingContext2D, camera: Camera, ships: Ship[], ownId: number, now: number): void {
    for (const ship of ships) {
      const trail = this.#trailOf(ship, now);
      const color = shipColor(ship.id, ship.id === ownId, (ship.flags & FLAG_HUMAN) !== 0);
      this.#drawTrail(c, camera, ship, trail, color);
    }
    c.globalAlpha = 1;
    for (const [id, trail] of this.#trails) if (trail.seenAt !== now) this.#trails.delete(id);
  }

  /** A ribbon that narrows and fades towards its end: one shape, so that nothing overlaps itself. */
  #drawTrail(c: CanvasRenderingContext2D, camera: Camera, ship: Ship, trail: Trail, color: string): void {
    const count = trail.xs.length;
    if (count < 2) return;
    const isDashing = (ship.flags & FLAG_DASHING) !== 0;
    const headX = camera.screenX(ship.x);
    const headY = camera.screenY(ship.y);
    const tailX = camera.screenX(trail.xs[0] ?? 0);
    const tailY = camera.screenY(trail.ys[0] ?? 0);
    const fade = c.createLinearGradient(tailX, tailY, headX, headY);
    fade.addColorStop(0, 'transparent');
    fade.addColorStop(1, color);
    c.fillStyle = fade;
    c.globalAlpha = isDashing ? 0.75 : 0.34;
    const width = ship.radius * camera.scale * (isDashing ? 0.62 : 0.34);
    const left: number[] = [];
    const right: number[] = [];
    for (let n = 0; n < count; n++) {
      const x = camera.screenX(trail.xs[n] ?? 0);
      const y = camera.screenY(trail.ys[n] ?? 0);
      const dx = (n + 1 < count ? camera.screenX(trail.xs[n + 1] ?? 0) : headX) - x;
      const dy = (n + 1 < count ? camera.screenY(trail.ys[n + 1] ?? 0) : headY) - y;
      const length = Math.hypot(dx, dy);
      if (length < 0.01) continue;
      const half = (width * n) / count;
      left.push(x - (dy / length) * half, y + (dx / length) * half);
      right.push(x + (dy / length) * half, y - (dx / length) * half);
    }
    c.beginPath();
    for (let n = 0; n < left.length; n += 2) c.lineTo(left[n] ?? 0, left[n + 1] ?? 0);
    c.lineTo(headX, headY);
    for (let n = right.length - 2; n >= 0; n -= 2) c.lineTo(right[n] ?? 0, right[n + 1] ?? 0);
    c.closePath();
    c.fill();
  }

  drawSparks(c: CanvasRenderingContext2D, camera: Camera): void {
    for (const ring of this.#rings) {
      const part = ring.age / ring.life;
      c.globalAlpha = 0.7 * (1 - part);
      c.strokeStyle = ring.color;
      c.lineWidth = 2.5 * (1 - part) + 0.5;
      c.beginPath();
      const radius = ring.radius * (0.3 + 0.7 * Math.sqrt(part)) * camera.scale;
      c.arc(camera.screenX(ring.x), camera.screenY(ring.y), radius, 0, 2 * Math.PI);
      c.stroke();
    }
    for (const spark of this.#sparks) {
      c.globalAlpha = 1 - spark.age / spark.life;
      c.fillStyle = spark.color;
      const radius = spark.size * camera.scale * (1 - (0.6 * spark.age) / spark.life);
      c.beginPath();
      c.arc(camera.screenX(spark.x), camera.screenY(spark.y), radius, 0, 2 * Math.PI);
      c.fill();
    }
    c.globalAlpha = 1;
  }

  #trailOf(ship: Ship, now: number): Trail {
    let trail = this.#trails.get(ship.id);
    if (!trail) {
      trail = { xs: [], ys: [], seenAt: now, wait: now };
      this.#trails.set(ship.id, trail);
    }
    const count = trail.xs.length;
    const jump = Math.hypot(
      (trail.xs[count - 1] ?? ship.x) - ship.x,
      (trail.ys[count - 1] ?? ship.y) - ship.y,
    );
    if (jump > 200) {
      trail.xs.length = 0;
      trail.ys.length = 0;
    }
    if (now >= trail.wait) {
      trail.wait = now + TRAIL_EVERY_MS;
      trail.xs.push(ship.x);
      trail.ys.push(ship.y);
      if (trail.xs.length > TRAIL_POINTS) {
        trail.xs.shift();
        trail.ys.shift();
      }
    }
    trail.seenAt = now;
    return trail;
  }

  #burst(x: number, y: number, color: string, count: number, speed: number): void {
    if (this.#calm) return;
    for (let n = 0; n < count && this.#sparks.length < SPARKS_MAX; n++) {
      const angle = Math.random() * 2 * Math.PI;
      const v = speed * (0.25 + Math.random());
      this.#sparks.push({
        x,
        y,
        vx: Math.cos(angle) * v,
        vy: Math.sin(angle) * v,
        age: 0,
        life: 0.25 + Math.random() * 0.4,
        size: 1 + Math.random() * 1.6,
        color,
      });
    }
  }
}
