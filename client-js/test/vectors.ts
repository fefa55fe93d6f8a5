// Reads protocol/vectors: its notation for bytes, frames and messages (README.md there).

import { readdirSync, readFileSync } from 'node:fs';
import { toBase64Url } from '../src/protocol/base64.js';
import { CODE_NAMES } from '../src/protocol/close.js';
import type { Frame } from '../src/protocol/frames.js';

const FOLDER = new URL('../../protocol/vectors/', import.meta.url);

export type Bytes = string | { repeat: string; count: number } | Bytes[];

export function load<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(name, FOLDER), 'utf8')) as T;
}

export function scenarioNames(): string[] {
  return readdirSync(new URL('scenarios/', FOLDER)).filter((name) => name.endsWith('.json'));
}

export function bytes(from: Bytes): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.from(hexOf(from), 'hex'));
}

function hexOf(from: Bytes): string {
  if (typeof from === 'string') {
    return from;
  }
  return Array.isArray(from) ? from.map(hexOf).join('') : from.repeat.repeat(from.count);
}

export function hex(from: Uint8Array): string {
  return Buffer.from(from).toString('hex');
}

/** A frame as the files write it. */
export type VectorFrame = { type: string; [key: string]: unknown };

const NUMBER_KEYS: Record<string, string> = {
  timeUs: 'time',
  heartbeatMs: 'heartbeat',
  idleMs: 'idle',
  maxMessage: 'max_message',
  windowMs: 'window',
  expiresMs: 'expires',
};

/** Our frame in the notation of the files, with all bytes in plain hex. */
export function toVector(frame: Frame): VectorFrame {
  switch (frame.type) {
    case 'welcome': {
      const { session, key, ...rest } = frame.welcome;
      const fields = Object.entries(rest).map(([name, value]) => [NUMBER_KEYS[name] ?? name, value]);
      return { type: 'WELCOME', session, key, ...Object.fromEntries(fields) };
    }
    case 'close': {
      const { code, application, reason } = frame.close;
      return { type: 'CLOSE', code, origin: application ? 'application' : 'protocol', reason };
    }
    case 'stream':
      return { type: 'STREAM', stream: frame.stream, offset: frame.offset, data: hex(frame.data) };
    case 'ack':
      return { type: 'ACK', stream: frame.stream, received: frame.received, limit: frame.limit };
    case 'datagram':
      return { type: 'DATAGRAM', data: hex(frame.data) };
    case 'ping':
      return { type: 'PING', id: frame.id };
    case 'pong':
      return { type: 'PONG', id: frame.id, time: frame.timeUs };
    case 'goaway':
      return { type: 'GOAWAY', delay: frame.delayMs };
    case 'state':
      return { type: 'STATE', data: hex(frame.data) };
    case 'expires':
      return { type: 'EXPIRES', in: frame.inMs };
    default:
      // The fields have the same names on both sides.
      return { ...frame, type: frame.type.toUpperCase() };
  }
}

/** The files' frame with its bytes in plain hex and its ids in text, so that both compare. */
export function plain(frame: VectorFrame): VectorFrame {
  return {
    ...frame,
    ...('data' in frame && { data: hexOf(frame['data'] as Bytes) }),
    ...(frame.type === 'WELCOME' && {
      marked: frame['marked'] ?? false,
      expires: frame['expires'] ?? 0,
      session: toBase64Url(bytes(frame['session'] as string)),
      key: toBase64Url(bytes(frame['key'] as string)),
    }),
  };
}

export function fromVector(frame: VectorFrame): Frame {
  const it = plain(frame) as unknown as Record<string, never>;
  switch (frame.type) {
    case 'WELCOME': {
      const { type: _, time, heartbeat, idle, max_message, window, expires, ...rest } = it;
      const welcome = {
        ...rest,
        timeUs: time,
        heartbeatMs: heartbeat,
        idleMs: idle,
        maxMessage: max_message,
        windowMs: window,
        expiresMs: expires,
      };
      return { type: 'welcome', welcome: welcome as never };
    }
    case 'CLOSE':
      return {
        type: 'close',
        close: {
          code: it['code'] ?? 0,
          application: frame['origin'] === 'application',
          reason: it['reason'] ?? '',
        },
      };
    case 'STREAM':
      return {
        type: 'stream',
        stream: it['stream'] ?? 0,
        offset: it['offset'] ?? 0,
        data: bytes(frame['data'] as Bytes),
      };
    case 'ACK':
      return {
        type: 'ack',
        stream: it['stream'] ?? 0,
        received: it['received'] ?? 0,
        limit: it['limit'] ?? 0,
      };
    case 'DATAGRAM':
      return { type: 'datagram', data: bytes(frame['data'] as Bytes) };
    case 'PING':
      return { type: 'ping', id: it['id'] ?? 0 };
    case 'PONG':
      return { type: 'pong', id: it['id'] ?? 0, timeUs: it['time'] ?? 0 };
    case 'GOAWAY':
      return { type: 'goaway', delayMs: it['delay'] ?? 0 };
    case 'STATE':
      return { type: 'state', data: bytes(frame['data'] as Bytes) };
    case 'EXPIRES':
      return { type: 'expires', inMs: it['in'] ?? 0 };
    case 'TOKEN':
    case 'END':
    case 'RESET':
    case 'STOP':
    case 'STREAMS':
    case 'TAKEN':
      return { ...it, type: frame.type.toLowerCase() } as never;
    default:
      throw new Error(`unknown frame ${frame.type}`);
  }
}

export type VectorMessage = { text?: string; text_bytes?: Bytes; binary?: Bytes };

/** A message in a form that compares. */
export function messageOf(message: VectorMessage): string {
  if (message.binary !== undefined) {
    return `binary ${hexOf(message.binary)}`;
  }
  const utf8 = message.text === undefined ? bytes(message.text_bytes ?? '') : Buffer.from(message.text);
  return `text ${hex(utf8)}`;
}

export function comparable(message: string | Uint8Array): string {
  return typeof message === 'string' ? `text ${hex(Buffer.from(message))}` : `binary ${hex(message)}`;
}

export function codeOf(name: string): number {
  return CODE_NAMES.indexOf(name as never);
}
