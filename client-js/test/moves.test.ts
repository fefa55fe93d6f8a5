// What a client does beside streams: moves from link to link, doubt about a silent one, the credit of datagrams,
// and going away (SPEC sections 5 and 6).

import { describe, expect, it } from 'vitest';
import { protocolClose } from '../src/protocol/close.js';
import type { Frame } from '../src/protocol/frames.js';
import { MAX_DATAGRAMS_UNDER_WAY, MIN_DOUBT_MS, QUIET_MS } from '../src/protocol/limits.js';
import { ack, bytesOf, data, done, end, Peer, ping, pong, reset, stop, textOf } from './peer.js';

function opened(welcome = {}, traits = {}) {
  const peer = new Peer();
  peer.open(welcome, traits);
  return { peer, machine: peer.machine };
}

const datagram = (byte: number): Frame => ({ type: 'datagram', data: Uint8Array.of(byte) });
const message = (text: string) => Uint8Array.of(1, text.length, ...bytesOf(text));
const goaway = (delayMs: number): Frame => ({ type: 'goaway', delayMs });

describe('a move', () => {
  it('rewinds, counts PINGs on, and forgets what was the old path', () => {
    const { peer, machine } = opened();
    peer.now += 20;
    peer.receive(pong(1));
    expect([machine.rttMs, machine.isProven]).toEqual([20, true]);
    machine.send(true, bytesOf('abc'));
    expect(peer.sent()).toEqual([data(0, 0, message('abc'))]);
    expect(peer.open({ received: 2 })).toEqual([
      ping(2),
      ack(0, 0, 262_144),
      data(0, 2, message('abc').slice(2)),
    ]);
    expect([machine.rttMs, machine.isProven]).toEqual([0, false]);
    peer.receive(pong(1));
    expect(machine.rttMs).toBe(0);
    expect(peer.saw('opened')).toHaveLength(2);
    expect(peer.saw('opened')[1]?.gap).toBeUndefined();
  });

  it('takes what still arrives on the link before, but nothing that is about that link alone', () => {
    const { peer, machine } = opened();
    machine.send(true, bytesOf('abc'));
    machine.streams.open();
    peer.sent();
    machine.linkOpened(peer.now, { nativeDatagram: 0, nativeStreams: false });
    machine.handleLateFrame(peer.now, data(0, 0, message('lost'))); // there is no newer link yet
    peer.open();
    for (const late of [
      data(0, 0, message('late')),
      ack(0, 5, 0),
      ping(9),
      pong(2),
      { type: 'taken', count: 7 } as Frame,
      datagram(1),
      data(2, 0, 'x'),
      end(2, 1),
      stop(1, 4),
      { type: 'streams', limit: 200 } as Frame,
    ]) {
      machine.handleLateFrame(peer.now, late);
    }
    expect(machine.message()).toBe('late');
    expect(machine.bufferedBytes).toBe(0);
    const sent = peer.sent();
    expect(sent).toContainEqual(done(2));
    expect(sent).toContainEqual(reset(1, 4));
    expect(sent.map(({ type }) => type)).not.toContain('pong');
    // A TAKEN for a datagram of another link would be a violation there.
    expect(sent.map(({ type }) => type)).not.toContain('taken');
    expect(machine.rttMs).toBe(0);
    expect(peer.saw('datagram')).toHaveLength(1);
    machine.handleLateFrame(peer.now, { type: 'close', close: protocolClose('SHUTTING_DOWN', '') });
    peer.sent();
    expect(peer.saw('closed')).toHaveLength(1);
  });

  it('late stream bytes do not count for the way of a stream on the new link', () => {
    const native = { nativeStreams: true };
    const { peer, machine } = opened({}, native);
    machine.handleNativeFrame(peer.now, undefined, data(2, 0, 'a'));
    peer.open({}, native);
    machine.handleLateFrame(peer.now, data(2, 1, 'b'));
    expect(Peer.codeOf(peer.receive(data(2, 0, 'abc')))).toBeUndefined();
    expect(textOf(machine.streams.read(2))).toBe('abc');
  });

  it('a TAKEN that counts datagrams of a link before is not said on this one', () => {
    const { peer, machine } = opened();
    machine.handleFrame(peer.now, datagram(1)); // not taken yet
    machine.linkOpened(peer.now, { nativeDatagram: 0, nativeStreams: false });
    peer.sent();
    expect(peer.open().map(({ type }) => type)).not.toContain('taken');
    expect(peer.receive(datagram(2))).toEqual([{ type: 'taken', count: 1 }]);
  });

  it('keeps datagrams that wait', () => {
    const { peer, machine } = opened();
    machine.sendDatagram(Uint8Array.of(1), 'k');
    expect(peer.open().map(({ type }) => type)).toContain('datagram');
  });

  it('what a new session needs is counted anew', () => {
    const { peer, machine } = opened();
    machine.linkLost();
    expect(peer.open({ resumed: false, session: 'another' })).toEqual([ping(1)]);
    expect(peer.saw('opened')[1]?.gap).toEqual({ previousId: 'session', unacknowledgedBytes: 0 });
  });
});

describe('doubt', () => {
  it('comes when a PING is unanswered for too long, and goes when anything is heard', () => {
    const { peer, machine } = opened();
    peer.pass(MIN_DOUBT_MS - 1);
    expect(machine.isSuspect).toBe(false);
    peer.pass(1);
    expect([machine.isSuspect, peer.saw('suspect').length]).toEqual([true, 1]);
    machine.heard(peer.now, 1);
    peer.sent();
    expect([machine.isSuspect, peer.saw('trusted').length]).toEqual([false, 1]);
  });

  it('waits for 4 RTT on a long path', () => {
    const { peer, machine } = opened();
    peer.now += 900;
    peer.receive(pong(1));
    expect(peer.pass(10_000 - 900)).toEqual([ping(2)]);
    peer.pass(3_599);
    expect(machine.isSuspect).toBe(false);
    peer.pass(1);
    expect(machine.isSuspect).toBe(true);
  });

  it('does not come while other things arrive, unless the PING is very late', () => {
    const { peer, machine } = opened();
    const hear = (ms: number) => {
      for (; ms > 0; ms -= 500) {
        peer.pass(500);
        machine.handleDatagram(peer.now, Uint8Array.of(1));
      }
    };
    hear(4 * MIN_DOUBT_MS - 500);
    expect(machine.isSuspect).toBe(false);
    hear(500);
    expect(peer.saw('suspect')).toHaveLength(1);
    expect([machine.isSuspect, peer.saw('trusted').length]).toEqual([true, 0]);
    peer.receive(pong(1));
    expect([machine.isSuspect, peer.saw('trusted').length]).toEqual([false, 1]);
  });

  it('does not come while the server acknowledges what stands before the PING', () => {
    // A slow way up: 64 KiB in the link's buffer took longer than the patience, and the session moved for nothing.
    const { peer, machine } = opened();
    peer.receive(pong(1));
    machine.send(false, new Uint8Array(30_000));
    peer.sent();
    for (let received = 1_000; received <= 20_000; received += 1_000) {
      peer.pass(700);
      peer.receive(ack(0, received, 262_144));
    }
    expect(machine.isSuspect).toBe(false);
    for (let ms = 0; ms < 4_000; ms += 500) {
      peer.pass(500);
      machine.handleDatagram(peer.now, Uint8Array.of(1));
    }
    expect(machine.isSuspect).toBe(true);
  });

  it('asks when nothing is acknowledged, whatever else arrives', () => {
    // A proxy that swallowed what went up, while the game's state came down, was found out by the heartbeat only: 10 s later.
    const { peer, machine } = opened();
    peer.receive(pong(1));
    machine.send(true, bytesOf('abc'));
    peer.sent();
    peer.now += QUIET_MS - 1;
    machine.handleDatagram(peer.now, Uint8Array.of(1));
    expect(peer.sent()).toEqual([]);
    expect(peer.pass(1)).toEqual([ping(2)]);
    // In part is not enough; all of it is, and so is an answer.
    peer.receive(pong(2), ack(0, 2, 262_144));
    peer.now += QUIET_MS - 1;
    machine.handleDatagram(peer.now, Uint8Array.of(1));
    expect(peer.pass(1)).toEqual([ping(3)]);
    peer.receive(pong(3), ack(0, 5, 262_144));
    peer.now += QUIET_MS - 1;
    machine.handleDatagram(peer.now, Uint8Array.of(1));
    expect(peer.pass(1)).toEqual([]);
  });

  it('asks soon after traffic whether the link still lives', () => {
    const { peer, machine } = opened();
    peer.receive(pong(1));
    expect(peer.pass(5_000)).toEqual([]);
    peer.receive(data(0, 0, message('x')));
    expect(peer.pass(QUIET_MS - 1)).toEqual([]);
    expect(peer.pass(1)).toEqual([ping(2), ack(0, 3, 262_144)]);
    peer.receive(pong(2));
    // The heartbeat counts from there, and an answer is no traffic.
    expect(peer.pass(9_999)).toEqual([]);
    expect(peer.pass(1)).toEqual([ping(3)]);
    peer.receive(pong(3));
    machine.send(true, bytesOf('y'));
    peer.sent();
    expect(peer.pass(QUIET_MS)).toEqual([ping(4)]);
  });

  it('comes when the link does not even take the PING', () => {
    const { peer, machine } = opened();
    peer.receive(pong(1));
    peer.now += 10_000;
    machine.handleTimeout(peer.now); // and no packet is asked for
    expect(machine.timeout).toBe(peer.now + MIN_DOUBT_MS);
    peer.now += MIN_DOUBT_MS;
    machine.handleTimeout(peer.now);
    expect(machine.isSuspect).toBe(true);
  });

  it('comes when the link does not take the PING, and other things arrive', () => {
    // A POST that hung held everything back that went up, and the state that came down hid it.
    const { peer, machine } = opened();
    peer.receive(pong(1));
    peer.now += 10_000;
    machine.handleTimeout(peer.now);
    for (let ms = 0; ms < 4 * MIN_DOUBT_MS; ms += 500) {
      expect(machine.isSuspect).toBe(false);
      peer.now += 500;
      machine.handleDatagram(peer.now, Uint8Array.of(1));
    }
    machine.handleTimeout(peer.now);
    expect(machine.isSuspect).toBe(true);
  });

  it('a page that slept asks before it doubts', () => {
    const { peer, machine } = opened();
    peer.now += 60_000;
    machine.probe(peer.now, 5_000);
    machine.handleTimeout(peer.now);
    expect([peer.sent(), peer.saw('suspect').length, peer.saw('silent').length]).toEqual([[ping(2)], 0, 0]);
    peer.pass(5_000);
    expect([peer.saw('suspect').length, peer.saw('silent').length]).toEqual([1, 1]);
  });

  it('a new link is trusted', () => {
    const { peer, machine } = opened();
    peer.pass(1_500);
    expect(machine.isSuspect).toBe(true);
    peer.open();
    expect(machine.isSuspect).toBe(false);
    expect(peer.saw('trusted')).toHaveLength(0);
  });
});

describe('the credit of datagrams', () => {
  const send = (peer: Peer, count: number): number => {
    for (let sent = 0; sent < count; sent++) {
      peer.machine.sendDatagram(Uint8Array.of(sent), undefined);
    }
    return peer.sent().filter(({ type }) => type === 'datagram').length;
  };

  it('two frames are under way on a path without length, and newer ones replace what waits', () => {
    const { peer, machine } = opened();
    machine.sendDatagram(Uint8Array.of(1), 'k');
    expect(peer.sent()).toEqual([datagram(1)]);
    machine.sendDatagram(Uint8Array.of(2), 'k');
    expect(peer.sent()).toEqual([datagram(2)]);
    machine.sendDatagram(Uint8Array.of(3), 'k');
    machine.sendDatagram(Uint8Array.of(4), 'k');
    expect(peer.sent()).toEqual([]);
    expect(peer.receive({ type: 'taken', count: 1 })).toEqual([datagram(4)]);
    expect(machine.counters.datagramsDropped).toBe(1);
    expect(peer.receive({ type: 'taken', count: 0 })).toEqual([]);
    expect(Peer.codeOf(peer.receive({ type: 'taken', count: 3 }))).toBeUndefined();
    // A POST that came twice was counted twice: it means all of them, and no more.
    expect(Peer.codeOf(peer.receive({ type: 'taken', count: 9 }))).toBeUndefined();
    expect(send(peer, 3)).toBe(2);
  });

  it('a long path holds as many as are sent in a round trip', () => {
    const { peer } = opened();
    peer.now += 200;
    peer.receive(pong(1));
    let underWay: number[] = [];
    let sent = 0;
    let taken = 0;
    for (let tick = 0; tick < 60; tick++) {
      peer.now += 33;
      const arrived = underWay.filter((at) => at + 200 <= peer.now);
      underWay = underWay.slice(arrived.length);
      taken += arrived.length;
      sent += peer.receive({ type: 'taken', count: taken }).filter(({ type }) => type === 'datagram').length;
      const now = send(peer, 1);
      sent += now;
      underWay.push(...Array<number>(sent - taken - underWay.length).fill(peer.now));
    }
    expect(sent).toBeGreaterThan(55);
    expect(send(peer, 64)).toBeLessThan(64);
  });

  it(`${MAX_DATAGRAMS_UNDER_WAY} at most`, () => {
    const { peer } = opened();
    peer.now += 60_000;
    peer.receive(pong(1)); // a path of a minute
    let sent = 0;
    for (let tick = 0; tick < 200; tick++) {
      peer.now += 20;
      sent += send(peer, 10);
    }
    expect(sent).toBe(MAX_DATAGRAMS_UNDER_WAY);
  });

  it('says at once what was taken, of frames alone', () => {
    const { peer, machine } = opened({}, { nativeDatagram: 1_000 });
    machine.handleDatagram(peer.now, Uint8Array.of(1));
    expect(peer.sent()).toEqual([]);
    expect(peer.receive(datagram(2), datagram(3))).toEqual([{ type: 'taken', count: 2 }]);
    expect(peer.receive(datagram(4))).toEqual([{ type: 'taken', count: 3 }]);
  });

  it('native ones need none', () => {
    const { peer, machine } = opened({}, { nativeDatagram: 1_000 });
    for (let count = 0; count < 10; count++) {
      machine.sendDatagram(Uint8Array.of(count), undefined);
      expect(machine.hasNativeDatagram).toBe(true);
      machine.nativeDatagram();
    }
    machine.sendDatagram(new Uint8Array(1_001), undefined);
    expect(peer.sent()).toHaveLength(1);
  });
});

describe('going away', () => {
  it('finishes what has begun, says so, and keeps the rest for the next session', () => {
    const { peer, machine } = opened({ limit: 4 });
    machine.send(true, bytesOf('begun'));
    machine.send(true, bytesOf('held'));
    expect(peer.sent()).toEqual([data(0, 0, message('begun').slice(0, 4))]);
    expect(peer.receive(goaway(500))).toEqual([]);
    peer.pass(499);
    expect(machine.deadline).toBe(peer.now + 1);
    peer.pass(1);
    expect(peer.receive(ack(0, 4, 100))).toEqual([data(0, 4, message('begun').slice(4))]);
    expect(peer.receive(ack(0, 7, 100))).toEqual([goaway(0)]);
    machine.send(true, bytesOf('later'));
    expect(peer.sent()).toEqual([]);
    peer.receive({ type: 'close', close: protocolClose('SHUTTING_DOWN', '') });
    expect(peer.saw('closed')[0]?.close.code).toBe(18);
    machine.reopen();
    expect(peer.open({ resumed: false, session: 'next' })).toEqual([ping(1)]);
    expect(peer.saw('opened')[1]?.gap).toEqual({ previousId: 'session', unacknowledgedBytes: 0 });
    machine.releaseKept();
    expect(peer.sent()).toEqual([data(0, 0, new Uint8Array([...message('held'), ...message('later')]))]);
    expect(machine.deadline).toBeGreaterThan(peer.now + 1_000);
  });

  it('goes on until the delay is over', () => {
    const { peer, machine } = opened();
    peer.receive(goaway(1_000));
    machine.send(true, bytesOf('x'));
    expect(peer.sent()).toHaveLength(1);
    expect(peer.receive(ack(0, 3, 100))).toEqual([]);
    expect(peer.pass(1_000)).toContainEqual(goaway(0));
    expect(peer.receive(goaway(0))).toEqual([]);
  });

  it('answers again on a new link, and waits for streams', () => {
    const { peer, machine } = opened();
    machine.streams.open();
    machine.streams.write(1, bytesOf('x'));
    peer.sent();
    expect(peer.receive(goaway(0))).toEqual([]);
    expect(peer.receive(ack(1, 1, 0))).toEqual([goaway(0)]);
    expect(peer.open()).toContainEqual(goaway(0));
  });

  it('an application that closes meanwhile has its messages sent', () => {
    const { peer, machine } = opened();
    peer.receive(goaway(0));
    machine.send(true, bytesOf('x'));
    machine.close(peer.now, protocolClose('NORMAL', ''));
    expect(peer.sent().map(({ type }) => type)).toEqual(['stream', 'close']);
  });
});

describe('closing', () => {
  it('waits for the bytes of streams, and their END, but not for who has stopped them', () => {
    const { peer, machine } = opened();
    const { streams } = machine;
    for (const id of [streams.open(), streams.open()]) {
      streams.write(id as number, new Uint8Array(20_000));
    }
    streams.finish(1);
    machine.close(peer.now, protocolClose('NORMAL', ''));
    expect(peer.sent().map(({ type }) => type)).toEqual(['stream', 'stream']);
    expect(peer.receive(ack(1, 0, 20_000))).toEqual([data(1, 16_384, new Uint8Array(3_616)), end(1, 20_000)]);
    expect(peer.receive(stop(3, 1)).map(({ type }) => type)).toEqual(['close']);
  });

  it('for 3 s at most', () => {
    const { peer, machine } = opened();
    machine.streams.open();
    machine.streams.write(1, new Uint8Array(20_000));
    machine.close(peer.now, protocolClose('NORMAL', ''));
    peer.sent();
    expect(peer.pass(2_999)).toEqual([]);
    expect(peer.pass(1).map(({ type }) => type)).toEqual(['close']);
  });
});

describe('violations', () => {
  const welcome = (fields: object): Frame =>
    ({ type: 'welcome', welcome: { session: 'session', key: 'key', version: 1, ...fields } }) as never;
  for (const [why, frame] of [
    ['a second WELCOME', welcome({})],
    ['an ACK of what was never sent', ack(0, 1)],
  ] as [string, Frame][]) {
    it(why, () => {
      expect(Peer.codeOf(opened().peer.receive(frame))).toBe('PROTOCOL_VIOLATION');
    });
  }

  for (const type of ['ping', 'stream', 'taken', 'goaway', 'streams'] as const) {
    it(`${type} before WELCOME`, () => {
      const peer = new Peer();
      peer.machine.linkOpened(peer.now, { nativeDatagram: 0, nativeStreams: false });
      const frame = {
        type,
        id: 1,
        stream: 1,
        offset: 0,
        data: new Uint8Array(),
        count: 0,
        limit: 0,
        delayMs: 0,
      };
      expect(Peer.codeOf(peer.receive(frame as never))).toBe('PROTOCOL_VIOLATION');
    });
  }
});
