// The bad network itself: does it do what it says? Runs in a network namespace of its own.

import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { start } from './support/child.mjs';
import { assertIsolated } from './support/network.mjs';
import { startPath } from './support/path.mjs';

const SEED = 7;
/** Answers every datagram, and tells from where it came. */
const ECHO = `
  const socket = require('node:dgram').createSocket('udp4').bind(0, '10.77.0.2', () => console.log(socket.address().port));
  socket.on('message', (message, from) => socket.send(message.toString() + ' ' + from.address, from.port, from.address));`;

assertIsolated();

describe('netem', () => {
  // The least of several: how much longer others take says how busy the machine is, and not what the path does.
  test('a delay of 25 ms each way: round trips of 50 ms', (t) =>
    withEcho(['delay 25ms'], async ({ path, ask }) => {
      const shortest = async () => {
        const trips = [];
        for (let i = 0; i < 20; i++) {
          trips.push((await ask(`${i}`)).ms);
        }
        t.diagnostic(`${trips.map((ms) => ms.toFixed(1)).join(' ')} ms`);
        return Math.min(...trips);
      };
      const both = await shortest();
      assert.ok(both >= 50 && both < 60, `${both} ms`);
      await path.say('delay up 5ms');
      const one = await shortest();
      assert.ok(one >= 30 && one < 40, `${one} ms`);
    }));

  test('the same seed loses the same packets', async () => {
    const run = () =>
      withEcho(['loss up 20%'], async ({ path, send, heard }) => {
        for (let i = 0; i < 200; i++) {
          send(`${i}`);
        }
        // What has entered is on its way for a moment before it is counted as delivered.
        const stats = async () => (await path.say('stats')).up;
        await until(async () => {
          const { entered, delivered, lost } = await stats();
          return entered >= 200 && entered === delivered + lost;
        });
        const up = await stats();
        assert.ok(up.lost > 20 && up.lost < 60, `${up.lost} of 200 lost`);
        await until(() => heard.length === up.delivered);
        return heard;
      });
    assert.deepEqual(await run(), await run());
  });

  test('a black hole in one direction', () =>
    withEcho([], async ({ path, send, heard, ask }) => {
      await ask('before');
      await path.say('blackhole down on');
      send('lost');
      await until(async () => (await path.say('stats')).down.swallowed === 1);
      assert.equal((await path.say('stats')).up.swallowed, 0);
      await path.say('blackhole off');
      await ask('after');
      assert.deepEqual(heard, ['before 10.77.0.1', 'after 10.77.0.1']);
    }));

  test('a client that seems to be elsewhere', () =>
    withEcho([], async ({ path, ask }) => {
      assert.match(await ask('here').then(({ text }) => text), / 10\.77\.0\.1$/);
      path.moveClient();
      assert.match(await ask('there').then(({ text }) => text), / 10\.77\.0\.9$/);
      path.moveClient(false);
      assert.match(await ask('back').then(({ text }) => text), / 10\.77\.0\.1$/);
    }));

  test('what it is told wrong, it says', () =>
    withEcho([], async ({ path }) => {
      await assert.rejects(path.say('latency 5ms'), /"latency" is not known/);
      assert.equal((await path.say('show')).up.delay, '0s');
    }));
});

/** Calls `use` with a path, and with a socket to something behind it that answers. */
async function withEcho(commands, use) {
  const path = await startPath({ seed: SEED, commands });
  const echo = start(...path.atServer(process.execPath, ['-e', ECHO]));
  const socket = dgram.createSocket('udp4');
  try {
    const { text } = await echo.stdout.find(({ text }) => /^\d+$/.test(text), 'the echo');
    path.redirect(Number(text));
    socket.connect(Number(text), '127.0.0.1');
    await once(socket, 'connect');
    const heard = [];
    socket.on('message', (message) => heard.push(String(message)));
    const send = (text) => socket.send(text);
    const ask = async (text) => {
      const began = performance.now();
      send(text);
      const [message] = await once(socket, 'message', { signal: AbortSignal.timeout(5_000) });
      return { text: String(message), ms: performance.now() - began };
    };
    return await use({ path, send, ask, heard });
  } finally {
    socket.close();
    await echo.stop();
    await path.stop();
  }
}

async function until(isSo) {
  const deadline = performance.now() + 5_000;
  while (!(await isSo())) {
    assert.ok(performance.now() < deadline, 'not within 5 s');
    await sleep(5);
  }
}
