// Runs support/aioquic_client.py and gives its JSON lines.

import { fileURLToPath } from 'node:url';
import { binaries } from './binaries.mjs';
import { start } from './child.mjs';

const script = fileURLToPath(new URL('aioquic_client.py', import.meta.url));

/** Starts a command; see `aioquic_client.py`. */
export function startAioquic(...args) {
  return start(binaries.python, [script, ...args.map(String)]);
}

/** Runs a command to its end; returns what it said. Throws when it failed. */
export async function aioquic(...args) {
  const child = startAioquic(...args);
  const code = await child.exited;
  if (code !== 0) {
    throw new Error(`aioquic_client.py ${args.join(' ')}: exit ${code}\n${child.stdout.tail()}\n${child.stderr.tail(30)}`);
  }
  return child.stdout.all.map(({ json }) => json);
}
