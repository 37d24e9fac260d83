import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { lockFile } from '../../native/index.ts';

let folder = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'roost-lock-'));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** Takes the lock or fails the test. */
function lock(path: string): number {
  const fd = lockFile(path);
  if (fd === 'held') throw new Error(`${path} is held`);
  return fd;
}

describe('lockFile', () => {
  it('lets one opening in and tells the other', () => {
    const path = join(folder, 'lock');
    const fd = lock(path);
    expect(lockFile(path)).toBe('held');
    closeSync(fd);
    closeSync(lock(path));
  });

  it('makes the file with the mode asked for, 0600 by default', () => {
    closeSync(lock(join(folder, 'default')));
    const fd = lockFile(join(folder, 'readable'), { mode: 0o640 });
    if (fd !== 'held') closeSync(fd);
    expect(statSync(join(folder, 'default')).mode & 0o777).toBe(0o600);
    expect(statSync(join(folder, 'readable')).mode & 0o777).toBe(0o640 & ~process.umask());
  });

  it('stays held by a child that inherited the descriptor, until the child is killed', async () => {
    const path = join(folder, 'lock');
    const fd = lock(path);
    const child = spawn('cat', { stdio: ['pipe', 'ignore', 'ignore', fd] });
    onTestFinished(() => void child.kill('SIGKILL'));
    await once(child, 'spawn');
    closeSync(fd);
    expect(lockFile(path)).toBe('held');

    const exit = once(child, 'exit');
    child.kill('SIGKILL');
    await exit;
    closeSync(lock(path));
  });

  it('is not inherited by a child that was not given it', async () => {
    const path = join(folder, 'lock');
    const fd = lock(path);
    const child = spawn('cat', { stdio: ['pipe', 'ignore', 'ignore'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    await once(child, 'spawn');
    closeSync(fd);
    const again = lockFile(path);

    const exit = once(child, 'exit');
    child.stdin.end();
    await exit;
    expect(again).not.toBe('held');
    if (again !== 'held') closeSync(again);
  });

  it('locks the file that has the name now, not one that was removed', () => {
    const path = join(folder, 'lock');
    const removed = lock(path);
    rmSync(path);
    const fd = lock(path);
    expect(lockFile(path)).toBe('held');
    closeSync(removed);
    expect(lockFile(path)).toBe('held');
    closeSync(fd);
  });

  it('says what failed, on what, and how', () => {
    const path = join(folder, 'absent', 'lock');
    expect(() => lockFile(path)).toThrow(
      expect.objectContaining({
        code: 'ENOENT',
        errno: -2,
        syscall: 'open',
        message: `ENOENT: No such file or directory, open '${path}'`,
      }),
    );
  });

  it('refuses a path that C would cut short', () => {
    expect(() => lockFile(`${folder}/lock\0.txt`)).toThrow(TypeError);
    expect(() => lockFile(`/${'a'.repeat(5000)}`)).toThrow(expect.objectContaining({ code: 'ENAMETOOLONG' }));
  });
});
