/** A guest that starts by UEFI: OVMF speaks, its variables are the guest's own and stay over stop and start. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { describeWith } from '../harness/needs.ts';
import { testDaemonHome, waitForConsole } from '../harness/real-daemon.ts';

describeWith(['root', 'qemu', 'qemu-img', 'ovmf'], 'UEFI', () => {
  it('starts by OVMF with variables of its own, which stay until the guest is deleted', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    const id = await daemon.succeed('guest-create', {
      name: 'efi',
      firmware: 'uefi',
      memoryBytes: 256 * 1024 ** 2,
      disks: [{ sizeBytes: 1024 ** 2 }],
    });
    const path = join(home.stateDirectory, 'pools/default/guests', id, 'firmware-variables.fd');
    const template = await readFile('/usr/share/OVMF/OVMF_VARS_4M.fd');
    expect(template.equals(await readFile(path))).toBe(true);
    const made = await stat(path);
    expect(made.mode & 0o777).toBe(0o600);
    expect(made.uid).not.toBe(0);

    await daemon.succeed('guest-start', { guest: 'efi' });
    // An empty disk: the firmware says that it found nothing to boot.
    await waitForConsole(daemon, 'efi', (text) => text.includes('BdsDxe'));
    await daemon.succeed('guest-stop', { guest: 'efi', force: true });
    const written = await readFile(path);
    expect(template.equals(written)).toBe(false);

    await daemon.succeed('guest-start', { guest: 'efi' });
    expect((await stat(path)).ino).toBe(made.ino);
    await daemon.succeed('guest-delete', { guest: 'efi', force: true });
    await expect(stat(path)).rejects.toThrow('ENOENT');
    await daemon.stop();
    const { ledger, host } = await home.compare();
    expect(host).toEqual(ledger);
  });

  it('is refused for a microvm before anything is made', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await expect(
      daemon.client.call('guest-create', {
        name: 'efi',
        machine: 'microvm',
        firmware: 'uefi',
        disks: [{ sizeBytes: 1024 ** 2 }],
      }),
    ).rejects.toMatchObject({ wire: { class: 'InvalidArgument' } });
    expect((await daemon.client.call('query-guests', {})).guests).toEqual([]);
    await daemon.stop();
  });
});
