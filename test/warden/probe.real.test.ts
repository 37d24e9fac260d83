/** What the warden finds out about file systems, and what it mounts where nothing was written. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { exec } from '../../lib/exec.ts';
import { buildSanitizedWarden } from '../../tools/build-native.mjs';
import { describeWith } from '../harness/needs.ts';
import { testDirectory } from '../harness/test-directory.ts';

const { signal } = new AbortController();
const warden = (...args: readonly string[]) => exec([buildSanitizedWarden(), ...args], { signal });

describeWith(['root', 'sqfstar'], 'a warden that is no warden', () => {
  it('says which file systems take a range of ids, and why others do not', async () => {
    const directory = await testDirectory('probe');
    const { stdout, stderr } = await warden('--probe', directory, '/proc', '/no/such');
    expect(stdout.split('\n')).toContain(directory);
    expect(stdout).not.toMatch(/^\/(proc|no\/such)$/m);
    expect(stderr).toContain('the file system of /proc takes no range of ids');
    expect(stderr).toContain('/no/such: No such file or directory');
    const [major = 0, minor = 0] = (await readFile('/proc/sys/kernel/osrelease', 'utf8'))
      .split('.')
      .map(Number);
    expect(stdout.split('\n').includes('squashfs')).toBe(major > 6 || (major === 6 && minor >= 2));
    expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(directory);
  });

  it('shows an image alone to a program', async () => {
    const directory = await testDirectory('alone');
    for (const part of ['run', 'tree']) await mkdir(join(directory, part));
    await writeFile(join(directory, 'tree/file'), 'in it');
    const image = join(directory, 'image');
    await exec(['mksquashfs', join(directory, 'tree'), image, '-quiet', '-no-progress'], { signal });
    const place = ['--mounted', '--run', join(directory, 'run'), '--image', image, '--'];
    expect((await warden(...place, '/bin/cat', 'file')).stdout).toBe('in it');
    await expect(warden(...place, '/bin/touch', 'file')).rejects.toThrow('Read-only');
    expect(await readdir(join(directory, 'run'))).toEqual([]);
  });
});
