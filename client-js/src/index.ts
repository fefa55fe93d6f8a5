// Everything that is public, and nothing else.

export { connect } from './connect.js';
export { type ErrorCode, ThroughlineError } from './errors.js';
export type { Attempt, Explanation } from './explain.js';
export type { ConnectOptions } from './options.js';
export type { CodeName } from './protocol/close.js';
export type { DatagramKey } from './protocol/datagrams.js';
export type { Counters } from './protocol/machine.js';
export type { Message } from './protocol/message.js';
export type {
  CloseInfo,
  GapInfo,
  Session,
  SessionEvents,
  State,
  Stats,
  TransportChange,
} from './session.js';
export type { Transport } from './transport/link.js';
export type { WebTransportEndpoint } from './transport/opening.js';
