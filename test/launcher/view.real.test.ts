/** A directory that the launcher shows to what it becomes. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { launcherPath } from '../../native/index.ts';

const isRoot = process.getuid?.() === 0;
const identity = ['--uid', '2000000001', '--gid', '2000000001', '--groups', ''];

let folder = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'roost-view-'));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

describe.skipIf(!isRoot)('--view', () => {
  const view = async (source: string, script: string): Promise<string> => {
    const args = [...identity, '--view', source, '--', '/bin/sh', '-c', script];
    const { stdout } = await promisify(execFile)(launcherPath(), args);
    return stdout;
  };

  it('shows the program a directory that others own, and lets it do nothing else that it might not', async () => {
    const source = join(folder, 'a,b:c');
    mkdirSync(source, { mode: 0o700 });
    writeFileSync(join(source, 'file'), 'kept\n', { mode: 0o600 });
    writeFileSync(join(folder, 'outside'), 'outside\n');
    const capabilities = 'grep -E "^Cap(Prm|Bnd|Amb)" /proc/self/status | cut -f 2';
    expect(await view(source, `cat /mnt/file; id -u; ${capabilities}`)).toBe(
      'kept\n2000000001\n0000000000000004\n0000000000000000\n0000000000000004\n',
    );
    await expect(view(source, 'echo x > /mnt/file')).rejects.toThrow('Read-only file system');
    await expect(view(source, `echo x > ${folder}/outside`)).rejects.toThrow('Permission denied');
  });

  it('follows no symbolic link in it', async () => {
    const source = join(folder, 'source');
    mkdirSync(join(source, 'sub'), { recursive: true });
    symlinkSync('sub', join(source, 'link'));
    symlinkSync('/etc/passwd', join(source, 'passwd'));
    expect(await view(source, 'readlink /mnt/passwd')).toBe('/etc/passwd\n');
    for (const way of ['cat /mnt/passwd', 'ls /mnt/link/'])
      await expect(view(source, way)).rejects.toThrow('Too many levels of symbolic links');
  });

  it('refuses what is no directory', async () => {
    await expect(view('/etc/passwd', 'true')).rejects.toThrow('/etc/passwd: Not a directory');
  });
});
