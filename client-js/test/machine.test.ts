import { describe, expect, it } from 'vitest';
import type { Close } from '../src/protocol/close.js';
import { closeName, protocolClose } from '../src/protocol/close.js';
import { decodePacket } from '../src/protocol/codec.js';
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
  link_opened?: { native_datagrams?: number };
  frame?: VectorFrame;
  datagram?: Bytes;
  timeout?: true;
  send?: VectorMessage;
  send_datagram?: { data: Bytes; key?: number };
  take?: number;
  close?: { code: number; reason: string } | { protocol: string; reason: string };
  violation?: { code: string; reason: string };
  link_lost?: { reason: string };
  link_closed?: { code: number; reason: string };
  sent?: VectorFrame[];
  datagrams?: Bytes[];
  events?: ({ type: string } & Record<string, unknown>)[];
  refused?: string;
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
  'link-lost.json': 'a lost link leads to another one; the session decides',
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
 * What this machine leaves to its owner: the deadline for WELCOME is the ladder's, silence and lost links lead to
 * another link instead of ending the session, and `send` is checked by the session.
 */
function run({ steps, max_packet: maxPacket = 262_144 }: Scenario): void {
  const machine = new Machine();
  const queued: Record<string, unknown>[] = [];
  let opening = false;
  for (const [index, step] of steps.entries()) {
    const now = step.at / 1000;
    const context = `step ${index + 1} ${step.why ?? ''}`;
    let events: Record<string, unknown>[] = [];
    if (step.link_opened) {
      machine.linkOpened(now, {
        nativeDatagram: step.link_opened.native_datagrams ?? 0,
        nativeStreams: false,
      });
      opening = true;
    } else if (step.frame) {
      opening &&= step.frame.type !== 'WELCOME';
      machine.handleFrame(now, fromVector(step.frame));
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
    } else if (step.take === undefined) {
      throw new Error(`unknown input in ${context}`);
    }
    collect(machine, queued, now);
    if (step.take !== undefined) {
      // Each kind of event in its own order; the end comes after everything else.
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
    const datagrams: string[] = [];
    if (!step.busy) {
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
    collect(machine, queued, now);
    expect(sent.map(loose(step.sent)), context).toEqual((step.sent ?? []).map(plain));
    expect(datagrams, context).toEqual((step.datagrams ?? []).map((data) => hex(bytes(data))));
    expect(events.map(loose(step.events)), context).toEqual((step.events ?? []).map(eventOf));
    if (step.next_timeout !== undefined && !opening) {
      expect(micros(machine.deadline), context).toBe(step.next_timeout);
    }
    checkState(machine, now, step.state ?? {}, context);
  }
}

function collect(machine: Machine, queued: Record<string, unknown>[], now: number): void {
  for (let event = machine.event(); event !== undefined; event = machine.event()) {
    switch (event.type) {
      case 'opened':
        if (!machine.welcome?.resumed) {
          queued.push({ type: 'opened' });
        }
        break;
      case 'datagram':
        queued.push({ type: 'datagram', data: hex(event.bytes) });
        break;
      case 'closed':
        queued.push({ type: 'closed', ...originOf(event.close) });
        break;
      case 'silent':
        // The Rust machine closes with this code; a client's owner looks for another link.
        expect(closeName(event.close)).toBe('IDLE_TIMEOUT');
        machine.handleViolation(now, event.close);
    }
  }
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
