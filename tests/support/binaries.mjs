// Where the programs under test are, and what is missing on this machine. Nothing is installed here: scripts/test does that.

import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const testsFolder = fileURLToPath(new URL('..', import.meta.url));
/** Screenshots and logs of what failed. Not committed. */
export const outputFolder = join(testsFolder, 'output');

/** `THROUGHLINE_BUILD=debug` takes the unoptimised build: quicker to make, too slow for the figures. Any folder will do. */
const build = resolve(testsFolder, '../target', process.env.THROUGHLINE_BUILD ?? 'release');

export const binaries = {
  throughline: join(build, 'throughline'),
  testbed: join(build, 'examples/testbed'),
  idleSessions: join(build, 'examples/idle_sessions'),
  endurance: join(build, 'examples/endurance'),
  tokens: join(build, 'examples/tokens'),
  netem: join(build, 'throughline-netem'),
  python: join(testsFolder, '.venv/bin/python'),
  chromium: find('chromium', 'chromium-browser', 'google-chrome'),
  firefox: find('firefox-esr', 'firefox'),
  nginx: find('nginx'),
  nft: find('nft'),
  unshare: find('unshare'),
};

/** One line for each thing that is needed and not there. */
export function missing() {
  const cargo = `cargo build --release --bin throughline --bin throughline-netem --example testbed --example idle_sessions --example endurance --example tokens`;
  const needed = {
    throughline: cargo,
    testbed: cargo,
    idleSessions: cargo,
    endurance: cargo,
    tokens: cargo,
    netem: cargo,
    python: 'python3 -m venv tests/.venv && tests/.venv/bin/pip install -r tests/requirements.txt',
    chromium: 'apt-get install chromium',
    firefox: 'apt-get install firefox-esr',
    nginx: 'apt-get install nginx-light',
    nft: 'apt-get install nftables',
    unshare: 'apt-get install util-linux',
  };
  const lines = Object.entries(needed)
    .filter(([name]) => !binaries[name] || !existsSync(binaries[name]))
    .map(([name, how]) => `${name} is missing: ${how}`);
  if (!existsSync(join(testsFolder, 'node_modules/puppeteer-core'))) {
    lines.push('puppeteer-core is missing: npm ci, in tests/');
  }
  return lines;
}

/** The first of `names` that can be run. The administrator's folders are looked into as well, wherever PATH leads. */
function find(...names) {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  for (const name of names) {
    for (const folder of folders) {
      try {
        accessSync(join(folder, name), constants.X_OK);
        return join(folder, name);
      } catch {
        // not here
      }
    }
  }
  return null;
}
