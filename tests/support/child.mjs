// Child processes: their lines of output as events, and their end. Only what was started here is ever stopped.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const running = new Set();
process.on('exit', () => {
  for (const child of running) {
    child.kill('SIGKILL');
  }
});

/** Lines that a process wrote, each as text and, when it is JSON, as `json`. */
export class Lines {
  all = [];
  #waiters = new Set();

  constructor(stream) {
    const reader = createInterface({ input: stream });
    reader.on('line', (text) => {
      const line = { text, json: parse(text), at: performance.now() };
      this.all.push(line);
      for (const waiter of [...this.#waiters]) {
        waiter.look(line);
      }
    });
    reader.on('close', () => {
      for (const waiter of [...this.#waiters]) {
        waiter.end();
      }
    });
  }

  /** The first line, written already or to come, that `matches`. */
  find(matches, what, timeoutMs = 5_000) {
    const known = this.all.find(matches);
    if (known) {
      return Promise.resolve(known);
    }
    return new Promise((resolve, reject) => {
      const settle = (settleWith, value) => {
        this.#waiters.delete(waiter);
        clearTimeout(timer);
        settleWith(value);
      };
      const fail = (why) =>
        settle(reject, new Error(`${what}: ${why}; last lines:\n${this.tail()}`));
      const waiter = {
        look: (line) => matches(line) && settle(resolve, line),
        end: () => fail('the process ended'),
      };
      const timer = setTimeout(() => fail(`not within ${timeoutMs} ms`), timeoutMs);
      this.#waiters.add(waiter);
    });
  }

  tail(count = 15) {
    return this.all
      .slice(-count)
      .map((line) => line.text)
      .join('\n');
  }
}

/** Starts a process. `exited` resolves with its code, or the name of the signal that ended it. */
export function start(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], ...options });
  running.add(child);
  child.stdin?.on('error', () => {}); // it has ended
  const exited = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      running.delete(child);
      resolve(code ?? signal);
    });
  });
  exited.catch(() => {});
  return {
    pid: child.pid,
    stdin: child.stdin,
    stdout: new Lines(child.stdout),
    stderr: new Lines(child.stderr),
    exited,
    /** Asks it to stop, waits, and makes it. */
    async stop(signal = 'SIGTERM', timeoutMs = 8_000) {
      child.kill(signal);
      const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
      const code = await exited;
      clearTimeout(timer);
      return code;
    },
    kill: (signal) => child.kill(signal),
  };
}

function parse(text) {
  if (!text.startsWith('{')) {
    return null;
  }
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
