/** What became of the numbers 1, 2, 3, … of one sender; server/src/demo/tally.rs counts in the same way. */
export interface Counts {
  /** Different numbers that came. */
  readonly received: number;
  /** Numbers below the highest that have not come. */
  readonly missing: number;
  /** What came again. */
  readonly repeated: number;
  /** What came after a higher one. Missing until then. */
  readonly outOfOrder: number;
}

export const NO_COUNTS: Counts = { received: 0, missing: 0, repeated: 0, outOfOrder: 0 };

/** More than these many missing numbers are counted, and not told apart from repeats when they come late. */
const ABSENT_MAX = 10_000;

export class Tally implements Counts {
  received = 0;
  missing = 0;
  repeated = 0;
  outOfOrder = 0;
  #highest = 0;
  #absent = new Set<number>();

  take(number: number): void {
    if (number > this.#highest) {
      this.missing += number - this.#highest - 1;
      for (let n = this.#highest + 1; n < number && this.#absent.size < ABSENT_MAX; n++) this.#absent.add(n);
      this.#highest = number;
      this.received++;
    } else if (this.#absent.delete(number)) {
      this.missing--;
      this.outOfOrder++;
      this.received++;
    } else {
      this.repeated++;
    }
  }
}

/** Whether nothing was lost, came twice, or came in another order. */
export function isFlawless({ missing, repeated, outOfOrder }: Counts): boolean {
  return missing + repeated + outOfOrder === 0;
}
