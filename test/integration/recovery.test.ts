/** fsck, adopt and explain with real QEMU, bridges and disks. */
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { expect, it } from 'vitest';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, testDaemonHome } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

/** Takes a guest out of the inventory of a daemon that does not run. */
const loseRow = (home: DaemonHome, id: string): void => {
  const db = new Sqlite(join(home.stateDirectory, 'roost.db'));
  db.pragma('foreign_keys = ON');
  db.prepare('DELETE FROM guest WHERE id = ?').run(id);
  db.prepare('DELETE FROM ledger WHERE owner = ?').run(id);
  db.close();
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun'],
  'a guest whose record is lost',
  () => {
    it('is named by fsck, lives through a repair, is adopted by its pid, and leaves nothing when it is deleted', async () => {
      const home = await testDaemonHome();
      const before = await home.start();
      await importBootSector(before, 'acpi');
      await before.succeed('network-create', { name: 'lan' });
      const id = await before.succeed('guest-create', {
        ...tinyGuest('lost', 'acpi', { nics: [{ network: 'lan' }] }),
        start: true,
      });
      const { process } = await before.guest('lost');
      const sound = await runRoost(home, ['fsck']);
      expect(sound).toMatchObject({ code: 0, stdout: expect.stringContaining('agree') });
      await before.stop();
      loseRow(home, id);

      const after = await home.start();
      const found = await runRoost(home, ['fsck']);
      expect(found).toMatchObject({
        code: 6,
        stdout: expect.stringContaining(`roost adopt ${process?.pid}`),
      });
      expect((await runRoost(home, ['fsck', '--repair'])).code).toBe(6);
      const adopted = await runRoost(home, ['adopt', String(process?.pid)]);
      expect(adopted).toMatchObject({ code: 0, stdout: `${process?.pid} adopted\n` });
      expect(await after.guest('lost')).toMatchObject({
        id,
        state: 'running',
        process: { pid: process?.pid },
      });
      expect(await runRoost(home, ['fsck'])).toMatchObject({ code: 0 });

      await after.succeed('guest-stop', { guest: 'lost' });
      const start = await after.change('guest-start', { guest: 'lost' });
      const told = await runRoost(home, ['explain', start.id]);
      expect(told.stdout).toContain('made nft-element bridge/');
      expect(told.stdout).toMatch(/started process \d+: .*qemu-system-x86_64/);
      expect(told.stdout).toContain('told QEMU cont');
      expect(told.stdout).toMatch(/made tap rt/);
      await after.succeed('guest-delete', { guest: 'lost', force: true });
      const story = await runRoost(home, ['history', 'lost']);
      expect(story.stdout).toMatch(/adopt.*\n(.*\n)*.*delete/);
      expect(await runRoost(home, ['fsck'])).toMatchObject({ code: 0 });
      await after.stop();
      const { ledger, host } = await home.compare();
      expect(host).toEqual(ledger);
    });
  },
);

describeWith(
  ['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun'],
  'a running guest of which no record is left',
  () => {
    it('is adopted by what its process tells, lists what that does not know, and starts again as it was', async () => {
      const home = await testDaemonHome();
      const before = await home.start();
      await importBootSector(before, 'acpi');
      await before.succeed('network-create', { name: 'lan' });
      await before.succeed('network-create', { name: 'other' });
      await before.succeed('guest-create', {
        ...tinyGuest('first', 'acpi', { nics: [{ network: 'lan' }] }),
        start: true,
      });
      const id = await before.succeed('guest-create', {
        ...tinyGuest('bare', 'acpi', {
          nics: [{ network: 'lan' }, { network: 'other' }],
          disks: [{ image: 'acpi' }, { sizeBytes: 1024 * 1024, name: 'data' }],
          cpu: { count: 2 },
          labels: { tier: 'web' },
        }),
        start: true,
      });
      const was = await before.guest('bare');
      const plan = await before.client.call('guest-plan', { guest: 'bare' });
      await before.stop();
      loseRow(home, id);
      await rm(join(home.stateDirectory, 'pools/default/guests', id, 'record.json'));

      const after = await home.start();
      const pid = String(was.process?.pid);
      const adopted = await runRoost(home, ['adopt', pid]);
      expect(adopted).toMatchObject({
        code: 0,
        stderr: '',
        stdout: expect.stringMatching(/^\d+ adopted; it had no record[\s\S]*description and labels: none/),
      });
      const is = await after.guest('bare');
      expect(is).toMatchObject({
        id,
        state: 'running',
        process: { pid: was.process?.pid },
        labels: {},
        disks: was.disks,
        nics: was.nics,
        cpu: was.cpu,
        machine: was.machine,
        memoryBytes: was.memoryBytes,
      });
      expect(await runRoost(home, ['fsck'])).toMatchObject({ code: 0 });
      expect((await after.client.call('guest-plan', { guest: 'bare' })).argv).toEqual(plan.argv);
      await after.succeed('guest-stop', { guest: 'bare' });
      await after.succeed('guest-start', { guest: 'bare' });
      await after.succeed('guest-delete', { guest: 'bare', force: true });
      await after.succeed('guest-delete', { guest: 'first', force: true });
      expect(await runRoost(home, ['fsck'])).toMatchObject({ code: 0 });
    });

    it('is refused when QEMU says otherwise than its command line', async () => {
      const home = await testDaemonHome();
      const before = await home.start();
      await importBootSector(before, 'acpi');
      const id = await before.succeed('guest-create', { ...tinyGuest('bare', 'acpi'), start: true });
      await before.succeed('guest-disk-attach', { guest: 'bare', name: 'late', sizeBytes: 1024 * 1024 });
      const { process } = await before.guest('bare');
      await before.stop();
      loseRow(home, id);
      const record = join(home.stateDirectory, 'pools/default/guests', id, 'record.json');
      await rename(record, `${record}.kept`);
      const after = await home.start();
      const refused = await runRoost(home, ['adopt', String(process?.pid)]);
      expect(refused).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('devices came or went since it was started: disk-late'),
      });
      expect((await after.client.call('query-guests', {})).total).toBe(0);
      await rename(`${record}.kept`, record);
      expect(await runRoost(home, ['adopt', String(process?.pid)])).toMatchObject({ code: 0 });
      await after.succeed('guest-delete', { guest: 'bare', force: true });
    });
  },
);
