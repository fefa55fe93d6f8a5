// A small seedable generator (mulberry32): 32 bits at a time, which is what JavaScript is quick at.

export class Rng {
  #state;

  constructor(seed) {
    this.#state = seed >>> 0;
  }

  nextU32() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return (z ^ (z >>> 14)) >>> 0;
  }

  /** Uniform in [0, 1). */
  unit() {
    return this.nextU32() / 4_294_967_296;
  }

  /** Uniform in [low, high). */
  between(low, high) {
    return low + (high - low) * this.unit();
  }
}
