// The small parts: memory, emitter, backoff, close codes, explain.

import { readFileSync } from 'node:fs';
import { describe, expect, it, vi } from 'vitest';
import { reconnectDelay } from '../src/backoff.js';
import { Emitter } from '../src/emitter.js';
import { browser } from '../src/environment.js';
import { type Attempt, explain } from '../src/explain.js';
import { Memory } from '../src/memory.js';
import { CODE_NAMES, shouldRetry, truncateUtf8 } from '../src/protocol/close.js';
import { World } from './world.js';

describe('memory', () => {
  it('keeps failures for 10 s, 30 s, 2 min, 10 min', async () => {
    const world = new World();
    const memory = new Memory(world, 'https://a.test');
    for (const ms of [10_000, 30_000, 120_000, 600_000, 600_000]) {
      memory.failed('webtransport', 'blocked');
      await world.pass(ms - 1);
      expect(memory.failure('webtransport')).toMatchObject({ reason: 'blocked' });
      await world.pass(1);
      expect(memory.failure('webtransport')).toBeNull();
    }
    memory.failed('webtransport', 'blocked');
    memory.worked('webtransport', 12);
    expect(memory.failure('webtransport')).toBeNull();
    expect(memory.rttMs).toBe(12);
    expect(new Memory(world, 'https://b.test').rttMs).toBe(0);
  });

  it('forgets failures after a link that was trusted, or an hour, and not when one works for a moment', async () => {
    const world = new World();
    const memory = new Memory(world, 'https://a.test');
    const count = () => {
      memory.failed('webtransport', 'blocked');
      return memory.failure('webtransport')?.count;
    };
    expect([count(), count()]).toEqual([1, 2]);
    memory.worked('webtransport', 12);
    expect(count()).toBe(3);
    memory.trusted('webtransport');
    expect([count(), count()]).toEqual([1, 2]);
    await world.pass(3_600_000);
    expect(count()).toBe(1);
  });

  it('survives storage that is missing, forbidden, full, or full of nonsense', () => {
    const storages: (() => World['storage'] extends () => infer S ? S : never)[] = [
      () => undefined,
      () => {
        throw new Error('SecurityError');
      },
      () => ({
        getItem: () => null,
        setItem: () => {
          throw new Error('QuotaExceededError');
        },
      }),
    ];
    for (const storage of storages) {
      const world = new World();
      world.storage = storage;
      new Memory(world, 'https://a.test').failed('sse', 'x');
      expect(new Memory(world, 'https://a.test').failure('sse')).toMatchObject({ count: 1 });
    }
    for (const text of [
      '',
      'null',
      '7',
      '"x"',
      '[]',
      '{',
      '{"sse":7}',
      '{"sse":{"at":"x"}}',
      '{"rttMs":"x"}',
    ]) {
      const world = new World();
      world.storage = () => ({ getItem: () => text, setItem: () => {} });
      const memory = new Memory(world, 'https://a.test');
      expect(memory.failure('sse')).toBeNull();
      expect(memory.rttMs).toBe(0);
      memory.failed('sse', 'x');
      memory.worked('sse', 1);
    }
  });
});

describe('emitter', () => {
  it('calls listeners in order, until they unsubscribe, and survives one that throws', () => {
    const later: (() => void)[] = [];
    vi.stubGlobal('queueMicrotask', (callback: () => void) => later.push(callback));
    const emitter = new Emitter<{ tick: number }>();
    const seen: string[] = [];
    const off = emitter.on('tick', (n) => seen.push(`a${n}`));
    emitter.on('tick', () => {
      throw new Error('mine');
    });
    emitter.on('tick', (n) => {
      seen.push(`b${n}`);
      off();
    });
    emitter.emit('tick', 1);
    emitter.emit('tick', 2);
    vi.unstubAllGlobals();
    expect(seen).toEqual(['a1', 'b1', 'b2']);
    expect(later).toHaveLength(2);
    expect(later[0]).toThrow('mine');
    // Only the compiler runs this.
    const types = () => {
      // @ts-expect-error there is no such event
      emitter.on('tock', () => {});
      // @ts-expect-error the payload is a number
      emitter.emit('tick', 'x');
    };
    expect(types).toBeTypeOf('function');
  });
});

describe('the browser', () => {
  it('tells when the kind of the network changes, not when an estimate of its speed does', () => {
    const connection = Object.assign(new EventTarget(), { type: 'wifi' });
    vi.stubGlobal('navigator', { connection });
    let changes = 0;
    const cancel = browser.networkChanged(() => changes++);
    const change = (type: string) => {
      connection.type = type;
      connection.dispatchEvent(new Event('change'));
    };
    change('wifi');
    expect(changes).toBe(0);
    change('cellular');
    change('cellular');
    expect(changes).toBe(1);
    cancel();
    change('wifi');
    expect(changes).toBe(1);
    vi.stubGlobal('navigator', {});
    browser.networkChanged(() => {})();
    vi.unstubAllGlobals();
  });
});

describe('reconnect delays', () => {
  it('start at once, grow, and are capped before the jitter', () => {
    expect(reconnectDelay(0, 0.9)).toBe(0);
    expect(reconnectDelay(1, 0)).toBe(50);
    expect(reconnectDelay(1, 0.5)).toBe(500);
    expect(reconnectDelay(3, 0.5)).toBe(2_000);
    expect(reconnectDelay(1000, 0.999)).toBeLessThan(30_000);
    // A cap after the jitter would give 30 s to all of these.
    expect(new Set([0.6, 0.7, 0.8, 0.9].map((random) => reconnectDelay(20, random))).size).toBe(4);
    expect(reconnectDelay(0, 0.5, 5_000)).toBe(5_250);
    expect(reconnectDelay(0, 0.5, 1e12)).toBe(3_600_250);
  });
});

describe('close codes', () => {
  it('numbers, names and retry stand in the specification as here', () => {
    const spec = readFileSync(new URL('../../protocol/SPEC.md', import.meta.url), 'utf8');
    for (const [code, name] of CODE_NAMES.entries()) {
      const retry = shouldRetry({ code, application: false, reason: '' });
      expect(spec).toContain(`| ${code} | ${name} | ${retry ? 'yes' : 'no'} |`);
      expect(shouldRetry({ code, application: true, reason: '' })).toBe(false);
    }
    expect(spec).not.toMatch(new RegExp(`^\\| ${CODE_NAMES.length} \\| [A-Z]`, 'm'));
    expect(shouldRetry({ code: 33, application: false, reason: '' })).toBe(false);
  });

  it('a reason is cut between characters', () => {
    expect(truncateUtf8('short', 10)).toBe('short');
    expect(truncateUtf8('aéé', 4)).toBe('aé');
    expect(truncateUtf8('\u{1f600}\u{1f600}', 7)).toBe('\u{1f600}');
  });
});

describe('explain', () => {
  const base = { race: 1, startedAt: 0, afterMs: 0, reason: '' };
  const attempts: Attempt[] = [
    { ...base, transport: 'webtransport', ms: null, outcome: 'trying' },
    { ...base, transport: 'websocket', ms: 12.4, afterMs: 200, outcome: 'won' },
    { ...base, transport: 'sse', ms: null, outcome: 'skipped', reason: 'websocket won' },
  ];

  const facts = {
    state: 'open',
    transport: 'websocket',
    reason: '',
    newest: attempts,
    moves: [],
    doubts: '',
    climbInMs: Infinity,
    credentials: '',
    now: 60_000,
  } as const;

  it('says why the current transport was chosen', () => {
    expect(explain(facts)).toEqual({
      summary: 'Connected over websocket: webtransport has not answered yet.',
      text: [
        'Connected over websocket: webtransport has not answered yet.',
        '- at 0 ms: webtransport has not answered yet',
        '- at 200 ms: websocket answered after 12 ms',
        '- at 0 ms: sse was not tried (websocket won)',
      ].join('\n'),
    });
  });

  it('tells of doubts, of what comes next, and of the newest moves', () => {
    const moves = [
      { at: 1_000, from: 'webtransport', to: null, reason: 'closed with 1006' },
      { at: 2_000, from: null, to: 'websocket', reason: 'Connected' },
    ] as const;
    const { text } = explain({ ...facts, newest: [], moves, doubts: 'late', climbInMs: 8_400 });
    expect(text.split('\n').slice(1)).toEqual([
      'It is in doubt (late), and another link is looked for.',
      'Better transports are tried again in 8 s.',
      '- 59 s ago: webtransport to no link (closed with 1006)',
      '- 58 s ago: no link to websocket (Connected)',
    ]);
  });

  it('has words for every state', () => {
    const nothing = { ...facts, transport: null, newest: [] };
    expect(explain({ ...nothing, state: 'connecting' }).summary).toBe('Connecting: nothing was tried yet.');
    expect(explain({ ...nothing, state: 'reconnecting', reason: 'link lost' }).summary).toBe(
      'Reconnecting (link lost): nothing was tried yet.',
    );
    expect(explain({ ...facts, transport: null, state: 'closed', reason: 'NORMAL' }).summary).toBe(
      'Closed: NORMAL.',
    );
  });
});
