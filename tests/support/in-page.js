// What tests call inside the page: `kit`. It stands beside the browser client, and knows the commands of the testbed.

window.kit = (() => {
  /** Rejects when `promise` takes longer. */
  function within(ms, promise, what) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
  }

  /** Resolves when `isSo()`; looks every few milliseconds, since what is asked for has no event of its own. */
  async function until(isSo, ms, what) {
    const deadline = performance.now() + ms;
    while (!isSo()) {
      if (performance.now() > deadline) {
        throw new Error(`${what}: not within ${ms} ms`);
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** What arrives, in order, for who asks for the next. */
  class Inbox {
    #items = [];
    #waiter = null;

    put(item) {
      this.#items.push(item);
      this.#waiter?.();
    }

    async next(ms = 10_000) {
      if (this.#items.length === 0) {
        const filled = new Promise((resolve) => {
          this.#waiter = resolve;
        });
        await within(ms, filled, 'the next item');
      }
      return this.#items.shift();
    }
  }

  /** A session over `transport` alone, open, with inboxes. */
  async function open(transport, options = {}) {
    const session = window.throughline.connect('/rt', { transports: [transport], ...options });
    const messages = new Inbox();
    const datagrams = new Inbox();
    session.on('message', (message) => messages.put(message));
    session.on('datagram', (datagram) => datagrams.put(datagram));
    await within(15_000, session.ready, `ready over ${transport}`);
    return { session, messages, datagrams };
  }

  /** Watches `!states` at `hz` for `seconds`, counted from the first one. */
  function states(session, hz, seconds) {
    const seen = { count: 0, backwards: 0, ages: [], gaps: [] };
    let first = null;
    let last = 0;
    let newest = -1;
    return within(
      (seconds + 10) * 1_000,
      new Promise((resolve) => {
        const off = session.on('datagram', (bytes) => {
          const now = performance.now();
          first ??= now;
          if (now - first > seconds * 1_000) {
            off();
            seen.ages.sort((a, b) => a - b);
            resolve({
              rate: seen.count / seconds,
              count: seen.count,
              backwards: seen.backwards,
              medianAgeMs: seen.ages[seen.ages.length >> 1],
              longestGapMs: Math.max(...seen.gaps),
            });
            return;
          }
          const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
          const sequence = view.getUint32(0);
          seen.count++;
          seen.backwards += sequence <= newest;
          newest = Math.max(newest, sequence);
          seen.ages.push(session.serverTime() - view.getFloat64(4));
          if (last > 0) {
            seen.gaps.push(now - last);
          }
          last = now;
        });
        session.send(`!states ${hz} ${seconds + 2}`);
      }),
      'states',
    );
  }

  /** The message at `index`, as server/examples/testbed.rs makes it. */
  function numbered(index) {
    const length = index % 1_000 === 999 ? 100_000 : 4 + ((Math.imul(index, 2_654_435_761) >>> 8) % 3_000);
    const bytes = new Uint8Array(length).fill(index & 0xff);
    new DataView(bytes.buffer).setUint32(0, index);
    return bytes;
  }

  /** The server sends `count` numbered messages; resolves when all came, once and in order. */
  function receiveFlood(session, count, ms) {
    let next = 0;
    let off = () => {};
    const done = new Promise((resolve, reject) => {
      off = session.on('message', (message) => {
        if (typeof message === 'string') {
          const wanted = `flooded ${count}`;
          const complete = next === count && message === wanted;
          complete ? resolve() : reject(new Error(`"${message}" after ${next} messages`));
        } else if (!isNumbered(message, next)) {
          const got = new DataView(message.buffer, message.byteOffset).getUint32(0);
          reject(new Error(`message ${next} is that of ${got}, or damaged`));
        } else {
          next++;
        }
      });
      session.closed.then((info) => reject(new Error(`closed at ${next}: ${JSON.stringify(info)}`)));
      session.send(`!flood ${count}`);
    });
    return within(ms, done, 'flood').catch((error) => {
      throw new Error(`${error.message} (${next} had come)`);
    }).finally(off);
  }

  /** Byte for byte in both length and ends; the whole of it for one in a hundred, since the page is not what is tested. */
  function isNumbered(bytes, index) {
    const wanted = numbered(index);
    const step = index % 100 === 0 ? 1 : 97;
    for (let i = 0; i < wanted.length; i += step) {
      if (bytes[i] !== wanted[i]) {
        return false;
      }
    }
    return bytes.length === wanted.length && bytes[3] === wanted[3] && bytes.at(-1) === wanted.at(-1);
  }

  /** Sends `count` numbered messages; resolves with what the server says about them. */
  async function sendFlood({ session, messages }, count, ms) {
    session.send(`!expect ${count}`);
    for (let index = 0; index < count; index++) {
      if (session.bufferedBytes > 150_000) {
        await within(ms, session.drained(100_000), `drained at ${index}`);
      }
      session.send(numbered(index));
    }
    return messages.next(ms);
  }

  /**
   * Numbered messages both ways at once, `count` each, `hz` per second: every one must come, once and in order. Resolves with the longest
   * time between two of them, here and at the server, and with the moves of the session meanwhile.
   */
  async function traffic(session, hz, count, ms) {
    const moves = [];
    const offMove = session.on('transport', (move) => moves.push({ ...move, at: performance.now() }));
    const offGap = session.on('gap', (info) => moves.push({ gap: info }));
    const seen = { longestDownMs: 0, longestUpMs: 0, moves };
    let next = 0;
    let last = null;
    let off = () => {};
    const received = new Promise((resolve, reject) => {
      off = session.on('message', (message) => {
        if (typeof message === 'string') {
          const [, longest] = /^traffic (\d+)$/.exec(message) ?? [];
          seen.longestUpMs = Number(longest);
          longest && next === count ? resolve() : reject(new Error(`"${message}" after ${next} messages`));
        } else if (!isNumbered(message, next)) {
          const got = new DataView(message.buffer, message.byteOffset).getUint32(0);
          reject(new Error(`message ${next} is that of ${got}, or damaged`));
        } else {
          const now = performance.now();
          last ??= now;
          if (now - last > seen.longestDownMs) {
            seen.longestDownMs = now - last;
            seen.longestEndedAt = now;
          }
          last = now;
          next++;
        }
      });
      session.closed.then((info) => reject(new Error(`closed at ${next}: ${JSON.stringify(info)}`)));
    });
    session.send(`!traffic ${hz} ${count}`);
    const began = performance.now();
    let sent = 0;
    const timer = setInterval(() => {
      const due = Math.min(count, Math.floor(((performance.now() - began) / 1_000) * hz));
      while (sent < due && session.bufferedBytes < 200_000) {
        session.send(numbered(sent++));
      }
    }, Math.max(4, 500 / hz));
    return within(ms, received, 'traffic')
      .then(() => seen)
      .catch((error) => {
        const where = `${error.message} (${next} came, ${sent} sent, ${session.state} over ${session.transport})`;
        throw new Error(`${where}\n${JSON.stringify({ moves, explained: session.explain() })}`);
      })
      .finally(() => {
        clearInterval(timer);
        off();
        offMove();
        offGap();
      });
  }

  /**
   * Sends `count` numbered texts, `hz` per second, and wants each back at most once and in order, whichever server listens by then, and the last one
   * for certain. Resolves with the moves and gaps meanwhile, and with how many did not come back: a server that is going away takes no more
   * answers from its application.
   */
  function echoes(session, hz, count, ms) {
    const moves = [];
    const off = [
      session.on('transport', (move) => moves.push(move)),
      session.on('gap', (gap) => moves.push({ gap })),
    ];
    let sent = 0;
    let back = 0;
    let next = 0;
    const done = new Promise((resolve, reject) => {
      off.push(
        session.on('message', (message) => {
          const number = Number(message);
          if (number < next) {
            reject(new Error(`${number} came back after ${next - 1}`));
          }
          next = number + 1;
          back++;
          if (next === count) {
            resolve({ moves, missing: count - back });
          }
        }),
      );
      session.closed.then((info) => reject(new Error(`closed: ${JSON.stringify(info)}`)));
    });
    const timer = setInterval(() => sent < count && session.send(`${sent++}`), 1_000 / hz);
    return within(ms, done, 'echoes')
      .catch((error) => {
        throw new Error(`${error.message} (${back} of ${sent} back)\n${JSON.stringify({ moves, explained: session.explain() })}`);
      })
      .finally(() => {
        clearInterval(timer);
        off.forEach((end) => end());
      });
  }

  /**
   * Connects with every transport allowed and asks for states at once. Resolves with the first one: after how many
   * milliseconds, over what, and what `explain()` said at that moment. `keep` leaves the session open, as `kit.kept`.
   */
  async function firstState(options = {}, keep = false) {
    const began = performance.now();
    const session = window.throughline.connect('/rt', options);
    session.send('!states 30 3');
    const first = new Promise((resolve) => session.on('datagram', resolve));
    await within(20_000, Promise.race([first, session.closed]), 'the first state');
    const { transport, state } = session;
    const seen = { ms: performance.now() - began, transport, state, explained: session.explain() };
    window.kit.kept = session;
    if (!keep) {
      await session.close();
    }
    return seen;
  }

  /** Connects where nothing works: how `ready` failed, when, and what `explain()` says. */
  async function failToConnect(options = {}) {
    const began = performance.now();
    const session = window.throughline.connect('/rt', options);
    const error = await within(30_000, session.ready, 'a verdict').then(
      () => null,
      (error) => error,
    );
    const ms = performance.now() - began;
    const closed = await within(1_000, session.closed, 'closed');
    return { ms, code: error?.code, message: error?.message, closed, explained: session.explain() };
  }

  return { within, until, open, firstState, failToConnect, states, numbered, receiveFlood, sendFlood, traffic, echoes, Inbox };
})();
