// Close codes of the carriers (SPEC sections 7.1 and 7.2), and refusals over HTTP (section 7).

import { type Close, CODE_NAMES } from '../protocol/close.js';
import { decodeUtf8 } from '../protocol/frames.js';
import type { Loss } from './link.js';

/** A protocol close of code n is n + this on a carrier. */
const PROTOCOL_CODES = 4_000;

/** The carrier's code for a close; `own` is what the carrier has for NORMAL and the application's. */
export function carrierCode({ code, application }: Close, own: number): number {
  return application || code === 0 ? own : PROTOCOL_CODES + code;
}

/** The close that a carrier's code stands for; `undefined` when it stands for none. */
export function closeOfCarrier(code: number, reason: string): Close | undefined {
  const own = code - PROTOCOL_CODES;
  return CODE_NAMES[own] === undefined ? undefined : { code: own, application: false, reason };
}

/** What an HTTP answer that is no success says. */
export async function lossOfResponse(response: Response): Promise<Loss> {
  const { status } = response;
  let close: Close | undefined;
  try {
    close = closeOfBody(JSON.parse(decodeUtf8(new Uint8Array(await response.arrayBuffer()))));
  } catch {
    // A proxy's answer.
  }
  const name = close === undefined ? '' : ` ${CODE_NAMES[close.code]}${close.reason && `: ${close.reason}`}`;
  const seconds = Number.parseFloat(response.headers.get('Retry-After') ?? '');
  return {
    reason: `status ${status}${name}`,
    status,
    ...(close && { close }),
    ...(seconds >= 0 && { retryAfterMs: seconds * 1000 }),
  };
}

function closeOfBody(body: unknown): Close | undefined {
  const { code, reason } = body as { code?: unknown; reason?: unknown };
  return typeof code === 'number' && CODE_NAMES[code] !== undefined
    ? { code, application: false, reason: typeof reason === 'string' ? reason : '' }
    : undefined;
}
