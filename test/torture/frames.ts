/**
 * Frames for a daemon: requests made from the contract's own schemas, some of them right, most of them wrong in one of
 * the ways in which a client can be wrong, and bytes that are no requests at all. They are for a daemon over a pretended
 * host (test/fault/roostd-on-fakes.entry.ts): some of them really make, start and delete guests.
 */
import { z } from 'zod';
import { type CommandName, commandNames, findCommand } from '../../protocol/commands.ts';
import type { Random } from './random.ts';

type Schema = Readonly<Record<string, unknown>>;

export interface Frame {
  readonly bytes: Buffer;
  /** Set where the frame is one JSON value, so that it has exactly one answer, with this id. */
  readonly id?: string;
  readonly command?: CommandName;
}

const texts = [
  'web',
  'g00',
  '0',
  '',
  'ü€😀',
  'a'.repeat(300),
  '../../etc/passwd',
  'max',
  'q35',
  '7f9c2b1e-8f4d-4a51-9b7e-0d8d8f2f7c11',
  '018f6e9a-7d3c-7a10-8c1e-5a6b7c8d9e0f',
  '52:54:00:12:34:56',
  '10.91.7.3',
  '10.91.7.0/24',
  '/nonexistent/image.raw',
  'f'.repeat(64),
  'bridge0',
  '\u0000',
  '\ud800',
  '__proto__',
] as const;

const numbers = [0, 1, -1, 2, 512, 4096, 1_048_576, 2 ** 31, 2 ** 53, 1e308, -0.5, 0.1] as const;

const strange: readonly unknown[] = [
  null,
  true,
  {},
  [],
  [[[[[[]]]]]],
  { constructor: { prototype: 1 } },
  ...texts,
  ...numbers,
];

const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? (value as unknown[]) : []);
const isSchema = (value: unknown): value is Schema => typeof value === 'object' && value !== null;

export class FrameMaker {
  readonly #random: Random;
  readonly #commands = commandNames.filter((name) => name !== 'guest-console');
  readonly #schemas: ReadonlyMap<CommandName, Schema>;
  #number = 0;

  constructor(random: Random) {
    this.#random = random;
    this.#schemas = new Map(
      commandNames.map((name) => [
        name,
        z.toJSONSchema(findCommand(name)?.arguments ?? z.never(), { io: 'input', unrepresentable: 'any' }),
      ]),
    );
  }

  /**
   * A frame that is one JSON value, with an id that no harm done to another one can lead to. `guest-console` is not among
   * them: it takes its connection over, and nothing after it is a frame.
   */
  value(prefix: 'whole-' | 'part-' = 'whole-'): Frame {
    const random = this.#random;
    const command = random.pick(this.#commands);
    this.#number += 1;
    const id = `${prefix}${this.#number}`;
    const request: Record<string, unknown> = { execute: command, arguments: this.#arguments(command), id };
    if (random.chance(0.5)) this.#spoil(request);
    return { bytes: Buffer.from(JSON.stringify(request)), id, command };
  }

  /** A frame that was one JSON value before something happened to it. */
  mutated(): Frame {
    const random = this.#random;
    const bytes = this.value('part-').bytes;
    const at = random.integer(0, bytes.length - 1);
    switch (random.integer(0, 7)) {
      case 0:
        bytes[at] = random.integer(0, 255);
        return { bytes };
      case 1:
        return { bytes: bytes.subarray(0, at) };
      case 2:
        return { bytes: Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1)]) };
      case 3:
        return { bytes: Buffer.concat([bytes.subarray(0, at), this.#noise(), bytes.subarray(at)]) };
      case 4:
        return { bytes: Buffer.concat([bytes.subarray(0, at), this.value('part-').bytes.subarray(at)]) };
      case 5:
        return { bytes: Buffer.from('['.repeat(random.integer(1, 400))) };
      case 6:
        return { bytes: this.#noise() };
      default:
        return random.chance(0.01)
          ? { bytes: Buffer.from(`"${'x'.repeat(1024 * 1024 + 10)}"`) }
          : { bytes: Buffer.from(JSON.stringify(random.pick(strange)) ?? 'null') };
    }
  }

  #noise(): Buffer {
    return Buffer.from(
      Array.from({ length: this.#random.integer(1, 24) }, () => this.#random.integer(0, 255)),
    );
  }

  /** Right ones wait for milliseconds only, and make no tokens without end: a token without a name is always a further one. */
  #arguments(command: CommandName): unknown {
    const made = this.#of(this.#schemas.get(command) ?? {}, 0);
    if (!isSchema(made)) return made;
    const { properties } = this.#schemas.get(command) ?? {};
    if (findCommand(command)?.nature === 'wait' && isSchema(properties) && 'timeoutMs' in properties)
      return { ...made, timeoutMs: this.#random.integer(1, 5) };
    if (command === 'token-create') return { ...made, name: this.#random.pick(texts) };
    return made;
  }

  /** Makes a request wrong. */
  #spoil(request: Record<string, unknown>): void {
    const random = this.#random;
    const args = request['arguments'];
    switch (random.integer(0, 3)) {
      case 0:
        request['execute'] = `${String(request['execute'])}x`;
        return;
      case 1:
        request['no-such-member'] = random.pick(strange);
        return;
      case 2:
        request['arguments'] = random.pick(strange);
        return;
      default:
        if (!isSchema(args)) return;
        request['arguments'] = {
          ...args,
          [random.pick([...Object.keys(args), 'guest', 'no-such-member'])]: random.pick(strange),
        };
    }
  }

  /** A value for a schema, right as far as chance and patterns allow. */
  #of(schema: Schema, depth: number): unknown {
    const random = this.#random;
    const choices = [...list(schema['anyOf']), ...list(schema['oneOf'])].filter(isSchema);
    if (choices.length > 0) return this.#of(random.pick(choices), depth + 1);
    if ('const' in schema) return schema['const'];
    const allowed = list(schema['enum']);
    if (allowed.length > 0) return random.pick(allowed);
    switch (schema['type']) {
      case 'string':
        return this.#text(schema);
      case 'integer':
      case 'number':
        return random.chance(0.3) ? random.pick(numbers) : this.#within(schema);
      case 'boolean':
        return random.chance(0.5);
      case 'array':
        return this.#array(schema, depth);
      case 'object':
        return this.#object(schema, depth);
      default:
        return random.pick(strange);
    }
  }

  /** A number between the bounds of its schema, mostly near the lower one. */
  #within({ minimum, maximum }: Schema): number {
    const least = typeof minimum === 'number' ? minimum : 0;
    const most = typeof maximum === 'number' ? maximum : Number.MAX_SAFE_INTEGER;
    return this.#random.integer(least, Math.min(most, this.#random.chance(0.8) ? least + 100 : most));
  }

  #text(schema: Schema): string {
    const pattern = typeof schema['pattern'] === 'string' ? new RegExp(schema['pattern'], 'u') : undefined;
    const fitting = texts.filter((text) => pattern?.test(text) ?? true);
    return this.#random.pick(fitting.length > 0 && this.#random.chance(0.8) ? fitting : texts);
  }

  #array(schema: Schema, depth: number): unknown[] {
    const items = schema['items'];
    if (!isSchema(items) || depth > 6) return [];
    return Array.from({ length: this.#random.integer(0, 3) }, () => this.#of(items, depth + 1));
  }

  #object(schema: Schema, depth: number): Record<string, unknown> {
    if (depth > 6) return {};
    const required = new Set(list(schema['required']));
    const members = Object.entries(isSchema(schema['properties']) ? schema['properties'] : {});
    return Object.fromEntries(
      members.flatMap(([name, inner]) =>
        isSchema(inner) && (required.has(name) || this.#random.chance(0.3))
          ? [[name, this.#of(inner, depth + 1)] as const]
          : [],
      ),
    );
  }
}
