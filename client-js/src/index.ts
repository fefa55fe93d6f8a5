// Everything that is public, and nothing else.

export type { Subscription, SubscriptionEnd, SubscriptionEvents } from './channels.js';
export { connect } from './connect.js';
export { type ErrorCode, ThroughlineError } from './errors.js';
export type { Attempt, Explanation, Move } from './explain.js';
export type { ConnectOptions } from './options.js';
export type { ChannelCode, Position } from './protocol/channels.js';
export type { CodeName } from './protocol/close.js';
export type { DatagramKey } from './protocol/datagrams.js';
export type { Message } from './protocol/message.js';
export type { Counters } from './protocol/report.js';
export type { Session } from './session.js';
export type { SessionStream } from './streams.js';
export type { CloseInfo, GapInfo, SessionEvents, State, Stats, TransportChange } from './told.js';
export type { Transport } from './transport/link.js';
export type { WebTransportEndpoint } from './transport/opening.js';
export type { Trouble } from './trouble.js';
