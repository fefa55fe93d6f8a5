// Close codes of the carriers (SPEC sections 7.1 and 7.2), and refusals over HTTP (section 7).

import { type Close, closeName, describeClose } from '../protocol/close.js';
import type { Loss } from './link.js';

/** A protocol close of code n is n + this on a carrier. */
const PROTOCOL_CODES = 4_000;

/** The carrier's code for a close; `own` is what the carrier has for NORMAL and the application's. */
export function carrierCode({ code, application }: Close, own: number): number {
  return application || code === 0 ? own : PROTOCOL_CODES + code;
}

/** The close that a carrier's code stands for; `undefined` when it stands for none. */
export function closeOfCarrier(code: number, reason: string): Close | undefined {
  return known({ code: code - PROTOCOL_CODES, application: false, reason });
}

/** What an HTTP answer that is no success says. */
export async function lossOfResponse(response: Response): Promise<Loss> {
  const { status, headers } = response;
  // A proxy answers with anything.
  const body: Partial<Close> | null = await response.json().catch(() => null);
  const close = known({ code: Number(body?.code), application: false, reason: String(body?.reason ?? '') });
  return {
    reason: `status ${status}${close ? ` ${describeClose(close)}` : ''}`,
    status,
    ...(close && { close }),
    retryAfterMs: Number(headers.get('Retry-After')) * 1000 || 0,
  };
}

function known(close: Close): Close | undefined {
  return closeName(close) === 'UNKNOWN' ? undefined : close;
}
