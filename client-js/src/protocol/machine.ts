// One session, without IO: frames and the time go in, packets and events come out. It mirrors the client's
// side of protocol/src/machine.rs, and adds what only a client has: a session that outlives its links.
//
// Its owner
// 1. tells it of links (`linkOpened`, `linkLost`) and of what arrives (`handleFrame`, `handleDatagram`);
// 2. calls `handleTimeout` when the time of `timeout` has come;
// 3. after each of these asks for `packet` and `nativeDatagram` while the link takes more, and for `event`.
//
// `now` is always in milliseconds since the Unix epoch, from a clock that never goes back.

import { decodeChannel, decodeState } from './channels.js';
import { type Close, closeName, ProtocolError, protocolClose } from './close.js';
import { DatagramCredit } from './credit.js';
import { type DatagramKey, DatagramSlots } from './datagrams.js';
import {
  ACK,
  checkDatagram,
  type Frame,
  GOAWAY,
  MAX_DATAGRAM_HEADER,
  MAX_FIELDS_FRAME,
  MAX_STREAM_HEADER,
  MAX_TOKEN_FRAME,
  readDatagram,
  type Welcome,
  writeClose,
  writeDatagram,
  writeFields,
  writeToken,
} from './frames.js';
import { Heartbeat } from './heartbeat.js';
import {
  ACK_BYTES,
  ACK_DELAY_MS,
  DEFAULT_MAX_MESSAGE,
  MAX_REASON,
  QUIET_MS,
  STREAM_CHUNK,
  WINDOW,
} from './limits.js';
import { assembler, CHANNEL, encodeMessage, type Message } from './message.js';
import type { Counters, Gap, LinkTraits, MachineEvent } from './report.js';
import { decodeRequest } from './requests.js';
import { StreamReceiver, StreamSender } from './stream.js';
import { Streams } from './streams.js';
import { Writer } from './varint.js';

type Phase = 'detached' | 'opening' | 'open' | 'closing' | 'closed';

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
  #nativeStreams = false;
  #sender = new StreamSender(0, 0);
  #receiver = new StreamReceiver(WINDOW);
  #assembler = assembler(DEFAULT_MAX_MESSAGE);
  #streams = this.#newStreams();
  /** Messages of the old session that never left: they follow on the new one after what the application sends first. */
  #kept: Uint8Array[] = [];
  readonly #outgoing = new DatagramSlots();
  readonly #credit = new DatagramCredit();
  readonly #heartbeat: Heartbeat;
  readonly #messages: { message: Message; taken: () => void }[] = [];
  #firstMessage = 0;
  readonly #events: MachineEvent[] = [];
  /** Counts the links, those that had no WELCOME, too. */
  #links = 0;
  /** When ACKs that wait for company go alone. */
  #ackAt = Infinity;
  /** When the server wants this session to leave, and whether this side holds back, and has said that it is ready. */
  #leaveAt = Infinity;
  #isLeaving = false;
  #isReady = false;
  /** A token that the server is to authenticate the client with from now on. */
  #token: string | undefined;

  /** `quietMs`: how long it may be quiet after traffic before a PING asks whether the link still lives. */
  constructor(quietMs = QUIET_MS) {
    this.#heartbeat = new Heartbeat(quietMs);
  }

  // ---- the link ----

  /**
   * A link carries the session from now on, in the place of the one before, if there was one; its WELCOME is the
   * next frame. What still arrives on the one before is `handleLateFrame`'s until the first frame after WELCOME.
   */
  linkOpened(now: number, { nativeDatagram, nativeStreams }: LinkTraits): void {
    if (this.#phase === 'closing' || this.#phase === 'closed') {
      return;
    }
    this.#phase = 'opening';
    this.#links++;
    this.#nativeDatagram = nativeDatagram;
    this.#nativeStreams = nativeStreams;
    this.#heartbeat.linkOpened(now);
    this.#credit.linkOpened();
    this.#streams.linkOpened(nativeStreams);
    this.#isReady = false;
    this.#token = undefined; // the link's opening has carried the newest
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
    this.#heartbeat.heard(now);
    this.#watch(now);
  }

  /** Doubt about the link: a PING goes now, and unless anything is heard within `patienceMs`, the link is dead. */
  probe(now: number, patienceMs: number): void {
    this.#heartbeat.probe(now, patienceMs);
  }

  // ---- what arrives ----

  handleFrame(now: number, frame: Frame): void {
    this.heard(now, 0);
    if (frame.type !== 'pong') {
      this.#heartbeat.traffic(now, true);
    }
    this.#handle(now, frame, 'link');
    if (frame.type === 'ack' || frame.type === 'taken') {
      this.#heartbeat.reached(now, this.#sender.isAcknowledged && this.#streams.isAcknowledged);
    }
  }

  /** A frame came on the link that was the current one before: it counts until the new one's first after WELCOME. */
  handleLateFrame(now: number, frame: Frame): void {
    if (this.#phase === 'opening') {
      return; // there is no newer link yet
    }
    // What is about the other link alone says nothing here.
    if (!['welcome', 'ping', 'pong', 'taken', 'expires'].includes(frame.type)) {
      this.#handle(now, frame, undefined);
    }
  }

  /**
   * A frame came on a native stream, whose stream above 0 is `known`, if it is: that of the frames before it, or the
   * one that it was opened for. Returns the stream.
   */
  handleNativeFrame(now: number, known: number | undefined, frame: Frame): number | undefined {
    this.heard(now, 0);
    this.#heartbeat.traffic(now, true);
    if (frame.type === 'stream' || frame.type === 'end') {
      const { stream } = frame;
      // Only who opened a stream opens its native one.
      if (stream === known || (known === undefined && stream > 0 && stream % 2 === 0)) {
        this.#handle(now, frame, 'native');
        return stream;
      }
    }
    const why = `${frame.type} on a native stream`;
    this.handleViolation(now, protocolClose('PROTOCOL_VIOLATION', why));
    return known;
  }

  /** A native datagram arrived. */
  handleDatagram(now: number, bytes: Uint8Array): void {
    this.heard(now, bytes.length);
    this.#heartbeat.traffic(now, true);
    this.handleLateDatagram(now, bytes, this.#welcome?.marked === true);
  }

  /** A native datagram arrived on the link that was the current one before; `marked` as its WELCOME says. */
  handleLateDatagram(now: number, bytes: Uint8Array, marked: boolean): void {
    this.#guarded(now, () => {
      const frame = readDatagram(bytes, marked);
      if (frame) {
        this.#receiveDatagram(frame, 0);
      }
    });
  }

  /** What arrived could not be read, or is against the rules of its carrier: the session ends. */
  handleViolation(now: number, close: Close): void {
    this.#startClosing(now, close, false);
  }

  // ---- time ----

  /** When `handleTimeout` wants to be called; Infinity when there is nothing to wait for. */
  get timeout(): number {
    return this.#phase === 'open' ? Math.min(this.deadline, this.#heartbeat.doubtAt) : this.deadline;
  }

  /** The same without the client's doubts about its link: what every implementation waits for. */
  get deadline(): number {
    if (this.#phase === 'open') {
      return Math.min(this.#heartbeat.timeout, this.#ackAt, this.#isLeaving ? Infinity : this.#leaveAt);
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
      const silence = this.#heartbeat.silence(now);
      if (silence) {
        const reason = `silent for ${Math.round(silence)} ms`;
        this.#events.push({ type: 'silent', close: protocolClose('IDLE_TIMEOUT', reason) });
      }
      this.#heartbeat.handleTimeout(now);
      this.#watch(now);
      if (now >= this.#ackAt) {
        this.#ackAt = Infinity;
        this.#receiver.isDue = true;
      }
      this.#leaveInTime(now);
    }
  }

  // ---- what is sent ----

  /** The next packet of about `max` bytes at most, or `null` when there is nothing to send now. */
  packet(now: number, max: number): Uint8Array<ArrayBuffer> | null {
    const out = new Writer(256);
    if (this.#phase === 'open') {
      this.#heartbeat.write(now, out);
      const quiet = out.length;
      this.#writeGoaway(out);
      this.#writeToken(max, out);
      this.#credit.write(out);
      if (this.#welcome?.resumed && this.#receiver.isDue) {
        // On a further link: what the server may not know goes before what it may have.
        this.#writeAcknowledgements(max, out);
      }
      this.#streams.writeControl(max, out);
      this.#writeDatagrams(now, max, out);
      const before = out.length;
      this.#writeStreams(max, out);
      if (out.length > before) {
        this.#heartbeat.sent(now);
      }
      this.#writeAcknowledgements(max, out);
      if (out.length > quiet) {
        this.#heartbeat.traffic(now, false);
      }
    } else if (this.#phase === 'closing' && this.#close) {
      if (this.#flush) {
        this.#writeStreams(max, out);
      }
      // A CLOSE that does not fit any more has a packet of its own.
      const fits = !out.length || out.length + MAX_REASON + MAX_STREAM_HEADER <= max;
      if (fits && !(this.#flush && (this.#sender.unsent || this.#streams.isWaiting))) {
        writeClose(out, this.#close);
        this.linkLost();
      }
    }
    this.counters.bytesOut += out.length;
    return out.length ? out.finish() : null;
  }

  /** The next packet of about `max` bytes at most for the native stream of a stream above 0, or `null`. */
  nativePacket(now: number, id: number, max: number): Uint8Array<ArrayBuffer> | null {
    const out = new Writer(256);
    if (this.#phase === 'open' || (this.#phase === 'closing' && this.#flush)) {
      this.#streams.writeNative(id, max, out);
    }
    if (!out.length) {
      return null;
    }
    this.#heartbeat.traffic(now, false);
    this.#heartbeat.sent(now);
    this.counters.bytesOut += out.length;
    return out.finish();
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
    const event = this.#events.shift();
    if (event && 'link' in event && event.link === this.#links) {
      this.#credit.took();
    }
    return event;
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

  /** Takes a message of the protocol's own to send, as `encodeControl` made it. */
  sendControl(encoded: Uint8Array): void {
    this.#sender.push(encoded);
    this.counters.messagesOut++;
  }

  /** Takes a new token to send on this link, in the place of one that has not left. */
  sendToken(token: string): void {
    this.#token = token;
  }

  /** Takes a datagram to send: of those with the same key, the newest is sent. */
  sendDatagram(bytes: Uint8Array, key: DatagramKey | undefined): void {
    this.#credit.offered();
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

  /** The streams above 0 of this session: the application's side of them, and which of them wait for native streams. */
  get streams(): Streams {
    return this.#streams;
  }

  /** Whether the link may be dead. */
  get isSuspect(): boolean {
    return this.#heartbeat.isSuspect;
  }

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

  /** The messages of the protocol's own of which no byte was ever sent, as they were given. */
  get unsentControl(): Uint8Array[] {
    return this.#sender.neverSent().filter(isControl);
  }

  get bufferedBytes(): number {
    return this.#sender.buffered;
  }

  get maxMessage(): number {
    return this.#welcome?.maxMessage ?? DEFAULT_MAX_MESSAGE;
  }

  /** Smoothed, on this link, in milliseconds; 0 before its first PONG. */
  get rttMs(): number {
    return this.#heartbeat.rttMs;
  }

  /** Whether the server has answered a PING on this link: that it carries frames both ways. */
  get isProven(): boolean {
    return this.#heartbeat.isProven;
  }

  /** The server's clock in milliseconds since the Unix epoch; our own before the first WELCOME. */
  serverTime(now: number): number {
    return this.#heartbeat.serverTime(now);
  }

  // ---- inside ----

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

  #handle(now: number, frame: Frame, way: 'native' | 'link' | undefined): void {
    this.#guarded(now, () => {
      if (this.#phase === 'closing') {
        if (frame.type === 'ack' || frame.type === 'stop') {
          // The stream bytes before our CLOSE may be waiting for this credit, or in vain.
          this.#dispatch(now, frame, way);
        } else if (frame.type === 'close') {
          this.linkLost();
        }
      } else if (frame.type === 'close') {
        if (closeName(frame.close) !== 'OPEN_TIMEOUT') {
          this.#end(frame.close);
        } else if (way) {
          // Our first frames came too late for this link: that says nothing of the session.
          this.#events.push({ type: 'silent', close: frame.close });
        }
      } else if (this.#phase === 'open') {
        this.#dispatch(now, frame, way);
      } else if (this.#phase === 'opening') {
        this.#handleWelcome(now, frame);
      }
    });
  }

  #dispatch(now: number, frame: Frame, way: 'native' | 'link' | undefined): void {
    if ('stream' in frame && frame.stream > 0) {
      this.#planAck(now, this.#streams.handle(frame, way));
      return;
    }
    switch (frame.type) {
      case 'stream': {
        const receiver = this.#receiver;
        this.#assembler.push(receiver.accept(frame.offset, frame.data), (item) => {
          this.counters.messagesIn++;
          if ('message' in item) {
            const { message, cost } = item;
            receiver.queued(cost);
            this.#messages.push({ message, taken: () => receiver.queued(-cost) });
          } else if (item.kind === CHANNEL) {
            // Its credit is free at once, and that of a request.
            this.#events.push({ type: 'channel', message: decodeChannel(item.body) });
          } else {
            this.#events.push({ type: 'request', message: decodeRequest(item.body) });
          }
        });
        this.#planAck(now, receiver.news > 0);
        break;
      }
      case 'ack':
        this.#sender.acknowledge(frame.received, frame.limit);
        break;
      case 'datagram':
      case 'state':
        this.#receiveDatagram(frame, way ? this.#links : 0);
        break;
      case 'expires':
        this.#events.push({ type: 'expires', inMs: frame.inMs });
        break;
      case 'ping':
        this.#heartbeat.handlePing(frame.id);
        break;
      case 'pong':
        this.#heartbeat.handlePong(now, frame.id, frame.timeUs);
        this.#watch(now);
        break;
      case 'streams':
        this.#streams.allow(frame.limit);
        break;
      case 'taken':
        this.#credit.handleTaken(frame.count);
        break;
      case 'goaway':
        // The earliest counts.
        this.#leaveAt = Math.min(this.#leaveAt, now + frame.delayMs);
        this.#leaveInTime(now);
        break;
      default:
        throw new ProtocolError('PROTOCOL_VIOLATION', `${frame.type} not allowed here`);
    }
  }

  #handleWelcome(now: number, frame: Frame): void {
    if (frame.type !== 'welcome') {
      throw new ProtocolError('PROTOCOL_VIOLATION', 'no WELCOME');
    }
    const { welcome } = frame;
    const { version, session, resumed, received, limit, maxMessage, streams } = welcome;
    if (version !== 1) {
      throw new ProtocolError('UNSUPPORTED_VERSION', `version ${version}`);
    }
    const previousId = this.#welcome?.session;
    let gap: Gap | undefined;
    let unsent: Uint8Array[] = [];
    const goesOn = resumed && session === previousId;
    if (!goesOn) {
      const old = this.#sender;
      this.#kept = old.neverSent();
      this.#sender = new StreamSender(0, 0);
      this.#receiver = new StreamReceiver(WINDOW);
      this.#assembler = assembler(maxMessage);
      this.#leaveAt = Infinity;
      this.#isLeaving = false;
      if (previousId) {
        const keptBytes = this.#kept.reduce((sum, chunk) => sum + chunk.length, 0);
        gap = { previousId, unacknowledgedBytes: old.buffered - keptBytes };
        // Requests have numbers of the session: their owner asks anew.
        unsent = this.#kept.filter(isControl);
        this.#kept = this.#kept.filter((chunk) => !isControl(chunk));
        this.#streams = this.#newStreams();
        this.#streams.linkOpened(this.#nativeStreams);
      } else {
        this.releaseKept();
      }
    }
    this.#sender.acknowledge(received, limit);
    this.#sender.restart();
    this.#streams.allow(streams);
    // The last ACK may be lost with the old link, and the server know of less credit than was granted.
    this.#receiver.isDue = goesOn;
    this.#welcome = welcome;
    this.#resumable = true;
    this.#heartbeat.opened(now, welcome, !goesOn);
    this.#phase = 'open';
    this.#events.push({ type: 'opened', gap, unsent });
    this.#leaveInTime(now);
  }

  #newStreams(): Streams {
    return new Streams((id) => this.#events.push({ type: 'stream', id }));
  }

  #receiveDatagram({ type, data }: { type: 'datagram' | 'state'; data: Uint8Array }, link: number): void {
    checkDatagram(data);
    if (this.#phase === 'open') {
      this.counters.datagramsIn++;
      this.#events.push(
        type === 'state' ? { type, value: decodeState(data), link } : { type, bytes: data.slice(), link },
      );
    }
  }

  /** Tells the owner when its link has become suspect, or is trusted again. */
  #watch(now: number): void {
    if (this.#phase === 'open' && this.#heartbeat.doubts(now)) {
      this.#events.push({ type: this.isSuspect ? 'suspect' : 'trusted' });
    }
  }

  /** When the server's time for it has come, what was not begun is held back for the next session. */
  #leaveInTime(now: number): void {
    if (now >= this.#leaveAt && !this.#isLeaving) {
      this.#isLeaving = true;
      this.#sender.hold(true);
    }
  }

  #receivers(each: (id: number, receiver: StreamReceiver) => void): void {
    each(0, this.#receiver);
    this.#streams.receivers(each);
  }

  /** An ACK waits a little for company. */
  #planAck(now: number, hasNews: boolean): void {
    if (hasNews) {
      this.#ackAt = Math.min(this.#ackAt, now + ACK_DELAY_MS);
    }
  }

  #writeGoaway(out: Writer): void {
    if (this.#isLeaving && !this.#isReady && this.#sender.isAcknowledged && this.#streams.isAcknowledged) {
      this.#isReady = true;
      writeFields(out, GOAWAY, 0);
    }
  }

  #writeToken(max: number, out: Writer): void {
    if (this.#token && (!out.length || out.length + MAX_TOKEN_FRAME <= max)) {
      writeToken(out, this.#token);
      this.#token = undefined;
    }
  }

  #writeDatagrams(now: number, max: number, out: Writer): void {
    for (let front = this.#outgoing.front(); front; front = this.#outgoing.front()) {
      const fits = !out.length || out.length + front.length + MAX_DATAGRAM_HEADER + MAX_FIELDS_FRAME <= max;
      if (!fits || this.hasNativeDatagram || !this.#credit.allows(now, this.#heartbeat.minRttMs)) {
        break;
      }
      writeDatagram(out, this.#outgoing.pop());
      this.#credit.sent();
      this.counters.datagramsOut++;
    }
  }

  /** The message stream first, then the others in turns. */
  #writeStreams(max: number, out: Writer): void {
    let wrote = true;
    while (wrote) {
      const room = max - out.length - MAX_STREAM_HEADER - MAX_FIELDS_FRAME;
      wrote = this.#sender.write(out, Math.min(STREAM_CHUNK, out.length ? room : Math.max(room, 1)));
    }
    this.#streams.writeData(max, out);
  }

  /** Writes the ACKs that are due, and in company, or when that of stream 0 is due, everything that is new. */
  #writeAcknowledgements(max: number, out: Writer): void {
    const all = this.#receiver.isDue || out.length > 0;
    let left = false;
    this.#receivers((id, receiver) => {
      const isUrgent = receiver.isUrgent || (!id && receiver.news >= ACK_BYTES);
      const wanted = receiver.isDue || isUrgent || (all && receiver.news > 0);
      if (wanted && (!out.length || out.length + MAX_FIELDS_FRAME <= max)) {
        writeFields(out, ACK, id, ...receiver.say());
      } else {
        receiver.isDue = wanted; // what has no room goes with the next packet
      }
      left ||= receiver.news > 0;
    });
    if (!left) {
      this.#ackAt = Infinity;
    }
  }

  #startClosing(now: number, close: Close, flush: boolean): void {
    if (this.#phase === 'open' || this.#phase === 'opening') {
      this.#outgoing.clear();
      this.#sender.hold(false);
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

/** Whether a message is the protocol's own, by its first byte. */
function isControl([kind = 0]: Uint8Array): boolean {
  return kind >= CHANNEL;
}
