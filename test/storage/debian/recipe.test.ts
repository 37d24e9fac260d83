/** The whole recipe, one argument a line. After a wanted change: `npx vitest run test/storage/debian -u`. */
import { expect, test } from 'vitest';
import type { Action } from '../../../storage/debian/actions.ts';
import { confined } from '../../../storage/debian/confinement.ts';
import { recipe } from '../../../storage/debian/recipe.ts';
import { rootRecipe } from '../../../storage/debian/root-recipe.ts';

const indented = (text: string): string =>
  text
    .split('\n')
    .map((line) => `  ${line}`.trimEnd())
    .join('\n');

const show = (action: Action): string => {
  switch (action.kind) {
    case 'run':
      return [
        `run (${action.stage})`,
        ...action.argv.map((argument) => `  ${argument}`),
        ...(action.input === undefined ? [] : ['with the input', indented(action.input)]),
      ].join('\n');
    case 'directory':
      return `directory ${action.path}`;
    case 'file':
      return `file ${action.path}\n${indented(action.text)}`;
    case 'link':
      return `link ${action.path} -> ${action.target}`;
    case 'poke':
      return `poke ${action.path} at ${action.offset}: ${action.value}`;
  }
};

const input = {
  suite: 'bookworm',
  sources: ['deb [signed-by=/keyring] http://mirror.test/debian bookworm main'],
  aptOptions: ['Acquire::http::Proxy "http://proxy.test:3128";'],
};

test.each([
  ['bookworm', recipe(input)],
  ['bookworm-root', rootRecipe(input)],
])('the recipe of %s', async (name, actions) => {
  await expect(`${actions.map(show).join('\n')}\n`).toMatchFileSnapshot(`../../golden/debian/${name}.txt`);
});

test.each(['root', 'mapped'] as const)('how a tool is confined, %s', async (privileges) => {
  const argv = confined(privileges, ['tool', 'argument']);
  await expect(`${argv.join('\n')}\n`).toMatchFileSnapshot(`../../golden/debian/confined-${privileges}.txt`);
});

test('every place of a disk lies on it, and no two partitions overlap', () => {
  const actions = recipe({ suite: 'bookworm', sources: [], aptOptions: [] });
  const table = actions.find((action) => action.kind === 'run' && action.argv[0] === 'sfdisk');
  const input = table?.kind === 'run' ? (table.input ?? '') : '';
  const parts = [...input.matchAll(/start=(\d+), size=(\d+)/g)].map(([, start, size]) => ({
    start: Number(start),
    end: Number(start) + Number(size),
  }));
  expect(parts).toHaveLength(3);
  const sectors = (2 * 1024 ** 3) / 512;
  let last = 34;
  for (const { start, end } of parts) {
    expect(start).toBeGreaterThanOrEqual(last);
    expect(start % 2048).toBe(0);
    last = end;
  }
  // The second copy of the table takes 33 sectors at the end.
  expect(last).toBeLessThanOrEqual(sectors - 33);
});
