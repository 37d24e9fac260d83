/**
 * One output for one of those who are attached to it: what was written before, then what comes. Nobody of them holds it up:
 * who does not take it is let go.
 */
import { Readable } from 'node:stream';

/** A reader this far behind is let go rather than kept in memory. */
export const MAX_BEHIND_BYTES = 1024 * 1024;

export class AttachedOutput extends Readable {
  readonly #farBehind: () => Error;
  #wanted: (() => void) | undefined;
  /** What came before all that was written earlier is handed on. */
  #waiting: Buffer[] | undefined = [];
  #waitingBytes = 0;
  #isOver = false;

  /** `farBehind`: what a reader is told that is let go. Ahead of anything else comes what `replay` is given. */
  constructor(farBehind: () => Error) {
    super();
    this.#farBehind = farBehind;
    // Whoever carries it hears of an error by its own listener.
    this.on('error', () => undefined);
  }

  override _read(): void {
    this.#wanted?.();
    this.#wanted = undefined;
  }

  /** Hands on what was written before, then what came meanwhile; to be called once. Never rejects. */
  async replay(before: AsyncIterable<Buffer> | Iterable<Buffer>): Promise<void> {
    try {
      for await (const chunk of before) {
        if (this.destroyed) return;
        if (!this.push(chunk)) await new Promise<void>((resolve) => void (this.#wanted = resolve));
      }
    } catch (error) {
      this.destroy(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    for (const chunk of waiting) this.push(chunk);
    if (this.#isOver) this.push(null);
  }

  deliver(chunk: Buffer): void {
    if (this.destroyed) return;
    if (this.#waiting) {
      this.#waiting.push(chunk);
      this.#waitingBytes += chunk.length;
    } else this.push(chunk);
    if (this.readableLength + (this.#waiting ? this.#waitingBytes : 0) > MAX_BEHIND_BYTES)
      this.destroy(this.#farBehind());
  }

  end(): void {
    this.#isOver = true;
    if (!this.#waiting && !this.destroyed) this.push(null);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#wanted?.();
    done(error);
  }
}
