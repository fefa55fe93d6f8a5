// What `explain()` answers: what was tried, what happened, and why the current transport was chosen, for a person.

import type { Transport } from './transport/link.js';

/** One try to open a link. */
export interface Attempt {
  readonly transport: Transport;
  /** Number of the race it belongs to: 1 when the session was first opened, one more for each reconnect. */
  readonly race: number;
  /** When it began, in milliseconds since the Unix epoch. */
  readonly startedAt: number;
  /** The same, since its race began, in milliseconds. */
  readonly afterMs: number;
  /** How long it took to its outcome, in milliseconds; `null` while it is being tried, and when it was skipped. */
  readonly ms: number | null;
  readonly outcome: 'trying' | 'won' | 'failed' | 'cancelled' | 'skipped';
  /** In words; may be empty. */
  readonly reason: string;
}

/** The answer of `explain()`. */
export interface Explanation {
  /** One sentence. */
  readonly summary: string;
  /** The newest attempts, oldest first. */
  readonly attempts: readonly Attempt[];
  /** Summary and attempts of the newest race, in lines of text. */
  readonly text: string;
}

/** What the session knows beside its attempts. */
export interface Situation {
  readonly state: 'connecting' | 'open' | 'reconnecting' | 'closed';
  readonly transport: Transport | null;
  /** Why the session ended, or why it has no link now. */
  readonly reason: string;
}

export function explain(situation: Situation, attempts: readonly Attempt[]): Explanation {
  const race = attempts.at(-1)?.race;
  const newest = attempts.filter((attempt) => attempt.race === race);
  const summary = summarize(situation, newest);
  const text = [summary, ...newest.map((attempt) => `- ${describe(attempt)}`)].join('\n');
  return { summary, attempts, text };
}

/** One attempt in words. */
export function describe({ transport, outcome, ms, afterMs, reason }: Attempt): string {
  const tail = reason && `: ${reason}`;
  const start = `started at ${Math.round(afterMs)} ms`;
  const after = `after ${Math.round(ms ?? 0)} ms`;
  switch (outcome) {
    case 'trying':
      return `${transport} ${start}, no answer yet${tail}`;
    case 'won':
      return `${transport} ${start}, answered ${after}`;
    case 'failed':
      return `${transport} ${start}, failed ${after}${tail}`;
    case 'cancelled':
      return `${transport} ${start}, given up ${after}${tail}`;
    case 'skipped':
      return `${transport} not tried${tail}`;
  }
}

function summarize({ state, transport, reason }: Situation, attempts: readonly Attempt[]): string {
  const others = attempts
    .filter((attempt) => attempt.transport !== transport)
    .filter(
      (attempt) => attempt.outcome === 'failed' || attempt.outcome === 'trying' || attempt.afterMs === 0,
    )
    .map(shortly);
  switch (state) {
    case 'open': {
      const above = attempts.findIndex((attempt) => attempt.transport === transport);
      const better = attempts.slice(0, Math.max(above, 0)).map(shortly);
      const why = better.length > 0 ? better.join('; ') : 'the first choice, and it answered';
      return `Connected over ${transport}: ${why}.`;
    }
    case 'connecting':
      return `Connecting: ${others.join('; ') || 'nothing was tried yet'}.`;
    case 'reconnecting':
      return `Reconnecting (${reason}): ${others.join('; ') || 'nothing was tried yet'}.`;
    case 'closed':
      return `Closed: ${reason}.`;
  }
}

/** No transport worked: what each of them said. */
export function summarizeFailure(attempts: readonly Attempt[]): string {
  return attempts.map(shortly).join('; ') || 'no transport was allowed';
}

function shortly({ transport, outcome, ms, reason }: Attempt): string {
  switch (outcome) {
    case 'trying':
      return `${transport} has not answered yet`;
    case 'won':
      return `${transport} answered`;
    case 'failed':
      return `${transport} failed (${reason})`;
    case 'cancelled':
      return `${transport} had not answered after ${Math.round(ms ?? 0)} ms`;
    case 'skipped':
      return `${transport} was not tried (${reason})`;
  }
}
