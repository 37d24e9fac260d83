/**
 * What a schema says about a value, in the form that flags, completion and the reference need. Read from the JSON Schema
 * that introspection gives, so that nothing here depends on how a schema was written.
 */
import { z } from 'zod';

export type ValueType = 'string' | 'integer' | 'number' | 'boolean' | 'list' | 'map' | 'object' | 'any';

/** One value of the contract. */
export interface Facts {
  readonly type: ValueType;
  readonly description?: string;
  /** Unit of an integer, by its name. */
  readonly unit?: 'bytes' | 'milliseconds';
  readonly choices?: readonly string[];
  readonly default?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
  /** Of an object, and of each form of a union together. */
  readonly members?: Readonly<Record<string, Facts>>;
  readonly required?: readonly string[];
  /** Of a list or a map. */
  readonly item?: Facts;
}

interface Schema {
  readonly type?: string;
  readonly description?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly default?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema | boolean;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly oneOf?: readonly Schema[];
  readonly anyOf?: readonly Schema[];
}

/** The unit of a member is the end of its name: memoryBytes, timeoutMs; in readBytesPerSecond it is bytes as well. */
export const unitOf = (name: string): Facts['unit'] =>
  /Bytes(PerSecond)?$/.test(name) ? 'bytes' : name.endsWith('Ms') ? 'milliseconds' : undefined;

const isBound = (value: number | undefined): value is number =>
  value !== undefined && Math.abs(value) < Number.MAX_SAFE_INTEGER;

const typeOf = (schema: Schema): ValueType => {
  switch (schema.type) {
    case 'string':
    case 'integer':
    case 'number':
    case 'boolean':
      return schema.type;
    case 'array':
      return 'list';
    case 'object':
      return schema.properties === undefined ? 'map' : 'object';
    default:
      return 'any';
  }
};

/** A member that several forms have, with different words: `disk` here, `kernel` there, each with its meaning. */
const mergeMember = (known: Facts | undefined, facts: Facts): Facts => {
  const meaning = (facts.choices ?? []).map((choice) => `${choice}: ${facts.description ?? ''}`).join('; ');
  const described = facts.choices ? { ...facts, description: meaning } : facts;
  if (!known?.choices || !facts.choices) return described;
  return {
    ...described,
    choices: [...known.choices, ...facts.choices],
    description: `${known.description ?? ''}; ${meaning}`,
  };
};

/** The forms of a union as one object: a choice of its distinguishing words, and every other member. */
const mergeForms = (forms: readonly Schema[], name: string, schema: Schema): Facts => {
  const all = forms.map((form) => readFacts(form, name));
  const members: Record<string, Facts> = {};
  for (const form of all) {
    for (const [key, facts] of Object.entries(form.members ?? {}))
      members[key] = mergeMember(members[key], facts);
  }
  const [first, ...others] = all.map((form) => form.required ?? []);
  const required = (first ?? []).filter((key) => others.every((keys) => keys.includes(key)));
  return { ...common(schema), type: 'object', members, required };
};

const common = (schema: Schema): Omit<Facts, 'type'> => ({
  ...(schema.description === undefined ? {} : { description: schema.description }),
  ...(schema.default === undefined ? {} : { default: schema.default }),
});

/** Facts of the schema of a member called `name`. */
const readFacts = (schema: Schema, name: string): Facts => {
  const forms = schema.oneOf ?? schema.anyOf;
  const [only, ...others] = (forms ?? []).filter((form) => form.type !== 'null');
  // A value or null: a flag gives the value.
  if (only && others.length === 0)
    return readFacts(
      { ...only, ...(schema.description === undefined ? {} : { description: schema.description }) },
      name,
    );
  if (forms?.every((form) => form.properties !== undefined)) return mergeForms(forms, name, schema);
  const unit = unitOf(name);
  const choices = schema.enum ?? (schema.const === undefined ? undefined : [schema.const]);
  const item =
    schema.items ??
    (typeof schema.additionalProperties === 'object' ? schema.additionalProperties : undefined);
  const numeric = schema.type === 'integer' || schema.type === 'number';
  return {
    ...common(schema),
    type: typeOf(schema),
    ...(unit !== undefined && numeric ? { unit } : {}),
    ...(choices === undefined ? {} : { choices: choices.map(String) }),
    ...(isBound(schema.minimum) ? { minimum: schema.minimum } : {}),
    ...(isBound(schema.maximum) ? { maximum: schema.maximum } : {}),
    ...(schema.properties === undefined
      ? {}
      : {
          members: Object.fromEntries(
            Object.entries(schema.properties).map(([key, value]) => [key, readFacts(value, key)]),
          ),
          required: schema.required ?? [],
        }),
    ...(item === undefined ? {} : { item: readFacts(item, name) }),
  };
};

export const factsOf = (schema: z.ZodType, io: 'input' | 'output'): Facts =>
  readFacts(z.toJSONSchema(schema, { io, unrepresentable: 'any', reused: 'inline' }) as Schema, '');
