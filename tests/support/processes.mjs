// A process with all that it started: a browser is a dozen of them.

import { readdirSync, readFileSync } from 'node:fs';

/** Sends `signal` to the process `pid` and to all its descendants. */
export function signalTree(pid, signal) {
  for (const one of treeOf(pid)) {
    try {
      process.kill(one, signal);
    } catch (error) {
      if (error.code !== 'ESRCH') {
        throw error; // else it has ended meanwhile
      }
    }
  }
}

function treeOf(root) {
  const children = new Map();
  for (const name of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    const parent = parentOf(name);
    children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
  }
  const tree = [root];
  for (const pid of tree) {
    tree.push(...(children.get(pid) ?? []));
  }
  return tree;
}

/** NaN when it has ended. */
function parentOf(pid) {
  try {
    return Number(/^PPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
  } catch {
    return Number.NaN;
  }
}
