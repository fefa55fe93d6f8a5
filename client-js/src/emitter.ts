// Typed events: `on` returns its own unsubscribe, and a listener that throws harms nobody else.

/** Listeners for the events whose payloads `Events` names. A function listens once, however often it is added. */
export class Emitter<Events extends object> {
  readonly #listeners = new Map<keyof Events, Set<(payload: never) => void>>();

  on<Name extends keyof Events>(name: Name, listener: (payload: Events[Name]) => void): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => {
      listeners.delete(listener);
    };
  }

  /** Calls those who listen; false when nobody does. */
  emit<Name extends keyof Events>(name: Name, payload: Events[Name]): boolean {
    const listeners = [...(this.#listeners.get(name) ?? [])];
    for (const listener of listeners) {
      try {
        (listener as (payload: Events[Name]) => void)(payload);
      } catch (error) {
        // Visible where uncaught errors are.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
    return listeners.length > 0;
  }
}
