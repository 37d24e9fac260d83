import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkImports, matches, ruleFor } from '../../tools/check-deps.ts';
import { scanImports } from '../../tools/import-scanner.ts';

const packages = {
  dependencies: ['zod', 'execa', 'better-sqlite3', 'ws', 'commander'],
  devDependencies: ['vitest'],
};

const violations = (path: string, source: string): readonly string[] =>
  checkImports([{ path, source }], packages).map(({ line, message }) => `${line}: ${message.split('\n')[0]}`);

describe('scanImports', () => {
  it.each([
    ["import { a } from 'x';", ['x', false]],
    ["import a, { type B } from 'x';", ['x', false]],
    ["import * as a from 'x';", ['x', false]],
    ["import 'x';", ['x', false]],
    ["import type { A } from 'x';", ['x', true]],
    ["import type from 'x';", ['x', false]],
    ['import {\n  a,\n  b as c,\n} from "x";', ['x', false]],
    ["export { a } from 'x';", ['x', false]],
    ["export * from 'x';", ['x', false]],
    ["export type { A } from 'x';", ['x', true]],
    ["const a = await import('x');", ['x', false]],
    ['const a = await import(`x`);', ['x', false]],
    ["let a: import('x').A;", ['x', false]],
    ["const a = require('x');", ['x', false]],
    ['const a = await import(name);', [undefined, false]],
    // eslint-disable-next-line no-template-curly-in-string
    ['const a = await import(`x/${name}`);', [undefined, false]],
    ['const a = b ? import(name) : undefined;', [undefined, false]],
  ] as const)('finds %s', (source, [specifier, typeOnly]) => {
    expect(scanImports(source)).toEqual([{ specifier, line: 1, typeOnly }]);
  });

  it.each([
    "// import { a } from 'x';",
    "/* import 'x'; */",
    'const a = "import \'x\'";',
    "const a = `import { b } from 'x'`;",
    "const a = /import 'x'/;",
    'const a = import.meta.dirname;',
    "export const a = from('x');",
    'interface A { import(path: string): void }',
    'class A { async import(path: string) { return path; } }',
    "array.from('x');",
    "const a = { require: 1 }; b.require('x');",
    "export default class A {}\nconst from = 'x';",
  ])('finds nothing in %s', (source) => {
    expect(scanImports(source)).toEqual([]);
  });

  it('looks into the expressions of a template and goes on after it', () => {
    const source = "const a = `${await import('x')} import 'y' ${{ b: `}` }.b}`;\nimport 'z';";
    expect(scanImports(source).map(({ specifier, line }) => `${line} ${specifier}`)).toEqual(['1 x', '2 z']);
  });

  it('is not misled by a regular expression that holds quotes and slashes', () => {
    const source = "const a = x.replace(/['\"`/]/g, '') / 2;\nimport 'y';";
    expect(scanImports(source)).toEqual([{ specifier: 'y', line: 2, typeOnly: false }]);
  });

  it('keeps its place whatever stands between two imports', () => {
    const noise = fc.constantFrom(
      "'it\\'s'",
      '"\\""',
      '`${1}`',
      '/[/"]/u',
      '1 / 2 / 3',
      "// it's\n",
      '/* ` */',
      '(a) / b',
      '{}',
      '`a${`b${1}`}`',
    );
    fc.assert(
      fc.property(fc.array(noise), (parts) => {
        const source = `import 'first';\n${parts.join(';\n')};\nimport 'last';`;
        const lastLine = source.split('\n').length;
        expect(scanImports(source).map(({ specifier, line }) => [specifier, line])).toEqual([
          ['first', 1],
          ['last', lastLine],
        ]);
      }),
    );
  });
});

describe('checkImports', () => {
  it.each([
    ['protocol/guest.ts', "import { z } from 'zod';\nimport './types.ts';"],
    ['lib/exec.ts', "import 'node:fs/promises';\nimport { execa } from 'execa';"],
    ['drivers/qemu/driver.ts', "import '../driver.ts';\nimport '../../lib/abort.ts';"],
    ['drivers/qemu/launch-args.ts', "import type { Launch } from '../driver.ts';"],
    ['daemon/guests/guest.ts', "import '../../storage/pool.ts';\nimport '../inventory/guests.ts';"],
    ['daemon/main.ts', "import '../drivers/qemu/driver.ts';"],
    ['daemon/inventory/database.ts', "import Database from 'better-sqlite3';"],
    ['test/lib/a.test.ts', "import 'vitest';\nimport '../../daemon/main.ts';"],
  ])('accepts %s', (path, source) => {
    expect(violations(path, source)).toEqual([]);
  });

  it.each([
    ['protocol/guest.ts', "import 'node:fs';", 'node:fs is not for protocol'],
    ['protocol/guest.ts', "import '../lib/abort.ts';", 'lib/abort.ts is not for protocol'],
    ['lib/exec.ts', "import type { A } from '../daemon/main.ts';", 'daemon/main.ts is not for lib'],
    ['drivers/qemu/driver.ts', "import '../../storage/pool.ts';", 'storage/pool.ts is not for drivers'],
    [
      'storage/directory/pool.ts',
      "import '../../network/backend.ts';",
      'network/backend.ts is not for storage',
    ],
    ['network/linux-bridge/a.ts', "import '../../daemon/ledger.ts';", 'daemon/ledger.ts is not for network'],
    ['drivers/qemu/launch-args.ts', "import 'node:path';", 'node:path is not for pure decisions'],
    [
      'drivers/qemu/launch-args.ts',
      "import { verbs } from '../driver.ts';",
      'drivers/driver.ts is not for pure',
    ],
    ['daemon/guests/admit.ts', "const a = await import('../../lib/log.ts');", 'lib/log.ts is not for pure'],
    [
      'daemon/guests/guest.ts',
      "import '../../drivers/qemu/driver.ts';",
      'drivers/qemu/driver.ts is not for daemon',
    ],
    ['daemon/guests/guest.ts', "import Database from 'better-sqlite3';", 'better-sqlite3 is not for daemon'],
    ['cli/main.ts', "export * from '../daemon/config.ts';", 'daemon/config.ts is not for cli'],
    ['daemon/main.ts', "import '../test/harness/a.ts';", 'test/harness/a.ts is not for composition root'],
    ['lib/exec.ts', "import 'vitest';", 'package.json names no run-time dependency vitest'],
    ['cli/main.ts', "import 'leftpad/deep';", 'package.json names no run-time dependency leftpad'],
    ['cli/main.ts', 'await import(name);', 'an import of a computed name cannot be checked'],
    ['cli/main.ts', "import 'fs';", "write 'node:fs'"],
    ['attic/old.ts', '', 'no rule covers this file'],
  ])('refuses in %s: %s', (path, source, message) => {
    expect(violations(path, source)).toEqual([expect.stringContaining(`1: ${message}`)]);
  });
});

describe('the table', () => {
  it('matches `*` inside a folder only', () => {
    expect(matches('daemon/compose*.ts', 'daemon/compose-qemu.ts')).toBe(true);
    expect(matches('daemon/compose*.ts', 'daemon/compose/qemu.ts')).toBe(false);
    expect(matches('lib/**', 'lib/a/b.ts')).toBe(true);
    expect(matches('lib/**', 'library/a.ts')).toBe(false);
    expect(matches('network/**/ruleset.ts', 'network/ruleset.ts')).toBe(true);
    expect(matches('network/**/ruleset.ts', 'network/a/b/ruleset.ts')).toBe(true);
    expect(matches('network/**/ruleset.ts', 'network/my-ruleset.ts')).toBe(false);
    expect(matches('a.ts', 'ats')).toBe(false);
  });

  it('gives the stricter room the precedence', () => {
    expect(ruleFor('network/ruleset.ts')?.room).toBe('pure decisions');
    expect(ruleFor('network/linux-bridge/bridge.ts')?.room).toBe('network');
    expect(ruleFor('daemon/inventory/schema.ts')?.room).toBe('inventory');
  });
});
