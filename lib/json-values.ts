/**
 * Cuts a byte stream into JSON values (RFC 8259), the way QMP frames its messages: one value after another,
 * with or without whitespace between them, never by lines.
 *
 * A value ends where its depth, counted outside strings, is back at zero; a bare number, `true`, `false` or
 * `null` ends at the byte after it. Rules it keeps:
 * - every byte is looked at once and copied a constant number of times, however the stream is cut;
 * - no input throws, and no input makes it hold more than `maxValueBytes` and one chunk;
 * - after an error it finds the next value by itself: a value too large or too deep is skipped to its end, a
 *   string cut off by a line end gives up its value there, bytes that start no value are skipped as one;
 * - byte 0xFF, which no UTF-8 text contains, resets it, as it does QEMU's parser: silently outside a string,
 *   with an error inside one.
 *
 * Values come from `JSON.parse`: integers beyond 2^53 lose precision, the last of two equal keys wins.
 */

export const DEFAULT_MAX_VALUE_BYTES = 1024 * 1024;
export const DEFAULT_MAX_DEPTH = 128;

/** `truncated` comes from `end()` only: the stream ended inside a value. */
export type JsonErrorReason = 'syntax' | 'too-large' | 'too-deep' | 'truncated';

export type JsonReadResult =
  | { readonly kind: 'value'; readonly value: unknown; readonly bytes: number }
  | { readonly kind: 'error'; readonly reason: JsonErrorReason; readonly message: string };

export interface JsonValueReaderOptions {
  /** Longest value accepted, in bytes. */
  readonly maxValueBytes?: number;
  /** Deepest nesting of objects and arrays accepted. */
  readonly maxDepth?: number;
}

/**
 * Where the reader stands. `between`: no value begun. `structure`: inside an object or array. `string`,
 * `escape`: inside a string, after its backslash. `scalar`: inside a bare word or number. `junk`: skipping
 * bytes that can't start a value. `recovery`: skipping the rest of a value that broke inside a string.
 */
type Mode = 'between' | 'structure' | 'string' | 'escape' | 'scalar' | 'junk' | 'recovery';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const COMMA = 0x2c;
const COLON = 0x3a;
const LINE_FEED = 0x0a;
const SPACE = 0x20;
const RESET = 0xff;

/** A buffer that grew beyond this is let go after its value. */
const KEPT_BUFFER_BYTES = 64 * 1024;

export class JsonValueReader {
  readonly #maxValueBytes: number;
  readonly #maxDepth: number;
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  #mode: Mode = 'between';
  #depth = 0;
  /** The value in progress was refused already: skip to its end without keeping it. */
  #skipping = false;
  /** Bytes of the value in progress from earlier chunks: all of them, and those kept in `#held`. */
  #earlierBytes = 0;
  #held = Buffer.alloc(0);
  #heldBytes = 0;
  /** Where the value in progress starts in the chunk being read. */
  #start = 0;
  #results: JsonReadResult[] = [];

  constructor(options: JsonValueReaderOptions = {}) {
    this.#maxValueBytes = options.maxValueBytes ?? DEFAULT_MAX_VALUE_BYTES;
    this.#maxDepth = options.maxDepth ?? DEFAULT_MAX_DEPTH;
  }

  /** Bytes read of a value that is not finished yet; 0 between values. */
  get pending(): number {
    return this.#earlierBytes;
  }

  /** Reads the next bytes of the stream and returns, in their order, the values and errors they complete. */
  push(chunk: Uint8Array): readonly JsonReadResult[] {
    this.#start = 0;
    let at = 0;
    while (at < chunk.length) at = this.#scan(chunk, at);
    this.#keep(chunk);
    return this.#takeResults();
  }

  /** Ends the stream: a bare number or word at its end is complete now, anything else unfinished an error. */
  end(): readonly JsonReadResult[] {
    if (this.#mode === 'scalar') {
      this.#start = 0;
      this.#finishValue(new Uint8Array(0), 0);
    } else if (this.#earlierBytes > 0) {
      this.#refuse('truncated', `The stream ended ${this.#earlierBytes} bytes into a value`);
    }
    this.#reset('between');
    return this.#takeResults();
  }

  /** Goes on from `at` in the current mode until the mode changes; returns the next position. */
  #scan(chunk: Uint8Array, at: number): number {
    let next: number;
    switch (this.#mode) {
      case 'between':
        next = this.#scanBetween(chunk, at);
        break;
      case 'structure':
        next = this.#scanStructure(chunk, at);
        break;
      case 'string':
        next = this.#scanString(chunk, at);
        break;
      case 'escape':
        next = this.#scanEscape(chunk, at);
        break;
      case 'scalar':
        next = this.#scanScalar(chunk, at);
        break;
      case 'junk':
        next = this.#skipUntil(chunk, at, endsJunk);
        break;
      case 'recovery':
        next = this.#skipUntil(chunk, at, endsRecovery);
        break;
    }
    return next;
  }

  #scanBetween(chunk: Uint8Array, from: number): number {
    let at = from;
    while (at < chunk.length && (isWhitespace(chunk[at]) || chunk[at] === RESET)) at += 1;
    const byte = chunk[at];
    if (byte === undefined) return at;
    this.#start = at;
    if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      // The opening byte itself is counted there.
      this.#mode = 'structure';
      return at;
    }
    if (byte === QUOTE) this.#mode = 'string';
    else if (isScalarByte(byte)) this.#mode = 'scalar';
    else {
      this.#refuse('syntax', `Byte 0x${byte.toString(16).padStart(2, '0')} does not start a JSON value`);
      this.#reset('junk');
    }
    return at + 1;
  }

  #scanStructure(chunk: Uint8Array, from: number): number {
    for (let at = from; at < chunk.length; at += 1) {
      const byte = chunk[at];
      if (byte === QUOTE) {
        this.#mode = 'string';
        return at + 1;
      }
      if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
        this.#depth += 1;
        if (this.#depth > this.#maxDepth) {
          this.#refuse('too-deep', `A value is nested more than ${this.#maxDepth} levels deep`);
        }
      } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
        this.#depth -= 1;
        if (this.#depth === 0) {
          this.#finishValue(chunk, at + 1);
          return at + 1;
        }
      } else if (byte === RESET) {
        this.#reset('between');
        return at + 1;
      }
    }
    return chunk.length;
  }

  #scanString(chunk: Uint8Array, from: number): number {
    for (let at = from; at < chunk.length; at += 1) {
      const byte = chunk[at];
      if (byte === QUOTE) {
        if (this.#depth > 0) this.#mode = 'structure';
        else this.#finishValue(chunk, at + 1);
        return at + 1;
      }
      if (byte === BACKSLASH) {
        this.#mode = 'escape';
        return at + 1;
      }
      if (byte === LINE_FEED || byte === RESET) return this.#breakString(byte, at);
    }
    return chunk.length;
  }

  #scanEscape(chunk: Uint8Array, at: number): number {
    const byte = chunk[at];
    if (byte === LINE_FEED || byte === RESET) return this.#breakString(byte, at);
    this.#mode = 'string';
    return at + 1;
  }

  /** A string can't contain these bytes; without giving up here an unclosed string would swallow the stream. */
  #breakString(byte: number, at: number): number {
    this.#refuse('syntax', byte === RESET ? 'Byte 0xff inside a string' : 'Line end inside a string');
    this.#reset('recovery');
    return at + 1;
  }

  #scanScalar(chunk: Uint8Array, from: number): number {
    let at = from;
    while (at < chunk.length && isScalarByte(chunk[at])) at += 1;
    if (at < chunk.length) {
      if (chunk[at] === RESET) this.#reset('between');
      else this.#finishValue(chunk, at);
    }
    return at;
  }

  #skipUntil(chunk: Uint8Array, from: number, ends: (byte: number | undefined) => boolean): number {
    let at = from;
    while (at < chunk.length && !ends(chunk[at])) at += 1;
    if (at < chunk.length) this.#mode = 'between';
    return at;
  }

  /** The value in progress ends before `end` in the chunk. */
  #finishValue(chunk: Uint8Array, end: number): void {
    const bytes = this.#earlierBytes + end - this.#start;
    if (!this.#skipping) {
      if (bytes > this.#maxValueBytes) this.#refuseTooLarge();
      else this.#results.push(this.#parse(chunk.subarray(this.#start, end), bytes));
    }
    this.#reset('between');
  }

  #parse(tail: Uint8Array, bytes: number): JsonReadResult {
    let content = tail;
    if (this.#heldBytes > 0) {
      this.#hold(tail);
      content = this.#held.subarray(0, this.#heldBytes);
    }
    try {
      const value: unknown = JSON.parse(this.#decoder.decode(content));
      return { kind: 'value', value, bytes };
    } catch (error) {
      const message = error instanceof SyntaxError ? error.message : 'A value is not valid UTF-8';
      return { kind: 'error', reason: 'syntax', message };
    }
  }

  /** Keeps what the chunk holds of an unfinished value, unless that makes it too large. */
  #keep(chunk: Uint8Array): void {
    if (this.#mode === 'between' || this.#mode === 'junk' || this.#mode === 'recovery') return;
    const part = chunk.subarray(this.#start);
    this.#earlierBytes += part.length;
    if (this.#skipping) return;
    if (this.#earlierBytes > this.#maxValueBytes) this.#refuseTooLarge();
    else this.#hold(part);
  }

  /** Appends to the held bytes, doubling their buffer so that copying stays linear. */
  #hold(part: Uint8Array): void {
    const needed = this.#heldBytes + part.length;
    if (needed > this.#held.length) {
      const grown = Buffer.allocUnsafe(Math.max(needed, 2 * this.#held.length));
      this.#held.copy(grown, 0, 0, this.#heldBytes);
      this.#held = grown;
    }
    this.#held.set(part, this.#heldBytes);
    this.#heldBytes = needed;
  }

  #refuseTooLarge(): void {
    this.#refuse('too-large', `A value is longer than ${this.#maxValueBytes} bytes`);
  }

  /** Reports an error of the value in progress, the first only, and lets go of what is held of it. */
  #refuse(reason: JsonErrorReason, message: string): void {
    if (this.#skipping) return;
    this.#skipping = true;
    this.#release();
    this.#results.push({ kind: 'error', reason, message });
  }

  #reset(mode: 'between' | 'junk' | 'recovery'): void {
    this.#mode = mode;
    this.#depth = 0;
    this.#skipping = false;
    this.#earlierBytes = 0;
    this.#release();
  }

  #release(): void {
    this.#heldBytes = 0;
    if (this.#held.length > KEPT_BUFFER_BYTES) this.#held = Buffer.alloc(0);
  }

  #takeResults(): readonly JsonReadResult[] {
    const results = this.#results;
    this.#results = [];
    return results;
  }
}

function isWhitespace(byte: number | undefined): boolean {
  return byte === SPACE || byte === LINE_FEED || byte === 0x0d || byte === 0x09;
}

/** Any byte of a word or number, right or wrong: printable ASCII that is not a quote or structural. */
function isScalarByte(byte: number | undefined): boolean {
  if (byte === undefined || byte <= SPACE || byte >= 0x7f) return false;
  return byte !== QUOTE && byte !== COMMA && byte !== COLON && !isBracket(byte);
}

function isBracket(byte: number): boolean {
  return byte === OPEN_BRACE || byte === CLOSE_BRACE || byte === OPEN_BRACKET || byte === CLOSE_BRACKET;
}

function endsJunk(byte: number | undefined): boolean {
  return isWhitespace(byte) || byte === QUOTE || endsRecovery(byte);
}

function endsRecovery(byte: number | undefined): boolean {
  return byte === OPEN_BRACE || byte === OPEN_BRACKET || byte === LINE_FEED || byte === RESET;
}
