/** One step of the session from link to link. A loss and the link after it are one step. */
export interface Step {
  /** By the page's monotonic clock, ms. */
  readonly at: number;
  readonly from: string | null;
  /** Null while there is no link. */
  to: string | null;
  /** In words: why it left the link before. */
  readonly reason: string;
  /** In words: how it found the next, after a loss. */
  found: string;
  outcome: 'opened' | 'lost' | 'moved' | 'resumed' | 'anew';
  /** Longest time that the page heard nothing around this step, ms; it may still grow. */
  silenceMs: number;
}

/** A stretch of time, ms; until now when it has no end. */
export interface Span {
  readonly from: number;
  to: number;
  /** What carried the session; null: nothing did. */
  readonly transport: string | null;
}

const STEPS_MAX = 24;
/** Silence that begins this soon after a step still belongs to it, ms. */
const SETTLE_MS = 500;
/** Silence that the eye can see in the strip, ms: some states in a row. */
export const SILENCE_MS = 250;
/** What the strip shows, ms. */
export const STRIP_MS = 60_000;

/** Where the session has been, and how long the page heard nothing meanwhile. */
export class Journey {
  /** Newest last. */
  readonly steps: Step[] = [];
  /** Oldest first; the last goes on. */
  readonly spans: Span[] = [];
  /** Times without anything heard, oldest first. */
  readonly silences: { from: number; to: number }[] = [];
  #heardAt = Number.NaN;
  /** Steps that silence is still counted for, and since when they have been where they are. */
  #unsettled: { step: Step; at: number }[] = [];

  /** Something came from the server. */
  heard(now: number): void {
    const since = this.#heardAt;
    this.#heardAt = now;
    if (Number.isNaN(since)) return;
    const silence = now - since;
    if (silence >= SILENCE_MS) this.silences.push({ from: since, to: now });
    this.#unsettled = this.#unsettled.filter(({ step, at }) => {
      if (since > at + SETTLE_MS) return false;
      step.silenceMs = Math.max(step.silenceMs, silence);
      return true;
    });
  }

  changed(from: string | null, to: string | null, reason: string, now: number): void {
    this.#span(to, now);
    const last = this.steps.at(-1);
    if (from === null && last?.outcome === 'lost') {
      last.to = to;
      last.outcome = 'resumed';
      last.found = reason;
      for (const one of this.#unsettled) if (one.step === last) one.at = now;
      return;
    }
    const outcome = from === null ? 'opened' : to === null ? 'lost' : 'moved';
    const step: Step = { at: now, from, to, reason, found: '', outcome, silenceMs: 0 };
    this.steps.push(step);
    if (this.steps.length > STEPS_MAX) this.steps.shift();
    // Before the first link there was nothing to hear.
    if (outcome !== 'opened')
      this.#unsettled.push({ step, at: outcome === 'lost' ? Number.POSITIVE_INFINITY : now });
  }

  /** The session could not be resumed: the step that led to the current link began another one. */
  gap(): void {
    const last = this.steps.at(-1);
    if (last) last.outcome = 'anew';
  }

  /** The page leaves this session for another. */
  restart(now: number): void {
    this.steps.length = 0;
    this.#unsettled = [];
    this.#heardAt = Number.NaN;
    this.#span(null, now);
  }

  /** How long nothing has been heard, ms; NaN before the first. */
  silentFor(now: number): number {
    return now - this.#heardAt;
  }

  #span(transport: string | null, now: number): void {
    const last = this.spans.at(-1);
    if (last) last.to = now;
    this.spans.push({ from: now, to: Number.POSITIVE_INFINITY, transport });
    const oldest = now - STRIP_MS;
    while ((this.spans[0]?.to ?? now) < oldest) this.spans.shift();
    while ((this.silences[0]?.to ?? now) < oldest) this.silences.shift();
  }
}
