// What `explain()` answers: what was tried, what happened, and why the current transport was chosen, for a person.

import type { Transport } from './transport/link.js';

/** One try to open a link. */
export interface Attempt {
  readonly transport: Transport;
  /** Number of the race it belongs to: 1 when the session was first opened, one more for each search after it. */
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

/** One step of a session from link to link; `null` stands for none. */
export interface Move {
  /** When, in milliseconds since the Unix epoch. */
  readonly at: number;
  readonly from: Transport | null;
  readonly to: Transport | null;
  /** In words. */
  readonly reason: string;
}

/** The answer of `explain()`. */
export interface Explanation {
  /** One sentence. */
  readonly summary: string;
  /** The attempts of the newest races, oldest race first, best transport first. */
  readonly attempts: readonly Attempt[];
  /** The newest moves, oldest first. */
  readonly moves: readonly Move[];
  /** Summary, the attempts that led to the current link, or look for one, and the newest moves, in lines of text. */
  readonly text: string;
}

/** What is known. */
export interface Facts {
  readonly state: 'connecting' | 'open' | 'reconnecting' | 'closed';
  readonly transport: Transport | null;
  /** Why the session ended, or why it has no link now. */
  readonly reason: string;
  /** Of the race that found the current link, or looks for one. */
  readonly newest: readonly Attempt[];
  readonly moves: readonly Move[];
  /** Why the current link is in doubt; empty when it is not. */
  readonly doubts: string;
  /** When better transports are tried again, in milliseconds from now; Infinity: they are not. */
  readonly climbInMs: number;
  /** How long it is authenticated, in words; may be empty. */
  readonly credentials: string;
  readonly now: number;
}

export function explain(facts: Facts): Pick<Explanation, 'summary' | 'text'> {
  const { state, transport, reason, newest, moves, doubts, climbInMs, credentials, now } = facts;
  const won = newest.findIndex((attempt) => attempt.transport === transport);
  const tried = describe(newest) || 'nothing was tried yet';
  const summary = {
    connecting: `Connecting: ${tried}.`,
    open: `Connected over ${transport}: ${describe(newest.slice(0, Math.max(won, 0))) || 'the first choice answered'}.`,
    reconnecting: `Reconnecting (${reason}): ${tried}.`,
    closed: `Closed: ${reason}.`,
  }[state];
  const lines = newest.map((attempt) => `- at ${Math.round(attempt.afterMs)} ms: ${describe([attempt])}`);
  if (state === 'open' && doubts) {
    lines.push(`It is in doubt (${doubts}), and another link is looked for.`);
  }
  if (climbInMs < Infinity) {
    lines.push(`Better transports are tried again in ${seconds(climbInMs)}.`);
  }
  if (credentials) {
    lines.push(credentials);
  }
  for (const { at, from, to, reason } of moves.slice(-4)) {
    lines.push(`- ${seconds(now - at)} ago: ${from ?? 'no link'} to ${to ?? 'no link'} (${reason})`);
  }
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

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}
