import { element } from './dom.js';

export const VIEWS = ['game', 'chat', 'dashboard'] as const;
export type View = (typeof VIEWS)[number];

/** Which part of the page is shown: the address says it (`#chat`), so that it can be linked to. All are one session. */
export class Views {
  current: View = 'game';
  #links = [...element('views').querySelectorAll('a')];
  #shown: (view: View) => void;

  /** `shown` is called for the first view, too. */
  constructor(shown: (view: View) => void) {
    this.#shown = shown;
    window.addEventListener('hashchange', () => this.#show());
    this.#show();
  }

  #show(): void {
    const named = location.hash.slice(1);
    this.current = VIEWS.find((view) => view === named) ?? 'game';
    document.documentElement.dataset['view'] = this.current;
    for (const link of this.#links) {
      if (link.hash === `#${this.current}`) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    }
    this.#shown(this.current);
  }
}
