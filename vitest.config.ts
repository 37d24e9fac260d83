/**
 * Three projects. `unit` needs nothing but Node and the build, and takes seconds; parts of it that need root or a
 * device say so and are skipped aloud. `real` runs QEMU, bridges and whole daemons: files named `*.real.test.ts`,
 * and everything in the folders named below. `e2e` boots whole Debian guests.
 */
import { join } from 'node:path';
import { defineConfig } from 'vitest/config';

const minuteMs = 60_000;
const real = ['test/**/*.real.test.ts', 'test/{integration,fault,torture}/**/*.test.ts'];
/** Whole Debian guests under emulation, many minutes each: `make e2e` runs them, `make test` does not. */
const endToEnd = ['test/e2e/**/*.test.ts'];
/**
 * Every operation at its steps on real parts takes many minutes: `make torture` alone runs that. In `make test` the table
 * of operations is tried on fakes, and a part of it on real parts, in `test/fault`.
 */
const tortureOnly = process.env.ROOST_TORTURE === 'long' ? [] : ['test/torture/every-step.test.ts'];
/** Where the counts go that `tools/ci-summary.mjs` reads. */
const reports = process.env.ROOST_REPORTS;

export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 2,
    globalSetup: ['test/harness/global-setup.ts'],
    setupFiles: ['test/harness/setup.ts'],
    // A test passes or fails; it is not asked twice, and none is forgotten by an `.only`.
    retry: 0,
    allowOnly: false,
    passWithNoTests: false,
    restoreMocks: true,
    reporters: reports === undefined ? ['default'] : ['default', 'json'],
    ...(reports === undefined ? {} : { outputFile: { json: join(reports, 'vitest.json') } }),
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: [...real, ...endToEnd],
          // A process of its own for each of these small files took longer than the tests themselves.
          isolate: false,
          // A deadline for a test that hangs, generous because machines are shared.
          testTimeout: 20_000,
          hookTimeout: 20_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'real',
          include: real,
          exclude: tortureOnly,
          // Linux under emulation on a busy machine.
          testTimeout: 2 * minuteMs,
          hookTimeout: 2 * minuteMs,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: { name: 'e2e', include: endToEnd, sequence: { groupOrder: 2 } },
      },
    ],
  },
});
