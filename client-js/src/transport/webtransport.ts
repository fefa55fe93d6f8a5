// A link over WebTransport: frames on one stream that the server opens, datagrams native (SPEC section 7.1).

import type { Environment } from '../environment.js';
import { messageOf } from '../errors.js';
import { CLOSE_MS, INCOMING_DATAGRAM_AGE_MS, INCOMING_DATAGRAMS, LINK_BUFFER_BYTES } from '../limits.js';
import { fromBase64 } from '../protocol/base64.js';
import type { Close } from '../protocol/close.js';
import { Decoder } from '../protocol/codec.js';
import { closeOfCarrier, PROTOCOL_CODES } from './carrier.js';
import { locate } from './info.js';
import type { Link, LinkHandlers, Loss, TransportKind } from './link.js';
import { type Opening, openingUrl, type WebTransportEndpoint } from './opening.js';
import { guarded } from './packets.js';

export const webtransport: TransportKind = {
  name: 'webtransport',
  missing(env, opening) {
    if (!env.WebTransport) {
      return 'this browser has no WebTransport';
    }
    return opening.webtransport || opening.info || opening.base.startsWith('https:')
      ? null
      : 'the base is not https, and info is false';
  },
  open: (env, opening, handlers) => new WebTransportLink(env, opening, handlers),
};

/** How long after `abort` the WebTransport session is closed for good; by then the server has given the link up. */
const CUT_MS = 5_000;

class WebTransportLink implements Link {
  readonly #env: Environment;
  readonly #handlers: LinkHandlers;
  #wt: WebTransport | null = null;
  #writer: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>> | null = null;
  #reader: ReadableStreamDefaultReader<Uint8Array> | null = null;
  #datagrams: WritableStreamDefaultWriter<Uint8Array> | null = null;
  /** Bytes that the link stream was given and has not taken yet. */
  #pending = 0;
  #waiting = false;
  #over = false;

  constructor(env: Environment, opening: Opening, handlers: LinkHandlers) {
    this.#env = env;
    this.#handlers = handlers;
    void this.#run(opening);
  }

  room(): number {
    const room = LINK_BUFFER_BYTES - this.#pending;
    const enough = room >= LINK_BUFFER_BYTES / 4;
    this.#waiting ||= !enough;
    return this.#writer !== null && enough ? room : 0;
  }

  send(packet: Uint8Array<ArrayBuffer>): void {
    this.#pending += packet.length;
    this.#writer?.write(packet).then(
      () => {
        this.#pending -= packet.length;
        if (this.#waiting && !this.#over) {
          this.#waiting = false;
          this.#handlers.writable();
        }
      },
      () => {}, // the end of the session says why
    );
  }

  nativeDatagram(): number {
    return this.#datagrams === null ? 0 : (this.#wt?.datagrams.maxDatagramSize ?? 0);
  }

  datagramRoom(): boolean {
    const writer = this.#datagrams;
    if (writer === null || this.#over) {
      return false;
    }
    if ((writer.desiredSize ?? 0) > 0) {
      return true;
    }
    writer.ready.then(
      () => this.#over || this.#handlers.writable(),
      () => {},
    );
    return false;
  }

  sendDatagram(bytes: Uint8Array): void {
    this.#datagrams?.write(bytes).catch(() => {});
  }

  async close(close: Close): Promise<void> {
    this.#over = true;
    const wt = this.#wt;
    if (wt === null) {
      return;
    }
    // wt.close() resets the streams, with what they still hold: so the stream is finished first, and the
    // server, which has read CLOSE then, ends the session.
    const over = wt.closed.catch(() => {});
    let cancel = () => {};
    const late = new Promise<void>((resolve) => {
      cancel = this.#env.timer(CLOSE_MS, resolve);
    });
    const finished = this.#writer?.close().then(
      () => over,
      () => {},
    );
    await Promise.race([over, late, finished]);
    cancel();
    this.#closeSession(close);
  }

  leave(packet: Uint8Array<ArrayBuffer>, close: Close): void {
    this.send(packet);
    this.#over = true;
    this.#closeSession(close);
  }

  abort(): void {
    if (this.#over) {
      return;
    }
    this.#over = true;
    if (this.#writer === null) {
      this.#closeSession(null);
      return;
    }
    // wt.close() would tell the server that the session ends. A reset link stream only tells that the link does.
    this.#writer.abort().catch(() => {});
    this.#reader?.cancel().catch(() => {});
    this.#env.timer(CUT_MS, () => this.#closeSession(null));
  }

  async #run(opening: Opening): Promise<void> {
    try {
      const endpoint = await locate(this.#env, opening);
      if (typeof endpoint === 'string') {
        this.#lost({ reason: endpoint, unavailable: true });
      } else if (!this.#over) {
        await this.#connect(openingUrl(endpoint.url, opening), endpoint);
      }
    } catch (error) {
      this.#lost({ reason: messageOf(error) });
    }
  }

  async #connect(url: string, { certificateHashes = [] }: WebTransportEndpoint): Promise<void> {
    const { WebTransport } = this.#env;
    if (!WebTransport) {
      throw new Error('no WebTransport');
    }
    const wt = new WebTransport(url, {
      congestionControl: 'low-latency',
      protocols: ['throughline.v1'],
      ...(certificateHashes.length > 0 && {
        serverCertificateHashes: certificateHashes.map((hash) => ({
          algorithm: 'sha-256',
          value: fromBase64(hash),
        })),
      }),
    });
    this.#wt = wt;
    wt.closed.then(
      ({ closeCode = 0, reason = '' }) => {
        // The CLOSE frame may have been lost with the streams; 0 may also be a session that just ended.
        const application = closeCode > 0 ? { code: closeCode, application: true, reason } : undefined;
        const close = closeOfCarrier(closeCode, reason) ?? application;
        const words = `the WebTransport session closed with ${closeCode}${reason && ` (${reason})`}`;
        this.#lost({ reason: words, ...(close && { close }) });
      },
      (error) => this.#lost({ reason: messageOf(error) }),
    );
    await wt.ready;
    const streams: ReadableStreamDefaultReader<WebTransportBidirectionalStream> =
      wt.incomingBidirectionalStreams.getReader();
    const { value: stream } = await streams.read();
    streams.releaseLock();
    if (stream === undefined || this.#over) {
      return; // wt.closed says why
    }
    this.#writer = stream.writable.getWriter();
    const reader: ReadableStreamDefaultReader<Uint8Array> = stream.readable.getReader();
    this.#reader = reader;
    this.#openDatagrams(wt.datagrams);
    await this.#listen(reader);
  }

  async #listen(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
    const decoder = new Decoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (this.#over) {
        return;
      }
      if (done) {
        // The end of the session follows at once; when it does not, the link is lost all the same.
        this.#env.timer(CLOSE_MS, () => this.#lost({ reason: 'the link stream ended' }));
        return;
      }
      this.#handlers.heard(value.length);
      guarded(this.#handlers, () => {
        decoder.push(value);
        for (let frame = decoder.next(); frame !== null && !this.#over; frame = decoder.next()) {
          this.#handlers.frame(frame);
        }
      });
    }
  }

  #openDatagrams(datagrams: WebTransport['datagrams'] & { createWritable?: () => WritableStream }): void {
    // Few and fresh: a page that was busy does not want what is stale. Not every browser knows these.
    datagrams.incomingHighWaterMark = INCOMING_DATAGRAMS;
    datagrams.incomingMaxAge = INCOMING_DATAGRAM_AGE_MS;
    this.#datagrams = (datagrams.createWritable?.() ?? datagrams.writable).getWriter();
    void this.#listenDatagrams(datagrams.readable.getReader());
  }

  async #listenDatagrams(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done || this.#over) {
          return;
        }
        this.#handlers.datagram(value);
      }
    } catch {
      // The end of the session says why.
    }
  }

  #lost(loss: Loss): void {
    if (!this.#over) {
      this.#over = true;
      this.#closeSession(null);
      this.#handlers.lost(loss);
    }
  }

  #closeSession(close: Close | null): void {
    try {
      this.#wt?.close(
        close === null
          ? undefined
          : {
              closeCode: close.application || close.code === 0 ? close.code : PROTOCOL_CODES + close.code,
              reason: close.reason,
            },
      );
    } catch {
      // It has not been opened, or is closed already.
    }
  }
}
