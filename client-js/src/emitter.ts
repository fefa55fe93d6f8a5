// Typed events: `on` returns its own unsubscribe, and a listener that throws harms nobody else.

/** Listeners for the events whose payloads `Events` names. */
export class Emitter<Events extends object> {
  readonly #listeners = new Map<keyof Events, Set<(payload: never) => void>>();

  on<Name extends keyof Events>(name: Name, listener: (payload: Events[Name]) => void): () => void {
    // A wrapper of its own: the same function may be added twice, and each `off` takes away one.
    const entry = (payload: Events[Name]) => listener(payload);
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(entry));
    return () => {
      listeners.delete(entry);
    };
  }

  emit<Name extends keyof Events>(name: Name, payload: Events[Name]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        (listener as (payload: Events[Name]) => void)(payload);
      } catch (error) {
        // Visible where uncaught errors are.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
