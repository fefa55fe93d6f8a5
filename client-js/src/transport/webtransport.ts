// A link over WebTransport: frames on one stream that the server opens, datagrams native (SPEC section 7.1).

import type { Environment } from '../environment.js';
import { messageOf } from '../errors.js';
import { CLOSE_MS, INCOMING_DATAGRAM_AGE_MS, INCOMING_DATAGRAMS, LINK_BUFFER_BYTES } from '../limits.js';
import { fromBase64 } from '../protocol/base64.js';
import { type Close, protocolClose } from '../protocol/close.js';
import { frameDecoder } from '../protocol/codec.js';
import { carrierCode, closeOfCarrier } from './carrier.js';
import { forget, locate } from './info.js';
import type {
  Link,
  LinkDatagrams,
  LinkHandlers,
  LinkStreams,
  Loss,
  NativeStream,
  NativeStreamHandlers,
  TransportKind,
} from './link.js';
import { type Opening, openingUrl, type WebTransportEndpoint } from './opening.js';
import { guarded } from './packets.js';

export const webtransport: TransportKind = {
  name: 'webtransport',
  missing: (env) => (env.WebTransport ? null : 'not in this browser'),
  open: (env, opening, handlers) => new WebTransportLink(env, opening, handlers),
};

type Bytes = Uint8Array<ArrayBuffer>;

/** The frames of one bidirectional stream, with no boundaries between packets: the link stream, or one of the session's. */
class Pipe implements NativeStream {
  readonly #writer: WritableStreamDefaultWriter<Bytes>;
  readonly #reader: ReadableStreamDefaultReader<Bytes>;
  readonly #link: LinkHandlers;
  /** Bytes that the stream was given and has not taken yet. */
  #pending = 0;
  #over = false;

  constructor({ writable, readable }: WebTransportBidirectionalStream, link: LinkHandlers) {
    this.#writer = writable.getWriter();
    this.#reader = readable.getReader();
    this.#link = link;
  }

  room(): number {
    const room = LINK_BUFFER_BYTES - this.#pending;
    return room >= LINK_BUFFER_BYTES / 4 && !this.#over ? room : 0;
  }

  send(packet: Bytes): void {
    this.#pending += packet.length;
    this.#writer.write(packet).then(() => {
      this.#pending -= packet.length;
      if (!this.#over) {
        this.#link.writable();
      }
    }, ignore); // the end of the session says why
  }

  finish(abandon = false): void {
    this.#over = true;
    (abandon ? this.#writer.abort() : this.#writer.close()).catch(ignore);
  }

  abort(): void {
    this.#over = true;
    this.#writer.abort().catch(ignore);
    this.#reader.cancel().catch(ignore);
  }

  /** Hands on what comes, to its end. */
  async read(handlers: NativeStreamHandlers): Promise<void> {
    const decoder = frameDecoder();
    await drain(this.#reader, (bytes) => {
      this.#link.heard(bytes.length);
      guarded(this.#link, () => decoder.push(bytes, (frame) => handlers.frame(frame)));
    });
  }
}

class WebTransportLink implements Link {
  readonly datagrams: LinkDatagrams = {
    maxSize: () => (this.#datagrams && this.#wt ? this.#wt.datagrams.maxDatagramSize : 0),
    room: () => this.#datagramRoom(),
    send: (bytes) => void this.#datagrams?.write(bytes).catch(ignore),
  };
  readonly streams: LinkStreams = { open: (handlers) => this.#openStream(handlers) };
  readonly #env: Environment;
  readonly #handlers: LinkHandlers;
  #wt: WebTransport | null = null;
  /** The link stream. */
  #pipe: Pipe | null = null;
  #datagrams: WritableStreamDefaultWriter<Uint8Array> | null = null;
  #over = false;

  constructor(env: Environment, opening: Opening, handlers: LinkHandlers) {
    this.#env = env;
    this.#handlers = handlers;
    this.#connect(opening).catch((error) => {
      forget(env, opening); // another server may answer there now
      this.#lost({ reason: messageOf(error) });
    });
  }

  room(): number {
    return this.#pipe?.room() ?? 0;
  }

  send(packet: Bytes): void {
    this.#pipe?.send(packet);
  }

  async close(close: Close): Promise<void> {
    this.#over = true;
    // wt.close() resets the stream with what it still holds. So it is finished, and the server, which reads
    // CLOSE before that end, closes the session.
    this.#pipe?.finish();
    const cancel = this.#env.timer(CLOSE_MS / 2, () => this.#end(close));
    await this.#wt?.closed.catch(ignore);
    cancel();
  }

  leave(packet: Bytes, close: Close): void {
    this.send(packet);
    this.#over = true;
    this.#end(close);
  }

  abort(): void {
    if (this.#over) {
      return;
    }
    this.#over = true;
    this.#end();
  }

  async #connect(opening: Opening): Promise<void> {
    const endpoint = await locate(this.#env, opening);
    const WebTransport = this.#env.WebTransport as typeof globalThis.WebTransport;
    if (!endpoint) {
      this.#lost({ reason: 'not offered', unavailable: true });
    } else if (!this.#over) {
      await this.#run(new WebTransport(openingUrl(endpoint.url, opening), optionsOf(endpoint)));
    }
  }

  async #run(wt: WebTransport): Promise<void> {
    this.#wt = wt;
    wt.closed.then(
      ({ closeCode: code = 0, reason = '' }) => {
        // The CLOSE frame may have been lost with the streams; 0 may also be a session that just ended.
        const close = closeOfCarrier(code, reason) ?? (code > 0 && { code, application: true, reason });
        this.#lost({ reason: `closed with ${code}`, ...(close && { close }) });
      },
      (error) => this.#lost({ reason: messageOf(error) }),
    );
    await wt.ready;
    const streams: ReadableStreamDefaultReader<WebTransportBidirectionalStream> =
      wt.incomingBidirectionalStreams.getReader();
    const { value: stream } = await streams.read();
    if (!stream || this.#over) {
      return; // wt.closed says why
    }
    const handlers = this.#handlers;
    this.#pipe = new Pipe(stream, handlers);
    this.#openDatagrams(wt.datagrams);
    this.#accept(streams).catch(ignore);
    await this.#pipe.read({ frame: (frame) => this.#over || handlers.frame(frame) });
    // The end of the session follows at once; when it does not, the link is lost all the same.
    this.#env.timer(CLOSE_MS, () => this.#lost({ reason: 'the stream ended' }));
  }

  /** Takes the streams that the server opens. */
  async #accept(streams: ReadableStreamDefaultReader<WebTransportBidirectionalStream>): Promise<void> {
    for (;;) {
      const { value } = await streams.read();
      if (!value || this.#over) {
        return;
      }
      const pipe = new Pipe(value, this.#handlers);
      this.#read(pipe, this.#handlers.stream(pipe));
    }
  }

  async #openStream(handlers: NativeStreamHandlers): Promise<NativeStream> {
    if (!this.#wt || this.#over) {
      throw new Error('the link has ended');
    }
    const pipe = new Pipe(await this.#wt.createBidirectionalStream(), this.#handlers);
    this.#read(pipe, handlers);
    return pipe;
  }

  /** The end of a native stream says nothing: what is missing comes over the next link. */
  #read(pipe: Pipe, handlers: NativeStreamHandlers): void {
    pipe.read({ frame: (frame) => this.#over || handlers.frame(frame) }).catch(ignore);
  }

  #openDatagrams(datagrams: WebTransport['datagrams'] & { createWritable?: () => WritableStream }): void {
    // Few and fresh: a page that was busy does not want what is stale. Not every browser knows these.
    datagrams.incomingHighWaterMark = INCOMING_DATAGRAMS;
    datagrams.incomingMaxAge = INCOMING_DATAGRAM_AGE_MS;
    this.#datagrams = (datagrams.createWritable?.() ?? datagrams.writable).getWriter();
    drain(datagrams.readable.getReader(), (bytes) => this.#over || this.#handlers.datagram(bytes)).catch(
      ignore,
    );
  }

  #datagramRoom(): boolean {
    const writer = this.#datagrams;
    if (this.#over || !writer) {
      return false;
    }
    const room = (writer.desiredSize ?? 0) > 0;
    if (!room) {
      writer.ready.then(() => this.#over || this.#handlers.writable(), ignore);
    }
    return room;
  }

  #lost(loss: Loss): void {
    if (!this.#over) {
      this.#over = true;
      this.#end();
      this.#handlers.lost(loss);
    }
  }

  /** Without a `close` of the session, which any other code would be, it is the end of the link only. */
  #end(close = protocolClose('LINK_REPLACED', '')): void {
    try {
      this.#wt?.close({ closeCode: carrierCode(close, close.code), reason: close.reason });
    } catch {
      // It has not been opened, or is closed already.
    }
  }
}

function optionsOf({ certificateHashes }: WebTransportEndpoint): WebTransportOptions {
  return {
    protocols: ['throughline.v1'],
    ...(certificateHashes?.length && {
      serverCertificateHashes: certificateHashes.map((hash) => ({
        algorithm: 'sha-256',
        value: fromBase64(hash),
      })),
    }),
  };
}

async function drain(
  reader: ReadableStreamDefaultReader<Bytes>,
  each: (bytes: Bytes) => unknown,
): Promise<void> {
  for (;;) {
    const { value } = await reader.read();
    if (!value) {
      return;
    }
    each(value);
  }
}

function ignore(): void {}
