/**
 * Flags with what the contract says of the arguments they fill: type, choices, default and description. Loads the
 * contract, so it is imported only when flags, help or completion are wanted.
 */
import { factsOfMember } from './contract.ts';
import type { Facts } from './facts.ts';
import { formatDuration, formatSize, parseDuration, parseInteger, parseSize, UnitError } from './units.ts';
import type { Flag, Verb } from './verb.ts';

/** A flag, ready for a parser, help and the reference. */
export interface FlagForm {
  readonly flag: Flag;
  /** Name of its value in help; without one it is a switch. */
  readonly value: string | undefined;
  readonly description: string;
  readonly choices: readonly string[] | undefined;
  /** As it would be typed. */
  readonly default: string | undefined;
  readonly repeatable: boolean;
  /** A given text as the value of the argument, on top of what was given before. Throws UnitError. */
  readonly parse: (text: string, previous: unknown) => unknown;
}

/** `sizeBytes` is typed as `size`, `readOnly` as `read-only`. */
const keyOf = (member: string): string =>
  member.replace(/(Bytes|Ms)$/, '').replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

const parseBoolean = (text: string): boolean => {
  if (text === 'true' || text === 'false') return text === 'true';
  throw new UnitError(`'${text}' is neither true nor false`);
};

const parseChoice = (text: string, choices: readonly string[]): string => {
  if (choices.includes(text)) return text;
  throw new UnitError(`'${text}' is not one of ${choices.join(', ')}`);
};

const parseScalar = (text: string, facts: Facts): unknown => {
  if (facts.choices) return parseChoice(text, facts.choices);
  if (facts.unit === 'bytes') return parseSize(text);
  if (facts.unit === 'milliseconds') return parseDuration(text);
  if (facts.type === 'integer') return parseInteger(text);
  if (facts.type === 'boolean') return parseBoolean(text);
  return text;
};

/** Members that can be typed as `key=value`: a list or an object cannot. */
const typedMembers = (facts: Facts): [string, Facts][] =>
  Object.entries(facts.members ?? {}).filter(([, { type }]) => type !== 'list' && type !== 'object');

const recordKeys = (facts: Facts): string[] => typedMembers(facts).map(([name]) => keyOf(name));

/** `image=debian,size=4GiB,read-only` as an object of the contract. Throws UnitError. */
export const parseRecord = (text: string, facts: Facts): Record<string, unknown> => {
  const members = new Map(typedMembers(facts).map(([name, of]) => [keyOf(name), { name, of }]));
  const record: Record<string, unknown> = {};
  for (const part of text.split(',')) {
    const [, key = '', value] = /^([^=]*)(?:=(.*))?$/s.exec(part) ?? [];
    const member = members.get(key);
    if (!member)
      throw new UnitError(`'${key}' is not one of its keys, which are ${recordKeys(facts).join(', ')}`);
    if (member.name in record) throw new UnitError(`'${key}' is given twice`);
    if (value === undefined && member.of.type !== 'boolean')
      throw new UnitError(`'${key}' needs a value: ${key}=…`);
    record[member.name] = value === undefined ? true : parseScalar(value, member.of);
  }
  return record;
};

const parsePair = (text: string, previous: unknown): Record<string, string> => {
  const [, key, value] = /^([^=]+)=(.*)$/s.exec(text) ?? [];
  if (key === undefined || value === undefined) throw new UnitError(`'${text}' is not of the form key=value`);
  return { ...(previous as Record<string, string> | undefined), [key]: value };
};

const append = (previous: unknown, value: unknown): unknown[] => [
  ...(Array.isArray(previous) ? previous : []),
  value,
];

const valueName = (facts: Facts): string | undefined => {
  if (facts.type === 'boolean') return undefined;
  if (facts.type === 'map') return 'key=value';
  if (facts.type === 'object') return 'key=value,…';
  if (facts.choices) return facts.choices.length <= 4 ? facts.choices.join('|') : 'choice';
  if (facts.unit === 'bytes') return 'size';
  if (facts.unit === 'milliseconds') return 'duration';
  return facts.type === 'integer' ? 'number' : 'text';
};

const parserOf = (facts: Facts): FlagForm['parse'] => {
  const { item } = facts;
  if (facts.type === 'list' && item) {
    return (text, previous) =>
      append(previous, item.type === 'object' ? parseRecord(text, item) : parseScalar(text, item));
  }
  if (facts.type === 'map') return parsePair;
  if (facts.type === 'object') return (text) => parseRecord(text, facts);
  return (text) => parseScalar(text, facts);
};

/** A default as it would be typed; none where it says nothing. */
const defaultText = (facts: Facts): string | undefined => {
  const value = facts.default;
  if (typeof value === 'number') {
    if (facts.unit === 'bytes') return formatSize(value);
    return facts.unit === 'milliseconds' ? formatDuration(value) : String(value);
  }
  return typeof value === 'string' && value !== '' ? value : undefined;
};

/** A default inside a group applies only where the group itself has one. */
const groupsHaveDefaults = (verb: Verb, path: string): boolean => {
  const keys = path.split('.').slice(0, -1);
  return keys.every(
    (_, index) =>
      verb.command === undefined ||
      factsOfMember(verb.command, keys.slice(0, index + 1).join('.')).default !== undefined,
  );
};

const contractForm = (verb: Verb, flag: Flag, path: string): FlagForm => {
  if (verb.command === undefined) throw new Error(`Flag --${flag.name} of '${verb.words}' has no command`);
  const facts = factsOfMember(verb.command, path);
  const single = facts.type === 'list' ? (facts.item ?? facts) : facts;
  const keys = single.type === 'object' ? ` (${recordKeys(single).join(', ')})` : '';
  const description = flag.description ?? facts.description ?? single.description ?? '';
  return {
    flag,
    value: flag.value ?? valueName(single),
    description: `${description}${keys}`,
    choices: single.choices,
    default: groupsHaveDefaults(verb, path) ? defaultText(facts) : undefined,
    repeatable: facts.type === 'list' || facts.type === 'map',
    parse: parserOf(facts),
  };
};

const ownParsers: Readonly<Record<NonNullable<Flag['type']>, FlagForm['parse']>> = {
  switch: () => true,
  size: (text) => parseSize(text),
  duration: (text) => parseDuration(text),
  integer: (text) => parseInteger(text),
  string: (text) => text,
  strings: (text, previous) => append(previous, text),
};

const ownForm = (flag: Flag): FlagForm => {
  const type = flag.type ?? 'switch';
  return {
    flag,
    value: type === 'switch' ? undefined : (flag.value ?? 'text'),
    description: flag.description ?? '',
    choices: undefined,
    default: undefined,
    repeatable: type === 'strings',
    parse: ownParsers[type],
  };
};

/** Every changing verb has it. */
export const NO_WAIT = 'no-wait';
const noWait: Flag = {
  name: NO_WAIT,
  description: 'Print the id of the operation and do not wait for its end',
};

export const flagForms = (verb: Verb): readonly FlagForm[] => [
  ...verb.flags.map((flag) =>
    flag.member === undefined ? ownForm(flag) : contractForm(verb, flag, flag.member),
  ),
  ...(verb.changes === true ? [ownForm(noWait)] : []),
];

/** Description with default and choices, as help shows it. */
export const helpText = (form: FlagForm): string => {
  const shownInValue = form.value === form.choices?.join('|');
  const notes = [
    ...(form.choices && !shownInValue ? [`one of ${form.choices.join(', ')}`] : []),
    ...(form.default === undefined ? [] : [`default: ${form.default}`]),
    ...(form.flag.negatable === true && form.value === undefined ? [`--no-${form.flag.name} undoes it`] : []),
  ];
  return notes.length === 0 ? form.description : `${form.description} (${notes.join('; ')})`;
};

/** `-m, --memory <size>` */
export const flagSyntax = ({ flag, value }: FlagForm): string =>
  `${flag.short === undefined ? '' : `-${flag.short}, `}--${flag.name}${value === undefined ? '' : ` <${value}>`}`;

/** Global flags, by the way they are shown. */
export const globalFlags = [
  {
    syntax: '--socket <path>',
    description: "Socket of the daemon (default: ROOST_SOCKET, else the daemon's own)",
  },
  { syntax: '--json', description: 'Print replies and errors as JSON' },
] as const;
