// Streams above 0 (SPEC section 4.2), as a client must treat them.

import { describe, expect, it } from 'vitest';
import type { Frame } from '../src/protocol/frames.js';
import { StreamError } from '../src/protocol/half.js';
import { MAX_STREAM_WINDOW, STREAM_CREDIT, STREAMS_POOL } from '../src/protocol/limits.js';
import { ack, bytesOf, data, done, end, Peer, ping, reset, stop, textOf } from './peer.js';

function opened(welcome = {}, traits = {}) {
  const peer = new Peer();
  peer.open(welcome, traits);
  return { peer, machine: peer.machine, streams: peer.machine.streams };
}

const errorOf = (work: () => unknown): unknown => {
  try {
    work();
    return undefined;
  } catch (error) {
    return error instanceof StreamError ? [error.kind, error.code] : error;
  }
};

describe('opening', () => {
  it('gives odd ids in order, as many as the server allows, and says so at once', () => {
    const { peer, streams } = opened({ streams: 2 });
    expect([streams.open(), streams.open(), streams.open()]).toEqual([1, 3, null]);
    expect(peer.sent()).toEqual([data(1, 0, ''), data(3, 0, '')]);
    expect(streams.touched()).toEqual([0]);
    expect(peer.receive({ type: 'streams', limit: 1 })).toEqual([]);
    expect([streams.touched(), streams.open()]).toEqual([[], null]);
    peer.receive({ type: 'streams', limit: 3 });
    expect([streams.touched(), streams.open(), streams.open()]).toEqual([[0], 5, null]);
  });

  it('opens nothing before WELCOME', () => {
    const peer = new Peer();
    expect(peer.machine.streams.open()).toBeNull();
  });

  it('a frame that names a stream of the server opens all below it, up to 100', () => {
    const { peer, streams } = opened();
    peer.receive(data(6, 0, 'hi'));
    expect(peer.saw('stream').map(({ id }) => id)).toEqual([2, 4, 6]);
    expect([streams.read(2), textOf(streams.read(6))]).toEqual(['nothing', 'hi']);
    peer.receive(stop(200, 1));
    expect(peer.saw('stream')).toHaveLength(100);
    expect(Peer.codeOf(peer.receive(data(202, 0, '')))).toBe('STREAM_LIMIT');
  });

  it('lets the server open another when one is over on both halves, and read', () => {
    const { peer, streams } = opened();
    expect(peer.receive(data(2, 0, 'x'), end(2, 1))).toEqual([done(2)]);
    streams.finish(2);
    expect(peer.sent()).toEqual([end(2, 0)]);
    expect(peer.receive(done(2))).toEqual([]);
    expect(textOf(streams.read(2))).toBe('x');
    expect([streams.read(2), peer.sent()]).toEqual(['end', [{ type: 'streams', limit: 101 }]]);
    expect(streams.has(2)).toBe(false);
    expect(Peer.codeOf(peer.receive(data(202, 0, '')))).toBeUndefined();
    expect(Peer.codeOf(peer.receive(data(204, 0, '')))).toBe('STREAM_LIMIT');
  });
});

describe('sending', () => {
  it('keeps to the credit, in chunks, in turns, the message stream first', () => {
    const { peer, machine, streams } = opened();
    for (const id of [streams.open(), streams.open()]) {
      streams.write(id as number, new Uint8Array(16_000));
    }
    machine.send(true, bytesOf('m'));
    peer.room = 5_000;
    expect(
      peer
        .sent()
        .filter((frame) => frame.type === 'stream')
        .map(({ stream }) => stream),
    ).toEqual([0, 1, 3, 1, 3, 1, 3, 1, 3]);
    peer.room = 65_536;
    expect(streams.write(1, new Uint8Array(1_000))).toBe(1_000);
    // 384 bytes of the credit are left.
    expect(peer.sent()).toEqual([data(1, 16_000, new Uint8Array(384))]);
    expect(peer.receive(ack(1, 16_384, 20_000))).toEqual([data(1, 16_384, new Uint8Array(616))]);
  });

  it('takes 16,384 bytes always, 262,144 while the pool of 1 MiB allows', () => {
    const { peer, streams } = opened();
    const big = new Uint8Array(300_000);
    const ids = [1, 2, 3, 4, 5, 6].map(() => streams.open() as number);
    const taken = ids.map((id) => streams.write(id, big));
    const extra = MAX_STREAM_WINDOW - STREAM_CREDIT;
    const left = STREAMS_POOL - 4 * extra + STREAM_CREDIT;
    expect(taken).toEqual([...Array(4).fill(MAX_STREAM_WINDOW), left, STREAM_CREDIT]);
    expect(ids.map((id) => streams.write(id, big))).toEqual([0, 0, 0, 0, 0, 0]);
    peer.sent();
    streams.touched();
    peer.receive(ack(1, 10_000, 0));
    expect(streams.touched()).toEqual(expect.arrayContaining([1, 11]));
    expect(streams.write(11, big)).toBe(10_000);
    expect(streams.write(1, big)).toBe(0);
  });

  it('END follows the last byte, needs no credit, and is confirmed', () => {
    const { peer, streams } = opened();
    const id = streams.open() as number;
    streams.write(id, new Uint8Array(STREAM_CREDIT));
    streams.finish(id);
    expect(peer.sent().at(-1)).toEqual(end(1, STREAM_CREDIT));
    expect(streams.goesOn(1)).toBe(false);
    expect(errorOf(() => streams.write(id, bytesOf('x')))).toEqual(['ended', 0]);
    expect(errorOf(() => streams.finish(id))).toEqual(['ended', 0]);
    expect(peer.receive(done(1), end(1, 0), stop(1, 9))).toEqual([done(1)]);
    expect([streams.read(1), streams.has(1)]).toEqual(['end', false]);
    expect(errorOf(() => streams.read(1))).toEqual(['ended', 0]);
    expect(errorOf(() => streams.write(1, bytesOf('')))).toEqual(['ended', 0]);
  });

  it('a reset drops what was not sent, once', () => {
    const { peer, streams } = opened();
    streams.open();
    streams.write(1, bytesOf('gone'));
    streams.reset(1, 7);
    streams.reset(1, 8);
    expect(streams.isReset(1)).toBe(true);
    expect(peer.sent()).toEqual([reset(1, 7), data(1, 0, '')]);
    expect(peer.receive(stop(1, 3))).toEqual([]);
    expect(errorOf(() => streams.write(1, bytesOf('x')))).toEqual(['ended', 0]);
    expect(Peer.codeOf(peer.receive(done(1)))).toBeUndefined();
  });

  it('STOP is answered with RESET, unless END was said', () => {
    const { peer, streams } = opened();
    for (const id of [streams.open(), streams.open(), streams.open()]) {
      streams.write(id as number, new Uint8Array(20_000));
    }
    streams.finish(3); // its END waits for credit
    peer.sent();
    expect(peer.receive(stop(1, 5), stop(3, 6))).toEqual([reset(1, 5), reset(3, 6)]);
    expect(errorOf(() => streams.write(1, bytesOf('')))).toEqual(['stopped', 5]);
    expect(errorOf(() => streams.finish(1))).toEqual(['stopped', 5]);
    peer.receive(ack(5, 16_384, 99_999));
    streams.finish(5);
    expect(peer.sent()).toEqual([end(5, 20_000)]);
    expect(peer.receive(stop(5, 7))).toEqual([]);
  });

  it('is kept until the application knows that it was stopped', () => {
    const { peer, streams } = opened();
    streams.open();
    peer.receive(stop(1, 5));
    peer.receive(done(1), end(1, 0));
    expect([streams.read(1), streams.has(1)]).toEqual(['end', true]);
    streams.release(1);
    expect([streams.has(1), peer.sent()]).toEqual([false, []]);
  });
});

describe('receiving', () => {
  it('gives everything unread at once, and credit as it is read', () => {
    const { peer, streams } = opened();
    peer.receive(data(2, 0, 'ab'), data(2, 1, 'bcd'), data(2, 0, 'a'));
    expect(streams.touched()).toContain(2);
    expect(textOf(streams.read(2))).toBe('abcd');
    expect(streams.read(2)).toBe('nothing');
    // Until the PING that follows traffic, which it goes along with.
    expect(peer.pass(749)).toEqual([]);
    expect(peer.pass(1)).toContainEqual(ack(2, 4, STREAM_CREDIT + 4));
    // A quarter of the window, and nobody reads: at once, without more credit.
    expect(peer.receive(data(2, 4, new Uint8Array(4_095)))).toEqual([]);
    expect(peer.receive(data(2, 4_099, 'x'))).toEqual([ack(2, 4_100, STREAM_CREDIT + 4)]);
  });

  it('doubles the window of who keeps up, to 262,144, while the pool of 1 MiB lasts', () => {
    const { peer, streams } = opened();
    const offsets = new Map<number, number>();
    const limits = new Map<number, number>();
    // Uses the credit up, reads, and says how far ahead the server may be then.
    const fill = (id: number): number => {
      const limit = limits.get(id) ?? STREAM_CREDIT;
      const offset = offsets.get(id) ?? 0;
      offsets.set(id, limit);
      peer.receive(data(id, offset, new Uint8Array(limit - offset)));
      streams.read(id);
      for (const frame of peer.sent()) {
        if (frame.type === 'ack') {
          limits.set(frame.stream, frame.limit);
        }
      }
      return (limits.get(id) ?? 0) - limit;
    };
    const ids = [2, 4, 6, 8, 10, 12];
    expect([0, 1, 2, 3, 4].map(() => fill(2))).toEqual([32_768, 65_536, 131_072, 262_144, 262_144]);
    let windows: number[] = [];
    for (let round = 0; round < 6; round++) {
      windows = ids.map(fill);
    }
    expect(Math.max(...windows)).toBe(MAX_STREAM_WINDOW);
    expect(windows.reduce((sum, one) => sum + one - STREAM_CREDIT, 0)).toBe(STREAMS_POOL);
    expect(Math.min(...windows)).toBeGreaterThanOrEqual(STREAM_CREDIT);
  });

  it('STOP grants no more credit, and drops what arrives', () => {
    const { peer, streams } = opened();
    peer.receive(data(2, 0, new Uint8Array(10_000)));
    streams.stop(2, 4);
    expect(peer.sent()).toEqual([stop(2, 4)]);
    const sent = peer.receive(data(2, 10_000, new Uint8Array(6_384)));
    expect(sent).toEqual([ack(2, STREAM_CREDIT, STREAM_CREDIT)]);
    expect(errorOf(() => streams.read(2))).toEqual(['ended', 4]);
    expect(peer.receive(reset(2, 4))).toEqual([done(2)]);
    expect(Peer.codeOf(peer.receive(data(2, 0, new Uint8Array(90_000))))).toBeUndefined();
  });

  it('RESET drops what was not read, and tells the reader', () => {
    const { peer, streams } = opened();
    expect(peer.receive(data(2, 0, 'unread'), reset(2, 9))).toEqual([done(2)]);
    expect(errorOf(() => streams.read(2))).toEqual(['reset', 9]);
    expect(errorOf(() => streams.read(2))).toEqual(['ended', 9]);
    expect(peer.receive(data(2, 99, 'ignored'), reset(2, 9))).toEqual([done(2)]);
  });

  it('after END everything is there, whatever follows', () => {
    const { peer, streams } = opened();
    expect(peer.receive(data(2, 0, 'all'), end(2, 3), reset(2, 9), end(2, 3), data(2, 1, 'll'))).toEqual([
      done(2),
    ]);
    expect(textOf(streams.read(2))).toBe('all');
    expect(streams.read(2)).toBe('end');
  });

  it('answers END and RESET of a stream that is over with done, and ignores the rest', () => {
    const { peer, streams } = opened();
    peer.receive(end(2, 0));
    streams.release(2);
    expect(peer.sent()).toEqual([reset(2, 0)]);
    expect(peer.receive(done(2))).toEqual([{ type: 'streams', limit: 101 }]);
    expect(peer.receive(end(2, 77), stop(2, 1), ack(2, 55, 5), data(2, 9, 'x'), done(2))).toEqual([done(2)]);
  });
});

describe('a new link', () => {
  it('says everything again that a lost one may have swallowed, before the stream bytes', () => {
    const { peer, machine, streams } = opened();
    for (let count = 0; count < 4; count++) {
      streams.open();
    }
    streams.write(1, bytesOf('hello'));
    streams.finish(1);
    streams.reset(3, 33);
    streams.stop(5, 55);
    peer.receive(data(2, 0, 'abc'), end(4, 0));
    machine.send(true, bytesOf('m'));
    peer.sent();
    machine.handleFrame(peer.now, ack(1, 2, 0));
    machine.linkLost();
    expect(peer.sent()).toEqual([]);
    expect(peer.open({ received: 1, limit: 100 })).toEqual([
      ping(2),
      ack(0, 0, 262_144),
      ack(1, 0, STREAM_CREDIT),
      ack(2, 3, STREAM_CREDIT),
      ack(3, 0, STREAM_CREDIT),
      ack(5, 0, STREAM_CREDIT),
      ack(7, 0, STREAM_CREDIT),
      { type: 'streams', limit: 100 },
      reset(3, 33),
      stop(5, 55),
      data(0, 1, Uint8Array.of(1, 109)),
      data(3, 0, ''),
      data(5, 0, ''),
      data(7, 0, ''),
      data(1, 2, 'llo'),
      end(1, 5),
    ]);
    // The server has had it all before, and says so on the new link.
    expect(peer.receive(done(1), done(3), end(4, 0))).toEqual([done(4)]);
  });

  it('goes on after an ACK that has overtaken WELCOME', () => {
    const { peer, machine } = opened();
    machine.send(true, bytesOf('hello'));
    peer.sent();
    peer.receive(ack(0, 7, 1000));
    expect(peer.open({ received: 3, limit: 500 }).map(({ type }) => type)).toEqual(['ping', 'ack']);
    machine.send(true, new Uint8Array(900));
    expect(peer.sent()).toHaveLength(1);
  });

  it('forgets the streams of a session that is gone', () => {
    const { peer, machine, streams } = opened();
    streams.open();
    streams.write(1, bytesOf('x'));
    peer.sent();
    machine.linkLost();
    peer.open({ resumed: false, session: 'another' });
    expect(machine.streams).not.toBe(streams);
    expect(machine.streams.open()).toBe(1);
    expect(peer.sent()).toEqual([data(1, 0, '')]);
  });
});

describe('native streams', () => {
  const native = { nativeStreams: true };

  it('carry STREAM and END of the streams that their owner routes so', () => {
    const { peer, streams } = opened({}, native);
    streams.open();
    streams.open();
    streams.write(1, bytesOf('one'));
    expect([peer.sent(), streams.unrouted()]).toEqual([[], 1]);
    streams.route(1, true);
    expect(streams.unrouted()).toBe(3);
    streams.route(3, false);
    expect(streams.unrouted()).toBeUndefined();
    expect(peer.sent()).toEqual([data(3, 0, '')]);
    streams.finish(1);
    expect([streams.goesOn(1), peer.native(1), streams.goesOn(1)]).toEqual([
      true,
      [data(1, 0, 'one'), end(1, 3)],
      false,
    ]);
    expect([peer.native(3), peer.sent()]).toEqual([[], []]);
    streams.reset(3, 1);
    expect(peer.sent()).toEqual([reset(3, 1)]);
  });

  it('a stream of the server is answered on the way that it came', () => {
    const { peer, machine, streams } = opened({}, native);
    expect(machine.handleNativeFrame(peer.now, undefined, data(2, 0, 'n'))).toBe(2);
    expect(machine.handleNativeFrame(peer.now, 2, end(2, 1))).toBe(2);
    expect(peer.receive(data(4, 0, 'l'))).toContainEqual(done(2));
    streams.write(2, bytesOf('2'));
    streams.write(4, bytesOf('4'));
    expect(peer.sent().filter(({ type }) => type === 'stream')).toEqual([data(4, 0, '4')]);
    expect(peer.native(2)).toEqual([data(2, 0, '2')]);
    // Opened by a frame that is no STREAM: the server has not said on which way.
    peer.receive(ack(6, 0, 20_000));
    streams.write(6, bytesOf('6'));
    expect([peer.sent(), peer.native(6), streams.unrouted()]).toEqual([[], [], undefined]);
  });

  it('an ended half of a stream of the server goes over a new link at once', () => {
    const { peer, machine, streams } = opened({}, native);
    machine.handleNativeFrame(peer.now, undefined, data(2, 0, ''));
    machine.handleNativeFrame(peer.now, undefined, data(4, 0, ''));
    streams.write(2, bytesOf('x'));
    streams.finish(2);
    streams.write(4, bytesOf('y'));
    peer.native(2);
    const sent = peer.open({}, native).filter((frame) => 'stream' in frame && frame.type !== 'ack');
    expect(sent).toEqual([data(2, 0, 'x'), end(2, 1)]);
  });

  for (const [why, known, frame] of [
    ['another frame', 1, ping(1)],
    ['RESET', 1, reset(1, 0)],
    ['another stream', 1, data(3, 0, '')],
    ['the message stream', undefined, data(0, 0, '')],
    ['a stream of ours that the server opened natively', undefined, data(1, 0, '')],
  ] as [string, number | undefined, Frame][]) {
    it(`${why} there is a violation`, () => {
      const { peer, machine, streams } = opened({}, native);
      streams.open();
      streams.open();
      machine.handleNativeFrame(peer.now, known, frame);
      expect(Peer.codeOf(peer.sent())).toBe('PROTOCOL_VIOLATION');
    });
  }

  it('one direction keeps to one way', () => {
    const { peer, machine } = opened({}, native);
    machine.handleNativeFrame(peer.now, undefined, data(2, 0, ''));
    expect(Peer.codeOf(peer.receive(data(2, 0, '')))).toBe('PROTOCOL_VIOLATION');
  });
});

describe('violations', () => {
  const cases: [why: string, code: string, frames: Frame[]][] = [
    ['STREAM for one never opened', 'PROTOCOL_VIOLATION', [data(3, 0, '')]],
    ['END for one never opened', 'PROTOCOL_VIOLATION', [end(3, 0)]],
    ['RESET for one never opened', 'PROTOCOL_VIOLATION', [reset(3, 0)]],
    ['STOP for one never opened', 'PROTOCOL_VIOLATION', [stop(3, 0)]],
    ['ACK for one never opened', 'PROTOCOL_VIOLATION', [ack(3, 0)]],
    ['END of stream 0', 'PROTOCOL_VIOLATION', [end(0, 0)]],
    ['RESET of stream 0', 'PROTOCOL_VIOLATION', [reset(0, 0)]],
    ['STOP of stream 0', 'PROTOCOL_VIOLATION', [stop(0, 0)]],
    ['done for stream 0', 'PROTOCOL_VIOLATION', [done(0)]],
    ['done for a half that goes on', 'PROTOCOL_VIOLATION', [done(1)]],
    ['ACK of what was never sent', 'PROTOCOL_VIOLATION', [ack(1, 2)]],
    ['a gap', 'PROTOCOL_VIOLATION', [data(1, 1, 'x')]],
    ['END too early', 'PROTOCOL_VIOLATION', [end(2, 1)]],
    ['END too late', 'PROTOCOL_VIOLATION', [data(2, 0, 'xx'), end(2, 1)]],
    ['END at another place than before', 'PROTOCOL_VIOLATION', [data(2, 0, 'x'), end(2, 1), end(2, 2)]],
    ['bytes after END', 'PROTOCOL_VIOLATION', [data(2, 0, 'x'), end(2, 1), data(2, 0, 'xy')]],
    ['the last byte of the credit', '', [data(2, 0, new Uint8Array(STREAM_CREDIT))]],
    ['a byte beyond it', 'FLOW_CONTROL', [data(2, 0, new Uint8Array(STREAM_CREDIT + 1))]],
    ['the last stream', '', [reset(200, 0)]],
    ['one more', 'STREAM_LIMIT', [reset(202, 0)]],
    ['the highest id', 'STREAM_LIMIT', [stop(2 ** 53 - 2, 0)]],
  ];
  for (const [why, code, frames] of cases) {
    it(`${why}: ${code || 'allowed'}`, () => {
      const { peer, streams } = opened();
      streams.open();
      streams.write(1, bytesOf('x'));
      peer.sent();
      expect(Peer.codeOf(peer.receive(...frames)) ?? '').toBe(code);
    });
  }
});

it('whatever arrives, the machine answers with CLOSE or goes on', () => {
  let state = 7;
  const random = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const number = (): number => [0, 1, 2, 3, 4, 5, 16_384, 16_385, 2 ** 53 - 1][random(9)] ?? 0;
  const codes = new Set<string | undefined>();
  for (let round = 0; round < 3_000; round++) {
    const { peer, machine, streams } = opened({}, { nativeStreams: random(2) === 0 });
    streams.open();
    streams.write(1, new Uint8Array(random(20_000)));
    for (let count = 0; count < 12; count++) {
      const stream = number();
      const frame = [
        data(stream, random(3), new Uint8Array(random(3))),
        ack(stream, number(), number()),
        end(stream, random(4)),
        reset(stream, 1),
        stop(stream, 2),
        ping(number()),
        { type: 'pong', id: number(), timeUs: number() },
        { type: 'taken', count: number() },
        { type: 'streams', limit: number() },
        { type: 'goaway', delayMs: number() },
        { type: 'datagram', data: new Uint8Array(random(2) ? 1_100 : 1_101) },
        { type: 'state', data: Uint8Array.of(7, 1, 0, random(5)) },
        { type: 'expires', inMs: number() },
        { type: 'token', token: 'x' },
      ][random(14)] as Frame;
      if (random(3) === 0) {
        machine.handleNativeFrame(peer.now, undefined, frame);
      } else if (random(4) === 0) {
        machine.handleLateFrame(peer.now, frame);
      }
      const sent = peer.receive(frame);
      codes.add(Peer.codeOf([...sent, ...peer.pass(random(3_000)), ...peer.native(2)]));
      for (const id of streams.touched()) {
        errorOf(() => streams.read(id));
        errorOf(() => streams.write(id, new Uint8Array(random(99))));
      }
    }
  }
  expect([...codes].sort()).toEqual([
    'DATAGRAM_TOO_LARGE',
    'MALFORMED_FRAME',
    'PROTOCOL_VIOLATION',
    'STREAM_LIMIT',
    undefined,
  ]);
});
