// A server for tests, in simulated time: sessions that outlive their links, over links with a latency each way
// that can be blocked, cut, and turned into black holes. It echoes streams, keeps the messages that come, and has
// channels, and asks and answers requests.

import type { Environment } from '../src/environment.js';
import type { ConnectOptions } from '../src/options.js';
import type { ChannelMessage, Value } from '../src/protocol/channels.js';
import { protocolClose } from '../src/protocol/close.js';
import { decodePacket } from '../src/protocol/codec.js';
import {
  ACK,
  DONE,
  EXPIRES,
  type Frame,
  PONG,
  STREAMS,
  TAKEN,
  type Welcome,
  writeClose,
  writeDatagram,
  writeFields,
  writeState,
} from '../src/protocol/frames.js';
import { ReceivingHalf, SendingHalf, StreamError } from '../src/protocol/half.js';
import { STREAM_CHUNK, WINDOW } from '../src/protocol/limits.js';
import { assembler, CHANNEL, encodeMessage, type Message } from '../src/protocol/message.js';
import { decodeRequest, type RequestMessage } from '../src/protocol/requests.js';
import { StreamReceiver, StreamSender } from '../src/protocol/stream.js';
import { Writer } from '../src/protocol/varint.js';
import { Session } from '../src/session.js';
import {
  type Link,
  type LinkHandlers,
  type Loss,
  type NativeStream,
  type NativeStreamHandlers,
  TRANSPORTS,
  type Transport,
  type TransportKind,
} from '../src/transport/link.js';
import type { Opening } from '../src/transport/opening.js';
import { encodeChannelMessage, encodeState, Hub, type Subscriber } from './hub.js';
import { encodeRequestMessage } from './requests.js';
import type { World } from './world.js';

/** How one transport is doing. */
export interface Condition {
  /** One way, in milliseconds. */
  latencyMs: number;
  /** New openings: `hang` says nothing, a Loss is what they get. */
  opening: 'works' | 'hang' | Loss;
  /** Links that are opened now open, and pass nothing after WELCOME. */
  hollow: boolean;
}

export class Server {
  readonly sessions = new Map<string, ServerSession>();
  readonly conditions: Record<Transport, Condition>;
  readonly links: ServerLink[] = [];
  readonly kinds: TransportKind[];
  readonly hub: Hub;
  /** Whether it reads, and echoes, what comes on streams. */
  reads = true;
  /** Whether links over webtransport give native streams. */
  givesStreams = true;
  /** How long a value that goes as a datagram takes beyond the link's own time, in milliseconds; `null`: it is lost. */
  wanders: () => number | null = () => 0;
  /** What it does about requests, and about tokens. */
  asked: (session: ServerSession, message: RequestMessage) => void = () => {};
  presented: (session: ServerSession, token: string) => void = () => {};
  /** What WELCOME says. */
  welcome: Partial<Welcome> = {};

  constructor(readonly world: World) {
    this.hub = new Hub(world);
    const condition = (): Condition => ({ latencyMs: 10, opening: 'works', hollow: false });
    this.conditions = {
      webtransport: condition(),
      websocket: condition(),
      sse: condition(),
      poll: condition(),
    };
    this.kinds = TRANSPORTS.map((name) => ({
      name,
      missing: () => null,
      open: (_env: Environment, opening: Opening, handlers: LinkHandlers) => {
        const link = new ServerLink(this, name, opening, handlers);
        this.links.push(link);
        return link;
      },
    }));
  }

  connect(options: ConnectOptions = {}): Session {
    return new Session('/rt', options, this.world, this.kinds);
  }

  /** Nothing but `transports` can be opened. */
  only(...transports: Transport[]): void {
    for (const name of TRANSPORTS) {
      this.conditions[name].opening = transports.includes(name) ? 'works' : { reason: 'blocked' };
    }
  }

  /** The session that there is. */
  get session(): ServerSession {
    const session = [...this.sessions.values()].at(-1);
    if (!session) {
      throw new Error('no session');
    }
    return session;
  }

  /** The transports of all links that were opened, in order. */
  get opened(): Transport[] {
    return this.links.map(({ transport }) => transport);
  }
}

/** One link, both ends of it. */
export class ServerLink implements Link {
  aborted = false;
  /** Nothing passes any more, and nobody is told. */
  hole = false;
  session: ServerSession | undefined;
  number = 0;
  readonly streams?: { open(handlers: NativeStreamHandlers): Promise<NativeStream> };
  /** Frames that arrived from the client, and how many of them on native streams. */
  readonly received: Frame[] = [];
  natively = 0;
  /** Lengths of the packets that the client sent. */
  readonly sizes: number[] = [];

  constructor(
    readonly server: Server,
    readonly transport: Transport,
    readonly opening: Opening,
    readonly handlers: LinkHandlers,
  ) {
    if (transport === 'webtransport') {
      this.streams = {
        open: (native) =>
          server.givesStreams ? Promise.resolve(this.#native(native)) : new Promise(() => {}),
      };
    }
    const condition = this.#condition;
    if (condition.opening === 'works') {
      this.travel(() => this.travel(() => this.travel(() => this.#opened())));
    } else if (condition.opening !== 'hang') {
      const loss = condition.opening;
      server.world.timer(condition.latencyMs, () => this.aborted || handlers.lost(loss));
    }
  }

  get #condition(): Condition {
    return this.server.conditions[this.transport];
  }

  /** Happens at the other end, unless the link has become a black hole meanwhile. */
  travel(arrive: () => void): void {
    if (!this.hole) {
      this.server.world.timer(this.#condition.latencyMs, () => this.hole || arrive());
    }
  }

  #opened(): void {
    const { server, opening } = this;
    const known = server.sessions.get(opening.resumption?.session ?? '');
    const session = known ?? new ServerSession(server);
    server.sessions.set(session.id, session);
    this.session = session;
    this.number = ++session.links;
    const welcome: Welcome = {
      version: 1,
      session: session.id,
      key: 'key',
      resumed: known !== undefined,
      marked: false,
      link: this.number,
      timeUs: server.world.now() * 1000,
      heartbeatMs: 10_000,
      idleMs: 30_000,
      maxMessage: 4_194_304,
      received: session.receiver.received,
      limit: session.receiver.received + WINDOW,
      streams: 100,
      windowMs: 120_000,
      expiresMs: 0,
      ...server.welcome,
    };
    this.#down(() => {
      this.hole ||= this.#condition.hollow;
      this.handlers.frame({ type: 'welcome', welcome });
    });
  }

  #down(work: () => void): void {
    this.travel(() => {
      if (!this.aborted) {
        this.handlers.heard(10);
        work();
      }
    });
  }

  /** The server sends a packet. */
  say(out: Writer, native?: NativeStreamHandlers): void {
    const packet = out.finish();
    if (packet.length > 0) {
      this.#down(() => decodePacket(packet, (frame) => (native ?? this.handlers).frame(frame)));
    }
  }

  /** The server closes it. */
  end(loss: Loss): void {
    this.travel(() => this.aborted || this.handlers.lost(loss));
  }

  #native(handlers: NativeStreamHandlers): NativeStream {
    return {
      room: () => 65_536,
      send: (packet) => this.#up(packet, handlers),
      finish: () => {},
    };
  }

  #up(packet: Uint8Array, native?: NativeStreamHandlers): void {
    const frames: Frame[] = [];
    this.sizes.push(packet.length);
    decodePacket(packet, (frame) =>
      frames.push('data' in frame ? { ...frame, data: frame.data.slice() } : frame),
    );
    this.travel(() => {
      this.received.push(...frames);
      this.natively += native ? frames.length : 0;
      for (const frame of frames) {
        this.session?.receive(this, frame, native);
      }
    });
  }

  room(): number {
    return 65_536;
  }

  send(packet: Uint8Array<ArrayBuffer>): void {
    this.#up(packet);
  }

  close(): Promise<void> {
    this.abort();
    return Promise.resolve();
  }

  leave(packet: Uint8Array<ArrayBuffer>): void {
    this.send(packet);
  }

  abort(): void {
    this.aborted = true;
    this.travel(() => this.session?.lost(this));
  }
}

interface ServerStream {
  readonly sending: SendingHalf;
  readonly receiving: ReceivingHalf;
  /** Which native stream carries it on the current link; `null`: the link stream does. */
  native: NativeStreamHandlers | null;
}

let sessions = 0;

/** The server's side of one session. */
export class ServerSession implements Subscriber {
  readonly id = `server-${++sessions}`;
  links = 0;
  current: ServerLink | undefined;
  /** Messages in the order in which they came. */
  readonly messages: Message[] = [];
  /** What came about requests, in order. */
  readonly requests: RequestMessage[] = [];
  /** Tokens that came, beside those of openings. */
  readonly tokens: string[] = [];
  readonly receiver = new StreamReceiver(WINDOW);
  readonly #assembler = assembler(4_194_304);
  readonly #sender = new StreamSender(0, WINDOW);
  readonly #streams = new Map<number, ServerStream>();
  #ping = 0;
  #taken = 0;
  /** Codes of RESET and STOP that came, by stream. */
  readonly codes: [type: string, stream: number, code: number][] = [];

  constructor(readonly server: Server) {}

  send(text: string): void {
    this.#sender.push(encodeMessage(true, new TextEncoder().encode(text)));
    this.#work();
  }

  sayChannel(message: ChannelMessage): void {
    this.#sender.push(encodeChannelMessage(message));
    this.#work();
  }

  sayState(value: Value): void {
    const link = this.current;
    const late = this.server.wanders();
    if (late !== null) {
      this.server.world.timer(late, () => {
        const out = new Writer();
        writeState(out, encodeState(value));
        link?.say(out);
      });
    }
  }

  sayRequest(message: RequestMessage): void {
    this.#sender.push(encodeRequestMessage(message));
    this.#work();
  }

  /** What the client has authenticated with is good for so long. */
  sayExpires(inMs: number): void {
    const out = new Writer();
    writeFields(out, EXPIRES, inMs);
    this.current?.say(out);
  }

  sendDatagram(bytes: Uint8Array): void {
    const out = new Writer();
    writeDatagram(out, bytes);
    this.current?.say(out);
  }

  /** Ends the session. */
  close(name: Parameters<typeof protocolClose>[0]): void {
    const out = new Writer();
    writeClose(out, protocolClose(name, ''));
    this.current?.say(out);
    this.forget();
  }

  /** The server knows nothing of it any more. */
  forget(): void {
    this.server.sessions.delete(this.id);
    this.server.hub.left(this);
  }

  lost(link: ServerLink): void {
    if (link === this.current) {
      this.current = undefined;
    }
  }

  receive(link: ServerLink, frame: Frame, native?: NativeStreamHandlers): void {
    if (link !== this.current) {
      if (frame.type !== 'ping' || link.number < (this.current?.number ?? 0)) {
        return; // of a link that was replaced, or never chosen
      }
      if (frame.id <= this.#ping) {
        throw new Error(`PING ${frame.id} after ${this.#ping}`);
      }
      this.current?.end({ reason: 'closed with 4021', close: protocolClose('LINK_REPLACED', '') });
      this.current = link;
      this.#taken = 0;
      this.#sender.restart();
      this.receiver.isDue = true;
      for (const stream of this.#streams.values()) {
        stream.sending.linkOpened();
        stream.receiving.linkOpened();
        stream.native = null;
      }
    }
    this.#handle(frame, native);
    this.#work();
  }

  #handle(frame: Frame, native?: NativeStreamHandlers): void {
    const out = new Writer();
    switch (frame.type) {
      case 'ping':
        this.#ping = frame.id;
        writeFields(out, PONG, frame.id, this.server.world.now() * 1000);
        this.current?.say(out);
        break;
      case 'datagram':
        writeFields(out, TAKEN, ++this.#taken);
        this.current?.say(out);
        break;
      case 'stream':
        if (frame.stream > 0) {
          const stream = this.#stream(frame.stream);
          stream.native = native ?? null;
          stream.receiving.data(frame.offset, frame.data);
        } else {
          this.#assembler.push(this.receiver.accept(frame.offset, frame.data), (item) => {
            if ('message' in item) {
              this.messages.push(item.message);
            } else if (item.kind === CHANNEL) {
              this.server.hub.ask(this, item.body);
            } else {
              const request = decodeRequest(item.body);
              this.requests.push(request);
              this.server.asked(this, request);
            }
          });
        }
        break;
      case 'token':
        this.tokens.push(frame.token);
        this.server.presented(this, frame.token);
        break;
      case 'ack':
        if (frame.stream === 0) {
          this.#sender.acknowledge(frame.received, frame.limit);
        } else if (frame.received === DONE) {
          this.#stream(frame.stream).sending.done();
        } else {
          this.#stream(frame.stream).sending.sender.acknowledge(frame.received, frame.limit);
        }
        break;
      case 'end':
        this.#stream(frame.stream).receiving.end(frame.size);
        break;
      case 'reset':
        this.codes.push(['reset', frame.stream, frame.code]);
        this.#stream(frame.stream).receiving.reset(frame.code);
        break;
      case 'stop':
        this.codes.push(['stop', frame.stream, frame.code]);
        this.#stream(frame.stream).sending.stop(frame.code);
    }
  }

  #stream(id: number): ServerStream {
    const stream = this.#streams.get(id) ?? {
      sending: new SendingHalf(id),
      receiving: new ReceivingHalf(id),
      native: null,
    };
    this.#streams.set(id, stream);
    return stream;
  }

  /** Opens a stream, with these bytes on it. */
  openStream(id: number, text: string): void {
    const { sending } = this.#stream(id);
    sending.sender.push(new TextEncoder().encode(text));
    this.#work();
  }

  /** The client may have `limit` streams in all. */
  allow(limit: number): void {
    const out = new Writer();
    writeFields(out, STREAMS, limit);
    this.current?.say(out);
  }

  /** Bytes of a stream that the client has not acknowledged. */
  unread(id: number): number {
    return this.#stream(id).sending.sender.buffered - this.#stream(id).sending.sender.unsent;
  }

  /** Gives up what it writes on a stream, and reads no more. */
  refuse(id: number, code: number): void {
    const { sending, receiving } = this.#stream(id);
    sending.reset(code);
    receiving.stop(code);
    this.#work();
  }

  /** Says everything that there is to say. */
  #work(): void {
    const link = this.current;
    if (!link) {
      return;
    }
    const out = new Writer();
    if (isNews(this.receiver)) {
      writeFields(out, ACK, 0, ...this.receiver.say());
    }
    while (this.#sender.write(out, STREAM_CHUNK)) {
      // until there is no credit, or nothing left
    }
    link.say(out);
    for (const [id, stream] of this.#streams) {
      this.#workOn(link, id, stream);
    }
  }

  #workOn(link: ServerLink, id: number, { sending, receiving, native }: ServerStream): void {
    try {
      // The echo.
      for (
        let got = this.server.reads ? receiving.read() : 'nothing';
        got !== 'nothing';
        got = receiving.read()
      ) {
        if (got === 'end') {
          sending.finish();
          break;
        }
        sending.sender.push(got);
      }
    } catch (error) {
      if (!(error instanceof StreamError)) {
        throw error;
      }
    }
    const control = new Writer();
    if (receiving.isDoneDue) {
      receiving.isDoneDue = false;
      writeFields(control, ACK, id, DONE, 0);
    } else if (receiving.wantsAck && isNews(receiving.receiver)) {
      writeFields(control, ACK, id, ...receiving.receiver.say());
    }
    sending.writeReset(control);
    receiving.writeStop(control);
    link.say(control);
    const data = new Writer();
    while (sending.sender.write(data, STREAM_CHUNK)) {
      // until there is no credit, or nothing left
    }
    sending.writeEnd(data);
    link.say(data, native ?? undefined);
  }
}

/** Whether an ACK says anything new. */
function isNews({ news, isDue, isUrgent }: StreamReceiver): boolean {
  return news > 0 || isDue || isUrgent;
}
