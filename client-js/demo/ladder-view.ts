import { create, element, setText } from './dom.js';
import { LABELS, TRANSPORTS, type Transport } from './transports.js';

/** The part of an attempt that the ladder shows. */
export interface AttemptView {
  readonly transport: string;
  readonly outcome: string;
  readonly ms: number | null;
  readonly reason: string;
}

interface Rung {
  row: HTMLElement;
  status: HTMLElement;
  reason: HTMLElement;
}

/** Four rungs: which is in use, which failed and why, which is being tried. */
export class LadderView {
  #rungs = new Map<Transport, Rung>();

  constructor() {
    const list = element('ladder');
    for (const transport of TRANSPORTS) {
      const row = create('li', 'rung');
      const status = create('span', 'status');
      const reason = create('span', 'reason');
      row.append(create('span', 'mark'), create('span', 'name', LABELS[transport]), status, reason);
      list.append(row);
      this.#rungs.set(transport, { row, status, reason });
    }
  }

  update(
    current: string | null,
    attempts: readonly AttemptView[],
    allowed: readonly Transport[] | null,
    /** For how long from now nothing comes through, ms. */
    blocked: ReadonlyMap<Transport, number>,
  ): void {
    for (const [transport, rung] of this.#rungs) {
      const last = attempts.filter((attempt) => attempt.transport === transport).at(-1);
      const { status, words, reason } = describe(transport, current, last, allowed, blocked.get(transport));
      rung.row.setAttribute('data-status', status);
      setText(rung.status, words);
      setText(rung.reason, reason);
      rung.reason.title = reason;
    }
  }
}

function describe(
  transport: Transport,
  current: string | null,
  last: AttemptView | undefined,
  allowed: readonly Transport[] | null,
  blockedMs = 0,
): { status: string; words: string; reason: string } {
  const took = last?.ms == null ? '' : ` · ${milliseconds(last.ms)}`;
  if (blockedMs > 0)
    return { status: 'failed', words: `blocked for ${Math.ceil(blockedMs / 1_000)} s`, reason: '' };
  if (transport === current)
    return { status: 'used', words: `in use${last?.outcome === 'won' ? took : ''}`, reason: '' };
  if (allowed && !allowed.includes(transport)) return { status: 'off', words: 'switched off', reason: '' };
  switch (last?.outcome) {
    case 'trying':
      return { status: 'trying', words: 'trying …', reason: '' };
    case 'failed':
      return { status: 'failed', words: `failed${took}`, reason: last.reason };
    case 'skipped':
      // Another one was quicker: that is said where it stands.
      if (last.reason.endsWith(' won')) return { status: 'idle', words: 'not needed', reason: '' };
      return { status: 'skipped', words: 'skipped', reason: last.reason };
    case 'cancelled':
      return { status: 'idle', words: 'not needed', reason: '' };
    case 'won':
      return { status: 'idle', words: 'left', reason: '' };
    default:
      return { status: 'idle', words: 'not tried', reason: '' };
  }
}

export function milliseconds(ms: number): string {
  return ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(1)} s`;
}
