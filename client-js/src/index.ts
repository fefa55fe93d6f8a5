// Everything that is public, and nothing else.

export type { History, HistoryOptions, SubscribeOptions } from './channels.js';
export { connect } from './connect.js';
export { type ErrorCode, ThroughlineError } from './errors.js';
export type { Attempt, Explanation, Move } from './explain.js';
export type { Handler, Reply } from './handlers.js';
export type { ConnectOptions, Token } from './options.js';
export type { Data } from './outbox.js';
export type { Member, Presence, PresenceEvents } from './presence.js';
export type { ChannelCode, Position, Publication } from './protocol/channels.js';
export type { CodeName } from './protocol/close.js';
export type { DatagramKey } from './protocol/datagrams.js';
export type { Message } from './protocol/message.js';
export type { Counters } from './protocol/report.js';
export type { RequestCode } from './protocol/requests.js';
export type { Answer, RequestOptions } from './requests.js';
export type { Session } from './session.js';
export type { SessionStream } from './streams.js';
export type { Subscription, SubscriptionEnd, SubscriptionEvents } from './subscription.js';
export type { CloseInfo, GapInfo, SessionEvents, State, Stats, TransportChange } from './told.js';
export type { Transport } from './transport/link.js';
export type { WebTransportEndpoint } from './transport/opening.js';
export type { Trouble } from './trouble.js';
export type { Change } from './values.js';
