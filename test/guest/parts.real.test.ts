/** Runs `parts.c`, where the tests of the init's parts are. */
import { describe, expect, it } from 'vitest';
import { exec } from '../../lib/exec.ts';
import { buildGuestTest } from '../../tools/build-native.mjs';
import { testDirectory } from '../harness/test-directory.ts';

const random = (): string => String(Math.floor(Math.random() * 2 ** 40));

describe('the parts of the init', () => {
  it('give what they promise, and survive what is generated', { timeout: 120_000 }, async () => {
    const program = buildGuestTest('test/guest/parts.c');
    const cwd = await testDirectory('parts');
    const seeds = ['1', process.env['SEED'] ?? random()];
    for (const seed of seeds) {
      const { stdout } = await exec([program, seed], { cwd, signal: new AbortController().signal });
      expect(stdout, `with the seed ${seed}`).toBe('');
    }
  });
});
