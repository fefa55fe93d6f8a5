// Why a session ends (SPEC section 8), and whether a client should come back by itself.

/** The protocol's own close codes: the number of a name is its place in this list. */
export const CODE_NAMES = [
  'NORMAL',
  'INTERNAL_ERROR',
  'PROTOCOL_VIOLATION',
  'MALFORMED_FRAME',
  'UNKNOWN_FRAME',
  'FRAME_TOO_LARGE',
  'FLOW_CONTROL',
  'MESSAGE_TOO_LARGE',
  'MALFORMED_MESSAGE',
  'DATAGRAM_TOO_LARGE',
  'UNSUPPORTED_VERSION',
  'UNAUTHORIZED',
  'FORBIDDEN',
  'LIMIT_REACHED',
  'UNKNOWN_SESSION',
  'OPEN_TIMEOUT',
  'IDLE_TIMEOUT',
  'LINK_LOST',
  'SHUTTING_DOWN',
  'BAD_REQUEST',
  'UNREACHABLE',
  'LINK_REPLACED',
  'STREAM_LIMIT',
] as const;

/** Name of one of the protocol's close codes. */
export type CodeName = (typeof CODE_NAMES)[number];

/** The end of a session: the content of a CLOSE frame. */
export interface Close {
  /** One of the protocol's codes, or the application's own number. */
  readonly code: number;
  /** Whether the application chose the code. */
  readonly application: boolean;
  /** For a person; may be empty. */
  readonly reason: string;
}

/** A close by the protocol itself. */
export function protocolClose(name: CodeName, reason: string): Close {
  return { code: CODE_NAMES.indexOf(name), application: false, reason };
}

/** The code's name: `APPLICATION` for the application's own, `UNKNOWN` for one that this version does not know. */
export function closeName(close: Close): CodeName | 'APPLICATION' | 'UNKNOWN' {
  return close.application ? 'APPLICATION' : (CODE_NAMES[close.code] ?? 'UNKNOWN');
}

// 1, 13 to 18 and 20: the server or the network, not this client's mistake.
const RETRIED = 0b1_0111_1110_0000_0000_0010;

/** Whether a client should open a new session by itself. */
export function shouldRetry(close: Close): boolean {
  return !close.application && close.code < 32 && ((RETRIED >> close.code) & 1) === 1;
}

/** For a person: name and reason. */
export function describeClose(close: Close): string {
  const name = close.application ? `application code ${close.code}` : closeName(close);
  return close.reason ? `${name}: ${close.reason}` : name;
}

/** What a decoder or the machine throws when the peer broke the protocol; `close` answers it. */
export class ProtocolError extends Error {
  readonly close: Close;
  constructor(name: CodeName, reason: string) {
    super(reason);
    this.close = protocolClose(name, reason);
  }
}

/** Cuts text to at most `maxBytes` of UTF-8, between characters: the decoder waits for the rest of the last one. */
export function truncateUtf8(text: string, maxBytes: number): string {
  return new TextDecoder().decode(new TextEncoder().encode(text).subarray(0, maxBytes), { stream: true });
}
