/** One line on a terminal that shows what is under way, rewritten in place and gone at the end. */
import { safe } from './print/table.ts';

const ERASE_LINE = '\r\u001b[K';

export class ProgressLine {
  readonly #stream: NodeJS.WritableStream & { readonly columns?: number };
  readonly #subjects = new Map<string, string>();
  /** Also of operations not added yet: their events may come before their reply. */
  readonly #steps = new Map<string, string>();
  #closed = false;
  /** Called at the end. */
  onClose: () => void = () => undefined;

  constructor(stream: NodeJS.WritableStream & { readonly columns?: number }) {
    this.#stream = stream;
  }

  add(operation: string, subject: string): void {
    this.#subjects.set(operation, subject);
    this.#draw();
  }

  update(operation: string, step: string): void {
    this.#steps.set(operation, step);
    if (this.#subjects.has(operation)) this.#draw();
  }

  remove(operation: string): void {
    this.#subjects.delete(operation);
    this.#draw();
  }

  /** Those that are shown. */
  get operations(): readonly string[] {
    return [...this.#subjects.keys()];
  }

  /** Runs something that prints lines of its own. */
  aside<T>(print: () => T): T {
    this.#stream.write(ERASE_LINE);
    const result = print();
    this.#draw();
    return result;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  close(): void {
    this.#closed = true;
    this.onClose();
    this.#stream.write(ERASE_LINE);
  }

  #draw(): void {
    if (this.#closed) return;
    const parts = [...this.#subjects].map(
      ([operation, subject]) => `${subject}: ${this.#steps.get(operation) ?? 'accepted'}`,
    );
    const width = (this.#stream.columns ?? 80) - 1;
    this.#stream.write(ERASE_LINE + safe(parts.join('   ')).slice(0, width));
  }
}
