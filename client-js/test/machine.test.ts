import { describe, expect, it } from 'vitest';
import type { Close } from '../src/protocol/close.js';
import { closeName, protocolClose } from '../src/protocol/close.js';
import { decodePacket } from '../src/protocol/codec.js';
import { StreamError } from '../src/protocol/half.js';
import { MAX_DATAGRAM } from '../src/protocol/limits.js';
import { Machine } from '../src/protocol/machine.js';
import {
  type Bytes,
  bytes,
  comparable,
  fromVector,
  hex,
  load,
  messageOf,
  plain,
  scenarioNames,
  toVector,
  type VectorFrame,
  type VectorMessage,
} from './vectors.js';

interface Step {
  at: number;
  why?: string;
  busy?: boolean;
  link_opened?: { native_datagrams?: number; native_streams?: boolean };
  frame?: VectorFrame;
  on?: number;
  natively?: boolean;
  datagram?: Bytes;
  timeout?: true;
  send?: VectorMessage;
  send_datagram?: { data: Bytes; key?: number };
  take?: number;
  close?: { code: number; reason: string } | { protocol: string; reason: string };
  violation?: { code: string; reason: string };
  link_lost?: { reason: string };
  link_closed?: { code: number; reason: string };
  open_stream?: true;
  write?: { stream: number; data: Bytes };
  finish?: number;
  reset?: { stream: number; code: number };
  read?: number;
  stop?: { stream: number; code: number };
  release?: number;
  sent?: VectorFrame[];
  sent_natively?: VectorFrame[];
  datagrams?: Bytes[];
  events?: ({ type: string } & Record<string, unknown>)[];
  refused?: string;
  code?: number;
  stream?: number;
  written?: number;
  data?: Bytes;
  ended?: boolean;
  next_timeout?: number | null;
  state?: Record<string, unknown>;
}

interface Scenario {
  why: string;
  role: 'server' | 'client';
  config?: Record<string, number>;
  max_packet?: number;
  steps: Step[];
}

/** What this machine leaves to its owner, or does not have. */
const ELSEWHERE: Record<string, string> = {
  'client-open-timeout.json': "the deadline for WELCOME is the ladder's",
  'credit-of-a-client-at-the-start.json': 'the window is not configurable',
};

describe('scenarios', () => {
  for (const name of scenarioNames()) {
    const scenario = load<Scenario>(`scenarios/${name}`);
    if (scenario.role === 'client' && !(name in ELSEWHERE)) {
      it(`${name}: ${scenario.why}`, () => run(scenario));
    }
  }
});

/**
 * What this machine leaves to its owner: the deadline for WELCOME is the ladder's, a silent link is given up by the
 * session, which also refuses to send when it is closed. What it does more is not compared: its doubts about a link.
 */
function run({ steps, max_packet: maxPacket = 262_144 }: Scenario): void {
  const machine = new Machine(Infinity); // only a client of this kind asks a link that went quiet
  const queued: Record<string, unknown>[] = [];
  let opening = false;
  let links = 0;
  /** Streams that have been on a native one. */
  const native = new Set<number>();
  for (const [index, step] of steps.entries()) {
    const now = step.at / 1000;
    const context = `step ${index + 1} ${step.why ?? ''}`;
    let events: Record<string, unknown>[] = [];
    if (step.link_opened) {
      machine.linkOpened(now, {
        nativeDatagram: step.link_opened.native_datagrams ?? 0,
        nativeStreams: step.link_opened.native_streams ?? false,
      });
      opening = true;
      links++;
    } else if (step.frame) {
      opening &&= step.frame.type !== 'WELCOME';
      const frame = fromVector(step.frame);
      if (step.natively && 'stream' in frame) {
        native.add(frame.stream);
        machine.handleNativeFrame(now, frame.stream, frame);
      } else if ((step.on ?? links) < links) {
        machine.handleLateFrame(now, frame);
      } else {
        machine.handleFrame(now, frame);
      }
    } else if (step.datagram !== undefined) {
      machine.handleDatagram(now, bytes(step.datagram));
    } else if (step.timeout) {
      machine.handleTimeout(now);
    } else if (step.send) {
      const [kind, body = ''] = messageOf(step.send).split(' ');
      if (step.refused === undefined) {
        machine.send(kind === 'text', bytes(body));
      }
    } else if (step.send_datagram) {
      const data = bytes(step.send_datagram.data);
      if (step.refused === undefined) {
        expect(data.length, context).toBeLessThanOrEqual(MAX_DATAGRAM);
        machine.sendDatagram(data, step.send_datagram.key);
      }
    } else if (step.close) {
      machine.close(now, closeOf(step.close));
    } else if (step.violation) {
      machine.handleViolation(now, protocolClose(step.violation.code as never, step.violation.reason));
    } else if (step.link_lost) {
      machine.linkLost();
    } else if (step.take === undefined) {
      useStreams(machine, step, context);
    }
    if (step.timeout) {
      queued.push(...take(machine, Infinity));
    }
    if (step.take !== undefined) {
      // Each kind of event in its own order; the end comes after everything else.
      queued.push(...take(machine, step.take - queued.length));
      const ended = queued.findIndex(({ type }) => type === 'closed');
      const closed = ended < 0 ? [] : queued.splice(ended);
      events = queued.splice(0, step.take);
      for (
        let message = machine.message();
        events.length < step.take && message !== undefined;
        message = machine.message()
      ) {
        events.push({ type: 'message', is: comparable(message) });
      }
      queued.push(...closed);
      events.push(...queued.splice(0, step.take - events.length));
    }
    const sent: VectorFrame[] = [];
    const natively: VectorFrame[] = [];
    const datagrams: string[] = [];
    if (!step.busy) {
      for (let id = machine.streams.unrouted(); id !== undefined; id = machine.streams.unrouted()) {
        machine.streams.route(id, true);
        native.add(id);
      }
      while (machine.hasNativeDatagram) {
        datagrams.push(hex(machine.nativeDatagram()));
      }
      for (
        let packet = machine.packet(now, maxPacket);
        packet !== null;
        packet = machine.packet(now, maxPacket)
      ) {
        expect(packet.length, context).toBeLessThanOrEqual(maxPacket);
        decodePacket(packet, (frame) => sent.push(toVector(frame)));
        while (machine.hasNativeDatagram) {
          datagrams.push(hex(machine.nativeDatagram()));
        }
      }
    }
    for (const id of step.busy ? [] : native) {
      for (
        let packet = machine.nativePacket(now, id, maxPacket);
        packet !== null;
        packet = machine.nativePacket(now, id, maxPacket)
      ) {
        decodePacket(packet, (frame) => natively.push(toVector(frame)));
      }
    }
    expect(join(sent).map(loose(step.sent)), context).toEqual(join((step.sent ?? []).map(plain)));
    expect(join(natively), context).toEqual(join((step.sent_natively ?? []).map(plain)));
    expect(datagrams, context).toEqual((step.datagrams ?? []).map((data) => hex(bytes(data))));
    expect(events.map(loose(step.events)), context).toEqual((step.events ?? []).map(eventOf));
    if (step.next_timeout !== undefined && !opening) {
      expect(micros(machine.deadline), context).toBe(step.next_timeout);
    }
    checkState(machine, now, step.state ?? {}, context);
  }
}

/** What the application does with streams above 0. Whether the session is closed is its owner's to know. */
function useStreams({ streams }: Machine, step: Step, context: string): void {
  if (step.refused === 'closed') {
    return;
  }
  const { write, reset, stop } = step;
  let refused: StreamError | undefined;
  let data = '';
  let ended = false;
  try {
    if (step.open_stream) {
      const id = streams.open();
      expect([id ?? undefined, id === null ? 'full' : undefined], context).toEqual([
        step.stream,
        step.refused,
      ]);
      return;
    }
    if (write) {
      const raw = bytes(write.data);
      expect(streams.write(write.stream, raw), context).toBe(step.written ?? raw.length);
    } else if (step.finish !== undefined) {
      streams.finish(step.finish);
    } else if (reset) {
      streams.reset(reset.stream, reset.code);
    } else if (stop) {
      streams.stop(stop.stream, stop.code);
    } else if (step.release !== undefined) {
      streams.release(step.release);
    } else if (step.read !== undefined) {
      let got = streams.read(step.read);
      for (; typeof got !== 'string'; got = streams.read(step.read)) {
        data += hex(got);
      }
      ended = got === 'end';
    } else {
      throw new Error(`unknown input in ${context}`);
    }
  } catch (error) {
    if (!(error instanceof StreamError)) {
      throw error;
    }
    refused = error;
  }
  expect(refused?.kind, context).toBe(step.refused);
  expect(refused?.kind === 'ended' ? undefined : refused?.code, context).toBe(step.code);
  expect([data, ended], context).toEqual([hex(bytes(step.data ?? '')), step.ended ?? false]);
}

/** STREAM frames that go on where the one before them ends become one. */
function join(frames: VectorFrame[]): VectorFrame[] {
  const joined: VectorFrame[] = [];
  for (const frame of frames) {
    const last = joined.at(-1);
    const isNext =
      frame.type === 'STREAM' &&
      last?.type === 'STREAM' &&
      last['stream'] === frame['stream'] &&
      Number(last['offset']) + String(last['data']).length / 2 === frame['offset'];
    if (isNext && last) {
      joined[joined.length - 1] = { ...last, data: `${last['data']}${frame['data']}` };
    } else {
      joined.push(frame);
    }
  }
  return joined;
}

/** Takes up to so many events. Who takes a datagram has to say so: not more than are asked for. */
function take(machine: Machine, count: number): Record<string, unknown>[] {
  const taken: Record<string, unknown>[] = [];
  while (taken.length < count) {
    const event = machine.event();
    if (!event) {
      break;
    }
    switch (event.type) {
      case 'opened':
        if (!machine.welcome?.resumed) {
          taken.push({ type: 'opened' });
        }
        break;
      case 'datagram':
        taken.push({ type: 'datagram', data: hex(event.bytes) });
        break;
      case 'stream':
        taken.push({ type: 'stream', stream: event.id });
        break;
      case 'closed':
        taken.push({ type: 'closed', ...originOf(event.close) });
        break;
      case 'silent':
        // The Rust machine loses its link then; here the owner does that.
        expect(['IDLE_TIMEOUT', 'OPEN_TIMEOUT']).toContain(closeName(event.close));
        machine.linkLost();
    }
  }
  return taken;
}

function eventOf(event: { type: string } & Record<string, unknown>): Record<string, unknown> {
  if (event.type === 'message') {
    return { type: 'message', is: messageOf(event as VectorMessage) };
  }
  return 'data' in event ? { ...event, data: hex(bytes(event['data'] as Bytes)) } : event;
}

/** Leaves out the reason where the expectation has none: its words are free. */
function loose(expected: readonly Record<string, unknown>[] | undefined) {
  return (actual: Record<string, unknown>, index: number): Record<string, unknown> => {
    if ('reason' in actual && !('reason' in (expected?.[index] ?? actual))) {
      const { reason: _, ...rest } = actual;
      return rest;
    }
    return actual;
  };
}

function closeOf(close: NonNullable<Step['close']>): Close {
  return 'protocol' in close
    ? protocolClose(close.protocol as never, close.reason)
    : { code: close.code, application: true, reason: close.reason };
}

function originOf({ code, application, reason }: Close): Record<string, unknown> {
  return { code, origin: application ? 'application' : 'protocol', reason };
}

function micros(ms: number): number | null {
  return ms === Infinity ? null : Math.round(ms * 1000);
}

function checkState(machine: Machine, now: number, state: Record<string, unknown>, context: string): void {
  const actual: Record<string, unknown> = {
    buffered: machine.bufferedBytes,
    link: machine.welcome?.link ?? 0,
    resumed: machine.welcome?.resumed ?? false,
    received: Number(machine.resumption?.received.split('.')[1] ?? 0),
    datagrams_dropped: machine.counters.datagramsDropped,
  };
  for (const [key, value] of Object.entries(state)) {
    if (key === 'rtt_us') {
      // Floating point here, whole microseconds there.
      expect(Math.abs(machine.rttMs * 1000 - Number(value)), context).toBeLessThan(2);
    } else if (key === 'peer_time') {
      expect(Math.abs((machine.serverTime(now) ?? 0) * 1000 - Number(value)), context).toBeLessThan(2);
    } else if (key in actual) {
      expect(actual[key], `${context}: ${key}`).toBe(value);
    }
  }
}
