// How old the state is that a browser sees, on bad networks: node tests/figures.mjs [loss|slow]… prints tables in Markdown. The testbed must have been built
// (scripts/test e2e says how). `--without-credit TESTBED` names one that was built without the credit of datagrams, for comparison.

import { execFileSync, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { behind, watch } from './support/age.mjs';
import { BROWSERS } from './support/browser.mjs';
import { isolated } from './support/network.mjs';

const SEED = 20;
const LOSS = { percent: 2, rttMs: 50, seconds: 60 };
const SLOW = { rttMs: 20, seconds: 30, bytesPerSecond: 10_000 };

const words = process.argv.slice(2);
const at = words.indexOf('--without-credit');
const withoutCredit = at < 0 ? null : words.splice(at, 2)[1];

if (Object.keys(networkInterfaces()).every((name) => name === 'lo')) {
  await print();
} else {
  const self = fileURLToPath(import.meta.url);
  const child = spawn(...isolated(process.execPath, [self, ...process.argv.slice(2)]), { stdio: 'inherit' });
  child.once('close', (code) => process.exit(code ?? 1));
}

async function print() {
  const parts = { loss, slow };
  for (const name of words.length > 0 ? words : Object.keys(parts)) {
    await parts[name]();
  }
}

/** WebTransport beside WebSocket, at the same time, in one page. */
async function loss() {
  const { percent, rttMs, seconds } = LOSS;
  console.log(`Age of state in ms, 30 per second of 1,000 bytes for ${seconds} s, ${percent}% loss each way, ${rttMs} ms RTT (seed ${SEED}):\n`);
  table('browser', 'transport', 'p50', 'p95', 'p99', 'seen of 30 per second');
  for (const name of BROWSERS) {
    await behind({ seed: SEED, commands: [`delay ${rttMs / 2}ms`, `loss ${percent}%`] }, name, async (page) => {
      const watching = ['webtransport', 'websocket'].map((transport) => watch(page, { transport, seconds }));
      for (const seen of await Promise.all(watching)) {
        row(name, seen.transport, seen.p50, seen.p95, seen.p99, seen.perSecond);
      }
    });
  }
  console.log();
}

/** A reader that gets a third of what is sent, because its link or its page is slow; and what it saw if one measure were missing. */
async function slow() {
  const { rttMs, seconds, bytesPerSecond } = SLOW;
  const delay = `delay ${rttMs / 2}ms`;
  const readers = {
    'slow link': { commands: [delay, `rate down ${(bytesPerSecond * 8) / 1_000}kbit`], busyMs: 0 },
    'slow page': { commands: [delay], busyMs: 1_000_000 / bytesPerSecond },
  };
  const folder = await mkdtemp(join(tmpdir(), 'throughline-figures-'));
  try {
    const deep = { LD_PRELOAD: await deepQueues(folder) };
    const ways = [
      ['newest wins', {}],
      ['without the shallow kernel queue', { env: deep }],
      ...(withoutCredit ? [['without the credit', { binary: withoutCredit }]] : []),
      ...(withoutCredit ? [['with neither', { binary: withoutCredit, env: deep }]] : []),
      ['a queue: state as messages', { command: '!queue' }],
    ];
    console.log(
      `Median age of state in ms over WebSocket in Chromium, 30 per second of 1,000 bytes to a reader of ${bytesPerSecond / 1_000} KB/s, for ${seconds} s, ${rttMs} ms RTT:\n`,
    );
    table('', ...Object.keys(readers));
    for (const [way, { env, binary, command }] of ways) {
      const ages = [];
      for (const { commands, busyMs } of Object.values(readers)) {
        await behind({ seed: SEED, commands, env, binary }, 'chromium', async (page) => {
          const seen = await watch(page, { transport: 'websocket', seconds, busyMs, command });
          ages.push(`${seen.p50} (${seen.perSecond} per second)`);
        });
      }
      row(way, ...ages);
    }
    console.log();
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A library that leaves TCP_NOTSENT_LOWAT (25) as the kernel has it, for whoever loads it first. */
async function deepQueues(folder) {
  const source = `
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <netinet/in.h>
    #include <sys/socket.h>
    int setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
      static int (*next)(int, int, int, const void *, socklen_t);
      if (!next) next = dlsym(RTLD_NEXT, "setsockopt");
      return level == IPPROTO_TCP && name == 25 ? 0 : next(fd, level, name, value, length);
    }`;
  await writeFile(join(folder, 'deep.c'), source);
  const library = join(folder, 'deep.so');
  execFileSync('cc', ['-shared', '-fPIC', '-o', library, join(folder, 'deep.c'), '-ldl']);
  return library;
}

function table(...names) {
  row(...names);
  row(...names.map(() => '---'));
}

function row(...cells) {
  console.log(`| ${cells.join(' | ')} |`);
}
