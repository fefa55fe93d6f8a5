// The API for back ends against its own document: schemathesis asks what may be asked, and what may not, and finds no answer that is not documented.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { binaries, outputFolder } from './support/binaries.mjs';
import { start } from './support/child.mjs';
import { startServe } from './support/server.mjs';

const KEY = 'a-key-for-schemathesis';

/** What the whole run may take. It ends sooner when it knows nothing more to ask. */
const RUN_S = 60;

/** The document says characters where the server counts bytes, and cannot say what base64 is: such bodies are refused with 422, which is documented. */
const CONFIG = `
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 403, 409, 413, 422, 503]
`;

describe('the API for back ends', () => {
  let server;
  let folder;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'throughline-schemathesis-'));
    await mkdir(outputFolder, { recursive: true });
    server = await startServe({
      THROUGHLINE_API__KEYS: `["${KEY}"]`,
      // Two kinds of channels, so that there is something to be found in both.
      THROUGHLINE_CHANNELS__NAMESPACES__STATE__KIND: 'state',
      THROUGHLINE_CHANNELS__NAMESPACES__ROOM__PRESENCE: 'true',
    });
  });

  after(async () => {
    assert.equal(await server?.stop(), 0);
    assert.deepEqual(server.complaints, []);
    await rm(folder, { recursive: true, force: true });
  });

  test('no server error, no answer that is not documented', async () => {
    const config = join(folder, 'schemathesis.toml');
    await writeFile(config, CONFIG);
    const child = start(
      binaries.python,
      ['-m', 'schemathesis.cli', '--config-file', config, 'run', `${server.tcp}/api/openapi.json`]
        .concat(['--checks', 'all', '--header', `Authorization: Bearer ${KEY}`, '--seed', '4711'])
        .concat(['--max-time', String(RUN_S), '--max-examples', '100', '--suppress-health-check', 'all'])
        .concat(['--continue-on-failure', '--request-timeout', '10', '--no-color']),
      { env: { PATH: process.env.PATH, HOME: folder, PYTHONDONTWRITEBYTECODE: '1' }, cwd: folder },
    );
    const code = await child.exited;
    const said = child.stdout.all.map(({ text }) => text).join('\n');
    await writeFile(join(outputFolder, 'schemathesis.txt'), said);
    assert.equal(code, 0, `${said.slice(-8_000)}\n${child.stderr.tail(20)}`);
    const cases = Number(/(\d[\d,]*) generated/.exec(said)?.[1]?.replaceAll(',', ''));
    assert.ok(cases > 500, `${cases} cases are no test`);
  });

  test('curl publishes, and reads what it has published', async () => {
    const post = async (path, body, key = KEY) => {
      const args = ['-sS', '-w', '\n%{http_code}', '-H', `Authorization: Bearer ${key}`];
      const json = ['-H', 'Content-Type: application/json', '-d', JSON.stringify(body)];
      const child = start('curl', [...args, ...json, `${server.tcp}/api/${path}`]);
      assert.equal(await child.exited, 0, child.stderr.tail());
      const lines = child.stdout.all.map(({ text }) => text);
      return { status: Number(lines.pop()), answer: JSON.parse(lines.join('\n')) };
    };
    const { status, answer } = await post('publish', { channel: 'room:curl', text: 'hello' });
    assert.deepEqual([status, answer.offset], [200, 1]);
    const { answer: history } = await post('history', { channel: 'room:curl' });
    assert.deepEqual(history.publications, [{ offset: 1, text: 'hello' }]);
    assert.equal((await post('publish', { channel: 'room:curl', text: 'x' }, 'not-the-right-key')).status, 401);
  });
});
