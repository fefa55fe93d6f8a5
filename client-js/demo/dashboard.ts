import type { Session, Subscription } from './connection.js';
import { create, element, setText } from './dom.js';
import { drawSparkline } from './sparkline.js';
import { LABELS, TRANSPORTS } from './transports.js';

/** A channel of state: server/src/demo/dashboard.rs sets its values. */
const CHANNEL = 'dashboard:live';
/** A point of the sparklines stands for this long, ms; as often as the server sets values. */
const SAMPLE_MS = 500;
/** 90 seconds. */
const SAMPLES_MAX = 180;

interface Figure {
  readonly key: string;
  readonly label: string;
  readonly unit: string;
  /** The least that the top of the sparkline stands for. */
  readonly floor: number;
}

const FIGURES: readonly Figure[] = [
  { key: 'players', label: 'Players', unit: '', floor: 4 },
  { key: 'states', label: 'States sent', unit: '/s', floor: 60 },
  { key: 'tick', label: 'Slowest tick', unit: 'ms', floor: 5 },
  { key: 'cpu', label: 'Server CPU', unit: '%', floor: 20 },
  { key: 'memory', label: 'Server memory', unit: 'MB', floor: 50 },
  { key: 'chatting', label: 'In the chat', unit: '', floor: 4 },
];

interface Card {
  readonly figure: Figure;
  readonly value: HTMLElement;
  readonly canvas: HTMLCanvasElement;
  readonly samples: number[];
}

/** The server's live numbers. It is subscribed to them while it is shown. */
export class Dashboard {
  #session: Session | null = null;
  #isShown = false;
  #values: Subscription | null = null;
  /** Changes that have come since the page was opened. */
  #changes = 0;
  #changedAt = Number.NaN;
  #sampledAt = 0;
  #cards: readonly Card[] = FIGURES.map(cardOf);

  constructor() {
    element('cards').append(...this.#cards.map(({ value }) => value.closest('article') as HTMLElement));
  }

  /** Goes on in another session. */
  enter(session: Session): void {
    this.#session = session;
    this.#values = null;
    this.show(this.#isShown);
  }

  show(isShown: boolean): void {
    this.#isShown = isShown;
    if (!isShown) {
      this.#values?.unsubscribe();
      this.#values = null;
    } else if (!this.#values && this.#session && this.#session.state !== 'closed') {
      const values = this.#session.subscribe(CHANNEL);
      this.#values = values;
      values.on('value', () => {
        this.#changes++;
        this.#changedAt = performance.now();
      });
      values.on('end', ({ reason }) => setText(element('numbers-note'), reason));
    }
  }

  /** What it shows, by key. */
  get values(): Record<string, number> {
    return Object.fromEntries(Array.from(this.#values?.values ?? [], ([key, value]) => [key, Number(value)]));
  }

  get changes(): number {
    return this.#changes;
  }

  refresh(now: number): void {
    if (!this.#isShown || !this.#values) return;
    const { values } = this;
    const isSample = now - this.#sampledAt >= SAMPLE_MS;
    if (isSample) this.#sampledAt = now;
    for (const { figure, value, canvas, samples } of this.#cards) {
      const number = values[figure.key];
      setText(value, number === undefined ? '–' : format(number));
      if (number === undefined || !isSample) continue;
      samples.push(number);
      if (samples.length > SAMPLES_MAX) samples.shift();
      drawSparkline(canvas, samples, '#5ef2c8', { floor: figure.floor, most: SAMPLES_MAX });
    }
    if (isSample) showShares(values);
    const age = (now - this.#changedAt) / 1_000;
    if (age >= 0)
      setText(element('numbers-note'), `newest value ${age.toFixed(1)} s ago · ${this.#changes} changes`);
  }
}

function cardOf(figure: Figure): Card {
  const card = create('article', 'card');
  const title = create('h3', '', figure.label);
  const line = create('p', 'card-value');
  const value = create('span', '', '–');
  value.id = `number-${figure.key}`;
  line.append(value, create('small', '', figure.unit));
  const canvas = create('canvas');
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', `${figure.label}, the last 90 seconds`);
  card.append(title, line, canvas);
  return { figure, value, canvas, samples: [] };
}

/** What carries the sessions, as a bar in the transports' colours. */
function showShares(values: Record<string, number>): void {
  const kinds = [...TRANSPORTS, 'away'] as const;
  const counts = kinds.map((kind) => ({ kind, count: values[kind] ?? 0 }));
  const part = ({ kind, count }: (typeof counts)[number]): HTMLElement => {
    const made = create('i');
    made.dataset['transport'] = kind;
    made.style.flexGrow = String(count);
    return made;
  };
  element('shares').replaceChildren(...counts.filter(({ count }) => count > 0).map(part));
  const legend = counts.map(({ kind, count }) => {
    const made = create('span', '', kind === 'away' ? 'without a link' : LABELS[kind]);
    made.dataset['transport'] = kind;
    made.append(create('b', '', String(count)));
    return made;
  });
  element('shares-legend').replaceChildren(...legend);
}

function format(number: number): string {
  return number >= 100 || Number.isInteger(number) ? String(Math.round(number)) : number.toFixed(1);
}
