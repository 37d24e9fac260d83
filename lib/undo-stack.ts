/**
 * Undo actions of a step that makes several things: added as each is made, run in reverse unless the step succeeded.
 * `await using` runs them when the scope is left by an error.
 */
export class UndoStack implements AsyncDisposable {
  #undos: (() => unknown)[] = [];

  add(undo: () => unknown): void {
    this.#undos.push(undo);
  }

  /** Keeps what was made. */
  succeed(): void {
    this.#undos = [];
  }

  /** Runs every undo, the last first, even when one fails; then throws the first failure. */
  async [Symbol.asyncDispose](): Promise<void> {
    const failures: unknown[] = [];
    for (let undo = this.#undos.pop(); undo; undo = this.#undos.pop()) {
      try {
        await undo();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}
