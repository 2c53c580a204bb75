// One small store: a value, and who wants to know of a change. Many changes in one go are told once.

export class Store {
  #value;
  #listeners = new Set();
  #telling = false;

  constructor(value) {
    this.#value = value;
  }

  get value() {
    return this.#value;
  }

  set(value) {
    this.#value = value;
    this.touch();
  }

  /** Say that something within the value has changed. */
  touch() {
    if (this.#telling) return;
    this.#telling = true;
    queueMicrotask(() => {
      this.#telling = false;
      for (const listener of [...this.#listeners]) listener(this.#value);
    });
  }

  /** Call `listener` now and after every change, until `signal` says that nobody listens any more. */
  watch(listener, signal) {
    this.#listeners.add(listener);
    signal?.addEventListener("abort", () => this.#listeners.delete(listener));
    listener(this.#value);
  }
}
