// What sessions endure, measured by the native client of server/examples/endurance, each scenario against a server of its own. A seed that failed
// prints itself; THROUGHLINE_SEED repeats it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { binaries } from './support/binaries.mjs';
import { start } from './support/child.mjs';
import { figure } from './support/figure.mjs';

const SEED = process.env.THROUGHLINE_SEED ?? String(Date.now() % 1_000_000);

const NONE_WRONG = { lost: 0, repeated: 0, reordered: 0, damaged: 0 };

/** Runs a scenario, and resolves with its figures. */
async function endure(t, scenario, ...args) {
  const child = start(binaries.endurance, [scenario, '--seed', SEED, ...args]);
  t.after(() => child.stop());
  const code = await child.exited;
  const figures = child.stdout.all.at(-1)?.json;
  t.diagnostic(figures ? JSON.stringify(figures) : `seed ${SEED}: ${child.stderr.tail()}`);
  assert.ok(figures, `no figures (seed ${SEED}): ${child.stderr.tail()}`);
  return { ...figures, code };
}

test('1,000,000 messages each way over 1,000 cuts and moves among all transports: none lost, repeated or reordered', async (t) => {
  const { up, down, links, passed } = await endure(t, 'messages');
  assert.deepEqual(up, { received: 1_000_000, ...NONE_WRONG });
  assert.deepEqual(down, { received: 1_000_000, ...NONE_WRONG });
  assert.ok(links.cuts + links.silences + links.moves + links.races >= 1_000);
  assert.equal(Object.keys(links.pairs).length, 16, 'from each transport to each');
  assert.ok(passed, `seed ${SEED}`);
});

test('100 streams at once, 1 MiB each way, over 100 cuts and moves: all hashes are equal', async (t) => {
  const { equal, passed } = await endure(t, 'streams');
  assert.equal(equal, 100);
  assert.ok(passed, `seed ${SEED}`);
});

figure('SIGTERM with 2,000 busy sessions: nothing acknowledged is lost, exit in time, clients come back spread over time', async (t) => {
  const seen = await endure(t, 'drain');
  assert.equal(seen.ackedAndLost, 0);
  assert.equal(seen.receivedAndUnanswered, 0);
  assert.deepEqual(seen.arrived, { received: seen.sent, ...NONE_WRONG });
  assert.deepEqual(seen.ended, { SHUTTING_DOWN: 2_000 });
  assert.equal(seen.exitCode, 0);
  assert.ok(seen.exitMs <= seen.deadlineMs, `${seen.exitMs} ms`);
  assert.ok(seen.inBusiestTenth <= 0.25, `${seen.inBusiestTenth} of them came within a tenth of the time`);
});

test('10,000 forged resumes per second: answered as documented, the owners keep their links, memory is given back', async (t) => {
  const { owners, passed } = await endure(t, 'forged');
  for (const owner of owners) {
    assert.equal(owner.links, 1, owner.transport);
  }
  assert.ok(passed, `seed ${SEED}`);
});

test('a QUIC client whose address changes 50 times goes on over the same link', async (t) => {
  const { up, down, links, passed } = await endure(t, 'rebind');
  assert.deepEqual(up, { received: 100_000, ...NONE_WRONG });
  assert.deepEqual(down, { received: 100_000, ...NONE_WRONG });
  assert.equal(links, 1);
  assert.ok(passed, `seed ${SEED}`);
});

test('1,000 subscribers on all four transports, 30% of them cut again and again: each has every publication once and in order', async (t) => {
  const { subscribers, publications, log, state, links, passed } = await endure(t, 'channels', '--publications', '1000');
  assert.deepEqual(log, { received: subscribers * publications, toldLost: 0, lost: 0, repeated: 0, damaged: 0 });
  assert.equal(state.endedOnTheLast, subscribers, 'the last value of each key');
  assert.ok(links.resumed > 500 && links.forgotten > 100, 'sessions resumed, and successors of forgotten ones');
  assert.equal(links.unexpected, 0);
  assert.ok(passed, `seed ${SEED}`);
});

test('when the history is too short, each is told what it has lost', async (t) => {
  const few = ['--publications', '1000', '--rate', '500', '--history', '20', '--subscribers', '400'];
  const { subscribers, publications, log, passed } = await endure(t, 'channels', ...few);
  assert.ok(log.toldLost > 0, 'nobody lost anything: the history was long enough');
  assert.deepEqual([log.received + log.toldLost, log.lost, log.repeated], [subscribers * publications, 0, 0]);
  assert.ok(passed, `seed ${SEED}`);
});

figure('a subscriber on each transport that stops reading: the others hear as early as before, and the server keeps little for it', async (t) => {
  const { ratioOfP99, grownBytes, stalled } = await endure(t, 'stalled', '--seconds', '8', '--rounds', '2');
  assert.ok(ratioOfP99 <= 1.2, `99th percentiles: ${ratioOfP99} of those with nobody stalled`);
  for (const grown of grownBytes) {
    assert.ok(grown <= stalled * 1024 * 1024, `${grown} bytes for ${stalled} of them`);
  }
});
