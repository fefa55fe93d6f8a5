// A uniform grid over the arena: who is near, without looking at everybody.

export class Grid {
  #cell;
  #side;
  /** `starts[c]` to `starts[c + 1]` is the part of `items` that lies in cell `c`. */
  #starts;
  #items;

  /** `extent` is the edge of the square arena, `cell` the edge of a cell, `capacity` how many there may be at most. */
  constructor(extent, cell, capacity) {
    this.#cell = cell;
    this.#side = Math.max(Math.ceil(extent / cell), 1);
    this.#starts = new Uint32Array(this.#side * this.#side + 1);
    this.#items = new Uint16Array(capacity);
  }

  /** Replaces the contents by those of `things` for which `isHere` says so; their ids are their places. */
  rebuild(things, isHere) {
    const starts = this.#starts.fill(0);
    for (const thing of things) {
      if (isHere(thing)) {
        starts[this.#cellOf(thing.x, thing.y)]++;
      }
    }
    let end = 0;
    for (let cell = 0; cell < starts.length; cell++) {
      end += starts[cell];
      starts[cell] = end;
    }
    for (let id = 0; id < things.length; id++) {
      if (isHere(things[id])) {
        const cell = this.#cellOf(things[id].x, things[id].y);
        starts[cell]--;
        this.#items[starts[cell]] = id;
      }
    }
  }

  /** Calls `visit` for everything in the cells that a circle touches: more than what lies within `radius`. */
  near(x, y, radius, visit) {
    const left = this.#index(x - radius);
    const right = this.#index(x + radius);
    const bottom = this.#index(y + radius);
    for (let row = this.#index(y - radius); row <= bottom; row++) {
      // The cells of one row lie side by side.
      const end = this.#starts[row * this.#side + right + 1];
      for (let at = this.#starts[row * this.#side + left]; at < end; at++) {
        visit(this.#items[at]);
      }
    }
  }

  #cellOf(x, y) {
    return this.#index(y) * this.#side + this.#index(x);
  }

  #index(coordinate) {
    const index = Math.trunc(coordinate / this.#cell);
    return index > 0 ? Math.min(index, this.#side - 1) : 0;
  }
}
