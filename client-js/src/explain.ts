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
  /** The attempts of the newest races, oldest race first, best transport first. */
  readonly attempts: readonly Attempt[];
  /** Summary and attempts of the newest race, in lines of text. */
  readonly text: string;
}

export function explain(
  state: 'connecting' | 'open' | 'reconnecting' | 'closed',
  transport: Transport | null,
  /** Why the session ended, or why it has no link now. */
  reason: string,
  /** Those of the newest race. */
  newest: readonly Attempt[],
): Omit<Explanation, 'attempts'> {
  const won = newest.findIndex((attempt) => attempt.transport === transport);
  const tried = describe(newest) || 'nothing was tried yet';
  const summary = {
    connecting: `Connecting: ${tried}.`,
    open: `Connected over ${transport}: ${describe(newest.slice(0, Math.max(won, 0))) || 'the first choice answered'}.`,
    reconnecting: `Reconnecting (${reason}): ${tried}.`,
    closed: `Closed: ${reason}.`,
  }[state];
  const lines = newest.map((attempt) => `- at ${Math.round(attempt.afterMs)} ms: ${describe([attempt])}`);
  return { summary, text: [summary, ...lines].join('\n') };
}

const OUTCOMES = {
  trying: 'has not answered yet',
  won: 'answered',
  failed: 'failed',
  cancelled: 'was given up',
  skipped: 'was not tried',
};

/** Attempts in words. */
export function describe(attempts: readonly Attempt[]): string {
  return attempts
    .map(
      ({ transport, outcome, ms, reason }) =>
        `${transport} ${OUTCOMES[outcome]}${ms === null ? '' : ` after ${Math.round(ms)} ms`}${reason && ` (${reason})`}`,
    )
    .join('; ');
}
