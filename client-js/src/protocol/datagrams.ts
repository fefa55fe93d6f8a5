// Datagrams that wait to be sent: for each key only the newest (SPEC section 5).

import { MAX_OUTGOING_DATAGRAMS } from './limits.js';

/** What an application may call a key. */
export type DatagramKey = string | number;

/** The slots: one per key, in the order in which their keys came; without a key each datagram has its own. */
export class DatagramSlots {
  readonly #waiting = new Map<DatagramKey | symbol, Uint8Array>();

  /** Puts a datagram in its key's slot. Returns how many it pushed out: an older one of the same key, or the oldest of all. */
  put(key: DatagramKey | undefined, bytes: Uint8Array): number {
    const slot = key ?? Symbol();
    let dropped = 0;
    if (this.#waiting.has(slot)) {
      dropped = 1;
    } else if (this.#waiting.size >= MAX_OUTGOING_DATAGRAMS) {
      this.pop();
      dropped = 1;
    }
    this.#waiting.set(slot, bytes); // a key that is there keeps its place, so that it is not starved
    return dropped;
  }

  front(): Uint8Array | undefined {
    return this.#waiting.values().next().value;
  }

  /** Takes the first; empty bytes when there is none. */
  pop(): Uint8Array {
    for (const [slot, bytes] of this.#waiting) {
      this.#waiting.delete(slot);
      return bytes;
    }
    return new Uint8Array(0);
  }

  clear(): void {
    this.#waiting.clear();
  }
}
