import { describe, expect, it } from 'vitest';
import { cpioArchive } from '../../guest/cpio-archive.ts';
import { directory, file, symlink } from '../../guest/file-tree.ts';
import { exec } from '../../lib/exec.ts';

const tree = [
  file('etc/shadow', 'root:*\n', 0o600),
  symlink('bin/sh', '/bin/busybox'),
  file('init', '#!/bin/sh\n', 0o755),
  directory('root', 0o700),
  { kind: 'characterDevice', path: 'dev/null', mode: 0o666, major: 1, minor: 3 },
] as const;

describe('cpioArchive', () => {
  it('is read by cpio as what went in, all of it owned by root', async () => {
    const { stdout } = await exec(['busybox', 'cpio', '-t', '-v'], {
      input: cpioArchive(tree),
      signal: AbortSignal.timeout(20_000),
    });
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => line.trim().split(/\s+/));
    const seen = lines.map((words) => [words[0], words[1], words[words.indexOf('1970') + 2] ?? words.at(-1)]);
    expect(seen.map(([mode, owner]) => `${mode} ${owner}`)).toEqual([
      'drwxr-xr-x 0/0',
      'lrwxrwxrwx 0/0',
      'drwxr-xr-x 0/0',
      'crw-rw-rw- 0/0',
      'drwxr-xr-x 0/0',
      '-rw------- 0/0',
      '-rwxr-xr-x 0/0',
      'drwx------ 0/0',
    ]);
    expect(stdout).toContain('bin/sh -> /bin/busybox');
  });

  it('gives the same bytes for the same tree', () => {
    expect(cpioArchive(tree).equals(cpioArchive(tree.toReversed()))).toBe(true);
  });

  it('refuses a path given twice', () => {
    expect(() => cpioArchive([file('a', ''), file('a', '')])).toThrow(
      'two entries of the tree have the path a',
    );
  });
});
