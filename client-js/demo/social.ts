import { create, element, setText } from './dom.js';
import type { Leader, Notice } from './messages.js';

const NAME_KEY = 'throughline-demo-name';

export interface SocialActions {
  rename(name: string): void;
  /** Something to tell beside what people say. */
  note(text: string): void;
}

/** Names and leaderboard. Whatever a player wrote is shown as text, never as markup. */
export class Social {
  ownId = -1;
  players = 0;
  bots = 0;
  #names = new Map<number, string>();
  #leaders: Leader[] = [];
  #shown = '';
  #actions: SocialActions;

  constructor(actions: SocialActions, name: string) {
    this.#actions = actions;
    const nameInput = element<HTMLInputElement>('name');
    nameInput.value = name;
    element('name-form').addEventListener('submit', (event) => {
      event.preventDefault();
      const wanted = nameInput.value.trim();
      nameInput.blur();
      if (!wanted) return;
      rememberName(wanted);
      actions.rename(wanted);
    });
    nameInput.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') nameInput.blur();
    });
  }

  /** For a tag beside a ship: people, and the bots that lead. */
  nameOf(id: number): string | null {
    return this.#names.get(id) ?? this.#leaders.find((leader) => leader.id === id)?.name ?? null;
  }

  take(notice: Notice): void {
    switch (notice.type) {
      case 'welcome':
        this.ownId = notice.id;
        this.players = notice.playerCount;
        this.bots = notice.bots;
        this.#names = new Map(notice.players);
        this.#names.set(notice.id, notice.name);
        this.#actions.note(
          notice.playerCount > 1
            ? `${notice.playerCount} people are here.`
            : 'You are the only person here. Open a second tab!',
        );
        break;
      case 'player': {
        const before = this.#names.get(notice.id);
        this.#names.set(notice.id, notice.name);
        if (notice.id !== this.ownId && before?.startsWith('Guest ') !== false) {
          if (!notice.name.startsWith('Guest ')) this.#actions.note(`${notice.name} is here.`);
        } else if (before && before !== notice.name && notice.id !== this.ownId) {
          this.#actions.note(`${before} is now ${notice.name}.`);
        }
        break;
      }
      case 'left': {
        const name = this.#names.get(notice.id);
        if (name) this.#actions.note(`${name} left.`);
        this.#names.delete(notice.id);
        break;
      }
      case 'leaderboard':
        this.#leaders = notice.top;
        this.players = notice.players;
        this.bots = notice.bots;
        break;
      case 'error':
        this.#actions.note(notice.message);
        break;
    }
  }

  /** Draws the leaderboard, with the own place below when it is not among the first. */
  showLeaders(score: number, rank: number): void {
    setText(element('population'), `${this.players} + ${this.bots} bots`);
    const isListed = this.#leaders.some((leader) => leader.id === this.ownId);
    const shown = JSON.stringify([this.#leaders, isListed ? null : [this.nameOf(this.ownId), score, rank]]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    const rows = this.#leaders.map((leader, index) => this.#row(leader, index + 1));
    if (this.ownId >= 0 && rank > 0 && !isListed) {
      const own = { id: this.ownId, name: this.nameOf(this.ownId) ?? 'You', score, bot: false };
      const row = this.#row(own, rank);
      row.classList.add('apart');
      rows.push(row);
    }
    element('leaders').replaceChildren(...rows);
  }

  #row(leader: Leader, place: number): HTMLElement {
    const row = create('li', leader.bot ? 'bot' : '');
    row.classList.toggle('self', leader.id === this.ownId);
    row.append(
      create('span', 'place', String(place)),
      create('span', 'who', leader.name),
      create('span', 'score', String(leader.score)),
    );
    return row;
  }
}

/** From the address, from the last visit, or one of our own. */
export function initialName(fromAddress: string | null): string {
  if (fromAddress?.trim()) return fromAddress.trim().slice(0, 18);
  try {
    const remembered = localStorage.getItem(NAME_KEY);
    if (remembered) return remembered;
  } catch {
    // Forbidden in some privacy modes; the page works without.
  }
  return `Pilot ${Math.floor(Math.random() * 900 + 100)}`;
}

function rememberName(name: string): void {
  try {
    localStorage.setItem(NAME_KEY, name);
  } catch {
    // As above.
  }
}
