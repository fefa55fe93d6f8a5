// Where the parts are put together: the four transports, the browser, a session.

import { browser } from './environment.js';
import type { ConnectOptions } from './options.js';
import { Session } from './session.js';
import { poll } from './transport/poll.js';
import { sse } from './transport/sse.js';
import { websocket } from './transport/websocket.js';
import { webtransport } from './transport/webtransport.js';

/**
 * Opens a session with the server at `base`: a path such as `'/rt'`, or a whole URL.
 *
 * Returns at once; `await session.ready` waits for the first link. Throws TypeError for arguments that cannot work.
 */
export function connect(base: string | URL, options: ConnectOptions = {}): Session {
  return new Session(base, options, browser, [webtransport, websocket, sse, poll]);
}
