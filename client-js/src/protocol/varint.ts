// Variable-length integers (RFC 9000, section 16), limited to what a number holds exactly, and the
// writer and reader of fields built on them.

/** Bytes that `value` takes in its shortest form. */
export function varintLength(value: number): number {
  return value < 0x40 ? 1 : value < 0x4000 ? 2 : value < 0x4000_0000 ? 4 : 8;
}

/** Collects bytes in a buffer that grows by doubling. */
export class Writer {
  #bytes: Uint8Array;
  #length = 0;

  constructor(capacity = 64) {
    this.#bytes = new Uint8Array(capacity);
  }

  get length(): number {
    return this.#length;
  }

  u8(value: number): void {
    this.#grow(1)[this.#length++] = value;
  }

  varint(value: number): void {
    const length = varintLength(value);
    const bytes = this.#grow(length);
    let rest = value;
    for (let at = this.#length + length - 1; at >= this.#length; at--) {
      bytes[at] = rest % 256;
      rest = Math.floor(rest / 256);
    }
    // The first byte's high bits hold the logarithm of the length: 0, 1, 2 or 3.
    bytes[this.#length] = (bytes[this.#length] ?? 0) | ((31 - Math.clz32(length)) << 6);
    this.#length += length;
  }

  bytes(data: Uint8Array): void {
    this.#grow(data.length).set(data, this.#length);
    this.#length += data.length;
  }

  /** What was written. The writer must not be used afterwards. */
  finish(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length) as Uint8Array<ArrayBuffer>;
  }

  #grow(by: number): Uint8Array {
    const needed = this.#length + by;
    if (needed > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
      larger.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = larger;
    }
    return this.#bytes;
  }
}

/** The varint at `at`: its value and where it ends; `null` when the bytes end first; the value is `NaN` above 2^53 − 1. */
export function readVarint(bytes: Uint8Array, at: number): { value: number; end: number } | null {
  const first = bytes[at];
  if (first === undefined) {
    return null;
  }
  const end = at + (1 << (first >> 6));
  if (end > bytes.length) {
    return null;
  }
  let value = first & 0x3f;
  for (let index = at + 1; index < end; index++) {
    value = value * 256 + (bytes[index] ?? 0);
  }
  return { value: value > Number.MAX_SAFE_INTEGER ? Number.NaN : value, end };
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Reads fields one after the other; throws what `malformed` makes where they are not as they must be. */
export class Reader {
  readonly #bytes: Uint8Array;
  readonly #malformed: () => Error;
  #at = 0;

  constructor(bytes: Uint8Array, malformed: () => Error) {
    this.#bytes = bytes;
    this.#malformed = malformed;
  }

  check(valid: boolean): void {
    if (!valid) {
      throw this.#malformed();
    }
  }

  int(): number {
    const { value, end } = readVarint(this.#bytes, this.#at) ?? { value: Number.NaN, end: 0 };
    this.check(value >= 0);
    this.#at = end;
    return value;
  }

  /** The next `length` bytes, as a view. */
  take(length: number): Uint8Array {
    this.#at += length;
    this.check(this.#at <= this.#bytes.length);
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  /** All bytes that are left, as a view. */
  rest(): Uint8Array {
    return this.take(this.#bytes.length - this.#at);
  }

  /** Bytes that are text, a byte order mark included. */
  text(bytes: Uint8Array): string {
    try {
      return UTF8.decode(bytes);
    } catch {
      throw this.#malformed();
    }
  }

  /** Text behind its length. */
  string(): string {
    return this.text(this.take(this.int()));
  }

  get isOver(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** Nothing may follow. */
  end(): void {
    this.check(this.isOver);
  }
}
