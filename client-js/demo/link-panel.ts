import { create, element, prefersReducedMotion, setText } from './dom.js';
import type { Journey } from './journey.js';
import { JourneyView, showSession } from './journey-view.js';
import { type AttemptView, LadderView, milliseconds } from './ladder-view.js';
import { SAMPLES_MAX } from './metrics.js';
import { drawSparkline } from './sparkline.js';
import { LABELS, SHORT_LABELS, TRANSPORTS, type Transport } from './transports.js';

export interface LinkView {
  readonly state: string;
  readonly transport: string | null;
  readonly allowed: readonly Transport[] | null;
  readonly statesPerSecond: number;
  readonly ageMs: number;
  readonly rttMs: number;
  readonly bytesPerSecond: number;
  readonly ages: readonly number[];
  /** Sentences: what carries the session, why, and when better transports are tried again. */
  readonly explained: string;
  readonly attempts: readonly AttemptView[];
  /** For how long from now nothing comes through, ms. */
  readonly blocked: ReadonlyMap<Transport, number>;
  readonly journey: Journey;
  /** Times that the session went on over another link after it had lost one, and while it still had one. */
  readonly resumed: number;
  readonly moves: number;
  readonly links: number;
  readonly gaps: number;
}

export interface LinkActions {
  /** Connect anew, with these transports, or all. */
  force(transports: Transport[] | null): void;
  /** The link dies without a word. */
  cut(): void;
  /** Nothing comes through over this transport for a while, and its link dies. */
  block(transport: Transport): void;
  /** The link stays, and nothing comes through for a while. */
  freeze(): void;
}

/** The connection at a glance: what carries it, how well, and why. */
export class LinkPanel {
  #ladder = new LadderView();
  #choices = new Map<string, HTMLButtonElement>();
  #journey = new JourneyView();
  #troubles = ['cut', 'freeze', 'block'].map((id) => element<HTMLButtonElement>(id));
  #transport: Transport | undefined;
  #explained = '';
  #brief = { rate: element('brief-rate'), age: element('brief-age') };
  #figures = {
    rate: element('figure-rate'),
    age: element('figure-age'),
    rtt: element('figure-rtt'),
    bytes: element('figure-bytes'),
    bytesUnit: element('figure-bytes-unit'),
  };

  constructor(actions: LinkActions) {
    const group = element('force');
    for (const choice of ['auto', ...TRANSPORTS] as const) {
      const button = create('button', '', choice === 'auto' ? 'Auto' : SHORT_LABELS[choice]);
      const label = choice === 'auto' ? 'Choose the transport automatically' : `Use ${LABELS[choice]} only`;
      button.type = 'button';
      button.title = label;
      button.setAttribute('aria-label', label);
      button.setAttribute('data-transport', choice);
      button.addEventListener('click', () => actions.force(choice === 'auto' ? null : [choice]));
      group.append(button);
      this.#choices.set(choice, button);
    }
    const why = element('why');
    why.addEventListener('toggle', () => why.scrollIntoView({ block: 'nearest' }));
    element('cut').addEventListener('click', () => actions.cut());
    element('freeze').addEventListener('click', () => actions.freeze());
    element('block').addEventListener('click', () => {
      if (this.#transport) actions.block(this.#transport);
    });
  }

  update(view: LinkView): void {
    const root = document.documentElement;
    const now = performance.now();
    const transport = TRANSPORTS.find((one) => one === view.transport);
    this.#transport = transport;
    root.setAttribute('data-transport', transport ?? '');
    root.setAttribute('data-state', view.state);
    const words: Record<string, string> = {
      connecting: 'Connecting …',
      reconnecting: 'Reconnecting …',
      closed: 'Closed',
    };
    setText(element('link-name'), transport ? LABELS[transport] : (words[view.state] ?? 'No link'));
    setText(this.#figures.rate, whole(view.statesPerSecond));
    setText(this.#figures.age, whole(view.ageMs));
    setText(this.#figures.rtt, view.rttMs < 9.95 ? view.rttMs.toFixed(1) : whole(view.rttMs));
    const isLarge = view.bytesPerSecond >= 1_000_000;
    setText(this.#figures.bytes, (view.bytesPerSecond / (isLarge ? 1e6 : 1e3)).toFixed(isLarge ? 1 : 0));
    setText(this.#figures.bytesUnit, isLarge ? 'MB/s' : 'KB/s');
    setText(this.#brief.rate, `${whole(view.statesPerSecond)}/s`);
    setText(this.#brief.age, `${whole(view.ageMs)} ms`);

    this.#ladder.update(transport ?? null, view.attempts, view.allowed, view.blocked);
    this.#journey.update(view.journey, now);
    showSession(view);
    const forced = view.allowed === null ? 'auto' : view.allowed.length === 1 ? view.allowed[0] : undefined;
    for (const [choice, button] of this.#choices) {
      button.setAttribute('aria-pressed', String(choice === forced));
    }
    for (const button of this.#troubles) button.disabled = !transport;
    setText(element('block-what'), transport ? LABELS[transport] : 'this transport');
    this.#explain(view.explained, view.attempts);
    const spark = element<HTMLCanvasElement>('spark');
    if (spark.clientWidth > 0) {
      const color = getComputedStyle(root).getPropertyValue('--now').trim() || '#93a1bd';
      const peak = drawSparkline(spark, view.ages, transport ? color : '#93a1bd', {
        floor: 100,
        most: SAMPLES_MAX,
      });
      setText(element('spark-peak'), view.ages.length > 0 ? `peak ${milliseconds(peak)}` : '');
    }
  }

  #explain(explained: string, attempts: readonly AttemptView[]): void {
    const newest = attempts.slice(-12);
    const key = JSON.stringify([explained, newest]);
    if (key === this.#explained) return;
    this.#explained = key;
    const list = create('ol');
    for (const attempt of newest) {
      const line = create('li');
      const label = TRANSPORTS.find((one) => one === attempt.transport);
      const took = attempt.ms == null ? '' : ` after ${milliseconds(attempt.ms)}`;
      line.append(create('b', '', label ? LABELS[label] : attempt.transport), ` ${attempt.outcome}${took}`);
      if (attempt.reason) line.append(`: ${attempt.reason}`);
      list.append(line);
    }
    element('explain').replaceChildren(create('p', '', explained), list);
  }
}

export type BannerKind = 'busy' | 'good' | 'bad';

/** One line at the top; it stays until it is replaced, or for `forMs`. */
export class Banner {
  #root = element('banner');
  #text = element('banner-text');
  #retry = element<HTMLButtonElement>('retry');
  #until = 0;

  constructor(retry: () => void) {
    this.#retry.addEventListener('click', retry);
  }

  show(kind: BannerKind, text: string, forMs = Number.POSITIVE_INFINITY): void {
    this.#until = performance.now() + forMs;
    this.#root.setAttribute('data-kind', kind);
    setText(this.#text, text);
    this.#retry.hidden = kind !== 'bad';
    if (this.#root.hidden && !prefersReducedMotion()) {
      this.#root.animate?.([{ opacity: 0 }, { opacity: 1 }], 160);
    }
    this.#root.hidden = false;
  }

  /** Takes away what has had its time, and with `isCalm` whatever waited for better times. */
  refresh(isCalm: boolean): void {
    const isTimed = Number.isFinite(this.#until);
    if (isTimed ? performance.now() > this.#until : isCalm) this.#root.hidden = true;
  }
}

function whole(value: number): string {
  return Number.isFinite(value) ? String(Math.round(value)) : '–';
}
