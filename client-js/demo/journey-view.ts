import { create, element, fitCanvas, setText } from './dom.js';
import { type Journey, STRIP_MS, type Step } from './journey.js';
import { milliseconds } from './ladder-view.js';
import { SHORT_LABELS, TRANSPORTS } from './transports.js';

/** Steps in the list; the strip shows the rest of the last minute. */
const STEPS_SHOWN = 3;

const OUTCOMES: Readonly<Record<Step['outcome'], string>> = {
  opened: 'opened',
  lost: 'no link',
  moved: 'moved',
  resumed: 'resumed',
  anew: 'new session',
};

/** What carried the session in the last minute, as a strip, and the newest steps with what they cost. */
export class JourneyView {
  #strip = element<HTMLCanvasElement>('strip');
  #list = element('steps');
  #shown = '';

  update(journey: Journey, now: number): void {
    this.#draw(journey, now);
    const steps = journey.steps.slice(-STEPS_SHOWN).reverse();
    const rows = steps.map((step) => describe(step, journey, now));
    const shown = JSON.stringify(rows);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#list.replaceChildren(...rows.map(row));
  }

  #draw(journey: Journey, now: number): void {
    const c = this.#strip.clientWidth > 0 ? fitCanvas(this.#strip) : null;
    if (!c) return;
    const { clientWidth: width, clientHeight: height } = this.#strip;
    const style = getComputedStyle(document.documentElement);
    const color = (name: string): string => style.getPropertyValue(`--${name}`).trim();
    const x = (at: number): number => Math.max(0, width * (1 - (now - Math.min(at, now)) / STRIP_MS));
    c.clearRect(0, 0, width, height);
    for (const { from, to, transport } of journey.spans) {
      if (to < now - STRIP_MS) continue;
      c.fillStyle = transport ? color(transport) : color('bad');
      // Without a link: thin, but never so thin that it cannot be seen.
      const span = Math.max(x(to) - x(from), 1);
      c.fillRect(x(from), transport ? 0 : height / 2 - 1, span, transport ? height : 2);
    }
    // Silence is a hole, up to the one that goes on now.
    c.fillStyle = 'rgb(7 10 18 / 72%)';
    const silent = journey.silentFor(now);
    const open = silent > 300 ? [{ from: now - silent, to: now }] : [];
    for (const { from, to } of [...journey.silences, ...open]) {
      if (to > now - STRIP_MS) c.fillRect(x(from), 0, Math.max(x(to) - x(from), 1), height);
    }
  }
}

interface Row {
  outcome: Step['outcome'];
  from: string | null;
  to: string | null;
  cost: string;
  ago: string;
  reason: string;
  found: string;
}

function describe(step: Step, journey: Journey, now: number): Row {
  const { outcome, from, to, reason, found } = step;
  const silence = outcome === 'lost' ? journey.silentFor(now) : step.silenceMs;
  const cost = outcome === 'opened' ? '' : silence > 0 ? `${milliseconds(silence)} silent` : '';
  const seconds = Math.floor((now - step.at) / 1_000);
  const ago = seconds < 60 ? `${seconds} s ago` : `${Math.floor(seconds / 60)} min ago`;
  return { outcome, from, to, cost, ago, reason, found };
}

function row({ outcome, from, to, cost, ago, reason, found }: Row): HTMLElement {
  const item = create('li');
  item.setAttribute('data-outcome', outcome);
  const path = create('span', 'path');
  if (from) path.append(chip(from), arrow());
  path.append(to ? chip(to) : create('span', 'chip', 'no link'));
  const why = create('span', 'why', reason);
  why.title = [reason, found].filter(Boolean).join('\n');
  item.append(
    path,
    create('span', 'outcome', OUTCOMES[outcome]),
    create('span', 'cost', cost),
    why,
    create('span', 'ago', ago),
  );
  return item;
}

function arrow(): HTMLElement {
  const made = create('span', 'arrow', '→');
  made.setAttribute('aria-label', 'to');
  return made;
}

function chip(transport: string): HTMLElement {
  const known = TRANSPORTS.find((one) => one === transport);
  const made = create('span', 'chip', known ? SHORT_LABELS[known] : transport);
  made.setAttribute('data-transport', transport);
  return made;
}

/** The session in a line: how often it went on, and over how many links. */
export function showSession(view: { resumed: number; moves: number; links: number; gaps: number }): void {
  tag('resumed', 'resumed', view.resumed);
  tag('moves', 'moved', view.moves);
  tag('gaps', 'began anew', view.gaps);
  setText(element('links'), view.links === 1 ? '1 link' : `${view.links} links`);
}

function tag(id: string, word: string, times: number): void {
  const target = element(id);
  target.hidden = times === 0;
  setText(target, times === 1 ? word : `${word} × ${times}`);
}
