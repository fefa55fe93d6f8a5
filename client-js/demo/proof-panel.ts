import { element, setText } from './dom.js';
import type { Ledger } from './ledger.js';
import { type Counts, isFlawless } from './tally.js';
import { UPLOAD_BYTES, type Upload } from './upload.js';

const ROWS = ['received', 'missing', 'repeated', 'outOfOrder'] as const;

export interface ProofView {
  readonly ledger: Ledger;
  readonly gaps: number;
  readonly upload: Upload | null;
  readonly canUpload: boolean;
}

/** Whether anything was lost: numbered messages both ways, and an upload with a hash at both ends. */
export class ProofPanel {
  #button = element<HTMLButtonElement>('upload');
  #verdict = element('verdict');
  #bar = element('upload-bar');

  constructor(upload: () => void) {
    this.#button.addEventListener('click', upload);
  }

  update({ ledger, gaps, upload, canUpload }: ProofView, now: number): void {
    const { down, up, sent, unconfirmed } = ledger;
    this.#count('down', down);
    this.#count('up', up);
    const isGood = isFlawless(down) && isFlawless(up) && gaps === 0;
    const lost = down.missing + up.missing;
    const hasBegun = down.received > 0 || gaps > 0;
    this.#verdict.setAttribute('data-good', hasBegun ? String(isGood) : '');
    setText(this.#verdict, hasBegun ? (gaps > 0 ? 'a gap' : isGood ? 'none lost' : `${lost} lost`) : '');
    const onTheWay = Math.max(0, sent - up.received - up.missing);
    setText(
      element('proof-note'),
      gaps > 0
        ? `The server could not resume the session, so it began anew, and the numbers with it. What the server had sent meanwhile may be lost; it never confirmed ${unconfirmed} of your numbers.`
        : `Ten numbers per second each way; ${onTheWay} of yours on the way.`,
    );
    this.#button.disabled = upload?.state !== 'sending' && !canUpload;
    setText(
      this.#button,
      upload?.state === 'sending' ? 'Give it up' : `Upload ${megabytes(UPLOAD_BYTES, 0)} MB`,
    );
    this.#bar.setAttribute('data-state', upload?.state ?? '');
    this.#bar.setAttribute('aria-valuenow', String(Math.round(share(upload) * 100)));
    this.#bar.style.setProperty('--share', share(upload).toFixed(4));
    const note = element('upload-note');
    setText(note, describe(upload, now));
    note.title = upload?.sha256 ? `SHA-256 ${upload.sha256}` : '';
  }

  #count(way: 'down' | 'up', counts: Counts): void {
    for (const row of ROWS) {
      const cell = element(`${way}-${row}`);
      setText(cell, counts[row].toLocaleString('en'));
      cell.classList.toggle('bad', row !== 'received' && counts[row] > 0);
    }
  }
}

function describe(upload: Upload | null, now: number): string {
  if (!upload) return 'over a stream, at 1 MB/s: time to cut a link';
  const rate = `${megabytes(upload.bytesPerSecond(now))} MB/s`;
  const over = upload.links === 1 ? 'over 1 link' : `over ${upload.links} links`;
  switch (upload.state) {
    case 'sending':
      return `${megabytes(upload.received)} MB · ${rate} · ${over}`;
    case 'done':
      return `${rate} ${over}. SHA-256 ${upload.ownSha256 ? 'equal' : 'by the server'}: ${upload.sha256.slice(0, 8)}…`;
    case 'different':
      return `SHA-256 differs: ${upload.sha256.slice(0, 8)}… there, ${upload.ownSha256.slice(0, 8)}… here`;
    case 'failed':
      return `Ended at ${megabytes(upload.received)} MB: ${upload.error}`;
  }
}

function share(upload: Upload | null): number {
  return upload ? Math.min(1, upload.received / UPLOAD_BYTES) : 0;
}

function megabytes(bytes: number, digits = 1): string {
  return (bytes / 1e6).toFixed(digits);
}
