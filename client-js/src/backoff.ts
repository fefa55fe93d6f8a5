// How long to wait before the next attempt to reconnect.

import { MAX_RETRY_AFTER_MS, RECONNECT_BASE_MS, RECONNECT_MAX_MS, RECONNECT_MIN_MS } from './limits.js';

/**
 * Full jitter: anywhere between nothing and an exponentially growing cap. The cap comes before the jitter;
 * the other way round a fleet would settle on the cap and retry in step.
 *
 * `failures` 0 is the first loss of a good link, answered at once. `retryAfterMs` is the server's wish and
 * comes before it all; the jitter is added to it, again against retrying in step.
 */
export function reconnectDelay(failures: number, random: number, retryAfterMs = 0): number {
  if (failures === 0 && retryAfterMs === 0) {
    return 0;
  }
  const cap = Math.min(RECONNECT_MAX_MS, RECONNECT_BASE_MS * 2 ** Math.min(failures, 16));
  return Math.min(retryAfterMs, MAX_RETRY_AFTER_MS) + Math.max(RECONNECT_MIN_MS, random * cap);
}
