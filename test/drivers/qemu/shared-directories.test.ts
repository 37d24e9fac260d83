import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { requireServable } from '../../../drivers/qemu/shared-directories.ts';
import { testDirectory } from '../../harness/test-directory.ts';

const asUser = (uid: number): void => {
  const spy = vi.spyOn(process, 'geteuid').mockReturnValue(uid);
  onTestFinished(() => spy.mockRestore());
};

const shared = (source: string) => [{ source, target: '/data', readOnly: false }];

describe('directories that a guest is to have', () => {
  it('are refused under a daemon that is not root, with what is possible instead', async () => {
    asUser(1000);
    await expect(
      requireServable({ name: 'web', filesystems: shared('/srv') }, '/bin/true'),
    ).rejects.toMatchObject({
      class: 'Unsupported',
      message: expect.stringContaining('the daemon does not run as root'),
      hint: expect.stringContaining('mode copy'),
    });
  });

  it('are refused where nothing serves them, and name the package', async () => {
    asUser(0);
    await expect(
      requireServable({ name: 'web', filesystems: shared('/srv') }, '/no/such'),
    ).rejects.toMatchObject({
      class: 'Unsupported',
      message: expect.stringContaining('there is no /no/such'),
      hint: expect.stringContaining('qemu-system-common'),
    });
  });

  it('are refused where one is none', async () => {
    asUser(0);
    const directory = await testDirectory();
    const file = join(directory, 'file');
    await writeFile(file, '');
    const ask = (source: string): Promise<void> =>
      requireServable({ name: 'web', filesystems: [...shared(directory), ...shared(source)] }, '/bin/true');
    await expect(ask(file)).rejects.toMatchObject({ class: 'FailedPrecondition', data: { source: file } });
    await expect(ask(join(directory, 'none'))).rejects.toMatchObject({ hint: 'Make it first.' });
    await expect(ask(directory)).resolves.toBeUndefined();
  });

  it('need nothing where there are none', async () => {
    asUser(1000);
    await expect(requireServable({ name: 'web' }, '/no/such')).resolves.toBeUndefined();
  });
});
