/** The database of a real daemon is harmed after a kill -9; `roost recover` brings everything back, and nothing of the guests is touched. */
import { open, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { CliFailure } from '../../cli/failure.ts';
import type { RecoveryReport } from '../../protocol/recovery.ts';
import { describeWith } from '../harness/needs.ts';
import { viewOf } from '../harness/operation-table.ts';
import {
  type DaemonHome,
  type RealDaemon,
  removeEverything,
  testDaemonHome,
} from '../harness/real-daemon.ts';
import { roostProgram, runRoost } from '../harness/roost-cli.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

const database = (home: DaemonHome): string => join(home.stateDirectory, 'roost.db');

const removeLogs = async (path: string): Promise<void> => {
  for (const file of [`${path}-wal`, `${path}-shm`]) await rm(file, { force: true });
};

const harms: Readonly<Record<string, (path: string) => Promise<void>>> = {
  deleted: async (path) => {
    await removeLogs(path);
    await rm(path);
  },
  truncated: async (path) => {
    await removeLogs(path);
    await truncate(path, Math.floor((await stat(path)).size / 2));
  },
  zeroed: async (path) => {
    await removeLogs(path);
    const { size } = await stat(path);
    await using file = await open(path, 'r+');
    await file.write(Buffer.alloc(size), 0, size, 0);
  },
};

/** As a person does, inside of the daemon's network namespace. */
const recover = async (home: DaemonHome, ...more: readonly string[]): Promise<RecoveryReport> => {
  const directories = ['--state-dir', home.stateDirectory, '--run-dir', home.runDirectory];
  const argv = [process.execPath, roostProgram, 'recover', ...directories, '--json', ...more];
  return JSON.parse(await home.run(argv)) as RecoveryReport;
};

/** Whatever a test comes to, the home's last daemon must find an inventory, or guests would be left. */
const recoverAtTheEnd = (home: DaemonHome): void =>
  onTestFinished(async () => {
    await recover(home).catch(() => undefined);
  });

/** A guest that runs and one that is stopped, on two networks, on an image with an alias; a disk was added. */
const fill = async (daemon: RealDaemon): Promise<void> => {
  await importBootSector(daemon, 'acpi');
  await daemon.succeed('image-alias-set', { alias: 'stable', image: 'acpi' });
  await daemon.succeed('network-create', { name: 'lan' });
  await daemon.succeed('network-create', { name: 'out', kind: 'user' });
  await daemon.succeed('guest-create', {
    ...tinyGuest('runs', 'acpi', { nics: [{ network: 'lan' }], labels: { tier: 'web' } }),
    start: true,
  });
  await daemon.succeed('guest-create', {
    ...tinyGuest('rests', 'acpi', {
      nics: [{ network: 'lan' }, { network: 'out' }],
      autostart: { enabled: true },
    }),
  });
  await daemon.succeed('guest-disk-attach', { guest: 'rests', name: 'data', sizeBytes: 1024 * 1024 });
};

describeWith(['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun'], 'an inventory that is lost', () => {
  it.each(Object.keys(harms))('and was %s is rebuilt from the records', async (how) => {
    const home = await testDaemonHome();
    recoverAtTheEnd(home);
    const before = await home.start();
    await fill(before);
    const { process: qemu } = await before.guest('runs');
    const view = await viewOf(before.client);
    await before.kill9();
    await harms[how]?.(database(home));

    await expect(home.start()).rejects.toThrow(/roost recover/);
    const report = await recover(home);
    expect(report).toMatchObject({ changed: [], leftOut: [] });
    expect(report.guests.map(({ name, pid }) => ({ name, pid }))).toEqual([
      { name: 'runs', pid: qemu?.pid },
      { name: 'rests', pid: undefined },
    ]);

    const after = await home.start();
    expect(await viewOf(after.client)).toEqual(view);
    expect(await after.guest('runs')).toMatchObject({ state: 'running', process: { pid: qemu?.pid } });
    expect(await runRoost(home, ['fsck'])).toMatchObject({ code: 0 });
    await after.succeed('guest-start', { guest: 'rests' });
    await after.succeed('guest-stop', { guest: 'runs' });
    await removeEverything(after);
    await after.stop();
    expect(await home.compare()).toEqual({ ledger: [], host: [] });
  });

  it.each(['truncated', 'zeroed'])('because its file was %s under a running daemon', async (how) => {
    const home = await testDaemonHome();
    recoverAtTheEnd(home);
    const daemon = await home.start();
    await fill(daemon);
    const { process: qemu } = await daemon.guest('runs');
    const size = (await stat(database(home))).size;
    if (how === 'truncated') await truncate(database(home), Math.floor(size / 2));
    else {
      await using file = await open(database(home), 'r+');
      await file.write(Buffer.alloc(size), 0, size, 0);
    }
    // What it still has in memory is right; what it reads from there is refused, and nothing of the guests is touched.
    expect(await daemon.guest('runs')).toMatchObject({ state: 'running', process: { pid: qemu?.pid } });
    const asked = await daemon.client
      .call('guest-create', tinyGuest('late', 'acpi'))
      .then(({ operation }) => daemon.client.call('operation-wait', { operation }))
      .then(
        ({ error }) => error?.class ?? 'made',
        (error: unknown) => (error instanceof CliFailure ? error.wire.class : String(error)),
      );
    expect(['made', 'DataLoss']).toContain(asked);
    await daemon.kill9();

    await expect(home.start()).rejects.toThrow(/roost recover/);
    const names = (await recover(home)).guests.map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['runs', 'rests', ...(asked === 'made' ? ['late'] : [])]));
    const after = await home.start();
    expect(await after.guest('runs')).toMatchObject({ state: 'running', process: { pid: qemu?.pid } });
    expect(await runRoost(home, ['fsck'])).toMatchObject({ code: 0 });
    await removeEverything(after);
    await after.stop();
    expect(await home.compare()).toEqual({ ledger: [], host: [] });
  });

  it('is not rebuilt while a daemon works, nor when it is sound; a dry run makes nothing', async () => {
    const home = await testDaemonHome();
    recoverAtTheEnd(home);
    const daemon = await home.start();
    await fill(daemon);
    await expect(recover(home)).rejects.toThrow(/is held by roostd with pid/);
    await daemon.kill9();
    await expect(recover(home)).rejects.toThrow(/is sound/);
    await harms['truncated']?.(database(home));
    const { size } = await stat(database(home));
    expect(await recover(home, '--dry-run')).toMatchObject({ dryRun: true, guests: [{}, {}] });
    expect((await stat(database(home))).size).toBe(size);
  });
});
