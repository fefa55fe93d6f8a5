import { Connection, type Session } from './connection.js';
import { Controls } from './controls.js';
import { element, setText } from './dom.js';
import { Banner, LinkPanel } from './link-panel.js';
import { parseNotice } from './messages.js';
import { Metrics } from './metrics.js';
import { Minimap } from './minimap.js';
import { Painter } from './painter.js';
import { initialName, Social } from './social.js';
import { Timeline } from './timeline.js';
import { LABELS, parseTransports, TRANSPORTS, type Transport } from './transports.js';
import { decode } from './wire.js';

/** Panels are for reading: a few times per second is enough, and leaves the frames to the arena. */
const REFRESH_MS = 200;
/** Without a state for this long the picture stands still, and the page says why. */
const STALE_MS = 1_200;

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
}

const parameters = new URLSearchParams(location.search);
let name = initialName(parameters.get('name'));
let worldSize = 4_800;

const timeline = new Timeline();
const metrics = new Metrics();
const painter = new Painter(element<HTMLCanvasElement>('arena'));
const minimap = new Minimap(element<HTMLCanvasElement>('map'));
const controls = new Controls(element<HTMLCanvasElement>('arena'));
const social = new Social(
  {
    rename(wanted) {
      name = wanted;
      connection.send({ type: 'join', name });
    },
    say: (text) => connection.send({ type: 'chat', text }),
  },
  name,
);
const banner = new Banner(() => force(connection.allowed));
const panel = new LinkPanel({
  force,
  cut() {
    connection.session.cut?.();
    banner.show('busy', 'The link was cut. The session goes on as soon as there is another.', 4_000);
  },
});
const connection = new Connection(parseTransports(parameters.get('transports')), {
  text(text) {
    const notice = parseNotice(text);
    if (!notice) return;
    if (notice.type === 'welcome') worldSize = notice.worldSize;
    social.take(notice);
  },
  datagram(bytes) {
    const decoded = decode(bytes, worldSize);
    if (decoded?.kind === 'map') minimap.update(decoded.points);
    else if (decoded && timeline.add(decoded, performance.now())) metrics.arrived(performance.now());
  },
  fresh: () => connection.send({ type: 'join', name }),
  moved(from, to, reason) {
    if (from && to && from !== to) {
      banner.show('good', `Moved from ${label(from)} to ${label(to)}${reason ? `: ${reason}` : ''}`, 4_000);
    }
  },
  gap() {
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
    };
  },
};

foldPanels();
setInterval(refresh, REFRESH_MS);
requestAnimationFrame(frame);

function frame(now: number): void {
  requestAnimationFrame(frame);
  const input = controls.poll(now);
  if (input) connection.sendDatagram(input);
  painter.draw(timeline.scene(now), controls, (id) => social.nameOf(id), worldSize, now);
  const age = ageMs();
  if (connection.session.state === 'open') metrics.sample(age, now);
}

function refresh(): void {
  const { session } = connection;
  const now = performance.now();
  const stats = session.stats();
  metrics.sampleBytes(stats.bytesIn, now);
  const { summary, attempts } = session.explain();
  panel.update({
    state: session.state,
    transport: session.transport,
    allowed: connection.allowed,
    statesPerSecond: metrics.statesPerSecond(now),
    ageMs: metrics.ageMs,
    rttMs: stats.rttMs ?? Number.NaN,
    bytesPerSecond: metrics.bytesPerSecond(),
    ages: metrics.ages,
    summary,
    attempts,
    canCut: session.state === 'open' && typeof session.cut === 'function',
  });
  refreshOwn(now);
  refreshBanner(session.state);
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
  if (state === 'reconnecting') banner.show('busy', 'Reconnecting … the picture stands still meanwhile.');
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
  banner.show('busy', allowed ? `Connecting over ${allowed.map(label).join(', ')} …` : 'Connecting …');
  connection.reopen(allowed);
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

/** Heads open and close their panels. On a phone all begin closed: the arena comes first. */
function foldPanels(): void {
  const isSmall = matchMedia('(max-width: 760px), (max-height: 560px)').matches;
  for (const id of ['link-toggle', 'board-toggle', 'chat-toggle']) {
    const toggle = element(id);
    const set = (open: boolean): void => toggle.setAttribute('aria-expanded', String(open));
    set(!isSmall);
    toggle.addEventListener('click', () => {
      set(toggle.getAttribute('aria-expanded') !== 'true');
      toggle.blur();
    });
  }
  const isTouch = matchMedia('(pointer: coarse)').matches;
  setText(
    element('hint'),
    isTouch
      ? 'Drag anywhere to steer. Dash into rivals to knock energy out of them.'
      : 'Mouse or WASD to steer · click or space to dash into rivals and knock energy out of them',
  );
}
