// `GET {base}/info` (SPEC section 7.6): where WebTransport listens, when that is not the page's own address.

import type { Environment } from '../environment.js';
import { messageOf } from '../errors.js';
import { INFO_MS } from '../limits.js';
import type { Opening, WebTransportEndpoint } from './opening.js';

/** Answers per base, for the life of the page. A failure is not kept. */
const answers = new WeakMap<Environment, Map<string, Promise<WebTransportEndpoint | null>>>();

/** The path below the base. */
const PATH = '/webtransport';

/** Where to open WebTransport; a text says why nowhere. Throws when `/info` cannot be asked. */
export async function locate(env: Environment, opening: Opening): Promise<WebTransportEndpoint | string> {
  if (opening.webtransport) {
    return opening.webtransport;
  }
  const base = new URL(opening.base);
  if (base.protocol === 'https:' && (base.port === '' || !opening.info)) {
    return { url: opening.base + PATH };
  }
  if (!opening.info) {
    return 'the base is not https, and info is false';
  }
  const known = answers.get(env) ?? new Map<string, Promise<WebTransportEndpoint | null>>();
  answers.set(env, known);
  const asked = known.get(opening.base) ?? ask(env, opening.base);
  known.set(opening.base, asked);
  try {
    return (await asked) ?? 'the server does not offer it';
  } catch (error) {
    known.delete(opening.base);
    throw error;
  }
}

async function ask(env: Environment, base: string): Promise<WebTransportEndpoint | null> {
  const abort = new AbortController();
  const cancel = env.timer(INFO_MS, () => abort.abort());
  try {
    const response = await env.fetch?.(`${base}/info`, { cache: 'no-store', signal: abort.signal });
    if (!response?.ok) {
      throw new Error(`status ${response?.status}`);
    }
    return read(await response.json(), base);
  } catch (error) {
    throw new Error(`${base}/info: ${messageOf(error)}`);
  } finally {
    cancel();
  }
}

interface Info {
  webtransport?: { port?: number; host?: string; path?: string } | null;
  certificateHashes?: string[];
}

function read(info: Info, base: string): WebTransportEndpoint | null {
  const where = info.webtransport;
  if (!where) {
    return null;
  }
  const url = new URL(base + PATH);
  url.protocol = 'https:';
  url.port = String(where.port ?? '');
  // Browsers resolve localhost to ::1 first, where a listener on 127.0.0.1 alone is not.
  url.hostname = where.host ?? (url.hostname === 'localhost' ? '127.0.0.1' : url.hostname);
  url.pathname = where.path ?? url.pathname;
  return { url: url.href, certificateHashes: info.certificateHashes ?? [] };
}
