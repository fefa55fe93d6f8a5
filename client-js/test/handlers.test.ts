// Requests of the server, and who answers them here.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ThroughlineError } from '../src/errors.js';
import type { Handler } from '../src/handlers.js';
import { ANSWER, ASK, CANCEL, CHUNK, ERROR, MORE, type RequestMessage } from '../src/protocol/requests.js';
import { opened } from './channel-world.js';
import { settle } from './world.js';

/** What was thrown where uncaught errors are. */
let uncaught: unknown[] = [];
const others = process.listeners('uncaughtException');
beforeEach(() => {
  uncaught = [];
  process.removeAllListeners('uncaughtException');
  process.on('uncaughtException', (error) => uncaught.push(error));
});
afterEach(() => {
  process.removeAllListeners('uncaughtException');
  for (const other of others) {
    process.on('uncaughtException', other);
  }
});

async function asked(handlers: Record<string, Handler> = {}, options = {}) {
  const started = await opened(options);
  const { world, server, session } = started;
  for (const [method, handler] of Object.entries(handlers)) {
    session.handle(method, handler);
  }
  let last = 0;
  const ask = async (method: string, data?: string | Uint8Array<ArrayBuffer>) => {
    server.session.sayRequest({ op: ASK, id: ++last, method, data });
    await world.pass(100);
    return last;
  };
  const say = async (...messages: RequestMessage[]) => {
    for (const message of messages) {
      server.session.sayRequest(message);
    }
    await world.pass(100);
  };
  /** What came since it was last asked, as `ANSWER 1 …`. */
  const said = () => {
    const names = { [CHUNK]: 'CHUNK', [ANSWER]: 'ANSWER', [ERROR]: 'ERROR' } as Record<number, string>;
    return server.session.requests.splice(0).map((message) => {
      const { op, id } = message;
      const rest = op === ERROR ? [message.code, message.reason] : 'data' in message ? [message.data] : [];
      return [names[op] ?? op, id, ...rest].join(' ').trim();
    });
  };
  return { ...started, ask, say, said };
}

/** Parts that come when a test says so. */
function source() {
  const waiting: ((value: IteratorResult<string>) => void)[] = [];
  let returned = false;
  const parts: AsyncIterable<string> = {
    [Symbol.asyncIterator]: () => ({
      next: () => new Promise((resolve) => waiting.push(resolve)),
      return: () => {
        returned = true;
        return Promise.resolve({ value: undefined, done: true });
      },
    }),
  };
  return {
    parts,
    push: (value: string) => waiting.shift()?.({ value, done: false }),
    end: () => waiting.shift()?.({ value: '', done: true }),
    wasLeft: () => returned,
  };
}

describe('a handler', () => {
  it('answers with text, bytes or nothing, at once or later', async () => {
    const { ask, said, world } = await asked({
      text: (data) => `you said ${data}`,
      bytes: () => Uint8Array.of(1, 2),
      buffer: () => Uint8Array.of(3).buffer,
      nothing: () => {},
      null: async () => null,
      later: () => new Promise((resolve) => world.timer(500, () => resolve('at last'))),
      kind: (data) => `${data === undefined ? 'nothing' : typeof data}`,
    });
    await ask('text', 'hello');
    await ask('bytes');
    await ask('buffer');
    await ask('nothing');
    await ask('null');
    await ask('later');
    await ask('kind');
    await ask('kind', '');
    await ask('kind', Uint8Array.of());
    expect(said()).toEqual([
      'ANSWER 1 you said hello',
      'ANSWER 2 1,2',
      'ANSWER 3 3',
      'ANSWER 4',
      'ANSWER 5',
      'ANSWER 7 nothing',
      'ANSWER 8 string',
      'ANSWER 9 object',
    ]);
    await world.pass(500);
    expect(said()).toEqual(['ANSWER 6 at last']);
  });

  it('is found by its method; another takes its place, and it can leave', async () => {
    const { session, ask, said } = await asked();
    await ask('m');
    const first = session.handle('m', () => 'first');
    await ask('m');
    const second = session.handle('m', () => 'second');
    first(); // is not there any more
    await ask('m');
    second();
    await ask('m');
    await ask('constructor');
    expect(said()).toEqual([
      'ERROR 1 2 nobody here answers it',
      'ANSWER 2 first',
      'ANSWER 3 second',
      'ERROR 4 2 nobody here answers it',
      'ERROR 5 2 nobody here answers it',
    ]);
  });

  it('says why it failed with a ThroughlineError, and of other errors nothing but that', async () => {
    const secret = new TypeError('the password is …');
    const { ask, said } = await asked({
      known: () => {
        throw new ThroughlineError('NOT_ALLOWED', 'not today');
      },
      own: async () => {
        throw new ThroughlineError('APPLICATION', 'sold out', undefined, undefined, 1_234);
      },
      nested: () => {
        throw new ThroughlineError('UNKNOWN_METHOD', 'elsewhere', undefined, undefined, 2);
      },
      secret: () => {
        throw secret;
      },
      rejects: () => Promise.reject(secret),
      wrong: () => 7 as never,
      large: () => new Uint8Array(4_194_305),
    });
    for (const method of ['known', 'own', 'nested', 'secret', 'rejects', 'wrong', 'large']) {
      await ask(method);
    }
    expect(said()).toEqual([
      'ERROR 1 0 not today',
      'ERROR 2 1234 sold out',
      'ERROR 3 0 elsewhere',
      'ERROR 4 0',
      'ERROR 5 0',
      'ERROR 6 0',
      expect.stringMatching(/^ERROR 7 0 handle: 4194305 bytes; at most 4194304/),
    ]);
    await settle();
    expect(uncaught.map(String)).toEqual([
      String(secret),
      String(secret),
      expect.stringMatching(/handle takes a string or bytes, not number/),
    ]);
  });

  it('a reason has at most 1,024 bytes', async () => {
    const { ask, said } = await asked({
      long: () => {
        throw new ThroughlineError('UNKNOWN', 'é'.repeat(10_000));
      },
    });
    await ask('long');
    expect(said()).toEqual([`ERROR 1 0 ${'é'.repeat(512)}`]);
  });
});

describe('an answer in parts', () => {
  it('is sent as the parts come', async () => {
    const { parts, push, end } = source();
    const { world, ask, said } = await asked({
      parts: () => parts,
      generated: async function* () {
        yield 'one';
        yield Uint8Array.of(2);
      },
    });
    await ask('parts');
    push('a');
    await world.pass(100);
    expect(said()).toEqual(['CHUNK 1 a']);
    push('b');
    await world.pass(100);
    end();
    await world.pass(100);
    await ask('generated');
    expect(said()).toEqual(['CHUNK 1 b', 'ANSWER 1', 'CHUNK 2 one', 'CHUNK 2 2', 'ANSWER 2']);
  });

  it('waits when 65,536 bytes are ahead of who asked', async () => {
    const { ask, say, said } = await asked({
      much: async function* () {
        for (let count = 0; count < 6; count++) {
          yield `${count}`.repeat(20_000);
        }
      },
    });
    await ask('much');
    const counted = () => said().map((one) => one.slice(0, 9));
    // The fourth begins below the limit.
    expect(counted()).toEqual(['CHUNK 1 0', 'CHUNK 1 1', 'CHUNK 1 2', 'CHUNK 1 3']);
    await say({ op: MORE, id: 1, limit: 80_000 }, { op: MORE, id: 1, limit: 70_000 });
    expect(counted()).toEqual([]);
    await say({ op: MORE, id: 1, limit: 80_001 });
    expect(counted()).toEqual(['CHUNK 1 4']);
    await say({ op: MORE, id: 1, limit: 1_000_000 });
    expect(counted()).toEqual(['CHUNK 1 5', 'ANSWER 1']);
    await say({ op: MORE, id: 1, limit: 2_000_000 }); // has ended
    expect(counted()).toEqual([]);
  });

  it('that fails in the middle says so', async () => {
    const { ask, said } = await asked({
      half: async function* () {
        yield 'half';
        throw new ThroughlineError('UNKNOWN', 'no more');
      },
    });
    await ask('half');
    expect(said()).toEqual(['CHUNK 1 half', 'ERROR 1 0 no more']);
  });
});

describe('a request that is cancelled', () => {
  it('is answered at once, and its signal is aborted', async () => {
    const signals: AbortSignal[] = [];
    let finish = (_: string) => {};
    const { ask, say, said } = await asked({
      slow: (_, { signal }) => {
        signals.push(signal);
        return new Promise<string>((resolve) => {
          finish = resolve;
        });
      },
    });
    await ask('slow');
    expect([signals[0]?.aborted, said()]).toEqual([false, []]);
    await say({ op: CANCEL, id: 1 });
    expect([signals[0]?.aborted, said()]).toEqual([true, ['ERROR 1 1']]);
    expect(signals[0]?.reason).toMatchObject({ code: 'CANCELLED' });
    finish('too late');
    await say({ op: CANCEL, id: 1 });
    expect(said()).toEqual([]);
  });

  it('leaves the loop over its parts, also while it waits for credit', async () => {
    const { parts, push, wasLeft } = source();
    const { ask, say, said } = await asked({ much: () => parts });
    await ask('much');
    push('x'.repeat(65_536));
    await say();
    push('y');
    await say();
    expect(said()).toHaveLength(1);
    await say({ op: CANCEL, id: 1 });
    expect([said(), wasLeft()]).toEqual([['ERROR 1 1'], true]);
  });

  it('whoever throws then because of it is not heard', async () => {
    const { ask, say, said } = await asked({
      slow: (_, { signal }) =>
        new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('aborted')))),
    });
    await ask('slow');
    await say({ op: CANCEL, id: 1 });
    await settle();
    expect([said(), uncaught]).toEqual([['ERROR 1 1'], []]);
  });
});

it('the 101st at once is refused; each that ends makes room for another', async () => {
  const ends: (() => void)[] = [];
  const { ask, said } = await asked({
    wait: () => new Promise((resolve) => ends.push(() => resolve('')) as never),
  });
  for (let count = 0; count < 101; count++) {
    await ask('wait');
  }
  expect(said()).toEqual(['ERROR 101 3 100 requests are under way']);
  ends[7]?.();
  await ask('wait');
  expect(said()).toEqual(['ANSWER 8']);
  expect(ends).toHaveLength(101);
});

it.each([
  ['a request that comes twice', { op: ASK, id: 1, method: 'm', data: undefined }],
  ['the end of a request that never came', { op: CANCEL, id: 2 }],
  ['credit for a request that never came', { op: MORE, id: 2, limit: 7 }],
] as [string, RequestMessage][])('%s ends the session', async (_, message) => {
  const { ask, say, session } = await asked();
  await ask('m');
  await say(message);
  expect(await session.closed).toMatchObject({ name: 'PROTOCOL_VIOLATION' });
});

it('a link that is lost is nothing to a request', async () => {
  const { parts, push, end } = source();
  const { world, session, ask, said } = await asked({ parts: () => parts });
  await ask('parts');
  for (const part of ['a', 'b', 'c']) {
    push(part);
    session.cut();
    await world.pass(500);
  }
  end();
  await world.pass(100);
  expect(said()).toEqual(['CHUNK 1 a', 'CHUNK 1 b', 'CHUNK 1 c', 'ANSWER 1']);
});

it('when the session has ended nothing is answered, and signals are aborted', async () => {
  for (const how of ['replaced', 'closed']) {
    const { parts, push, wasLeft } = source();
    const signals: AbortSignal[] = [];
    const { world, server, session, ask, restart } = await asked({
      parts: (_, { signal }) => {
        signals.push(signal);
        return parts;
      },
    });
    await ask('parts');
    if (how === 'closed') {
      await session.close();
    } else {
      await restart();
    }
    expect(signals[0]?.reason).toMatchObject({ code: 'SESSION_CLOSED' });
    push('too late');
    await world.pass(100);
    expect(wasLeft()).toBe(true);
    if (how === 'replaced') {
      // Its numbers begin anew.
      server.session.sayRequest({ op: ASK, id: 1, method: 'nobody', data: undefined });
      await world.pass(100);
      expect(server.session.requests).toEqual([
        { op: ERROR, id: 1, code: 2, reason: 'nobody here answers it' },
      ]);
    }
  }
});
