/** Span over which rates are counted, ms: steady to read, quick to show a change. */
const WINDOW_MS = 2_000;
/** A pause longer than this counts as one, ms. */
const STALL_MS = 150;
/** A point of the sparkline stands for this long, ms. */
const SAMPLE_MS = 100;
/** 20 seconds. */
export const SAMPLES_MAX = 200;

/** Counts what arrives: states per second, their age, bytes per second. */
export class Metrics {
  /** States received since the page was opened. */
  states = 0;
  /** Worst age per tenth of a second, ms, oldest first. */
  readonly ages: number[] = [];
  #arrivals: number[] = [];
  #meanAge = Number.NaN;
  #worst = 0;
  #sampleAt = 0;
  #bytes: Array<{ at: number; total: number }> = [];

  arrived(now: number): void {
    this.states++;
    this.#arrivals.push(now);
  }

  /** Forgets the rates, and keeps the total: another session begins. */
  restart(): void {
    this.#arrivals = [];
    this.#bytes = [];
  }

  /** Once per frame, with the age of the newest state; NaN while there is none. */
  sample(ageMs: number, now: number): void {
    if (Number.isNaN(ageMs)) return;
    this.#meanAge = Number.isNaN(this.#meanAge) ? ageMs : this.#meanAge + (ageMs - this.#meanAge) * 0.03;
    this.#worst = Math.max(this.#worst, ageMs);
    if (now - this.#sampleAt < SAMPLE_MS) return;
    this.#sampleAt = now;
    this.ages.push(this.#worst);
    if (this.ages.length > SAMPLES_MAX) this.ages.shift();
    this.#worst = 0;
  }

  /** The session's count of received bytes, a few times per second. */
  sampleBytes(total: number, now: number): void {
    const newest = this.#bytes.at(-1);
    if (newest && total < newest.total) this.#bytes = [];
    this.#bytes.push({ at: now, total });
    while ((this.#bytes[0]?.at ?? now) < now - WINDOW_MS) this.#bytes.shift();
  }

  statesPerSecond(now: number): number {
    while ((this.#arrivals[0] ?? now) < now - WINDOW_MS) this.#arrivals.shift();
    const first = this.#arrivals[0];
    const last = this.#arrivals.at(-1);
    if (first === undefined || last === undefined || this.#arrivals.length < 2) return 0;
    // Intervals over the time they took: exact from the first second on. While nothing comes, that time goes on.
    const until = now - last > STALL_MS ? now : last;
    return ((this.#arrivals.length - 1) * 1_000) / Math.max(1, until - first);
  }

  /** Smoothed over about half a second, ms. */
  get ageMs(): number {
    return this.#meanAge;
  }

  bytesPerSecond(): number {
    const first = this.#bytes[0];
    const last = this.#bytes.at(-1);
    if (!first || !last || last.at - first.at < 200) return 0;
    return ((last.total - first.total) * 1_000) / (last.at - first.at);
  }
}
