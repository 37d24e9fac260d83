/** fsck, adopt and explain with real QEMU, bridges and disks. */
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { expect, it } from 'vitest';
import { describeWith } from '../harness/needs.ts';
import { testDaemonHome } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

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
      const db = new Sqlite(join(home.stateDirectory, 'roost.db'));
      db.pragma('foreign_keys = ON');
      db.prepare('DELETE FROM guest WHERE id = ?').run(id);
      db.prepare('DELETE FROM ledger WHERE owner = ?').run(id);
      db.close();

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
