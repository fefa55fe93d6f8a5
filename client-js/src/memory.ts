// What failed and what worked, per origin, so that a blocked transport does not delay every page load.
// It lives in `localStorage` where that is allowed, and beside it in this module.

import type { Environment } from './environment.js';
import { MEMORY_MS } from './limits.js';
import { TRANSPORTS, type Transport } from './transport/link.js';

/** A transport that failed not long ago. */
export interface Failure {
  /** In words. */
  readonly reason: string;
  /** When it failed, and until when it stays out of the way; milliseconds of the wall clock. */
  readonly at: number;
  readonly until: number;
  /** Failures in a row. */
  readonly count: number;
  /** It opened, but carried nothing: it is to be tried last. */
  readonly useless: boolean;
}

interface Contents {
  failures: Partial<Record<Transport, Failure>>;
  worked: Transport | null;
  /** Round trip of the link that worked, in milliseconds. */
  rttMs: number;
}

const shared = new Map<string, Contents>();

/** The memory of one origin. Nothing in it throws. */
export class Memory {
  readonly #env: Environment;
  readonly #key: string;

  constructor(env: Environment, origin: string) {
    this.#env = env;
    this.#key = `throughline:${origin}`;
  }

  /** The failure that still counts, if there is one. */
  failure(transport: Transport): Failure | null {
    const failure = this.#read().failures[transport];
    const now = this.#env.wallTime();
    // One from the future comes from a clock that was set back.
    return failure !== undefined && failure.at <= now && now < failure.until ? failure : null;
  }

  failed(transport: Transport, reason: string, useless = false): void {
    const contents = this.#read();
    const count = (contents.failures[transport]?.count ?? 0) + 1;
    const at = this.#env.wallTime();
    const keep = MEMORY_MS[Math.min(count, MEMORY_MS.length) - 1] ?? 0;
    contents.failures[transport] = { reason: reason.slice(0, 200), at, until: at + keep, count, useless };
    this.#write(contents);
  }

  worked(transport: Transport, rttMs: number): void {
    const contents = this.#read();
    delete contents.failures[transport];
    contents.worked = transport;
    contents.rttMs = rttMs;
    this.#write(contents);
  }

  /** What carried the last session. */
  get last(): Transport | null {
    return this.#read().worked;
  }

  /** Round trip of the last session, in milliseconds; 0 when unknown. */
  get rttMs(): number {
    return this.#read().rttMs;
  }

  #read(): Contents {
    let contents: Contents | null = null;
    try {
      contents = parse(this.#env.storage()?.getItem(this.#key));
    } catch {
      // Forbidden, or not ours: the module's own copy is what there is.
    }
    return contents ?? shared.get(this.#key) ?? { failures: {}, worked: null, rttMs: 0 };
  }

  #write(contents: Contents): void {
    shared.set(this.#key, contents);
    try {
      this.#env.storage()?.setItem(this.#key, JSON.stringify(contents));
    } catch {
      // Forbidden or full.
    }
  }
}

/** Takes nothing on trust: anything may be stored under our key. */
function parse(text: string | null | undefined): Contents | null {
  const raw: unknown = JSON.parse(text ?? 'null');
  if (!isRecord(raw)) {
    return null;
  }
  const failures: Contents['failures'] = {};
  for (const transport of TRANSPORTS) {
    const failure = isRecord(raw['failures']) ? raw['failures'][transport] : undefined;
    if (isRecord(failure)) {
      const { reason, at, until, count, useless } = failure;
      if (isTime(at) && isTime(until) && isTime(count) && typeof reason === 'string') {
        failures[transport] = { reason, at, until, count, useless: useless === true };
      }
    }
  }
  const rttMs = raw['rttMs'];
  return {
    failures,
    worked: TRANSPORTS.find((transport) => transport === raw['worked']) ?? null,
    rttMs: isTime(rttMs) ? rttMs : 0,
  };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function isTime(value: unknown): value is number {
  return typeof value === 'number' && value >= 0;
}
