/** Best first, as the ladder climbs. */
export const TRANSPORTS = ['webtransport', 'websocket', 'sse', 'poll'] as const;

export type Transport = (typeof TRANSPORTS)[number];

export const LABELS: Readonly<Record<Transport, string>> = {
  webtransport: 'WebTransport',
  websocket: 'WebSocket',
  sse: 'Server-Sent Events',
  poll: 'Long polling',
};

export const SHORT_LABELS: Readonly<Record<Transport, string>> = {
  webtransport: 'WT',
  websocket: 'WS',
  sse: 'SSE',
  poll: 'Poll',
};

/** From `?transports=`: null, all of them, unless at least one is named. */
export function parseTransports(text: string | null): Transport[] | null {
  const named = (text ?? '').split(',').map((part) => part.trim().toLowerCase());
  const known = TRANSPORTS.filter((transport) => named.includes(transport));
  return known.length > 0 ? known : null;
}
