// Values that come as datagrams, and tokens: what the machine does with the frames of sections 3 and 5.

import { describe, expect, it } from 'vitest';
import type { Value } from '../src/protocol/channels.js';
import type { Frame } from '../src/protocol/frames.js';
import { MAX_DATAGRAM, MAX_TOKEN } from '../src/protocol/limits.js';
import { encodeFields } from '../src/protocol/message.js';
import { encodeState } from './hub.js';
import { bytesOf, Peer, pong, textOf } from './peer.js';
import { answer, Network, World } from './world.js';

const value: Value = { number: 7, offset: 3, key: 'x', data: 'new' };
const state = (of = value): Frame => ({ type: 'state', data: encodeState(of) });
const marked = (mark: number, payload: Uint8Array) => encodeFields(mark, payload) as Uint8Array<ArrayBuffer>;
const taken = (frames: Frame[]) => frames.filter(({ type }) => type === 'taken');

describe('STATE', () => {
  it('is a value, and counts as a DATAGRAM does: TAKEN says both', () => {
    const peer = new Peer();
    peer.open();
    const datagram: Frame = { type: 'datagram', data: bytesOf('d') };
    peer.receive(state(), datagram, state({ ...value, offset: 4 }));
    expect(peer.saw('state').map((event) => event.value)).toEqual([value, { ...value, offset: 4 }]);
    expect(peer.machine.counters.datagramsIn).toBe(3);
    expect(taken(peer.receive(state({ ...value, offset: 5 })))).toEqual([{ type: 'taken', count: 4 }]);
  });

  it('that cannot be read is a malformed frame; one that is too long is too large', () => {
    const malformed = new Peer();
    malformed.open();
    expect(Peer.codeOf(malformed.receive({ type: 'state', data: Uint8Array.of(7, 3) }))).toBe(
      'MALFORMED_FRAME',
    );
    const long = new Peer();
    long.open();
    const data = new Uint8Array(MAX_DATAGRAM + 1);
    expect(Peer.codeOf(long.receive({ type: 'state', data }))).toBe('DATAGRAM_TOO_LARGE');
  });

  it('that is late, on the link before, still counts for what it says', () => {
    const peer = new Peer();
    peer.open();
    peer.machine.linkOpened(peer.now, { nativeDatagram: 0, nativeStreams: false });
    peer.machine.handleLateFrame(peer.now, state());
    expect(peer.saw('state')).toEqual([]); // there is no newer link yet
    peer.open({ resumed: true });
    peer.machine.handleLateFrame(peer.now, state());
    expect([taken(peer.sent()), peer.saw('state').length]).toEqual([[], 1]);
  });
});

describe('native datagrams', () => {
  const open = (isMarked: boolean) => {
    const peer = new Peer();
    peer.open({ marked: isMarked }, { nativeDatagram: 1_200 });
    const native = (bytes: Uint8Array) => {
      peer.machine.handleDatagram(peer.now, bytes);
      return peer.sent();
    };
    const seen = () => [
      ...peer.saw('datagram').map(({ bytes }) => textOf(bytes)),
      ...peer.saw('state').map((event) => event.value.data),
    ];
    return { peer, native, seen };
  };

  it('are the application’s, or values, as their marks say; other marks are ignored', () => {
    const { peer, native, seen } = open(true);
    native(marked(0, bytesOf('mine')));
    native(marked(1, encodeState(value)));
    for (const ignored of [marked(2, bytesOf('x')), marked(70, bytesOf('x')), [], [0x40], [0x80, 0, 0]]) {
      expect(native(Uint8Array.from(ignored))).toEqual([]);
    }
    native(marked(0, new Uint8Array(0)));
    expect(seen()).toEqual(['mine', '', 'new']);
    expect(taken(peer.sent())).toEqual([]); // they have no credit
  });

  it('have no marks when WELCOME does not say so', () => {
    const { native, seen } = open(false);
    native(marked(1, bytesOf('x')));
    expect(seen()).toEqual(['\u0001x']);
  });

  it('have 1,100 bytes behind the mark', () => {
    const { peer, native } = open(true);
    native(marked(0, new Uint8Array(MAX_DATAGRAM)));
    expect(peer.saw('datagram')[0]?.bytes).toHaveLength(MAX_DATAGRAM);
    const { native: more } = open(true);
    expect(Peer.codeOf(more(marked(0, new Uint8Array(MAX_DATAGRAM + 1))))).toBe('DATAGRAM_TOO_LARGE');
    const { native: unmarked } = open(false);
    expect(Peer.codeOf(unmarked(new Uint8Array(MAX_DATAGRAM + 1)))).toBe('DATAGRAM_TOO_LARGE');
  });

  it('with a value that cannot be read end the session', () => {
    const { native } = open(true);
    expect(Peer.codeOf(native(marked(1, Uint8Array.of(7))))).toBe('MALFORMED_FRAME');
  });

  it('that are late are read by the marks of their own link', async () => {
    const world = new World();
    const network = new Network(world, {
      webtransport: answer(10, { session: 'one', marked: true }),
      websocket: (link) => {
        link.pongAfterMs = 5_000;
        link.later(10, () => link.welcome({ session: 'one', resumed: true, link: 2 }));
      },
    });
    const session = network.connect({ transports: ['webtransport', 'websocket'] });
    const got: string[] = [];
    session.on('datagram', (bytes) => got.push(textOf(bytes)));
    await world.pass(100);
    const first = network.link('webtransport');
    // It falls silent, a websocket takes over, and then what was on its way arrives.
    first.pongAfterMs = null;
    session.send('a message');
    for (let tries = 0; session.transport === 'webtransport' && tries < 100; tries++) {
      await world.pass(100);
    }
    expect([session.transport, first.aborted]).toEqual(['websocket', false]);
    first.handlers.datagram(marked(0, bytesOf('late')));
    first.handlers.datagram(marked(3, bytesOf('ignored')));
    expect(got).toEqual(['late']);
  });
});

describe('tokens', () => {
  const tokens = (frames: Frame[]) =>
    frames.flatMap((frame) => (frame.type === 'token' ? [frame.token] : []));

  it('go with the next packet, the newest of those that wait', () => {
    const peer = new Peer();
    peer.open();
    peer.machine.sendToken('old');
    peer.machine.sendToken('new');
    expect(tokens(peer.sent())).toEqual(['new']);
    expect(peer.sent()).toEqual([]);
  });

  it('do not go on another link, whose opening has carried it', () => {
    const peer = new Peer();
    peer.open();
    peer.machine.sendToken('old');
    expect(tokens(peer.open({ resumed: true }))).toEqual([]);
  });

  it('of any length fit beside what else there is', () => {
    const peer = new Peer();
    peer.room = 5_000;
    peer.open();
    peer.machine.send(true, bytesOf('x'.repeat(9_000)));
    peer.machine.sendToken('t'.repeat(MAX_TOKEN));
    const packets: number[] = [];
    for (
      let packet = peer.machine.packet(peer.now, 5_000);
      packet;
      packet = peer.machine.packet(peer.now, 5_000)
    ) {
      packets.push(packet.length);
    }
    expect(Math.max(...packets)).toBeLessThanOrEqual(5_000);
    expect(packets.reduce((sum, length) => sum + length, 0)).toBeGreaterThan(13_000);
  });

  it('EXPIRES is told, unless it comes late on the link before', () => {
    const peer = new Peer();
    peer.open();
    peer.receive({ type: 'expires', inMs: 7_000 });
    peer.open({ resumed: true });
    peer.machine.handleLateFrame(peer.now, { type: 'expires', inMs: 9_000 });
    peer.receive(pong(1));
    expect(peer.saw('expires').map(({ inMs }) => inMs)).toEqual([7_000]);
  });

  it('that the server sends break the protocol', () => {
    const peer = new Peer();
    peer.open();
    expect(Peer.codeOf(peer.receive({ type: 'token', token: 'x' }))).toBe('PROTOCOL_VIOLATION');
  });
});
