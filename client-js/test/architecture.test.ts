// The arrows of the design: imports point one way, and only index.ts is public.

import { readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const SRC = new URL('../src/', import.meta.url);

/** For each folder or file: what it may import. `transport/` means everything in there. */
const MAY: [of: RegExp, imports: RegExp][] = [
  [/^protocol\//, /^protocol\//],
  [
    /^(errors|emitter|limits|backoff|environment|explain|memory|options)$/,
    /^(protocol\/|transport\/(link|opening)$|environment$|limits$)/,
  ],
  [/^transport\/(link|opening)$/, /^(protocol\/|environment$|transport\/opening$)/],
  // A transport knows the protocol and what transports share, never another transport, the ladder or the session.
  [
    /^transport\//,
    /^(protocol\/|environment$|errors$|limits$|transport\/(carrier|events|http|info|link|opening|packets|uplink)$)/,
  ],
  [/^ladder$/, /^(protocol\/|environment$|explain$|limits$|memory$|transport\/link$)/],
  [/^(streams|outbox)$/, /^(protocol\/|errors$|limits$)/],
  [/^values$/, /^(protocol\/|limits$)/],
  [/^subscription$/, /^(protocol\/|emitter$|errors$|values$)/],
  [/^channels$/, /^(protocol\/|errors$|subscription$)/],
  [/^presence$/, /^(protocol\/|emitter$|subscription$|values$)/],
  [/^requests$/, /^(protocol\/|environment$|errors$)/],
  [/^handlers$/, /^(protocol\/|errors$|outbox$)/],
  [/^credentials$/, /^(backoff$|environment$|errors$|limits$|options$)/],
  [/^told$/, /^(protocol\/|errors$|streams$|subscription$|transport\/link$)/],
  // Links carry, the mover looks for them, and only the session knows both.
  [/^links$/, /^(protocol\/|environment$|ladder$|limits$|transport\/link$)/],
  [/^trouble$/, /^(environment$|links$|transport\/link$)/],
  [
    /^mover$/,
    /^(protocol\/|backoff$|credentials$|environment$|errors$|ladder$|limits$|links$|memory$|options$|transport\/link$)/,
  ],
  [/^session$/, /^(?!connect$|index$|transport\/(?!link$|opening$))/],
  [/^(connect|index)$/, /./],
];

it('imports point one way', () => {
  for (const file of files()) {
    const rule = MAY.find(([of]) => of.test(file));
    expect(rule, `no rule for ${file}`).toBeDefined();
    for (const imported of importsOf(file)) {
      expect(rule?.[1].test(imported), `${file} imports ${imported}`).toBe(true);
    }
  }
});

it('no file is imported, by whatever way, by itself', () => {
  const seen = new Map<string, 'open' | 'done'>();
  const visit = (file: string, path: string[]): void => {
    expect(seen.get(file), [...path, file].join(' -> ')).not.toBe('open');
    if (seen.get(file) === 'done') {
      return;
    }
    seen.set(file, 'open');
    for (const imported of importsOf(file, false)) {
      visit(imported, [...path, file]);
    }
    seen.set(file, 'done');
  };
  for (const file of files()) {
    visit(file, []);
  }
});

it('only environment.ts touches the browser', () => {
  for (const file of files()) {
    if (file !== 'environment') {
      const code = read(file)
        .replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, '')
        .replace(/typeof globalThis\.\w+/g, '');
      expect(code, file).not.toMatch(
        /\b(window|document|localStorage|globalThis|setTimeout|Date\.now|Math\.random|performance)\b/,
      );
    }
  }
});

function files(): string[] {
  return readdirSync(SRC, { recursive: true })
    .map((name) => String(name).replaceAll('\\', '/'))
    .filter((name) => name.endsWith('.ts'))
    .map((name) => name.slice(0, -3));
}

function read(file: string): string {
  return readFileSync(new URL(`${file}.ts`, SRC), 'utf8');
}

function importsOf(file: string, types = true): string[] {
  const found: string[] = [];
  for (const [statement, from = ''] of read(file).matchAll(
    /^(?:import|export)[^;]*?from '(\.[^']*)\.js';/gm,
  )) {
    if (types || !/^(?:import|export) type/.test(statement)) {
      const path = new URL(from, new URL(file, SRC)).href;
      found.push(path.slice(SRC.href.length));
    }
  }
  return found;
}
