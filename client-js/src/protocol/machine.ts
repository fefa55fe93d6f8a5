// One session, without IO: frames and the time go in, packets and events come out. It mirrors the client's
// side of protocol/src/machine.rs, and adds what only a client has: a session that outlives its links.
//
// Its owner
// 1. tells it of links (`linkOpened`, `linkLost`) and of what arrives (`handleFrame`, `handleDatagram`);
// 2. calls `handleTimeout` when the time of `timeout` has come;
// 3. after each of these asks for `packet` and `nativeDatagram` while the link takes more, and for `event`.
//
// `now` is always in milliseconds since the Unix epoch, from a clock that never goes back.

import { type Close, ProtocolError, protocolClose } from './close.js';
import { type DatagramKey, DatagramSlots } from './datagrams.js';
import {
  ACK,
  checkDatagram,
  type Frame,
  MAX_DATAGRAM_HEADER,
  MAX_STREAM_HEADER,
  PING,
  PONG,
  type Welcome,
  writeClose,
  writeDatagram,
  writeFields,
} from './frames.js';
import { ACK_DELAY_MS, DEFAULT_MAX_MESSAGE, MAX_OPEN_PINGS, MAX_REASON, STREAM_CHUNK } from './limits.js';
import { assembler, encodeMessage, type Message } from './message.js';
import { StreamReceiver, StreamSender } from './stream.js';
import { Writer } from './varint.js';

/** What the owner gets to see. */
export type MachineEvent =
  /** WELCOME has arrived. `gap` says what was lost when it opened another session than the one before. */
  | { readonly type: 'opened'; readonly gap: Gap | undefined }
  | { readonly type: 'datagram'; readonly bytes: Uint8Array<ArrayBuffer> }
  /** Nothing was heard for too long: the link is dead. Its owner decides what follows. */
  | { readonly type: 'silent'; readonly close: Close }
  /** The session has ended. */
  | { readonly type: 'closed'; readonly close: Close };

/** What a new session in the place of an older one means for the application. */
export interface Gap {
  readonly previousId: string;
  /** Bytes of messages that were sent on the old session and not acknowledged: they may have been lost. */
  readonly unacknowledgedBytes: number;
}

/** Counters of one session. Bytes are those of frames and native datagrams, without what the carrier adds. */
export interface Counters {
  bytesIn: number;
  bytesOut: number;
  messagesIn: number;
  messagesOut: number;
  datagramsIn: number;
  datagramsOut: number;
  /** Outgoing datagrams that a newer one replaced, or that too many others pushed out. */
  datagramsDropped: number;
}

type Phase = 'detached' | 'opening' | 'open' | 'closing' | 'closed';

/** Bytes of an ACK frame, at most: room that is kept for it at the end of every packet. */
const MAX_ACK_FRAME = 26;
/** How long a CLOSE waits for the stream bytes before it, and again for a link that takes it. */
const CLOSE_PATIENCE_MS = 3_000;

export class Machine {
  readonly counters: Counters = {
    bytesIn: 0,
    bytesOut: 0,
    messagesIn: 0,
    messagesOut: 0,
    datagramsIn: 0,
    datagramsOut: 0,
    datagramsDropped: 0,
  };
  #phase: Phase = 'detached';
  #welcome: Welcome | undefined;
  /** Whether the server may still know the session of `#welcome`. */
  #resumable = false;
  #close: Close | undefined;
  /** While closing: whether stream bytes go before CLOSE, and when patience ends. */
  #flush = false;
  #deadline = 0;
  #nativeDatagram = 0;
  #sender = new StreamSender();
  #receiver = new StreamReceiver();
  #assembler = assembler(DEFAULT_MAX_MESSAGE);
  /** Messages of the old session that never left: they follow on the new one after what the application sends first. */
  #kept: Uint8Array[] = [];
  readonly #outgoing = new DatagramSlots();
  readonly #messages: { message: Message; taken: () => void }[] = [];
  #firstMessage = 0;
  readonly #events: MachineEvent[] = [];
  #heard = 0;
  /** When a link that was probed counts as dead, unless something is heard. */
  #suspectUntil = 0;
  #ackAt = Infinity;
  #ackDue = false;
  #pingAt = 0;
  #pingDue = false;
  #pingId = 0;
  /** When the PINGs that have no answer yet were sent, by id. */
  #pings = new Map<number, number>();
  #pong: number | undefined;
  #rttMs = 0;
  #proven = false;
  #clockOffsetMs = 0;

  // ---- the link ----

  /** A link carries the session from now on; its WELCOME is the next frame. `nativeDatagram`: the largest of its own datagrams, or 0. */
  linkOpened(now: number, nativeDatagram: number): void {
    if (this.#phase === 'closing' || this.#phase === 'closed') {
      return;
    }
    this.#phase = 'opening';
    this.#nativeDatagram = nativeDatagram;
    this.heard(now, 0);
    this.#pings.clear();
    this.#proven = false;
    this.#pong = undefined;
    this.#ackAt = Infinity;
  }

  /** The link ended without CLOSE. The session waits for the next. */
  linkLost(): void {
    if (this.#phase === 'closing' && this.#close) {
      this.#end(this.#close);
    } else if (this.#phase !== 'closed') {
      this.#phase = 'detached';
    }
    this.#outgoing.clear();
  }

  /** After the server ended the session: the next link opens a new one in its place. */
  reopen(): void {
    this.#phase = 'detached';
    this.#resumable = false;
  }

  /** `bytes` arrived, also if they are no frames: the server is alive. */
  heard(now: number, bytes: number): void {
    this.counters.bytesIn += bytes;
    this.#heard = now;
    this.#suspectUntil = 0;
  }

  /** Doubt about the link: a PING goes now, and unless anything is heard within `patienceMs`, the link is dead. */
  probe(now: number, patienceMs: number): void {
    if (!this.#suspectUntil) {
      this.#suspectUntil = now + patienceMs;
      this.#pingDue = true;
    }
  }

  // ---- what arrives ----

  handleFrame(now: number, frame: Frame): void {
    this.heard(now, 0);
    this.#guarded(now, () => {
      if (this.#phase === 'closing') {
        if (frame.type === 'ack') {
          // The stream bytes before our CLOSE may be waiting for this credit.
          this.#sender.acknowledge(frame.received, frame.limit);
        } else if (frame.type === 'close') {
          this.linkLost();
        }
      } else if (frame.type === 'close') {
        this.#end(frame.close);
      } else if (this.#phase === 'open') {
        this.#dispatch(now, frame);
      } else if (this.#phase === 'opening') {
        this.#handleWelcome(now, frame);
      }
    });
  }

  /** A native datagram arrived. */
  handleDatagram(now: number, bytes: Uint8Array): void {
    this.heard(now, bytes.length);
    this.#guarded(now, () => this.#receiveDatagram(bytes));
  }

  /** What arrived could not be read, or is against the rules of its carrier: the session ends. */
  handleViolation(now: number, close: Close): void {
    this.#startClosing(now, close, false);
  }

  // ---- time ----

  /** When `handleTimeout` wants to be called; Infinity when there is nothing to wait for. */
  get timeout(): number {
    if (this.#phase === 'open') {
      return Math.min(this.#deadAt, this.#pingAt, this.#ackAt);
    }
    return this.#phase === 'closing' ? this.#deadline : Infinity;
  }

  handleTimeout(now: number): void {
    if (this.#phase === 'closing' && now >= this.#deadline) {
      if (this.#flush) {
        this.#flush = false;
        this.#deadline = now + CLOSE_PATIENCE_MS;
      } else {
        this.linkLost();
      }
    } else if (this.#phase === 'open') {
      if (now >= this.#deadAt) {
        const reason = `silent for ${Math.round(now - this.#heard)} ms`;
        this.#events.push({ type: 'silent', close: protocolClose('IDLE_TIMEOUT', reason) });
        this.heard(now, 0);
      }
      // Due, not sent: the link may not take anything now, and the next timeout must lie ahead all the same.
      if (now >= this.#pingAt) {
        this.#startHeartbeat(now);
      }
      if (now >= this.#ackAt) {
        this.#ackAt = Infinity;
        this.#ackDue = true;
      }
    }
  }

  // ---- what is sent ----

  /** The next packet of about `max` bytes at most, or `null` when there is nothing to send now. */
  packet(now: number, max: number): Uint8Array<ArrayBuffer> | null {
    const out = new Writer(256);
    if (this.#phase === 'open') {
      this.#writeControl(now, out);
      this.#writeDatagrams(max, out);
      this.#writeStream(max, out);
      this.#writeAcknowledgement(out);
    } else if (this.#phase === 'closing' && this.#close) {
      if (this.#flush) {
        this.#writeStream(max, out);
      }
      // A CLOSE that does not fit any more has a packet of its own.
      const fits = !out.length || out.length + MAX_REASON + MAX_STREAM_HEADER <= max;
      if (fits && !(this.#flush && this.#sender.unsent)) {
        writeClose(out, this.#close);
        this.linkLost();
      }
    }
    this.counters.bytesOut += out.length;
    return out.length ? out.finish() : null;
  }

  /** Whether there is a datagram for a link that has its own. */
  get hasNativeDatagram(): boolean {
    // Not an empty one: not every browser sends or hands on those.
    const length = this.#outgoing.front()?.length;
    return this.#phase === 'open' && !!length && length <= this.#nativeDatagram;
  }

  /** Takes that datagram. */
  nativeDatagram(): Uint8Array {
    const bytes = this.#outgoing.pop();
    this.counters.datagramsOut++;
    this.counters.bytesOut += bytes.length;
    return bytes;
  }

  // ---- the application ----

  get hasEvents(): boolean {
    return this.#events.length > 0;
  }

  event(): MachineEvent | undefined {
    return this.#events.shift();
  }

  /** The next message; taking it frees its credit. */
  message(): Message | undefined {
    const first = this.#messages[this.#firstMessage];
    // A list that is taken from its front in a linear time.
    if (++this.#firstMessage * 2 >= this.#messages.length) {
      this.#messages.splice(0, this.#firstMessage);
      this.#firstMessage = 0;
    }
    first?.taken();
    return first?.message;
  }

  /** Takes a message to send, after those before it. */
  send(text: boolean, body: Uint8Array): void {
    this.#sender.push(encodeMessage(text, body));
    this.counters.messagesOut++;
  }

  /** Takes a datagram to send: of those with the same key, the newest is sent. */
  sendDatagram(bytes: Uint8Array, key: DatagramKey | undefined): void {
    this.counters.datagramsDropped += this.#outgoing.put(key, bytes);
  }

  /** After a gap: the messages that never left follow now, behind what the application has sent since. */
  releaseKept(): void {
    for (const chunk of this.#kept.splice(0)) {
      this.#sender.push(chunk);
    }
  }

  /** Ends the session: the messages before it are sent, then CLOSE. Does nothing when it is ending already. */
  close(now: number, close: Close): void {
    this.#startClosing(now, close, true);
  }

  // ---- what is known ----

  /** The newest WELCOME. */
  get welcome(): Welcome | undefined {
    return this.#welcome;
  }

  /** What an opening says of the session that it wants to resume. */
  get resumption(): { session: string; key: string; received: string } | undefined {
    const { session, key } = this.#welcome ?? {};
    return this.#resumable && session && key
      ? { session, key, received: `0.${this.#receiver.received}` }
      : undefined;
  }

  get bufferedBytes(): number {
    return this.#sender.buffered;
  }

  get maxMessage(): number {
    return this.#welcome?.maxMessage ?? DEFAULT_MAX_MESSAGE;
  }

  /** Smoothed, in milliseconds; 0 before the first PONG. */
  get rttMs(): number {
    return this.#rttMs;
  }

  /** Whether the server has answered a PING on this link: that it carries frames both ways. */
  get isProven(): boolean {
    return this.#proven;
  }

  /** The server's clock in milliseconds since the Unix epoch; our own before the first WELCOME. */
  serverTime(now: number): number {
    return now + this.#clockOffsetMs;
  }

  // ---- inside ----

  get #deadAt(): number {
    return this.#suspectUntil || this.#heard + (this.#welcome?.idleMs ?? 0);
  }

  #guarded(now: number, work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof ProtocolError)) {
        throw error;
      }
      this.handleViolation(now, error.close);
    }
  }

  #dispatch(now: number, frame: Frame): void {
    if ('stream' in frame && frame.stream !== 0) {
      throw new ProtocolError('PROTOCOL_VIOLATION', `no stream ${frame.stream}`);
    }
    switch (frame.type) {
      case 'welcome':
        throw new ProtocolError('PROTOCOL_VIOLATION', 'second WELCOME');
      case 'stream': {
        const receiver = this.#receiver;
        this.#assembler.push(receiver.accept(frame.offset, frame.data), ({ message, cost }) => {
          receiver.queued(cost);
          this.counters.messagesIn++;
          this.#messages.push({ message, taken: () => receiver.queued(-cost) });
        });
        if (receiver.hasNews) {
          this.#ackAt = Math.min(this.#ackAt, now + ACK_DELAY_MS);
        }
        break;
      }
      case 'ack':
        this.#sender.acknowledge(frame.received, frame.limit);
        break;
      case 'datagram':
        this.#receiveDatagram(frame.data);
        break;
      case 'ping':
        this.#pong = frame.id;
        break;
      case 'pong':
        this.#handlePong(now, frame.id, frame.timeUs);
    }
  }

  #handleWelcome(now: number, frame: Frame): void {
    if (frame.type !== 'welcome') {
      throw new ProtocolError('PROTOCOL_VIOLATION', 'no WELCOME');
    }
    const { welcome } = frame;
    const { version, session, resumed, received, limit, maxMessage } = welcome;
    if (version !== 1) {
      throw new ProtocolError('UNSUPPORTED_VERSION', `version ${version}`);
    }
    const previousId = this.#welcome?.session;
    let gap: Gap | undefined;
    if (resumed && session === previousId) {
      this.#sender.rewind(received, limit);
      // The last ACK may be lost with the old link, and the server know of less credit than was granted.
      this.#ackDue = true;
    } else {
      const old = this.#sender;
      this.#kept = old.neverSent();
      this.#sender = new StreamSender();
      this.#sender.acknowledge(received, limit);
      this.#receiver = new StreamReceiver();
      this.#assembler = assembler(maxMessage);
      if (previousId) {
        const keptBytes = this.#kept.reduce((sum, chunk) => sum + chunk.length, 0);
        gap = { previousId, unacknowledgedBytes: old.buffered - keptBytes };
      } else {
        this.releaseKept();
      }
    }
    this.#welcome = welcome;
    this.#resumable = true;
    this.#clockOffsetMs = welcome.timeUs / 1000 - now;
    this.#phase = 'open';
    this.#startHeartbeat(now);
    this.#events.push({ type: 'opened', gap });
  }

  #handlePong(now: number, id: number, timeUs: number): void {
    const sentAt = this.#pings.get(id);
    if (sentAt === undefined) {
      return;
    }
    for (const older of this.#pings.keys()) {
      if (older <= id) {
        this.#pings.delete(older);
      }
    }
    const rtt = Math.max(0.001, now - sentAt);
    this.#rttMs = this.#rttMs ? (7 * this.#rttMs + rtt) / 8 : rtt;
    if (!this.#proven || rtt <= this.#rttMs) {
      // A slow answer says little about the clock.
      this.#clockOffsetMs = timeUs / 1000 + rtt / 2 - now;
    }
    this.#proven = true;
  }

  #receiveDatagram(bytes: Uint8Array): void {
    checkDatagram(bytes);
    if (this.#phase === 'open') {
      this.counters.datagramsIn++;
      this.#events.push({ type: 'datagram', bytes: bytes.slice() });
    }
  }

  #startHeartbeat(now: number): void {
    this.#pingDue = true;
    this.#pingAt = now + (this.#welcome?.heartbeatMs ?? 0);
  }

  #writeControl(now: number, out: Writer): void {
    if (this.#pong !== undefined) {
      writeFields(out, PONG, this.#pong, Math.floor(now * 1000));
      this.#pong = undefined;
    }
    if (this.#pingDue) {
      this.#pingDue = false;
      this.#pings.set(++this.#pingId, now);
      this.#pings.delete(this.#pingId - MAX_OPEN_PINGS);
      writeFields(out, PING, this.#pingId);
    }
  }

  #writeDatagrams(max: number, out: Writer): void {
    for (let front = this.#outgoing.front(); front; front = this.#outgoing.front()) {
      const fits = !out.length || out.length + front.length + MAX_DATAGRAM_HEADER + MAX_ACK_FRAME <= max;
      if (!fits || this.hasNativeDatagram) {
        break;
      }
      writeDatagram(out, this.#outgoing.pop());
      this.counters.datagramsOut++;
    }
  }

  #writeStream(max: number, out: Writer): void {
    let wrote = true;
    while (wrote) {
      const room = max - out.length - MAX_STREAM_HEADER - MAX_ACK_FRAME;
      wrote = this.#sender.write(out, Math.min(STREAM_CHUNK, out.length ? room : Math.max(room, 1)));
    }
  }

  #writeAcknowledgement(out: Writer): void {
    if (this.#ackDue || this.#receiver.isUrgent || (out.length && this.#receiver.hasNews)) {
      this.#ackAt = Infinity;
      this.#ackDue = false;
      writeFields(out, ACK, 0, ...this.#receiver.say());
    }
  }

  #startClosing(now: number, close: Close, flush: boolean): void {
    if (this.#phase === 'open' || this.#phase === 'opening') {
      this.#outgoing.clear();
      this.#close = close;
      this.#flush = flush && this.#phase === 'open';
      this.#deadline = now + CLOSE_PATIENCE_MS;
      this.#phase = 'closing';
    } else if (this.#phase === 'detached') {
      this.#end(close);
    }
  }

  #end(close: Close): void {
    if (this.#phase !== 'closed') {
      this.#outgoing.clear();
      this.#phase = 'closed';
      this.#events.push({ type: 'closed', close });
    }
  }
}
