import { Chat } from './chat.js';
import { Connection, type Session } from './connection.js';
import { Controls } from './controls.js';
import { Dashboard } from './dashboard.js';
import { element, setText } from './dom.js';
import { Journey, type Step } from './journey.js';
import { COUNT_EVERY_MS, Ledger } from './ledger.js';
import { Banner, LinkPanel } from './link-panel.js';
import { parseNotice } from './messages.js';
import { Metrics } from './metrics.js';
import { Minimap } from './minimap.js';
import { Painter } from './painter.js';
import { ProofPanel } from './proof-panel.js';
import { initialName, Social } from './social.js';
import type { Counts } from './tally.js';
import { Timeline } from './timeline.js';
import { LABELS, parseTransports, TRANSPORTS, type Transport } from './transports.js';
import { Upload } from './upload.js';
import { Views } from './views.js';
import { decode } from './wire.js';

/** Panels are for reading: a few times per second is enough, and leaves the frames to the arena. */
const REFRESH_MS = 200;
/** Without a state for this long the picture stands still, and the page says why. */
const STALE_MS = 1_200;
/** Long enough for the ladder to find a way around, to be without it for a while, and to climb back. */
const BLOCK_MS = 10_000;
/** Longer than it takes to doubt a link. */
const FREEZE_MS = 3_000;

declare global {
  interface Window {
    demo: { readonly session: Session; stats(): DemoStats };
  }
}

/** What tests read. */
interface DemoStats {
  transport: string | null;
  statesPerSecond: number;
  ageMs: number;
  rttMs: number;
  bytesPerSecond: number;
  states: number;
  newestTick: number;
  players: number;
  entities: number;
  /** Numbered reliable messages: to this page, and from it. */
  down: Counts;
  up: Counts & { sent: number };
  links: number;
  moves: number;
  gaps: number;
  /** Times that the session went on over another link after it had lost one. */
  resumed: number;
  /** From link to link, newest last. */
  steps: Step[];
  /** Values of the dashboard, by key, and how many changes have come. */
  dashboard: { readonly values: Record<string, number>; readonly changes: number };
  upload: Pick<Upload, 'state' | 'received' | 'sha256' | 'ownSha256' | 'error' | 'links'> | null;
}

const parameters = new URLSearchParams(location.search);
let name = initialName(parameters.get('name'));
let worldSize = 4_800;

const timeline = new Timeline();
const metrics = new Metrics();
const journey = new Journey();
const ledger = new Ledger();
/** Until when nothing comes through, by the page's monotonic clock, ms. */
const blockedUntil = new Map<Transport, number>();
let upload: Upload | null = null;
/** Why the link is about to be lost, when the page knows better. */
let lossReason = '';
const painter = new Painter(element<HTMLCanvasElement>('arena'));
const minimap = new Minimap(element<HTMLCanvasElement>('map'));
const controls = new Controls(element<HTMLCanvasElement>('arena'));
const chat = new Chat(name);
const dashboard = new Dashboard();
const social = new Social(
  {
    rename(wanted) {
      name = wanted;
      connection.send({ type: 'join', name });
      chat.rename(name);
    },
    note: (text) => chat.note(text),
  },
  name,
);
const banner = new Banner(() => force(connection.allowed));
const panel = new LinkPanel({
  force,
  cut() {
    banner.show('busy', 'The link was cut. The session goes on as soon as there is another.', 4_000);
    lossReason = 'cut here';
    connection.session.trouble.cut();
    lossReason = '';
  },
  block(transport) {
    const { trouble } = connection.session;
    const text = `Nothing comes through over ${label(transport)} for ${BLOCK_MS / 1_000} s, and its link was cut.`;
    banner.show('busy', text, 4_000);
    blockedUntil.set(transport, performance.now() + BLOCK_MS);
    trouble.block(transport, BLOCK_MS);
    lossReason = `blocked for ${BLOCK_MS / 1_000} s`;
    trouble.cut();
    lossReason = '';
  },
  freeze() {
    const text = `Nothing comes through this link for ${FREEZE_MS / 1_000} s, and nobody was told.`;
    banner.show('busy', text, FREEZE_MS);
    connection.session.trouble.freeze(FREEZE_MS);
  },
});
const proof = new ProofPanel(() => {
  if (upload?.state === 'sending') {
    upload.cancel();
    return;
  }
  upload = new Upload(connection.session);
});
const connection = new Connection(parseTransports(parameters.get('transports')), {
  opening(session) {
    chat.enter(session);
    dashboard.enter(session);
  },
  text(text) {
    journey.heard(performance.now());
    const notice = parseNotice(text);
    if (!notice) return;
    if (notice.type === 'count') ledger.take(notice.n, notice.up);
    if (notice.type === 'welcome') worldSize = notice.worldSize;
    social.take(notice);
  },
  datagram(bytes) {
    journey.heard(performance.now());
    const decoded = decode(bytes, worldSize);
    if (decoded?.kind === 'map') minimap.update(decoded.points);
    else if (decoded && timeline.add(decoded, performance.now())) metrics.arrived(performance.now());
  },
  fresh() {
    ledger.begin();
    count();
    connection.send({ type: 'join', name });
  },
  moved(from, to, reason) {
    journey.changed(from, to, (to === null && lossReason) || reason, performance.now());
    if (from && to) {
      const way = from === to ? `to another link of ${label(to)}` : `from ${label(from)} to ${label(to)}`;
      banner.show('good', `Moved ${way}${reason ? `: ${reason}` : ''}`, 4_000);
    } else if (to && journey.steps.at(-1)?.outcome === 'resumed') {
      banner.show('good', `Resumed over ${label(to)}: the session goes on where it was.`, 4_000);
    }
  },
  gap() {
    journey.gap();
    ledger.gap();
    timeline.reset();
    banner.show(
      'busy',
      'The server could not resume the session: it began anew, and with it your score.',
      6_000,
    );
  },
  ended: (reason) => banner.show('bad', `The session has ended: ${reason}`),
});

window.demo = {
  get session() {
    return connection.session;
  },
  stats() {
    const newest = timeline.newest;
    const { links, moves, gaps } = connection.session.stats();
    const { received, missing, repeated, outOfOrder } = ledger.down;
    return {
      transport: connection.session.transport,
      statesPerSecond: metrics.statesPerSecond(performance.now()),
      ageMs: ageMs(),
      rttMs: connection.session.stats().rttMs ?? Number.NaN,
      bytesPerSecond: metrics.bytesPerSecond(),
      states: metrics.states,
      newestTick: newest?.tick ?? -1,
      players: social.players,
      entities: newest ? newest.ships.size + newest.motes.size : 0,
      down: { received, missing, repeated, outOfOrder },
      up: { ...ledger.up, sent: ledger.sent },
      links,
      moves,
      gaps,
      resumed: resumed(),
      steps: journey.steps.map((step) => ({ ...step })),
      dashboard: { values: dashboard.values, changes: dashboard.changes },
      upload: upload && {
        state: upload.state,
        received: upload.received,
        sha256: upload.sha256,
        ownSha256: upload.ownSha256,
        error: upload.error,
        links: upload.links,
      },
    };
  },
};

foldPanels();
const views = new Views((view) => {
  dashboard.show(view === 'dashboard');
  readChat(view);
});
setInterval(refresh, REFRESH_MS);
setInterval(count, COUNT_EVERY_MS);
requestAnimationFrame(frame);

function frame(now: number): void {
  requestAnimationFrame(frame);
  const input = controls.poll(now);
  if (input) connection.sendDatagram(input);
  painter.draw(timeline.scene(now), controls, (id) => social.nameOf(id), worldSize, now);
  const age = ageMs();
  if (connection.session.state === 'open') metrics.sample(age, now);
}

function count(): void {
  ledger.count((value) => connection.send(value));
}

/** Times that the session went on over another link after it had lost one. */
function resumed(): number {
  const { links, moves, gaps } = connection.session.stats();
  return Math.max(0, links - 1 - moves - gaps);
}

function refresh(): void {
  const { session } = connection;
  const now = performance.now();
  const stats = session.stats();
  metrics.sampleBytes(stats.bytesIn, now);
  const { text, attempts } = session.explain();
  panel.update({
    state: session.state,
    transport: session.transport,
    allowed: connection.allowed,
    statesPerSecond: metrics.statesPerSecond(now),
    ageMs: metrics.ageMs,
    rttMs: stats.rttMs ?? Number.NaN,
    bytesPerSecond: metrics.bytesPerSecond(),
    ages: metrics.ages,
    explained: sentences(text),
    attempts,
    blocked: new Map(Array.from(blockedUntil, ([transport, until]) => [transport, until - now])),
    journey,
    resumed: resumed(),
    moves: stats.moves,
    links: stats.links,
    gaps: stats.gaps,
  });
  proof.update(
    {
      ledger,
      gaps: stats.gaps,
      upload,
      canUpload: session.state === 'open',
    },
    now,
  );
  dashboard.refresh(now);
  refreshOwn(now);
  refreshBanner(session.state);
}

/** Lines are read where they can be seen. */
function readChat(view: string): void {
  chat.isRead = view === 'chat' || (view === 'game' && isOpen(element('room-toggle')));
  if (chat.isRead) chat.read();
}

function isOpen(toggle: HTMLElement): boolean {
  return toggle.getAttribute('aria-expanded') === 'true';
}

function refreshOwn(now: number): void {
  const newest = timeline.newest;
  if (newest) {
    const { camera } = painter;
    const own = newest.ships.get(newest.ownId);
    const unit = 1 / (camera.scale * worldSize);
    minimap.draw(
      own
        ? {
            x: own.x / worldSize,
            y: own.y / worldSize,
            width: camera.width * unit,
            height: camera.height * unit,
          }
        : null,
    );
    setText(element('score'), String(newest.score));
    setText(element('rank'), `#${newest.rank}`);
    setText(element('rank-of'), `of ${social.players + social.bots}`);
    element('dash-bar').style.setProperty('--ready', newest.dash.toFixed(2));
    social.showLeaders(newest.score, newest.rank);
  }
  element('hint').classList.toggle('gone', controls.isActive(now));
}

function refreshBanner(state: string): void {
  const age = ageMs();
  const isStale = state === 'open' && age > STALE_MS;
  if (state === 'reconnecting')
    banner.show('busy', 'No link. The session goes on as soon as there is another.');
  else if (isStale)
    banner.show('busy', `No state for ${(age / 1_000).toFixed(1)} s: the link is slow or gone.`);
  banner.refresh(state === 'open' && !isStale);
}

function force(allowed: Transport[] | null): void {
  const url = new URL(location.href);
  if (allowed) url.searchParams.set('transports', allowed.join(','));
  else url.searchParams.delete('transports');
  history.replaceState(null, '', url);
  metrics.restart();
  timeline.reset();
  journey.restart(performance.now());
  ledger.leave();
  blockedUntil.clear();
  upload = null;
  banner.show('busy', allowed ? `Connecting over ${allowed.map(label).join(', ')} …` : 'Connecting …');
  connection.reopen(allowed);
}

/** What `explain()` says in sentences, without its lists: the panel shows those in its own way. */
function sentences(text: string): string {
  return text
    .split('\n')
    .filter((line) => !line.startsWith('- '))
    .join(' ');
}

/** Age of the newest state by the server's clock, ms; NaN while unknown. */
function ageMs(): number {
  const newest = timeline.newest;
  if (!newest) return Number.NaN;
  const age = connection.session.serverTime() - newest.timeMs;
  return Number.isFinite(age) ? Math.max(0, age) : Number.NaN;
}

function label(transport: string): string {
  const known = TRANSPORTS.find((one) => one === transport);
  return known ? LABELS[known] : transport;
}

/** Heads open and close their panels. On a phone all begin closed: the arena comes first; on a low screen the chat does. */
function foldPanels(): void {
  const isSmall = matchMedia('(max-width: 900px), (max-height: 560px)');
  const toggles = ['link-toggle', 'board-toggle', 'proof-toggle', 'room-toggle'].map((id) => element(id));
  const isLow = matchMedia('(max-height: 860px)').matches;
  for (const toggle of toggles) {
    const begins = !isSmall.matches && !(isLow && toggle.id === 'room-toggle');
    toggle.setAttribute('aria-expanded', String(begins));
    toggle.addEventListener('click', () => {
      const opens = !isOpen(toggle);
      // There is room for one of them at a time.
      if (isSmall.matches) for (const other of toggles) other.setAttribute('aria-expanded', 'false');
      toggle.setAttribute('aria-expanded', String(opens));
      toggle.blur();
      readChat(views.current);
    });
  }
  window.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.target instanceof HTMLInputElement || !chat.isRead) return;
    if (event.target instanceof HTMLButtonElement || event.target instanceof HTMLAnchorElement) return;
    event.preventDefault();
    element('line').focus();
  });
  const isTouch = matchMedia('(pointer: coarse)').matches;
  setText(
    element('hint'),
    isTouch
      ? 'Drag anywhere to steer. Dash into rivals to knock energy out of them.'
      : 'Mouse or WASD to steer · click or space to dash into rivals and knock energy out of them',
  );
}
