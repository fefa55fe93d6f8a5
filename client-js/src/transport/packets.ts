// From one packet to its frames, for the transports whose packets have boundaries.

import { ProtocolError } from '../protocol/close.js';
import { decodePacket } from '../protocol/codec.js';
import type { Frame } from '../protocol/frames.js';
import { MAX_PACKET } from '../protocol/limits.js';
import type { LinkHandlers } from './link.js';

/** Hands on the frames of a packet; `each` sees them first. */
export function deliver(packet: Uint8Array, handlers: LinkHandlers, each?: (frame: Frame) => void): void {
  guarded(handlers, () => {
    if (packet.length > MAX_PACKET) {
      throw new ProtocolError('FRAME_TOO_LARGE', `a packet of ${packet.length} bytes`);
    }
    decodePacket(packet, (frame) => {
      each?.(frame);
      handlers.frame(frame);
    });
  });
}

/** Runs a piece of decoding: what breaks the protocol becomes `violation`. */
export function guarded(handlers: LinkHandlers, work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof ProtocolError)) {
      throw error;
    }
    handlers.violation(error.close);
  }
}
