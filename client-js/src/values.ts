// What a channel of state holds, as far as this session knows (SPEC section 10.1): for each key the newest value, in
// whatever order they come.

import { MAX_REMOVALS } from './limits.js';
import type { Value } from './protocol/channels.js';
import type { Message } from './protocol/message.js';

/** What a listener is told of one key; without data it was removed. */
export type Change = Pick<Value, 'key' | 'data' | 'offset'>;

export class Values {
  /** What the application sees. */
  readonly held = new Map<string, Message>();
  /** For each key that is held: the offset of its value, and the newest snapshot that has named it. */
  readonly #known = new Map<string, { offset: number; snapshot: number }>();
  /** Offsets of removals, the newest last: a value that was sent before may still come. */
  readonly #removed = new Map<string, number>();
  #snapshot = 0;

  /** SUBSCRIBED: offsets of before say nothing any more. */
  begin(): void {
    this.#removed.clear();
    for (const known of this.#known.values()) {
      known.offset = 0;
    }
  }

  /** SNAPSHOT: everything is in doubt until it is named. */
  doubt(): void {
    this.#snapshot++;
  }

  /** A value came. Returns what has changed. */
  take({ key, data, offset }: Value): Change | undefined {
    const snapshot = this.#snapshot;
    const known = this.#known.get(key);
    if (known) {
      // Also by an older value: the key was there when the snapshot was made.
      known.snapshot = snapshot;
    }
    if (offset <= (known?.offset ?? this.#removed.get(key) ?? 0)) {
      return;
    }
    if (data !== undefined) {
      this.#removed.delete(key);
      this.#known.set(key, { offset, snapshot });
      this.held.set(key, data);
    } else {
      this.#remove(key, offset);
      if (!known) {
        return;
      }
    }
    return { key, data, offset };
  }

  /** SETTLED: what is still in doubt does not exist, unless it is newer than the snapshot. Returns what has changed. */
  settle(offset: number): Change[] {
    const gone: Change[] = [];
    for (const [key, known] of this.#known) {
      if (known.snapshot < this.#snapshot && known.offset <= offset) {
        this.#remove(key, known.offset);
        gone.push({ key, data: undefined, offset });
      }
    }
    return gone;
  }

  #remove(key: string, offset: number): void {
    this.#known.delete(key);
    this.held.delete(key);
    this.#removed.delete(key);
    this.#removed.set(key, offset);
    if (this.#removed.size > MAX_REMOVALS) {
      const [oldest = ''] = this.#removed.keys();
      this.#removed.delete(oldest);
    }
  }
}
