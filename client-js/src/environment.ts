// What the browser gives, or does not give: the only file that touches globals, so that tests can stand in for all of it.

/** Cancels a timer or a listener. */
export type Cancel = () => void;

export interface Environment {
  readonly WebTransport: typeof globalThis.WebTransport | undefined;
  readonly WebSocket: typeof globalThis.WebSocket | undefined;
  /** Rejects where there is none. */
  readonly fetch: typeof globalThis.fetch;
  readonly hasFetch: boolean;
  /** Whether its answers can be read while they arrive. */
  readonly hasStreams: boolean;
  /** What lives as long as the page. */
  readonly page: Map<string, unknown>;
  /** The address that a relative base refers to. */
  readonly pageUrl: string | undefined;
  /** Milliseconds since the Unix epoch, from a clock that never goes back. */
  now(): number;
  /** Milliseconds since the Unix epoch by the wall clock: what may be compared after a reload. */
  wallTime(): number;
  /** Evenly distributed in [0, 1). */
  random(): number;
  timer(ms: number, callback: () => void): Cancel;
  /** `localStorage`; throws, or is undefined, where it is forbidden or missing. */
  storage(): Pick<Storage, 'getItem' | 'setItem'> | undefined;
  /** Listens to an event of the window, or of the document where that has it: `visibilitychange`, `freeze`, `resume`. */
  listen(type: string, listener: (event: Event) => void): Cancel;
  /** The network changed its kind, from Wi-Fi to mobile, say; where the browser tells. */
  networkChanged(listener: () => void): Cancel;
  isHidden(): boolean;
}

const global: Partial<typeof globalThis> = globalThis;

/** The browser (or worker) that this code runs in. */
export const browser: Environment = {
  WebTransport: global.WebTransport,
  WebSocket: global.WebSocket,
  fetch: async (url, init) => fetch(url, init),
  hasFetch: typeof fetch === 'function',
  hasStreams: typeof Response === 'function' && 'body' in Response.prototype,
  page: new Map(),
  pageUrl: global.location?.href,
  now: () => performance.timeOrigin + performance.now(),
  wallTime: Date.now,
  random: Math.random,
  timer(ms, callback) {
    const id = setTimeout(callback, ms);
    return () => clearTimeout(id);
  },
  storage: () => global.localStorage,
  listen(type, listener) {
    const target: EventTarget | undefined = /^(vis|fre|res)/.test(type) ? global.document : global.window;
    target?.addEventListener(type, listener);
    return () => target?.removeEventListener(type, listener);
  },
  networkChanged(listener) {
    const connection = (global.navigator as { connection?: EventTarget & { type?: string } } | undefined)
      ?.connection;
    let type = connection?.type;
    const look = () => {
      // The event also comes for estimates of speed, and often.
      if (type !== connection?.type) {
        type = connection?.type;
        listener();
      }
    };
    connection?.addEventListener('change', look);
    return () => connection?.removeEventListener('change', look);
  },
  isHidden: () => global.document?.hidden === true,
};
