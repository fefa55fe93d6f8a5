// A path between the browser and the server: the server in a namespace of its own, and netem/ between the two.
//
// This process and its browsers are the client's end. They go on calling the server 127.0.0.1, so that pages keep their secure context: what they send
// there to a server's ports is redirected across. Everything ends with this process: netem ends with its standard input, and a
// namespace with its last process.

import { execFileSync } from 'node:child_process';
import { binaries } from './binaries.mjs';
import { start } from './child.mjs';
import { assertIsolated, drop, heal, nft } from './network.mjs';

export const CLIENT_ADDRESS = '10.77.0.1';
export const SERVER_ADDRESS = '10.77.0.2';
/** Where the client seems to be after it has changed networks (see `Path.moveClient`). */
export const OTHER_ADDRESS = '10.77.0.9';

const DEVICES = { client: 'tl-client', server: 'tl-server' };

/** Makes the path, with netem's `commands` to begin with, such as `delay 25ms`. `stop()` it. */
export async function startPath({ seed = 1, commands = [] } = {}) {
  assertIsolated();
  const holder = start(binaries.unshare, ['--net', 'sh', '-c', 'ip link set lo up && echo up && exec cat']);
  await holder.stdout.find(({ text }) => text === 'up', 'a namespace for the server');
  const netem = start(binaries.netem, ['--seed', String(seed), ...commands]);
  const path = new Path(holder, netem);
  try {
    await netem.stdout.find(({ json }) => json?.event === 'ready', 'netem');
    path.connect();
  } catch (error) {
    await path.stop();
    throw new Error(`${error.message}\n${netem.stderr.tail()}`);
  }
  return path;
}

class Path {
  #holder;
  #netem;
  #answers = 1;
  #queue = Promise.resolve();
  #ports = new Set();

  constructor(holder, netem) {
    this.#holder = holder;
    this.#netem = netem;
  }

  connect() {
    // Router solicitations would be packets, too, and shift what the seed decides.
    const quiet = 'sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1';
    execFileSync('sh', ['-c', `${quiet} && sysctl -qw net.ipv4.conf.all.route_localnet=1`]);
    this.runAtServer('sh', ['-c', quiet]);
    execFileSync('ip', ['link', 'set', 'dev', DEVICES.server, 'netns', String(this.#holder.pid)]);
    execFileSync('ip', ['addr', 'add', CLIENT_ADDRESS, 'peer', SERVER_ADDRESS, 'dev', DEVICES.client]);
    execFileSync('ip', ['link', 'set', 'dev', DEVICES.client, 'up']);
    this.runAtServer('ip', ['addr', 'add', SERVER_ADDRESS, 'peer', CLIENT_ADDRESS, 'dev', DEVICES.server]);
    this.runAtServer('ip', ['link', 'set', 'dev', DEVICES.server, 'up']);
    this.runAtServer('ip', ['route', 'add', OTHER_ADDRESS, 'dev', DEVICES.server]);
  }

  /** How to start `command` in the server's namespace. */
  atServer(command, args) {
    return ['nsenter', [`--net=/proc/${this.#holder.pid}/ns/net`, command, ...args]];
  }

  /** Runs it to its end. Its output. */
  runAtServer(command, args, options = {}) {
    const [program, words] = this.atServer(command, args);
    return execFileSync(program, words, { encoding: 'utf8', stdio: ['pipe', 'pipe', 'inherit'], ...options });
  }

  /** From now on 127.0.0.1 with one of these ports, TCP and UDP, is the server's namespace. */
  redirect(...ports) {
    for (const port of ports) {
      this.#ports.add(port);
    }
    const set = `{ ${[...this.#ports].join(', ')} }`;
    nft(`table ip crossing
      delete table ip crossing
      table ip crossing {
        chain output {
          type nat hook output priority -100;
          ip daddr 127.0.0.1 tcp dport ${set} dnat to ${SERVER_ADDRESS}
          ip daddr 127.0.0.1 udp dport ${set} dnat to ${SERVER_ADDRESS}
        }
        chain postrouting {
          type nat hook postrouting priority 100;
          oifname ${DEVICES.client} masquerade
        }
      }`);
  }

  /** Says a line to netem, and resolves with its answer. */
  say(line) {
    const answer = this.#queue.then(async () => {
      this.#netem.stdin.write(`${line}\n`);
      const number = this.#answers++;
      const { json } = await this.#netem.stdout.find((one) => this.#netem.stdout.all.indexOf(one) === number, line);
      if (json?.event === 'error') {
        throw new Error(json.reason);
      }
      return json;
    });
    this.#queue = answer.catch(() => {});
    return answer;
  }

  /**
   * To the server, all UDP of the client now comes from another address, as after a change of networks or of a router's mind; with
   * `false`, from its own again. Stateless, so that it holds for connections that exist.
   */
  moveClient(moved = true) {
    const change = (rule) => (moved ? `chain in { type filter hook prerouting priority -300; meta l4proto udp ${rule}; }` : '');
    // Both where packets come in: what is about to leave may still be a batch, whose checksums nft gets wrong.
    this.#nftAtServer('moved', change(`ip saddr ${CLIENT_ADDRESS} ip saddr set ${OTHER_ADDRESS}`));
    nft(inPlaceOf('moved', change(`ip daddr ${OTHER_ADDRESS} ip daddr set ${CLIENT_ADDRESS}`)));
  }

  /** Drops packets that match `rules`, in the syntax of nft, at both ends: what the client sends, and what the server sends. */
  async drop(...rules) {
    await drop(...rules);
    this.dropAtServer(...rules);
  }

  /** What the client sends, only. */
  dropAtServer(...rules) {
    const lines = rules.map((rule) => `${rule} drop`).join('\n');
    this.#nftAtServer('faults', `chain input { type filter hook input priority 0;\n ${lines}\n }`);
  }

  /** Takes what was dropped back; what netem does stays. */
  async heal() {
    await heal();
    this.#nftAtServer('faults', '');
  }

  #nftAtServer(table, rules) {
    this.runAtServer(binaries.nft, ['-f', '-'], { input: inPlaceOf(table, rules) });
  }

  /** Ends netem and lets the namespace go; what runs in it must have been stopped. */
  async stop() {
    this.#netem.stdin.end();
    this.#holder.stdin.end();
    await Promise.all([this.#netem.stop(), this.#holder.stop()]);
  }
}

function inPlaceOf(table, rules) {
  return `table inet ${table}\ndelete table inet ${table}\ntable inet ${table} {\n${rules}\n}`;
}
