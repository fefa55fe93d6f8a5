// The game as its players meet it: one loop, 30 times a second, that steps the world and tells everybody. What a player's connection is
// says the caller: `show(bytes)` sends a state or a map, `tell(text)` a message.

import { TICK_RATE, WORLD_SIZE } from './ship.mjs';
import { decodeInput, encodeMap, encodeState } from './view.mjs';
import { World } from './world.mjs';

const LEADERS = 10;
const ROSTER_MAX = 100;
const BOTS = 300;

export class Stage {
  #world;
  #players = new Map();

  constructor({ playersMax }) {
    this.#world = new World({ bots: BOTS, playersMax });
  }

  /** Runs until the process ends. After a pause it goes on from where it is, instead of rushing through what was missed. */
  start() {
    const began = performance.now();
    let ticks = 0;
    const tick = () => {
      this.#tick();
      const now = performance.now();
      ticks = Math.max(ticks + 1, Math.floor(((now - began) * TICK_RATE) / 1_000));
      setTimeout(tick, Math.max(began + (ticks * 1_000) / TICK_RATE - now, 0));
    };
    tick();
  }

  /** A player; null when every seat is taken. */
  join({ show, tell }) {
    const id = this.#world.join();
    if (id < 0) {
      return null;
    }
    const name = `Guest ${id % 1_000}`;
    this.#announce({ type: 'player', id, name });
    const player = { id, name, show, tell, input: null };
    this.#players.set(id, player);
    const players = [...this.#players.values()].slice(0, ROSTER_MAX).map((other) => [other.id, other.name]);
    const playerCount = this.#players.size;
    tell(JSON.stringify({ type: 'welcome', id, name, worldSize: WORLD_SIZE, tickRate: TICK_RATE, players, playerCount, bots: BOTS }));
    return {
      steer: (bytes) => {
        player.input = decodeInput(bytes) ?? player.input;
      },
      leave: () => {
        this.#players.delete(id);
        this.#world.leave(id);
        this.#announce({ type: 'left', id });
      },
    };
  }

  #tick() {
    const world = this.#world;
    for (const player of this.#players.values()) {
      if (player.input !== null) {
        world.steer(player.id, player.input);
        player.input = null;
      }
    }
    world.step();
    const timeUs = Math.trunc((performance.timeOrigin + performance.now()) * 1_000);
    for (const player of this.#players.values()) {
      player.show(encodeState(world, player.id, timeUs));
    }
    if (world.tick % (TICK_RATE / 2) === 0) {
      const map = encodeMap(world);
      for (const player of this.#players.values()) {
        player.show(map);
      }
    }
    if (world.tick % TICK_RATE === 0) {
      this.#announce(this.#leaderboard());
    }
  }

  #leaderboard() {
    const top = this.#world.standing.slice(0, LEADERS).map((id) => {
      const name = this.#players.get(id)?.name ?? `Bot ${id}`;
      return { id, name, score: this.#world.ships[id].score(), bot: !this.#world.ships[id].isHuman };
    });
    return { type: 'leaderboard', top, players: this.#players.size, bots: BOTS };
  }

  #announce(notice) {
    const text = JSON.stringify(notice);
    for (const player of this.#players.values()) {
      player.tell(text);
    }
  }
}
