// Faults of the network. Only in a network namespace of our own, where nothing but loopback exists: run.mjs starts such
// a test file inside one. The server, the browser and everything between them then live there, and go with it.

import { execFile, execFileSync } from 'node:child_process';
import { networkInterfaces } from 'node:os';
import { promisify } from 'node:util';
import { binaries } from './binaries.mjs';

const run = promisify(execFile);

/** How `command` is started inside a fresh namespace whose loopback is up. Needs root, or user namespaces. */
export function isolated(command, args) {
  const asRoot = process.getuid() === 0 ? [] : ['--user', '--map-root-user'];
  return [binaries.unshare, [...asRoot, '--net', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh', command, ...args]];
}

/** Throws when this is not such a namespace: firewall rules are no business of ours anywhere else. netem's devices are ours. */
export function assertIsolated() {
  const others = Object.keys(networkInterfaces()).filter((name) => name !== 'lo' && !name.startsWith('tl-'));
  if (others.length > 0) {
    throw new Error(`this file breaks networks, and here is a real one (${others}): run it with node run.mjs networks`);
  }
}

/**
 * Drops packets that match `rules`, in the syntax of nft, such as `meta l4proto udp`. Silently, as a firewall does: on the way
 * in, because on the way out the sender would be told.
 */
export async function drop(...rules) {
  assertIsolated();
  await heal();
  const lines = rules.map((rule) => `${rule} drop`).join('\n');
  const script = `table inet faults {\n chain input {\n type filter hook input priority 0;\n ${lines}\n }\n }`;
  nft(script);
}

/** Runs a script of nft. */
export function nft(script) {
  assertIsolated();
  execFileSync(binaries.nft, ['-f', '-'], { input: script });
}

/** Takes all faults away. */
export async function heal() {
  assertIsolated();
  await run(binaries.nft, ['delete', 'table', 'inet', 'faults']).catch(() => {}); // there was none
}
