// Requests of this side, and their answers: whole, in parts, cancelled, late, or lost with the session.

import { describe, expect, it } from 'vitest';
import type { ThroughlineError } from '../src/errors.js';
import { ANSWER, CANCEL, CHUNK, ERROR, MORE, type RequestMessage } from '../src/protocol/requests.js';
import type { Answer } from '../src/requests.js';
import { opened, outcome, start } from './channel-world.js';
import type { Server, ServerLink } from './server.js';
import { settle } from './world.js';

const text = (id: number, data: string): RequestMessage => ({ op: CHUNK, id, data, size: data.length });
const last = (id: number, data?: string | Uint8Array<ArrayBuffer>): RequestMessage => ({
  op: ANSWER,
  id,
  data,
});

/** What came, as `REQUEST 1 add 2`. */
function came(server: Server): string[] {
  const names = ['', 'REQUEST', 'CHUNK', 'ANSWER', 'ERROR', 'CANCEL', 'MORE'];
  return server.session.requests.map((message) => {
    const { op, id, ...rest } = message;
    return [names[op], id, ...Object.values(rest)].join(' ').trim();
  });
}

async function asking(options = {}) {
  const started = await opened(options);
  const { server, world } = started;
  const say = async (...messages: RequestMessage[]) => {
    for (const message of messages) {
      server.session.sayRequest(message);
    }
    await world.pass(100);
  };
  return { ...started, say };
}

/** Reads an answer in parts. */
function read(answer: Answer): { parts: unknown[]; end: Promise<unknown> } {
  const parts: unknown[] = [];
  const all = async () => {
    for await (const part of answer) {
      parts.push(part);
    }
  };
  const end = all();
  end.catch(() => {});
  return { parts, end };
}

describe('an answer', () => {
  it('is text, bytes, or nothing', async () => {
    const { world, server, session, say } = await asking();
    const answers = [
      session.request('text', 'question'),
      session.request('bytes', Uint8Array.of(1)),
      session.request('nothing'),
      session.request('empty', ''),
      session.request('null', null),
    ];
    await world.pass(100);
    expect(came(server)).toEqual([
      'REQUEST 1 text question',
      'REQUEST 2 bytes 1',
      'REQUEST 3 nothing',
      'REQUEST 4 empty',
      'REQUEST 5 null',
    ]);
    expect(server.session.requests.map((request) => 'data' in request && request.data)).toEqual([
      'question',
      Uint8Array.of(1),
      undefined,
      '',
      undefined,
    ]);
    // In any order.
    await say(last(2, Uint8Array.of(9)), last(1, 'answer'), last(4, ''), last(3), last(5));
    expect(await Promise.all(answers)).toEqual(['answer', Uint8Array.of(9), undefined, '', undefined]);
  });

  it('is asked for before the session is open', async () => {
    const { world, server, session } = start();
    const answer = session.request('early');
    await world.pass(1_000);
    server.session.sayRequest(last(1, 'yes'));
    await world.pass(100);
    expect(await answer).toBe('yes');
  });

  it('whose parts are all text is text; otherwise bytes', async () => {
    const { session, say } = await asking();
    const [texts, bytes, mixed, none] = [1, 2, 3, 4].map(() => session.request('many'));
    await say(text(1, 'a'), text(1, ''), text(1, 'ü'), last(1, 'c'), text(4, ''), last(4));
    await say({ op: CHUNK, id: 2, data: Uint8Array.of(1, 2), size: 2 }, last(2, Uint8Array.of(3)));
    await say(text(3, 'a'), last(3, Uint8Array.of(0)));
    expect(await Promise.all([texts, bytes, mixed, none])).toEqual([
      'aüc',
      Uint8Array.of(1, 2, 3),
      Uint8Array.of(97, 0),
      '',
    ]);
  });

  it('is a promise like any other', async () => {
    const { session, say } = await asking();
    const good = session.request('a');
    const bad = session.request('b');
    const steps: unknown[] = [];
    const all = [
      good.finally(() => steps.push('finally')).then((data) => steps.push(data)),
      bad.catch(({ code }) => steps.push(code)),
      Promise.all([good]).then((all) => steps.push(all)),
    ];
    await say(last(1, 'x'), { op: ERROR, id: 2, code: 4, reason: '' });
    await Promise.all(all);
    expect(steps.sort()).toEqual([['x'], 'NOT_ALLOWED', 'finally', 'x'].sort());
  });

  it('comes in parts, as they come', async () => {
    const { session, say } = await asking();
    const { parts, end } = read(session.request('count'));
    await say(text(1, 'one'));
    expect(parts).toEqual(['one']);
    await say(text(1, 'two'), text(1, 'three'));
    expect(parts).toEqual(['one', 'two', 'three']);
    await say(last(1, 'four'));
    await end;
    expect(parts).toEqual(['one', 'two', 'three', 'four']);
    const nothing = read(session.request('nothing'));
    await say(last(2));
    await nothing.end;
    expect(nothing.parts).toEqual([]);
  });

  it('that fails in the middle hands on what came before', async () => {
    const { session, say } = await asking();
    const { parts, end } = read(session.request('count'));
    await say(text(1, 'one'), { op: ERROR, id: 1, code: 0, reason: 'no more' });
    await expect(end).rejects.toThrow("request 'count': no more");
    expect(parts).toEqual(['one']);
  });
});

describe('credit', () => {
  it('is granted as parts are taken, and 65,536 bytes at first', async () => {
    const { world, server, session, say } = await asking();
    const answer = session.request('much');
    await say(...Array.from({ length: 4 }, () => text(1, 'x'.repeat(16_384))));
    expect(came(server)).toEqual(['REQUEST 1 much']);
    const parts = answer[Symbol.asyncIterator]();
    await parts.next();
    await world.pass(100);
    expect(came(server).slice(1)).toEqual([`MORE 1 ${65_536 + 16_384}`]);
    await say(text(1, 'y'.repeat(16_384)));
    for (let count = 0; count < 4; count++) {
      await parts.next();
    }
    await world.pass(100);
    expect(came(server).at(-1)).toBe(`MORE 1 ${2 * 65_536 + 16_384}`);
    expect(session.state).toBe('open');
  });

  it('one part may go beyond it, and not the next', async () => {
    const { session, say } = await asking();
    session.request('much');
    await say(text(1, 'x'.repeat(65_535)), text(1, 'y'.repeat(100_000)));
    expect(session.state).toBe('open');
    await say(text(1, ''));
    expect(await session.closed).toMatchObject({ name: 'FLOW_CONTROL' });
  });

  it('a whole answer has no bound', async () => {
    const { session, say } = await asking();
    const whole = session.request('much').then((data) => String(data).length);
    for (let round = 0; round < 10; round++) {
      await say(text(1, 'x'.repeat(60_000)));
    }
    await say(last(1));
    expect(await whole).toBe(600_000);
  });
});

describe('cancelling', () => {
  it('by leaving the loop', async () => {
    const { server, session, say } = await asking();
    const seen: unknown[] = [];
    const work = (async () => {
      for await (const part of session.request('count')) {
        seen.push(part);
        break;
      }
    })();
    await say(text(1, 'one'), text(1, 'two'));
    await work;
    // What crosses it says nothing, also not what would be too much.
    await say(text(1, 'x'.repeat(70_000)), text(1, 'y'), { op: ERROR, id: 1, code: 1, reason: '' });
    expect([seen, came(server), session.state]).toEqual([['one'], ['REQUEST 1 count', 'CANCEL 1'], 'open']);
  });

  it('by a signal, before and after', async () => {
    const { world, server, session, say } = await asking();
    const controller = new AbortController();
    const { signal } = controller;
    const running = session.request('a', 'x', { signal });
    const done = session.request('b', 'x', { signal });
    await say(last(2, 'answer'));
    controller.abort(new Error('enough'));
    await world.pass(100);
    const late = session.request('c', 'x', { signal });
    for (const answer of [running, late]) {
      const error = await answer.catch((error: ThroughlineError) => error);
      expect(error).toMatchObject({ code: 'CANCELLED', cause: { message: 'enough' } });
    }
    expect(await done).toBe('answer');
    expect(came(server)).toEqual(['REQUEST 1 a x', 'REQUEST 2 b x', 'CANCEL 1']);
  });

  it('by the time limit, which goes to the end of the answer', async () => {
    const { world, server, session, say } = await asking();
    const pending = world.pendingTimers;
    const late = session.request('late', '', { timeoutMs: 1_000 });
    const done = session.request('done', '', { timeoutMs: 1_000 });
    await say(text(1, 'a part'), last(2));
    expect(await outcome(late)).toBe('pending');
    await world.pass(1_000);
    await expect(late).rejects.toThrow("request 'late': no answer within 1000 ms");
    expect([await outcome(late), await outcome(done)]).toEqual(['TIMEOUT', undefined]);
    await world.pass(100);
    expect(came(server)).toEqual(['REQUEST 1 late', 'REQUEST 2 done', 'CANCEL 1']);
    expect(world.pendingTimers).toBe(pending);
  });

  it('once: an answer that was cancelled stays so', async () => {
    const { world, server, session } = await asking();
    const controller = new AbortController();
    const answer = session.request('a', '', { signal: controller.signal, timeoutMs: 50 });
    controller.abort();
    await world.pass(500);
    expect([await outcome(answer), came(server)]).toEqual(['CANCELLED', ['REQUEST 1 a', 'CANCEL 1']]);
  });
});

describe('what goes wrong', () => {
  it('has the names of the protocol, and the application its own numbers', async () => {
    const { session, say } = await asking();
    const codes = [0, 1, 2, 3, 4, 5, 99, 100, 4_294_967_295];
    const answers = codes.map((code) => session.request(`m${code}`));
    await say(...codes.map((code, at): RequestMessage => ({ op: ERROR, id: at + 1, code, reason: 'why' })));
    const errors = await Promise.all(answers.map((one) => one.catch((error: ThroughlineError) => error)));
    expect(
      errors.map((error) => [(error as ThroughlineError).code, (error as ThroughlineError).requestCode]),
    ).toEqual([
      ['FAILED', 0],
      ['CANCELLED', 1],
      ['UNKNOWN_METHOD', 2],
      ['TOO_MANY', 3],
      ['NOT_ALLOWED', 4],
      ['UNKNOWN', 5],
      ['UNKNOWN', 99],
      ['APPLICATION', 100],
      ['APPLICATION', 4_294_967_295],
    ]);
    expect(String(errors[0])).toContain("request 'm0': why");
  });

  it('is said by the answer, and never thrown by `request`', async () => {
    const { session } = await asking({ maxBufferedBytes: 10 });
    const wrong: [Answer, string | RegExp][] = [
      [session.request(''), /1 to 255 bytes/],
      [session.request('é'.repeat(128)), /1 to 255 bytes/],
      [session.request('m', 7 as never), /takes a string or bytes/],
      [session.request('m', new Uint8Array(4_194_305)), /at most/],
    ];
    session.send('0123456789');
    wrong.push([session.request('m', ''), /wait already/]);
    for (const [answer, why] of wrong) {
      await expect(Promise.resolve(answer)).rejects.toThrow(why);
    }
    await session.close();
    expect(await outcome(session.request('m'))).toBe('SESSION_CLOSED');
  });

  it('nobody has to look at it', async () => {
    const { session, say } = await asking();
    session.request('');
    session.request('fails');
    await say({ op: ERROR, id: 1, code: 0, reason: '' });
    await session.close();
    await settle();
  });

  it('the 101st is refused; each that ends makes room for another', async () => {
    const { session, say, server } = await asking();
    const controller = new AbortController();
    const answers = Array.from({ length: 100 }, (_, at) =>
      session.request('m', '', at === 50 ? { signal: controller.signal } : {}),
    );
    expect(await outcome(session.request('m'))).toBe('TOO_MANY');
    controller.abort();
    await say(last(1));
    expect(await outcome(answers[0] as Answer)).toBeUndefined();
    session.request('m');
    session.request('m');
    expect(await outcome(session.request('m'))).toBe('TOO_MANY');
    await say();
    expect(came(server).length).toBe(103);
  });

  it.each([
    ['an answer', [last(2)]],
    ['a part', [text(2, '')]],
    ['a failure', [{ op: ERROR, id: 2, code: 0, reason: '' }]],
  ] as [string, RequestMessage[]][])('%s to what was never asked ends the session', async (_, messages) => {
    const { session, say } = await asking();
    session.request('m');
    await say(last(1), last(1)); // twice says nothing
    expect(session.state).toBe('open');
    await say(...messages);
    expect(await session.closed).toMatchObject({ name: 'PROTOCOL_VIOLATION' });
  });
});

describe('links and sessions that are lost', () => {
  it('a link is nothing to a request', async () => {
    const { world, session, say } = await asking();
    const { parts, end } = read(session.request('count'));
    for (let round = 1; round <= 10; round++) {
      await say(text(1, `${round}`));
      if (round % 3 === 0) {
        session.cut();
        await world.pass(500);
      }
    }
    await say(last(1));
    await end;
    expect(parts).toEqual(Array.from({ length: 10 }, (_, at) => `${at + 1}`));
  });

  it('another session in its place: what was asked may have been done; what never left is asked there', async () => {
    const { world, server, session, restart } = await asking();
    const sent = session.request('sent');
    const halfway = read(session.request('halfway'));
    await world.pass(100);
    server.session.sayRequest(text(2, 'a part'));
    await world.pass(100);
    let kept: Answer | undefined;
    let stopped: Answer | undefined;
    const controller = new AbortController();
    await restart(() => {
      kept = session.request('kept', 'data');
      stopped = session.request('stopped', '', { signal: controller.signal });
      session.publish('a', 'between').catch(() => {});
      controller.abort();
    });
    expect(came(server)).toEqual(['REQUEST 1 kept data']);
    expect(await outcome(sent)).toBe('UNCERTAIN');
    await expect(sent).rejects.toThrow(/may have been done/);
    expect([halfway.parts, await outcome(halfway.end)]).toEqual([['a part'], 'UNCERTAIN']);
    expect(await outcome(stopped as Answer)).toBe('CANCELLED');
    server.session.sayRequest(last(1, 'done'));
    await world.pass(100);
    expect(await kept).toBe('done');
  });

  it('the end of the session ends them, each as far as it has come', async () => {
    const { world, server, session } = await asking();
    const sent = session.request('sent', '', { timeoutMs: 60_000 });
    await world.pass(100);
    (server.session.current as ServerLink).hole = true;
    session.cut();
    const never = session.request('never');
    await session.close(7, 'enough');
    expect([await outcome(sent), await outcome(never)]).toEqual(['UNCERTAIN', 'SESSION_CLOSED']);
    await expect(Promise.resolve(never)).rejects.toThrow(
      "request 'never': the session is closed (application code 7: enough)",
    );
    await world.pass(10_000);
    expect(world.pendingTimers).toBe(0);
  });
});

it('what a server must not say, or this side does not understand, ends the session', async () => {
  const { session, say } = await asking();
  await say({ op: CANCEL, id: 1 });
  expect(await session.closed).toMatchObject({ name: 'PROTOCOL_VIOLATION' });
  const other = await asking();
  await other.say({ op: MORE, id: 1, limit: 7 });
  expect(await other.session.closed).toMatchObject({ name: 'PROTOCOL_VIOLATION' });
});
