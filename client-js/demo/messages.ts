// The reliable messages of the game; server/src/demo/messages.rs is the description.

import type { Counts } from './tally.js';

export interface Leader {
  id: number;
  name: string;
  score: number;
  bot: boolean;
}

export type Notice =
  | {
      type: 'welcome';
      id: number;
      name: string;
      worldSize: number;
      players: Array<[number, string]>;
      playerCount: number;
      bots: number;
    }
  | { type: 'player'; id: number; name: string }
  | { type: 'left'; id: number }
  | { type: 'leaderboard'; top: Leader[]; players: number; bots: number }
  | { type: 'count'; n: number; up: Counts }
  | { type: 'error'; code: string; message: string };

/** Null when it is none that this page knows: it may come from a newer server. */
export function parseNotice(text: string): Notice | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && 'type' in value ? (value as Notice) : null;
  } catch {
    return null;
  }
}
