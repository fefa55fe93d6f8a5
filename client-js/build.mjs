// Builds dist/: the browser module with its types, and the demo page. Fails when the module is over its budget.

import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { minify } from 'terser';

/**
 * What a page pays for the module at most, in bytes after gzip. With resuming, moves, streams and probes the
 * 12 KB of a client that only reconnected were not enough, channels take not quite 2 KB, and channels of state, presence,
 * history, requests and new tokens 4 KB; with these it is still a moment on a slow phone (0.55 s at 400 kbit/s).
 */
const BUDGET_BYTES = 26.5 * 1024;

const here = dirname(fileURLToPath(import.meta.url));
const at = (...path) => join(here, ...path);
const common = {
  bundle: true,
  format: 'esm',
  minify: true,
  target: 'es2022',
  legalComments: 'none',
  logLevel: 'warning',
  absWorkingDir: here,
};

rmSync(at('dist'), { recursive: true, force: true });
mkdirSync(at('dist'), { recursive: true });

const bundle = await build({ ...common, entryPoints: ['src/index.ts'], write: false });
// esbuild alone leaves 3 % that terser finds: functions at the top, variables that can be folded.
const { code: module } = await minify(bundle.outputFiles[0].text, {
  module: true,
  ecma: 2022,
  compress: { passes: 3, hoist_funs: true },
});
writeFileSync(at('dist/throughline.js'), module);
const gzipped = gzipSync(module, { level: 9 }).length;
console.log(`throughline.js: ${module.length} bytes, ${gzipped} gzipped of ${BUDGET_BYTES}`);

execFileSync(process.execPath, [at('node_modules/typescript/bin/tsc'), '-p', at('tsconfig.types.json')], {
  stdio: 'inherit',
});
writeFileSync(at('dist/throughline.d.ts'), "export * from './types/index.js';\n");

if (existsSync(at('demo/main.ts'))) {
  mkdirSync(at('dist/demo'), { recursive: true });
  // The page loads the module from where the server has it, so that it is the same file that users get.
  await build({
    ...common,
    entryPoints: ['demo/main.ts'],
    outfile: 'dist/demo/main.js',
    external: ['/throughline.js'],
    tsconfigRaw: '{}',
  });
  for (const name of ['index.html', 'demo.css']) {
    if (existsSync(at('demo', name))) {
      copyFileSync(at('demo', name), at('dist/demo', name));
    }
  }
}

if (gzipped > BUDGET_BYTES) {
  console.error(`throughline.js is ${gzipped - BUDGET_BYTES} bytes over its budget`);
  process.exitCode = 1;
}
