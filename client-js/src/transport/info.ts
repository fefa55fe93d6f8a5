// `GET {base}/info` (SPEC section 7.6): where WebTransport listens, when that is not the page's own address.

import type { Environment } from '../environment.js';
import { messageOf } from '../errors.js';
import { INFO_MS } from '../limits.js';
import type { Opening, WebTransportEndpoint } from './opening.js';

/** The answers of `/info`. */
interface Info {
  readonly webtransport?: { readonly port?: number; readonly host?: string; readonly path?: string } | null;
  readonly certificateHashes?: string[];
}

/** Where to open WebTransport; `null` when the server does not offer it. Throws when `/info` cannot be asked. */
export async function locate(
  env: Environment,
  { base, info, webtransport }: Opening,
): Promise<WebTransportEndpoint | null> {
  if (webtransport) {
    return webtransport;
  }
  const url = new URL(`${base}/webtransport`);
  if (url.protocol === 'https:' && (!url.port || !info)) {
    return { url: url.href };
  }
  const { webtransport: where, certificateHashes = [] } = info ? await ask(env, `${base}/info`) : {};
  if (!where) {
    return null;
  }
  url.protocol = 'https:';
  url.port = String(where.port ?? '');
  // Browsers resolve localhost to ::1 first, where a listener on 127.0.0.1 alone is not.
  url.hostname = where.host ?? url.hostname.replace(/^localhost$/, '127.0.0.1');
  url.pathname = where.path ?? url.pathname;
  return { url: url.href, certificateHashes };
}

/** What was heard of this server may be wrong: it is asked again the next time. */
export function forget(env: Environment, { base }: Opening): void {
  env.page.delete(`${base}/info`);
}

async function ask(env: Environment, url: string): Promise<Info> {
  const abort = new AbortController();
  const cancel = env.timer(INFO_MS, () => abort.abort(Error('no answer')));
  try {
    const known = env.page.get(url);
    const answer =
      known ?? (await (await env.fetch(url, { cache: 'no-store', signal: abort.signal })).json());
    env.page.set(url, answer);
    return answer;
  } catch (error) {
    throw new Error(`${url}: ${messageOf(error)}`);
  } finally {
    cancel();
  }
}
