/**
 * Who may import what: the plan of the house in the form that `tools/check-deps.ts` enforces.
 *
 * The first rule whose `files` match a file is the one that counts for it. A file may import
 *   - what `may` names: an npm package (`zod`), Node's modules (`node:*`), or files of ours by pattern;
 *   - what `mayTypes` names, by `import type` alone: shapes of data, nothing that runs.
 * In patterns `*` is anything inside one folder, `**` any depth of folders. Files without a rule are refused.
 */

export interface ImportRule {
  readonly room: string;
  readonly files: readonly string[];
  readonly may: readonly string[];
  readonly mayTypes?: readonly string[];
  /** Told together with a violation. */
  readonly why: string;
}

/** What a backend promises to the daemon; the daemon knows drivers, pools and networks by these alone. */
const contracts = ['drivers/driver.ts', 'storage/pool.ts', 'network/backend.ts'];

/** Decisions: data in, data out. */
const pureFiles = [
  'daemon/**/admit.ts',
  'daemon/**/plan.ts',
  'daemon/**/settle.ts',
  'daemon/**/restart-policy.ts',
  'drivers/qemu/devices.ts',
  'drivers/qemu/launch-args.ts',
  'drivers/processes/process-interface.ts',
  'storage/debian/actions.ts',
  'storage/debian/bootstrap.ts',
  'storage/debian/settings.ts',
  'storage/debian/recipe.ts',
  'storage/debian/root-recipe.ts',
  'storage/debian/confinement.ts',
  'storage/debian/package-progress.ts',
  'network/**/ruleset.ts',
  'network/**/addressing.ts',
  'network/**/link-names.ts',
  'network/veth-port.ts',
  'network/foreign-firewalls.ts',
];

const outsiders =
  'knows the contract and the small helpers, and nothing of the daemon or of the other backends';

export const importRules: readonly ImportRule[] = [
  {
    room: 'protocol',
    files: ['protocol/**'],
    may: ['zod', 'protocol/**'],
    why: 'The contract depends on nothing, so that everything can depend on it.',
  },
  {
    room: 'pure decisions',
    files: pureFiles,
    may: ['protocol/**', ...pureFiles],
    mayTypes: contracts,
    why: 'A decision is a function from data to data: no Node modules, no effects.',
  },
  {
    room: 'lib',
    files: ['lib/**'],
    may: ['node:*', 'native/index.ts', 'lib/**', 'execa', 'pino', 'uuidv7'],
    why: 'Leaf helpers know no guest.',
  },
  {
    room: 'native',
    files: ['native/**'],
    may: ['node:*', 'native/**'],
    why: 'The system calls that Node lacks, and nothing else.',
  },
  {
    room: 'drivers',
    files: ['drivers/**'],
    may: ['node:*', 'zod', 'execa', 'protocol/**', 'lib/**', 'native/index.ts', 'drivers/**'],
    why: `A driver ${outsiders}.`,
  },
  {
    room: 'storage',
    files: ['storage/**'],
    may: ['node:*', 'zod', 'execa', 'protocol/**', 'lib/**', 'native/index.ts', 'storage/**'],
    why: `A pool ${outsiders}.`,
  },
  {
    room: 'network',
    files: ['network/**'],
    may: ['node:*', 'zod', 'execa', 'ipaddr.js', 'protocol/**', 'lib/**', 'native/index.ts', 'network/**'],
    why: `A network backend ${outsiders}.`,
  },
  {
    room: 'guest',
    files: ['guest/**'],
    may: ['node:*', 'protocol/**', 'lib/**', 'guest/**'],
    why: 'The recipe of what runs inside a microVM knows no guest of the inventory.',
  },
  {
    room: 'composition root',
    files: ['daemon/main.ts', 'daemon/compose*.ts'],
    may: [
      'node:*',
      'protocol/**',
      'lib/**',
      'native/index.ts',
      'daemon/**',
      'drivers/**',
      'storage/**',
      'network/**',
      'guest/**',
    ],
    why: 'The one place that names concrete backends; it puts parts together and does nothing else.',
  },
  {
    room: 'inventory',
    files: ['daemon/inventory/**'],
    may: ['node:*', 'better-sqlite3', 'zod', 'uuidv7', 'protocol/**', 'lib/**', 'daemon/inventory/**'],
    mayTypes: contracts,
    why: 'The database is behind this wall, and knows only data.',
  },
  {
    room: 'daemon',
    files: ['daemon/**'],
    may: [
      'node:*',
      'zod',
      'pino',
      'uuidv7',
      'ws',
      'yaml',
      'ipaddr.js',
      'protocol/**',
      'lib/**',
      'native/index.ts',
      'daemon/**',
      ...contracts,
    ],
    why: 'The daemon knows backends by their contract files only.',
  },
  {
    room: 'cli',
    files: ['cli/**'],
    may: ['node:*', 'zod', 'commander', 'yaml', 'protocol/**', 'lib/**', 'cli/**'],
    why: 'The command line is a client like any other: it has the contract and the socket.',
  },
  {
    room: 'tests, benchmarks and tools',
    files: ['test/**', 'bench/**', 'tools/**', 'vitest.config.ts'],
    may: ['**', 'node:*', 'npm:*'],
    why: 'May use everything; nothing of the product may use them.',
  },
];
