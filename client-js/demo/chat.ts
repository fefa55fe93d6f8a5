import type { Session, Subscription } from './connection.js';
import { create, element, setText } from './dom.js';
import { OWN_COLOR } from './sprites.js';

/** A log with history and presence; `demo::namespaces` on the server says what may be done there. */
const CHANNEL = 'chat:arena';
/** Lines that a newcomer gets to read. */
const HISTORY = 50;
/** Lines that the page keeps. */
const LINES_MAX = 300;
/** Members that are listed; beyond them there is the count. */
const MEMBERS_MAX = 40;
/** Longest name and line, characters. Others may have published longer ones: these are cut. */
const NAME_MAX = 18;
const LINE_MAX = 160;

type Publication = { readonly data: string | Uint8Array; readonly offset: number };

/** The chat room: a channel of which nothing is lost or repeated, however the session fares. */
export class Chat {
  /** Whether lines are read as they come; otherwise they are counted. */
  isRead = true;
  #session: Session | null = null;
  #name: string;
  #room: Subscription | null = null;
  #members: Subscription | null = null;
  /** Lines that came while the history was being read. */
  #early: Publication[] | null = null;
  #unread = 0;
  #lines = element('lines');

  constructor(name: string) {
    this.#name = name;
    const input = element<HTMLInputElement>('line');
    element('line-form').addEventListener('submit', (event) => {
      event.preventDefault();
      const text = input.value.trim();
      input.value = '';
      if (text) this.#say(text).catch((error: unknown) => this.note(reasonOf(error)));
    });
    input.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') input.blur();
    });
  }

  /** Goes on in another session, where the one before was. */
  enter(session: Session): void {
    this.#session = session;
    const since = this.#early ? null : (this.#room?.position ?? null);
    this.#room = session.subscribe(CHANNEL, { since, about: this.#name });
    this.#room.on('subscribed', ({ recovered }) => {
      if (!recovered) this.#begin(session).catch((error: unknown) => this.note(reasonOf(error)));
    });
    this.#room.on('publication', (publication) => {
      if (this.#early) this.#early.push(publication);
      else this.#take(publication);
    });
    this.#room.on('skipped', () =>
      this.note('Some lines are lost: they came faster than this page took them.'),
    );
    this.#room.on('end', ({ name, reason }) => {
      if (name !== 'SESSION_CLOSED') this.note(`The chat has ended: ${reason}`);
    });
    this.#members = session.subscribe(`$presence:${CHANNEL}`);
    for (const event of ['value', 'settled'] as const) this.#members.on(event, () => this.#showMembers());
  }

  rename(name: string): void {
    this.#name = name;
    if (!this.#session || this.#session.state === 'closed') return;
    // Others see what was said at subscribing.
    this.#room?.unsubscribe();
    this.#members?.unsubscribe();
    this.enter(this.#session);
  }

  /** All that was said until now is read. */
  read(): void {
    this.#unread = 0;
    this.#showUnread();
    this.#lines.scrollTop = this.#lines.scrollHeight;
  }

  /** A line that nobody said. */
  note(text: string): void {
    this.#append(create('li', 'note', text));
  }

  async #say(text: string): Promise<void> {
    await this.#session?.publish(CHANNEL, JSON.stringify({ name: this.#name, text: cut(text, LINE_MAX) }));
  }

  /** Reads what was said before this page came, or while it was away for too long. */
  async #begin(session: Session): Promise<void> {
    const early: Publication[] = [];
    this.#early = early;
    try {
      const { publications } = await session.history(CHANNEL, { newest: true, limit: HISTORY });
      if (this.#early !== early) return; // it has begun anew meanwhile
      for (const row of this.#lines.querySelectorAll('li:not(.note)')) row.remove();
      const last = publications.at(-1)?.offset ?? 0;
      early.unshift(...publications, ...early.splice(0).filter(({ offset }) => offset > last));
    } finally {
      if (this.#early === early) {
        this.#early = null;
        for (const publication of early) this.#take(publication);
      }
    }
  }

  #take({ data }: Publication): void {
    const line = parse(data);
    if (!line) return;
    const row = create('li');
    const name = create('b', '', line.name);
    name.style.color = colorOf(line.name, line.name === this.#name);
    row.append(name, create('bdi', '', line.text));
    this.#append(row);
    if (!this.isRead) this.#unread++;
    this.#showUnread();
  }

  #append(row: HTMLElement): void {
    const { scrollTop, scrollHeight, clientHeight } = this.#lines;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < 24;
    this.#lines.append(row);
    while (this.#lines.childElementCount > LINES_MAX) this.#lines.firstElementChild?.remove();
    if (isAtEnd) this.#lines.scrollTop = this.#lines.scrollHeight;
  }

  #showUnread(): void {
    const badge = element('unread');
    badge.hidden = this.#unread === 0;
    setText(badge, this.#unread > 99 ? '99+' : String(this.#unread));
  }

  #showMembers(): void {
    const values = [...(this.#members?.values.values() ?? [])];
    setText(element('present'), values.length ? `${values.length} here` : '');
    const names = values
      .slice(0, MEMBERS_MAX)
      .map(nameOf)
      .sort((a, b) => a.localeCompare(b));
    const shown = names.map((name) => {
      const member = create('li', '', name);
      member.style.color = colorOf(name, name === this.#name);
      return member;
    });
    if (values.length > names.length)
      shown.push(create('li', 'muted', `and ${values.length - names.length} more`));
    element('members').replaceChildren(...shown);
  }
}

/** Null when it is no line: anybody may publish anything there. */
function parse(data: string | Uint8Array): { name: string; text: string } | null {
  try {
    const { name, text } = JSON.parse(String(data)) as { name: unknown; text: unknown };
    if (typeof name !== 'string' || typeof text !== 'string') return null;
    const line = { name: cut(name, NAME_MAX) || 'somebody', text: cut(text, LINE_MAX) };
    return line.text ? line : null;
  } catch {
    return null;
  }
}

/** What a member has said of himself. */
function nameOf(member: string | Uint8Array): string {
  try {
    const { about } = JSON.parse(String(member)) as { about: unknown };
    return (typeof about === 'string' && cut(about, NAME_MAX)) || 'somebody';
  } catch {
    return 'somebody';
  }
}

/** One line of visible text: no controls, and no marks that reorder or hide what stands beside them; those that join emoji stay. */
function cut(text: string, most: number): string {
  const visible = text
    .slice(0, 16 * most)
    .replace(/\s+/gu, ' ')
    .replace(/(?!\u200d)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0]/gu, '');
  return [...visible.trim()].slice(0, most).join('').trim();
}

/** The same for the same name on every page. */
function colorOf(name: string, isOwn: boolean): string {
  if (isOwn) return OWN_COLOR;
  let hash = 0;
  for (const character of name) hash = (Math.imul(hash, 31) + (character.codePointAt(0) ?? 0)) >>> 0;
  return `hsl(${190 + (hash % 310)} 85% 70%)`; // not what one's own has
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
