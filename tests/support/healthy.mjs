// A session that behaves, in a worker of its own, while others misbehave: 30 states per second over WebSocket, and whether any were late.

import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { upgrade } from './websocket.mjs';
import { frame, frames, message, ping, Reader, stream, TYPES, varint } from './wire.mjs';

/** Starts one; `stop()` resolves with what it saw. */
export async function startHealthy(origin) {
  const worker = new Worker(new URL(import.meta.url), { workerData: { origin } });
  const said = (event) =>
    new Promise((resolve, reject) => {
      worker.on('message', (message) => message.event === event && resolve(message));
      worker.once('error', reject);
    });
  await said('started');
  return {
    async stop() {
      const summary = said('stopped');
      worker.postMessage('stop');
      const seen = await summary;
      await worker.terminate();
      return seen;
    },
  };
}

if (!isMainThread) {
  await watch(workerData.origin);
}

async function watch(origin) {
  const { connection } = await upgrade(`${origin}/rt/websocket`);
  await connection.welcome();
  connection.send(Buffer.concat([ping(), stream(0, message('!states 30 300'))]));
  let isOver = false;
  parentPort.once('message', () => {
    isOver = true;
  });
  let began = null;
  let last = 0;
  const seen = { count: 0, longestGapMs: 0, missing: 0 };
  let newest = -1;
  let taken = 0;
  while (!isOver) {
    const packet = await connection.next();
    for (const { type, payload } of frames(packet)) {
      if (type === TYPES.PING) {
        connection.send(frame(TYPES.PONG, varint(new Reader(payload).varint()), varint(Date.now() * 1_000)));
      }
      if (type !== TYPES.DATAGRAM) {
        continue;
      }
      connection.send(frame(TYPES.TAKEN, varint(++taken)));
      const now = performance.now();
      if (began === null) {
        began = now;
        parentPort.postMessage({ event: 'started' });
      } else {
        seen.longestGapMs = Math.max(seen.longestGapMs, now - last);
      }
      last = now;
      const sequence = payload.readUInt32BE(0);
      seen.missing += sequence - newest - 1;
      newest = sequence;
      seen.count++;
    }
  }
  const seconds = (last - began) / 1_000;
  parentPort.postMessage({ event: 'stopped', rate: (seen.count - 1) / seconds, seconds, ...seen });
}
