// The arena: ships that glide, collect motes of energy, and knock it out of each other. The rules of server/src/demo/world.rs.

import { Mind } from './bots.mjs';
import { Grid } from './grid.mjs';
import { Motes } from './motes.mjs';
import { Rng } from './rng.mjs';
import { DASH_SPEED, RADIUS_MAX, Ship, TICK_RATE, WORLD_SIZE } from './ship.mjs';

const SCATTER_MAX = 8;
const ATTACKER_SHARE = 0.4;
const RANK_EVERY_TICKS = TICK_RATE / 2;
const SEED = 0x726f7567;

const isAlive = (ship) => ship.alive;

export class World {
  tick = 0;
  ships = [];
  motes;
  /** Ids of living ships by score, the best first, as of the last count. */
  standing = [];
  ranks;
  #rng = new Rng(SEED);
  #minds;
  #seats = [];
  #grid;

  constructor({ bots, playersMax }) {
    const count = bots + playersMax;
    for (let id = 0; id < count; id++) {
      const ship = this.#spawn(false);
      ship.energy += this.#rng.unit() * this.#rng.unit() * 160;
      ship.alive = id < bots;
      this.ships.push(ship);
      if (id >= bots) {
        this.#seats.push(id);
      }
    }
    this.#minds = this.ships.map(() => new Mind(this.#rng));
    this.motes = new Motes(this.#rng);
    this.#grid = new Grid(WORLD_SIZE, 2 * RADIUS_MAX, count);
    this.ranks = new Uint16Array(count);
    this.#grid.rebuild(this.ships, isAlive);
    this.#countRanks();
  }

  /** Puts a person's ship into the arena, or answers -1 when every seat is taken. */
  join() {
    const id = this.#seats.shift() ?? -1;
    if (id >= 0) {
      this.ships[id] = this.#spawn(true);
    }
    return id;
  }

  leave(id) {
    this.ships[id].alive = false;
    this.#seats.push(id);
  }

  steer(id, input) {
    this.ships[id].steer(input, this.tick);
  }

  step() {
    this.tick++;
    const { ships, tick } = this;
    for (let id = 0; id < ships.length; id++) {
      if (ships[id].alive && ships[id].isAutomatic(tick)) {
        this.#minds[id].steer(id, tick, ships, this.#grid, this.motes, this.#rng);
      }
    }
    for (const ship of ships) {
      if (ship.alive) {
        ship.advance(tick);
      }
    }
    this.#grid.rebuild(ships, isAlive);
    this.#collide();
    this.motes.step(ships, this.#rng);
    if (tick % RANK_EVERY_TICKS === 0) {
      this.#countRanks();
    }
  }

  shipsNear(x, y, radius, visit) {
    this.#grid.near(x, y, radius, visit);
  }

  #spawn(isHuman) {
    const margin = WORLD_SIZE * 0.06;
    const place = () => this.#rng.between(margin, WORLD_SIZE - margin);
    return new Ship(isHuman, place(), place(), this.#rng.between(-3.1, 3.1));
  }

  #collide() {
    const { ships } = this;
    for (let a = 0; a < ships.length; a++) {
      const ship = ships[a];
      if (ship.alive) {
        // The pair is met once, from its lower id.
        this.#grid.near(ship.x, ship.y, ship.radius() + RADIUS_MAX, (b) => {
          if (b > a) {
            this.#touch(ship, ships[b]);
          }
        });
      }
    }
  }

  /** Two ships that overlap push each other apart; one that dashes knocks energy out of one that does not. */
  #touch(a, b) {
    const dx = b.x - a.x;
    const dy = b.y - a.y;
    const radiusA = a.radius();
    const radiusB = b.radius();
    const reach = radiusA + radiusB;
    const squared = dx * dx + dy * dy;
    if (squared >= reach * reach) {
      return;
    }
    const distance = Math.sqrt(squared);
    const nx = distance > 0.01 ? dx / distance : 1;
    const ny = distance > 0.01 ? dy / distance : 0;
    if (a.dashTicks > 0 && b.dashTicks === 0 && b.shieldTicks === 0) {
      this.#ram(a, b, nx, ny);
    } else if (b.dashTicks > 0 && a.dashTicks === 0 && a.shieldTicks === 0) {
      this.#ram(b, a, -nx, -ny);
    }
    const massA = a.radius() ** 2;
    const massB = b.radius() ** 2;
    const shareA = massB / (massA + massB);
    const overlap = reach - distance;
    a.x -= nx * overlap * shareA;
    a.y -= ny * overlap * shareA;
    b.x += nx * overlap * (1 - shareA);
    b.y += ny * overlap * (1 - shareA);
    const closing = (a.vx - b.vx) * nx + (a.vy - b.vy) * ny;
    if (closing > 0) {
      const impulse = closing * 1.4;
      a.vx -= nx * impulse * shareA;
      a.vy -= ny * impulse * shareA;
      b.vx += nx * impulse * (1 - shareA);
      b.vy += ny * impulse * (1 - shareA);
    }
  }

  #ram(attacker, victim, nx, ny) {
    const lost = victim.hit(nx, ny);
    attacker.gain(lost * ATTACKER_SHARE);
    let rest = lost * (1 - ATTACKER_SHARE);
    for (let i = 0; i < SCATTER_MAX && rest >= 1; i++) {
      const angle = this.#rng.between(-3.15, 3.15);
      const speed = this.#rng.between(0.15, 0.5) * DASH_SPEED;
      rest -= this.motes.dropAt(victim.x, victim.y, Math.cos(angle) * speed, Math.sin(angle) * speed, rest);
    }
    attacker.gain(Math.max(rest, 0));
  }

  #countRanks() {
    const { ships } = this;
    this.standing.length = 0;
    for (let id = 0; id < ships.length; id++) {
      if (ships[id].alive) {
        this.standing.push(id);
      }
    }
    this.standing.sort((a, b) => ships[b].score() - ships[a].score() || a - b);
    for (let rank = 0; rank < this.standing.length; rank++) {
      this.ranks[this.standing[rank]] = rank + 1;
    }
  }
}
