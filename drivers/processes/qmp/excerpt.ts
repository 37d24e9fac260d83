/**
 * A QMP message as text that may be kept: JSON without what is secret in it (see redact.ts), and never longer than a
 * bound, however large the message. Only what is kept is looked at. Pure.
 */
import { HIDDEN, isHidden, isObject } from './redact.ts';

export interface Excerpt {
  /** JSON, or the beginning of it. */
  readonly text: string;
  readonly isWhole: boolean;
}

/** At most `maxLength` UTF-16 units of the JSON of `value`. */
export const excerpt = (value: unknown, maxLength: number): Excerpt => {
  const writer = new Writer(maxLength);
  writer.write(value);
  return { text: writer.text, isWhole: !writer.isFull };
};

class Writer {
  text = '';
  isFull = false;
  readonly #maxLength: number;

  constructor(maxLength: number) {
    this.#maxLength = maxLength;
  }

  write(value: unknown): void {
    if (typeof value === 'string') this.#writeString(value);
    else if (Array.isArray(value)) this.#writeList(value);
    else if (isObject(value)) this.#writeObject(value);
    else this.#put(JSON.stringify(value ?? null));
  }

  /** Of a long one only what there is room for is made JSON of. */
  #writeString(value: string): void {
    const room = this.#maxLength - this.text.length;
    this.#put(value.length <= room ? JSON.stringify(value) : JSON.stringify(value.slice(0, room + 1)));
    if (value.length > room) this.isFull = true;
  }

  #writeList(values: readonly unknown[]): void {
    this.#put('[');
    for (const [index, value] of values.entries()) {
      if (this.isFull) return;
      if (index > 0) this.#put(',');
      this.write(value);
    }
    this.#put(']');
  }

  #writeObject(object: Readonly<Record<string, unknown>>): void {
    this.#put('{');
    let isFirst = true;
    for (const name of Object.keys(object)) {
      if (this.isFull) return;
      const value = object[name];
      if (value === undefined) continue;
      if (!isFirst) this.#put(',');
      isFirst = false;
      this.#writeString(name);
      this.#put(':');
      this.write(isHidden(object, name) ? HIDDEN : value);
    }
    this.#put('}');
  }

  #put(text: string): void {
    if (this.isFull) return;
    const room = this.#maxLength - this.text.length;
    if (text.length > room) this.isFull = true;
    this.text += text.length > room ? whole(text.slice(0, room)) : text;
  }
}

/** Without the first half of a character whose other half was cut off. */
const whole = (text: string): string => (/[\uD800-\uDBFF]$/.test(text) ? text.slice(0, -1) : text);
