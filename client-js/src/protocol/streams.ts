// The streams above 0 of one session (SPEC section 4.2): which there are, what they hold, and what is due for each.

import { ProtocolError } from './close.js';
import {
  ACK,
  DONE,
  type Frame,
  MAX_FIELDS_FRAME,
  MAX_STREAM_HEADER,
  STREAMS,
  writeFields,
} from './frames.js';
import { ReceivingHalf, SendingHalf, StreamError, type StreamRead } from './half.js';
import { MAX_STREAM_WINDOW, SERVER_STREAMS, STREAM_CHUNK, STREAM_CREDIT, STREAMS_POOL } from './limits.js';
import type { StreamReceiver } from './stream.js';
import type { Writer } from './varint.js';

/**
 * How STREAM and END of one direction travel on the current link: `open` until it is known. Who opened the stream
 * says so by its first STREAM, and the other side follows.
 */
type Way = 'open' | 'native' | 'link';

interface Stream {
  readonly sending: SendingHalf;
  readonly receiving: ReceivingHalf;
  sendWay: Way;
  receiveWay: Way;
  /** We opened it, and have not said so on this link. */
  announce: boolean;
}

/** The table of streams. The client's ids are odd. */
export class Streams {
  readonly #accepted: (id: number) => void;
  readonly #table = new Map<number, Stream>();
  /** Whether the current link has native streams. */
  #native = false;
  /** Streams that this side has opened, and may open, in all. */
  #opened = 0;
  #mayOpen = 0;
  /** Streams that the server has opened, and may open, in all. */
  #acceptedCount = 0;
  #granted = SERVER_STREAMS;
  #isGrantDue = false;
  /** Streams with RESET, STOP or a done to say; a done also of those that are over. */
  readonly #control = new Set<number>();
  readonly #touched = new Set<number>();
  /** The stream that was written last. */
  #turn = 0;

  /** `accepted` is told of the streams that the server opens. */
  constructor(accepted: (id: number) => void) {
    this.#accepted = accepted;
  }

  // ---- the application ----

  /** Opens a stream; `null` when the server allows no more now: `touched` has a 0 when it may go on. */
  open(): number | null {
    if (this.#opened >= this.#mayOpen) {
      return null;
    }
    const id = 2 * this.#opened++ + 1;
    this.#create(id, true);
    return id;
  }

  /**
   * Copies as much of `bytes` as there is room for, and says how much that was; when it was not all, wait until the
   * stream is touched. With no bytes it only looks whether the stream may be written. Throws StreamError.
   */
  write(id: number, bytes: Uint8Array): number {
    const { sender } = this.#writable(id);
    const { buffered } = sender;
    const pool = STREAMS_POOL - this.#beyondOwn(({ sending }) => sending.sender.buffered);
    const room = Math.min(MAX_STREAM_WINDOW, pool + Math.max(buffered, STREAM_CREDIT)) - buffered;
    const taken = bytes.slice(0, room);
    if (taken.length) {
      sender.push(taken);
    }
    return taken.length;
  }

  /** Ends our half: END follows the last byte. Throws StreamError. */
  finish(id: number): void {
    this.#writable(id).finish();
  }

  /** Gives our half up, unless it is finished. */
  reset(id: number, code: number): void {
    this.#table.get(id)?.sending.reset(code);
    this.#note(id);
  }

  /** Everything that has arrived and was not read. Throws StreamError. */
  read(id: number): StreamRead {
    const receiving = this.#table.get(id)?.receiving;
    if (!receiving) {
      throw new StreamError('ended');
    }
    try {
      return receiving.read();
    } finally {
      this.#widen(receiving.receiver);
      this.#forgetIfOver(id);
    }
  }

  /** Reads no more: what was not read is dropped, and what still arrives. */
  stop(id: number, code: number): void {
    this.#table.get(id)?.receiving.stop(code);
    this.#note(id);
    this.#forgetIfOver(id);
  }

  /** Nobody holds the stream any more: what is not over is given up, and how it ended is of no interest. */
  release(id: number): void {
    this.reset(id, 0);
    this.#table.get(id)?.sending.told();
    this.stop(id, 0);
  }

  /** Streams whose readers and writers should look again; 0 stands for who waits to open one. */
  touched(): number[] {
    const touched = [...this.#touched];
    this.#touched.clear();
    return touched;
  }

  // ---- the link ----

  /** Another link: everything that a lost one may have swallowed is due again. */
  linkOpened(native: boolean): void {
    this.#native = native;
    for (const [id, stream] of this.#table) {
      stream.receiveWay = this.#firstWay;
      // Who opened it may have forgotten it when our half has ended: it would never be announced again.
      stream.sendWay = isOurs(id) || !stream.sending.isEnding ? stream.receiveWay : 'link';
      stream.announce = isOurs(id);
      stream.sending.linkOpened();
      stream.receiving.linkOpened();
      this.#control.add(id);
    }
    // Who has never opened a stream has nothing to hear of them.
    this.#isGrantDue = this.#acceptedCount > 0;
  }

  /** A stream of ours that has no way on this link yet: wants a native stream, and then `route`. */
  unrouted(): number | undefined {
    for (const [id, { sendWay }] of this.#table) {
      if (sendWay === 'open' && isOurs(id)) {
        return id;
      }
    }
    return undefined;
  }

  /** Says whether a stream of ours has a native stream on this link, or goes over the link stream. */
  route(id: number, native: boolean): void {
    const stream = this.#table.get(id);
    if (stream) {
      stream.sendWay = native ? 'native' : 'link';
    }
  }

  /** Whether it is not over yet, or the application does not know how it ended. */
  has(id: number): boolean {
    return this.#table.has(id);
  }

  /** Whether bytes, or END, may still have to be written to its native stream. */
  goesOn(id: number): boolean {
    return this.#table.get(id)?.sending.goesOn ?? false;
  }

  /** Whether our half was given up: its native stream may be, too. */
  isReset(id: number): boolean {
    return this.#table.get(id)?.sending.isReset ?? false;
  }

  // ---- what arrives ----

  /**
   * A frame that names a stream above 0, and by which way it came: `undefined` when it came on an older link.
   * Returns whether there is something to acknowledge. Throws ProtocolError.
   */
  handle(frame: Frame & { readonly stream: number }, way: 'native' | 'link' | undefined): boolean {
    const id = frame.stream;
    const stream = this.#named(id);
    if (stream && way && (frame.type === 'stream' || frame.type === 'end')) {
      if (stream.receiveWay === 'open') {
        stream.receiveWay = way;
      } else if (stream.receiveWay !== way) {
        throw new ProtocolError('PROTOCOL_VIOLATION', `stream ${id} changes its way`);
      }
      if (stream.sendWay === 'open' && !isOurs(id)) {
        stream.sendWay = way;
      }
    }
    switch (frame.type) {
      case 'stream':
        stream?.receiving.data(frame.offset, frame.data);
        break;
      case 'end':
        stream?.receiving.end(frame.size);
        this.#control.add(id);
        break;
      case 'reset':
        stream?.receiving.reset(frame.code);
        this.#control.add(id);
        break;
      case 'stop':
        stream?.sending.stop(frame.code);
        this.#note(id);
        break;
      case 'ack':
        if (frame.received === DONE) {
          stream?.sending.done();
        } else {
          stream?.sending.sender.acknowledge(frame.received, frame.limit);
        }
        // Room that one leaves in the pool is another one's.
        for (const other of this.#table.keys()) {
          this.#touched.add(other);
        }
        this.#forgetIfOver(id);
    }
    if (stream) {
      this.#touched.add(id);
    }
    return (stream?.receiving.receiver.news ?? 0) > 0;
  }

  /** STREAMS, or WELCOME: how many may be opened in all. */
  allow(limit: number): void {
    if (limit > this.#mayOpen) {
      this.#mayOpen = limit;
      this.#touched.add(0);
    }
  }

  // ---- what is sent ----

  /** Whether everything has been acknowledged. */
  get isAcknowledged(): boolean {
    return [...this.#table.values()].every(({ sending }) => sending.sender.isAcknowledged);
  }

  /** Whether bytes, or END, wait to be sent. */
  get isWaiting(): boolean {
    return [...this.#table.values()].some(({ sending }) => sending.isWaiting);
  }

  /** Calls `each` with the receivers that the server wants to hear of. */
  receivers(each: (id: number, receiver: StreamReceiver) => void): void {
    for (const id of this.#ids()) {
      const receiving = this.#table.get(id)?.receiving;
      if (receiving?.wantsAck) {
        each(id, receiving.receiver);
      }
    }
  }

  /** Writes STREAMS, RESET, STOP and done; what has no room stays due. */
  writeControl(max: number, out: Writer): void {
    if (this.#isGrantDue) {
      this.#isGrantDue = false;
      writeFields(out, STREAMS, this.#granted);
    }
    for (const id of [...this.#control].sort((a, b) => a - b)) {
      if (out.length && out.length + 2 * MAX_FIELDS_FRAME > max) {
        return;
      }
      this.#control.delete(id);
      const stream = this.#table.get(id);
      stream?.sending.writeReset(out);
      if (!stream || stream.receiving.isDoneDue) {
        writeFields(out, ACK, id, DONE, 0);
      }
      if (stream) {
        stream.receiving.isDoneDue = false;
        stream.receiving.writeStop(out);
      }
      this.#forgetIfOver(id);
    }
  }

  /** Writes STREAM and END of the streams that go over the link stream, in turns. */
  writeData(max: number, out: Writer): void {
    for (let wrote = this.#table.size > 0; wrote; ) {
      wrote = false;
      const turn = this.#turn;
      for (const id of this.#ids().sort((a, b) => Number(a <= turn) - Number(b <= turn))) {
        const stream = this.#table.get(id);
        if (stream?.sendWay === 'link' && writeOne(stream, max, out)) {
          wrote = true;
          this.#turn = id;
        }
      }
    }
  }

  /** Writes STREAM and END of one stream, for its native one. */
  writeNative(id: number, max: number, out: Writer): void {
    const stream = this.#table.get(id);
    for (let more = stream?.sendWay === 'native'; stream && more; ) {
      more = writeOne(stream, max, out);
    }
  }

  // ---- inside ----

  get #firstWay(): Way {
    return this.#native ? 'open' : 'link';
  }

  /** It has something to say, unless it is over. */
  #note(id: number): void {
    if (this.#table.has(id)) {
      this.#control.add(id);
    }
  }

  #ids(): number[] {
    return [...this.#table.keys()].sort((a, b) => a - b);
  }

  #create(id: number, announce: boolean): void {
    this.#table.set(id, {
      sending: new SendingHalf(id),
      receiving: new ReceivingHalf(id),
      sendWay: this.#firstWay,
      receiveWay: this.#firstWay,
      announce,
    });
  }

  #writable(id: number): SendingHalf {
    const sending = this.#table.get(id)?.sending;
    if (!sending) {
      throw new StreamError('ended');
    }
    sending.check();
    return sending;
  }

  /** The stream that a frame names; `undefined` when it is over. Opens what the server opens. Throws ProtocolError. */
  #named(id: number): Stream | undefined {
    const index = Math.ceil(id / 2);
    if (id === 0 || (isOurs(id) && index > this.#opened)) {
      throw new ProtocolError('PROTOCOL_VIOLATION', `no stream ${id}`);
    }
    if (!isOurs(id) && index > this.#granted) {
      throw new ProtocolError('STREAM_LIMIT', `stream ${id}, when ${this.#granted} may be opened`);
    }
    while (!isOurs(id) && index > this.#acceptedCount) {
      const opened = 2 * ++this.#acceptedCount;
      this.#create(opened, false);
      this.#accepted(opened);
    }
    return this.#table.get(id);
  }

  /** An application that keeps up gets a larger window, while the session's pool allows. */
  #widen(receiver: StreamReceiver): void {
    if (receiver.keepsUp) {
      const { reach } = receiver;
      const pool = STREAMS_POOL - this.#beyondOwn(({ receiving }) => receiving.receiver.reach);
      receiver.widen(Math.min(reach, MAX_STREAM_WINDOW - reach, pool));
    }
  }

  /** What all streams have beyond the credit of their own: it is the pool's. Never more than that. */
  #beyondOwn(bytes: (stream: Stream) => number): number {
    return [...this.#table.values()].reduce((sum, one) => sum + Math.max(0, bytes(one) - STREAM_CREDIT), 0);
  }

  #forgetIfOver(id: number): void {
    const stream = this.#table.get(id);
    if (stream?.sending.isOver && stream.receiving.isOver) {
      this.#table.delete(id);
      this.#control.delete(id);
      if (!isOurs(id)) {
        this.#granted++;
        this.#isGrantDue = true;
      }
    }
  }
}

/** Writes one STREAM frame, or END; false when there is nothing to send, or no room. */
function writeOne(stream: Stream, max: number, out: Writer): boolean {
  const { sending } = stream;
  const room = max - out.length - MAX_STREAM_HEADER - MAX_FIELDS_FRAME;
  if (room <= 0 && out.length) {
    return false;
  }
  const wrote = sending.sender.write(out, Math.min(STREAM_CHUNK, Math.max(room, 1)));
  if (!wrote && stream.announce) {
    sending.sender.announce(out);
  } else if (!wrote && !sending.writeEnd(out)) {
    return false;
  }
  stream.announce = false;
  return true;
}

function isOurs(id: number): boolean {
  return id % 2 === 1;
}
