/** Markdown of the reference: tables, and the contract's types in words. */
import type { Facts } from '../../cli/facts.ts';
import { eventNames } from '../../protocol/events.ts';

export const GENERATED = '\n<!-- Made by `npm run docs` from the contract; changes here are lost. -->';

/** A cell must not end its row or column. */
const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

export const table = (headings: readonly string[], rows: readonly (readonly string[])[]): string =>
  [headings, headings.map(() => '---'), ...rows.map((row) => row.map(cell))]
    .map((row) => `| ${row.join(' | ')} |`)
    .join('\n');

const code = (text: string): string => `\`${text}\``;

const rangeOf = ({ minimum, maximum }: Facts): string => {
  if (minimum !== undefined && maximum !== undefined) return `, ${minimum} to ${maximum}`;
  if (minimum !== undefined && minimum !== 0) return `, at least ${minimum}`;
  return maximum === undefined ? '' : `, at most ${maximum}`;
};

export const typeText = (facts: Facts): string => {
  if (facts.type === 'list') return `list of ${facts.item ? typeText(facts.item) : 'any'}`;
  if (facts.type === 'map') return `map of ${facts.item ? typeText(facts.item) : 'any'}`;
  if (facts.choices?.join() === eventNames.join()) return '[event](events.md)';
  if (facts.choices) return facts.choices.map(code).join(' · ');
  if (facts.unit !== undefined) return `${facts.unit}${rangeOf(facts)}`;
  return `${facts.type}${rangeOf(facts)}`;
};

export interface Row {
  readonly path: string;
  readonly facts: Facts;
  readonly required: boolean;
}

/** Members with those of the objects inside, by their paths: `disks[].sizeBytes`. */
export const flatten = (facts: Facts, prefix = ''): Row[] =>
  Object.entries(facts.members ?? {}).flatMap(([name, member]) => {
    const path = `${prefix}${name}`;
    const required = facts.required?.includes(name) === true;
    const inner = member.type === 'list' || member.type === 'map' ? member.item : member;
    const suffix = member.type === 'list' ? '[].' : member.type === 'map' ? '.*.' : '.';
    return [{ path, facts: member, required }, ...(inner?.members ? flatten(inner, path + suffix) : [])];
  });

const isEmptyObject = (value: unknown): boolean => JSON.stringify(value) === '{}';

const defaultText = ({ path, facts, required }: Row): string => {
  if (facts.default !== undefined && !isEmptyObject(facts.default))
    return code(JSON.stringify(facts.default));
  if (required && facts.default === undefined) return path.includes('.') ? 'required in it' : '**required**';
  return '';
};

export const argumentsTable = (facts: Facts): string =>
  table(
    ['Name', 'Type', 'Default', 'Description'],
    flatten(facts).map((row) => [
      code(row.path),
      typeText(row.facts),
      defaultText(row),
      row.facts.description ?? '',
    ]),
  );

export const membersTable = (facts: Facts): string =>
  table(
    ['Name', 'Type', 'Description'],
    flatten(facts).map(({ path, facts: member, required }) => [
      code(path),
      `${typeText(member)}${required ? '' : ', optional'}`,
      member.description ?? '',
    ]),
  );

export const anchor = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\w\- ]/g, '')
    .replaceAll(' ', '-');
