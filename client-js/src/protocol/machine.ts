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
import { ACK_DELAY_MS, DEFAULT_MAX_MESSAGE, MAX_DATAGRAM, MAX_OPEN_PINGS, STREAM_CHUNK } from './limits.js';
import { Assembler, encodeMessage, type Message } from './message.js';
import { StreamReceiver, StreamSender } from './stream.js';
import { Writer } from './varint.js';

/** What the owner gets to see. */
export type MachineEvent =
  /** WELCOME has arrived. `gap` says what was lost when it opened another session than the one before. */
  | { readonly type: 'opened'; readonly gap: Gap | null }
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
  #welcome: Welcome | null = null;
  /** Whether the server may still know the session of `#welcome`. */
  #resumable = false;
  #close: Close | null = null;
  /** While closing: whether stream bytes go before CLOSE, and when patience ends. */
  #flush = false;
  #deadline = 0;
  #nativeDatagram = 0;
  #sender = new StreamSender();
  #receiver = new StreamReceiver();
  #assembler = new Assembler(DEFAULT_MAX_MESSAGE);
  /** Messages of the old session that never left: they follow on the new one after what the application sends first. */
  #kept: Uint8Array[] = [];
  readonly #outgoing = new DatagramSlots();
  readonly #messages: { message: Message; cost: number; receiver: StreamReceiver }[] = [];
  #firstMessage = 0;
  readonly #events: MachineEvent[] = [];
  #heard = 0;
  /** When a link that was probed counts as dead, unless something is heard. */
  #suspectUntil: number | null = null;
  #ackAt: number | null = null;
  #ackDue = false;
  #pingAt = 0;
  #pingDue = false;
  #pingId = 0;
  readonly #pings: { id: number; sentAt: number }[] = [];
  #pong: number | null = null;
  #rttMs = 0;
  #minRttMs = 0;
  /** PONGs that arrived on the current link. */
  #answers = 0;
  #clockOffsetMs: number | null = null;

  // ---- the link ----

  /** A link carries the session from now on; its WELCOME is the next frame. `nativeDatagram`: the largest of its own datagrams, or 0. */
  linkOpened(now: number, nativeDatagram: number): void {
    if (this.#isEnding) {
      return;
    }
    this.#phase = 'opening';
    this.#nativeDatagram = nativeDatagram;
    this.#heard = now;
    this.#suspectUntil = null;
    this.#pings.length = 0;
    this.#answers = 0;
    this.#pong = null;
    this.#pingDue = false;
    this.#ackAt = null;
    this.#ackDue = false;
  }

  /** The link ended without CLOSE. The session waits for the next. */
  linkLost(): void {
    if (this.#phase === 'closing') {
      this.#phase = 'closed';
      this.#tellClosed();
    } else if (this.#phase !== 'closed') {
      this.#phase = 'detached';
    }
    this.#outgoing.clear();
  }

  /** After the server ended the session: the next link opens a new one in its place. */
  reopen(): void {
    this.#phase = 'detached';
    this.#close = null;
    this.#resumable = false;
  }

  /** Something arrived, also if it is no frame: the server is alive. */
  heard(now: number): void {
    this.#heard = Math.max(this.#heard, now);
    this.#suspectUntil = null;
  }

  /** Doubt about the link: a PING goes now, and unless anything is heard within `patienceMs`, the link is dead. */
  probe(now: number, patienceMs: number): void {
    if (this.#phase === 'open' && this.#suspectUntil === null) {
      this.#suspectUntil = now + patienceMs;
      this.#pingDue = true;
    }
  }

  // ---- what arrives ----

  handleFrame(now: number, frame: Frame): void {
    this.heard(now);
    if (this.#phase === 'closing') {
      this.#whileClosing(frame);
      return;
    }
    this.#guarded(now, () => {
      if (this.#phase === 'opening') {
        if (frame.type === 'welcome') {
          this.#handleWelcome(now, frame.welcome);
        } else if (frame.type === 'close') {
          this.#end(frame.close);
        } else {
          throw new ProtocolError('PROTOCOL_VIOLATION', 'a frame before WELCOME');
        }
      } else if (this.#phase === 'open') {
        this.#dispatch(now, frame);
      }
    });
  }

  /** A native datagram arrived. */
  handleDatagram(now: number, bytes: Uint8Array): void {
    this.heard(now);
    if (this.#phase !== 'open') {
      return;
    }
    this.#guarded(now, () => {
      if (bytes.length > MAX_DATAGRAM) {
        throw new ProtocolError('DATAGRAM_TOO_LARGE', `a datagram of ${bytes.length} bytes`);
      }
      this.counters.bytesIn += bytes.length;
      this.#receiveDatagram(bytes);
    });
  }

  /** What arrived could not be read, or is against the rules of its carrier: the session ends. */
  handleViolation(now: number, close: Close): void {
    if (this.#phase === 'opening' || this.#phase === 'open') {
      this.#startClosing(now, close, false);
    } else {
      this.#end(close);
    }
  }

  // ---- time ----

  /** When `handleTimeout` wants to be called; `null` when there is nothing to wait for. */
  get timeout(): number | null {
    if (this.#phase === 'closing') {
      return this.#deadline;
    }
    return this.#phase === 'open' ? Math.min(this.#deadAt, this.#pingAt, this.#ackAt ?? Infinity) : null;
  }

  handleTimeout(now: number): void {
    if (this.#phase === 'closing' && now >= this.#deadline) {
      if (this.#flush) {
        this.#flush = false;
        this.#deadline = now + CLOSE_PATIENCE_MS;
      } else {
        this.#phase = 'closed';
        this.#tellClosed();
      }
    } else if (this.#phase === 'open') {
      if (now >= this.#deadAt) {
        const silence = Math.round(now - this.#heard);
        const close = protocolClose('IDLE_TIMEOUT', `nothing was heard for ${silence} ms`);
        this.#events.push({ type: 'silent', close });
        this.#heard = now;
        this.#suspectUntil = null;
      }
      // Due, not sent: the link may not take anything now, and the next timeout must lie ahead all the same.
      if (now >= this.#pingAt) {
        this.#startHeartbeat(now);
      }
      if (this.#ackAt !== null && now >= this.#ackAt) {
        this.#ackAt = null;
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
    } else if (this.#phase === 'closing' && this.#close !== null) {
      if (this.#flush) {
        this.#writeStream(max, out);
      }
      if (!this.#flush || this.#sender.unsent === 0) {
        writeClose(out, this.#close);
        this.#phase = 'closed';
        this.#tellClosed();
      }
    }
    this.counters.bytesOut += out.length;
    return out.length > 0 ? out.finish() : null;
  }

  /** Whether there is a datagram for a link that has its own. */
  get hasNativeDatagram(): boolean {
    const front = this.#phase === 'open' ? this.#outgoing.front() : undefined;
    return front !== undefined && front.length <= this.#nativeDatagram;
  }

  /** Takes that datagram. */
  nativeDatagram(): Uint8Array {
    const bytes = this.#outgoing.pop();
    this.counters.datagramsOut++;
    this.counters.bytesOut += bytes.length;
    return bytes;
  }

  // ---- the application ----

  event(): MachineEvent | undefined {
    return this.#events.shift();
  }

  /** The next message; taking it frees its credit. */
  message(): Message | undefined {
    const first = this.#messages[this.#firstMessage];
    if (first === undefined) {
      return undefined;
    }
    this.#firstMessage++;
    if (this.#firstMessage * 2 >= this.#messages.length) {
      this.#messages.splice(0, this.#firstMessage);
      this.#firstMessage = 0;
    }
    first.receiver.queued(-first.cost);
    return first.message;
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
    for (const chunk of this.#kept) {
      this.#sender.push(chunk);
    }
    this.#kept = [];
  }

  /** Ends the session: the messages before it are sent, then CLOSE. Does nothing when it is ending already. */
  close(now: number, close: Close): void {
    if (this.#phase === 'open') {
      this.#startClosing(now, close, true);
    } else if (this.#phase === 'opening') {
      this.#startClosing(now, close, false);
    } else if (this.#phase === 'detached') {
      this.#end(close);
    }
  }

  // ---- what is known ----

  get isOpen(): boolean {
    return this.#phase === 'open';
  }

  /** The newest WELCOME. */
  get welcome(): Welcome | null {
    return this.#welcome;
  }

  /** What an opening says of the session that it wants to resume. */
  get resumption(): { session: string; key: string; received: string } | null {
    const welcome = this.#welcome;
    return welcome !== null && this.#resumable
      ? { session: welcome.session, key: welcome.key, received: `0.${this.#receiver.received}` }
      : null;
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
    return this.#answers > 0;
  }

  /** The server's clock in milliseconds since the Unix epoch; `null` before the first WELCOME. */
  serverTime(now: number): number | null {
    return this.#clockOffsetMs === null ? null : now + this.#clockOffsetMs;
  }

  // ---- inside ----

  get #isEnding(): boolean {
    return this.#phase === 'closing' || this.#phase === 'closed';
  }

  get #deadAt(): number {
    return this.#suspectUntil ?? this.#heard + (this.#welcome?.idleMs ?? Infinity);
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
    switch (frame.type) {
      case 'welcome':
        throw new ProtocolError('PROTOCOL_VIOLATION', 'WELCOME comes once');
      case 'close':
        this.#end(frame.close);
        break;
      case 'stream': {
        knownStream(frame.stream);
        const receiver = this.#receiver;
        this.#assembler.push(receiver.accept(frame.offset, frame.data), ({ message, cost }) => {
          receiver.queued(cost);
          this.counters.messagesIn++;
          this.#messages.push({ message, cost, receiver });
        });
        if (this.#ackAt === null && receiver.hasNews) {
          this.#ackAt = now + ACK_DELAY_MS;
        }
        break;
      }
      case 'ack':
        knownStream(frame.stream);
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

  #whileClosing(frame: Frame): void {
    if (frame.type === 'ack' && frame.stream === 0) {
      try {
        // The stream bytes before our CLOSE may be waiting for this credit.
        this.#sender.acknowledge(frame.received, frame.limit);
      } catch {
        // It is ending anyway.
      }
    } else if (frame.type === 'close') {
      this.#phase = 'closed';
      this.#tellClosed();
    }
  }

  #handleWelcome(now: number, welcome: Welcome): void {
    if (welcome.version !== 1) {
      throw new ProtocolError('UNSUPPORTED_VERSION', `version ${welcome.version} was not asked for`);
    }
    const previous = this.#welcome;
    let gap: Gap | null = null;
    if (previous !== null && welcome.resumed && welcome.session === previous.session) {
      this.#sender.rewind(welcome.received, welcome.limit);
    } else {
      const old = this.#sender;
      this.#sender = new StreamSender();
      this.#sender.acknowledge(welcome.received, welcome.limit);
      this.#receiver = new StreamReceiver();
      this.#assembler = new Assembler(welcome.maxMessage);
      this.#kept = [...this.#kept, ...old.neverSent()];
      if (previous === null) {
        this.releaseKept();
      } else {
        const keptBytes = old.neverSent().reduce((sum, chunk) => sum + chunk.length, 0);
        gap = { previousId: previous.session, unacknowledgedBytes: old.buffered - keptBytes };
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
    const index = this.#pings.findIndex((ping) => ping.id === id);
    const ping = this.#pings[index];
    if (ping === undefined) {
      return;
    }
    this.#pings.splice(0, index + 1);
    this.#answers++;
    const rtt = Math.max(0.001, now - ping.sentAt);
    this.#rttMs = this.#rttMs === 0 ? rtt : (7 * this.#rttMs + rtt) / 8;
    this.#minRttMs = this.#minRttMs === 0 ? rtt : Math.min(this.#minRttMs, rtt);
    if (this.#answers === 1 || rtt <= this.#rttMs) {
      // A slow answer says little about the clock.
      this.#clockOffsetMs = timeUs / 1000 + rtt / 2 - now;
    }
  }

  #receiveDatagram(bytes: Uint8Array): void {
    this.counters.datagramsIn++;
    this.#events.push({ type: 'datagram', bytes: bytes.slice() });
  }

  #startHeartbeat(now: number): void {
    this.#pingDue = true;
    this.#pingAt = now + (this.#welcome?.heartbeatMs ?? 0);
  }

  #writeControl(now: number, out: Writer): void {
    if (this.#pong !== null) {
      writeFields(out, PONG, this.#pong, Math.floor(now * 1000));
      this.#pong = null;
    }
    if (this.#pingDue) {
      this.#pingDue = false;
      this.#pingId++;
      if (this.#pings.length === MAX_OPEN_PINGS) {
        this.#pings.shift();
      }
      this.#pings.push({ id: this.#pingId, sentAt: now });
      writeFields(out, PING, this.#pingId);
    }
  }

  #writeDatagrams(max: number, out: Writer): void {
    for (let front = this.#outgoing.front(); front !== undefined; front = this.#outgoing.front()) {
      const fits = out.length + front.length + MAX_DATAGRAM_HEADER + MAX_ACK_FRAME <= max || out.length === 0;
      if (!fits || front.length <= this.#nativeDatagram) {
        break;
      }
      writeDatagram(out, front);
      this.#outgoing.pop();
      this.counters.datagramsOut++;
    }
  }

  #writeStream(max: number, out: Writer): void {
    let wrote = true;
    while (wrote) {
      const room = Math.max(0, max - out.length - MAX_STREAM_HEADER - MAX_ACK_FRAME);
      wrote = this.#sender.write(out, Math.min(STREAM_CHUNK, out.length === 0 ? Math.max(room, 1) : room));
    }
  }

  #writeAcknowledgement(out: Writer): void {
    if (this.#ackDue || this.#receiver.isUrgent || (out.length > 0 && this.#receiver.hasNews)) {
      this.#ackAt = null;
      this.#ackDue = false;
      writeFields(out, ACK, 0, ...this.#receiver.say());
    }
  }

  #startClosing(now: number, close: Close, flush: boolean): void {
    this.#outgoing.clear();
    this.#close = close;
    this.#flush = flush;
    this.#deadline = now + CLOSE_PATIENCE_MS;
    this.#phase = 'closing';
  }

  #end(close: Close): void {
    if (!this.#isEnding) {
      this.#outgoing.clear();
      this.#close = close;
      this.#phase = 'closed';
      this.#tellClosed();
    }
  }

  #tellClosed(): void {
    if (this.#close !== null) {
      this.#events.push({ type: 'closed', close: this.#close });
    }
  }
}

function knownStream(stream: number): void {
  if (stream !== 0) {
    throw new ProtocolError('PROTOCOL_VIOLATION', `there is no stream ${stream}`);
  }
}
