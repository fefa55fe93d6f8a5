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
  /** What is not held did not exist at this offset: news of it that are not newer are out of date. */
  #settled = 0;

  /** SUBSCRIBED: offsets of before say nothing any more. */
  begin(): void {
    this.#settled = 0;
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
    if (offset <= (known?.offset ?? this.#removed.get(key) ?? this.#settled)) {
      return;
    }
    this.#removed.delete(key);
    if (data !== undefined) {
      this.#known.set(key, { offset, snapshot });
      this.held.set(key, data);
      return { key, data, offset };
    }
    this.#removed.set(key, offset);
    if (this.#removed.size > MAX_REMOVALS) {
      const [oldest = ''] = this.#removed.keys();
      this.#removed.delete(oldest);
    }
    return this.#forget(key, offset);
  }

  /** SETTLED: what is still in doubt does not exist, unless it is newer than the snapshot. Returns what has changed. */
  settle(offset: number): Change[] {
    this.#settled = offset;
    for (const [key, removed] of this.#removed) {
      if (removed <= offset) {
        this.#removed.delete(key);
      }
    }
    const doubtful = [...this.#known].filter(
      ([, known]) => known.snapshot < this.#snapshot && known.offset <= offset,
    );
    return doubtful.flatMap(([key]) => this.#forget(key, offset) ?? []);
  }

  #forget(key: string, offset: number): Change | undefined {
    this.held.delete(key);
    return this.#known.delete(key) ? { key, data: undefined, offset } : undefined;
  }
}
