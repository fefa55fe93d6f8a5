// The end-to-end tests, one file after the other: several of them measure time, and there are two cores.
//
// node run.mjs [FILTER…]   runs the files whose name contains one of the words; --list shows them; --only PATTERN picks tests by
// name. THROUGHLINE_BUILD names the folder of the binaries below target/ (default: release).

import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { missing, outputFolder, testsFolder } from './support/binaries.mjs';
import { isolated } from './support/network.mjs';

/** Quick ones first. */
const FILES = [
  'process',
  'aioquic',
  'tls',
  'hostile',
  'netem',
  'channels',
  'state',
  'requests',
  'plain',
  'api',
  'tokens',
  'sleep',
  'fresh',
  'endurance',
  'memory',
  'networks',
  'browsers',
  'demo',
  'moves',
];

/** These break networks, and get one of their own. */
const ISOLATED = new Set(['netem', 'networks', 'moves', 'fresh']);

/** No file takes half of this. */
const FILE_MS = 1_500_000;

const words = process.argv.slice(2);
const only = words.includes('--only') ? words.splice(words.indexOf('--only'), 2)[1] : null;
const named = FILES.filter((file) => words.some((word) => file.includes(word)));
const files = words.length === 0 ? FILES : named;

if (words.includes('--list') || files.length === 0) {
  console.log(FILES.join('\n'));
  process.exit(words.includes('--list') ? 0 : 2);
}
const lacking = missing();
if (lacking.length > 0) {
  console.error(`${lacking.join('\n')}\nscripts/test e2e installs and builds what is needed.`);
  process.exit(2);
}

await mkdir(outputFolder, { recursive: true });
const results = [];
for (const file of files) {
  console.log(`\n── ${file} ──`);
  const began = performance.now();
  const code = await run(file);
  results.push({ file, code, seconds: (performance.now() - began) / 1_000 });
}
console.log();
for (const { file, code, seconds } of results) {
  console.log(`${code === 0 ? 'passed' : 'FAILED'}  ${file.padEnd(10)} ${seconds.toFixed(1).padStart(6)} s`);
}
process.exit(results.every(({ code }) => code === 0) ? 0 : 1);

function run(file) {
  const pattern = only === null ? [] : [`--test-name-pattern=${only}`];
  const args = ['--test-reporter=spec', ...pattern, `${file}.test.mjs`];
  const [command, commandArgs] = ISOLATED.has(file) ? isolated(process.execPath, args) : [process.execPath, args];
  const child = spawn(command, commandArgs, { cwd: testsFolder, stdio: ['ignore', 'inherit', 'inherit'] });
  const timer = setTimeout(() => child.kill('SIGKILL'), FILE_MS);
  return new Promise((resolve) => {
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      resolve(code ?? signal);
    });
  });
}
