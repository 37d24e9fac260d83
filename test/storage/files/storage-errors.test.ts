import { open, rm } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { exec } from '../../../lib/exec.ts';
import { RoostError } from '../../../protocol/errors.ts';
import { toStorageError, withStorageErrors } from '../../../storage/files/storage-errors.ts';

const signal = new AbortController().signal;

const failureOf = (action: () => Promise<unknown>): Promise<unknown> =>
  action().then(
    () => expect.unreachable('it should fail'),
    (error: unknown) => error,
  );

describe('what a failure of storage means', () => {
  it('knows a full file system by the system call', async () => {
    const writeToFullDevice = async (): Promise<void> => {
      await using full = await open('/dev/full', 'w');
      await full.writeFile('x');
    };
    await expect(withStorageErrors('write the record', writeToFullDevice)).rejects.toMatchObject({
      class: 'ResourceExhausted',
      message: 'Could not write the record: the file system is full',
      data: { errno: 'ENOSPC' },
    });
  });

  it('knows a full file system by what a tool says', async () => {
    const error = await failureOf(() => exec(['cp', '/etc/hostname', '/dev/full'], { signal }));
    expect(toStorageError(error, 'copy')).toMatchObject({
      class: 'ResourceExhausted',
      data: { exitCode: 1, stderr: expect.stringContaining('No space left on device') as string },
    });
  });

  it('keeps the words of a tool that failed otherwise', async () => {
    const error = await failureOf(() => exec(['cat', '/nonexistent'], { signal }));
    expect(toStorageError(error, 'read')).toMatchObject({ class: 'HostError', data: { exitCode: 1 } });
  });

  it('keeps the facts of a system call that failed otherwise', async () => {
    const error = await failureOf(() => rm('/nonexistent'));
    expect(toStorageError(error, 'remove')).toMatchObject({
      class: 'HostError',
      data: { errno: 'ENOENT', path: '/nonexistent' },
    });
  });

  it('lets errors of the contract and aborts through as they are', () => {
    for (const error of [new RoostError('NotFound', 'no'), new Error('given up'), 'a string']) {
      expect(toStorageError(error, 'do it')).toBe(error);
    }
  });
});
