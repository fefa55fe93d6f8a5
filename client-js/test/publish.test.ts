// Publications.

import { describe, expect, it } from 'vitest';
import { DONE, FAILED } from '../src/protocol/channels.js';
import { later, opened, outcome } from './channel-world.js';

describe('publish', () => {
  it('resolves with the position, in whatever order the answers come', async () => {
    const { world, server, hub, session } = await opened();
    hub.answers = false;
    const first = later(session.publish('a', 'one'));
    const second = session.publish('a', 'two');
    await world.pass(100);
    server.session.sayChannel({ op: DONE, request: 2, position: { epoch: 7, offset: 2 } });
    await world.pass(100);
    expect([await outcome(first), await outcome(second)]).toEqual(['pending', { epoch: 7, offset: 2 }]);
    server.session.sayChannel({ op: FAILED, request: 1, code: 4, reason: 'at most 3 bytes' });
    await world.pass(100);
    await expect(first).rejects.toThrow("publish 'a': at most 3 bytes");
    await expect(first).rejects.toMatchObject({ code: 'TOO_LARGE', name: 'ThroughlineError' });
  });

  it('rejects what `send` would throw at', async () => {
    const { world, server, session } = await opened({ maxBufferedBytes: 100 });
    await expect(session.publish('a', 7 as never)).rejects.toThrow('publish takes a string or bytes');
    expect(await outcome(session.publish('a', new Uint8Array(4_194_305)))).toBe('MESSAGE_TOO_LARGE');
    const large = session.publish('a', 'x'.repeat(200)); // one may go beyond it
    expect(session.bufferedBytes).toBeGreaterThan(200);
    await expect(session.publish('a', '')).rejects.toThrow(/of 100 bytes wait already: await drained/);
    expect(() => session.send('')).toThrow(/wait already/);
    await world.pass(100);
    expect(session.bufferedBytes).toBe(0);
    void session.publish('a', 'y');
    await world.pass(100);
    expect(await outcome(large)).toEqual({ epoch: 7, offset: 1 });
    expect(server.hub.channel('a').newest).toBe(2);
  });

  it('as long as a message may be', async () => {
    const { world, session } = await opened();
    const whole = session.publish('é'.repeat(127), new Uint8Array(4_194_304));
    await world.pass(5_000);
    expect(await outcome(whole)).toEqual({ epoch: 7, offset: 1 });
  });
});
