/**
 * Every operation of the table at every one of its steps on real QEMU, disks and bridges: it fails there, or the daemon
 * is killed there and the next one does its steps again. Afterwards ledger and host agree, the operation has an end, and
 * everything looks as in a run that nothing happened to. The short form takes one place of each operation by chance.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { isEnded, type OperationView } from '../../protocol/operation.ts';
import { bootSectorDisk } from '../guests/boot-sector.ts';
import { busyboxRoot } from '../harness/busybox-root.ts';
import { container } from '../harness/containers.ts';
import { describeWith } from '../harness/needs.ts';
import { smallLayout } from '../harness/oci-layout.ts';
import { type OperationRow, rowsFor, type TableHost, titleOf, viewOf } from '../harness/operation-table.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { testDirectory } from '../harness/test-directory.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';
import { figure, progress, seededRandom, sized, timeoutMs } from './scale.ts';

interface Prepared {
  readonly home: DaemonHome;
  readonly host: (daemon: RealDaemon) => TableHost;
}

/** A home in which the operation can be asked for. */
const prepared = async (row: OperationRow): Promise<Prepared> => {
  const home = await testDaemonHome({ hasControlGroups: row.ofContainer === true });
  const file = join(await testDirectory(), 'further.raw');
  await writeFile(file, bootSectorDisk('idle'));
  const { path: layout } = await smallLayout(join(await testDirectory(), 'layout'));
  const root = await busyboxRoot(await testDirectory(), 'gzip');
  const host = (daemon: RealDaemon): TableHost => ({
    kind: 'real',
    done: async (name, args) => {
      const { operation } = (await daemon.client.callAny(name, args)) as {
        operation: string;
      };
      const ended = (await daemon.client.callAny('operation-wait', { operation })) as OperationView;
      if (ended.state !== 'succeeded') throw new Error(JSON.stringify(ended));
    },
    guest: (name, more) => tinyGuest(name, 'acpi', { stopTimeoutMs: 20_000, ...more }),
    container: (name, more) => ({
      ...container(name, { image: 'system' }),
      // When it comes up is by chance.
      agent: { enabled: false },
      stopTimeoutMs: 20_000,
      ...more,
    }),
    image: 'acpi',
    file,
    layout,
    root,
  });
  const daemon = await home.start();
  await importBootSector(daemon, 'acpi');
  await row.prepare?.(host(daemon));
  await daemon.stop();
  return { home, host };
};

const ask = async (row: OperationRow, { host }: Prepared, daemon: RealDaemon): Promise<OperationView> => {
  const accepted = await daemon.client.callAny(row.command, row.ask(host(daemon)));
  const { operation } = accepted as { operation: string };
  return (await daemon.client.callAny('operation-wait', { operation })) as OperationView;
};

/** The operations once nothing is under way any more, the newest last. */
const settled = async (daemon: RealDaemon): Promise<readonly OperationView[]> => {
  const open = await daemon.client.call('query-operations', { states: ['queued', 'running', 'undoing'] });
  for (const { id } of open.operations) await daemon.client.call('operation-wait', { operation: id });
  return (await daemon.client.call('query-operations', { limit: 100 })).operations;
};

const lookOf = (daemon: RealDaemon): Promise<unknown> =>
  viewOf({ call: (name, args) => daemon.client.callAny(name, args) });

/** Places of the operation in their order, and how it all looks afterwards. */
const undisturbed = async (
  row: OperationRow,
): Promise<{ readonly places: readonly string[]; readonly view: unknown }> => {
  const setting = await prepared(row);
  const placesPath = join(await testDirectory(), 'places');
  await writeFile(placesPath, '');
  const daemon = await setting.home.start({ placesPath });
  expect(await ask(row, setting, daemon)).toMatchObject({ state: 'succeeded' });
  const view = await lookOf(daemon);
  await daemon.stop();
  const { ledger, host } = await setting.home.compare();
  expect(host).toEqual(ledger);
  return { places: (await readFile(placesPath, 'utf8')).split('\n').filter((line) => line !== ''), view };
};

const crash = async (row: OperationRow, place: string, view: unknown): Promise<void> => {
  const setting = await prepared(row);
  const doomed = await setting.home.start({ crashAt: place });
  await expect(ask(row, setting, doomed)).rejects.toThrow(/connection/i);
  expect(await doomed.ended).toEqual({ code: null, signal: 'SIGKILL' });

  const next = await setting.home.start();
  const operations = await settled(next);
  const bad = operations.filter(
    ({ state }) => !isEnded(state) || (state !== 'succeeded' && row.onceOnly !== true),
  );
  expect({ place, bad, view: await lookOf(next) }).toEqual({ place, bad: [], view });
  await next.stop();
  const { ledger, host } = await setting.home.compare();
  expect({ place, host }).toEqual({ place, host: ledger });
};

/** What is to be seen after a failure at a place. */
const outcomeOf = (
  row: OperationRow,
  place: string,
  isLast: boolean,
): { readonly state: 'succeeded' | 'failed'; readonly goesAgain: boolean } => {
  const isBorne = row.bears !== undefined && place.startsWith(`${row.bears}/`);
  const isOver = row.endsInNoReturn === true && isLast;
  // A boot sector lets go of nothing, so that it stays attached.
  const isKept = row.givesToGuest === true && isLast;
  return {
    state: isBorne || isOver ? 'succeeded' : 'failed',
    goesAgain: row.twofold !== true && !isOver && !isKept,
  };
};

const fail = async (row: OperationRow, place: string, view: unknown, isLast: boolean): Promise<void> => {
  const setting = await prepared(row);
  const daemon = await setting.home.start({ failAt: place });
  const { state, goesAgain } = outcomeOf(row, place, isLast);
  const ended = await ask(row, setting, daemon);
  expect({ place, state: ended.state }).toEqual({ place, state });
  const again = goesAgain ? await ask(row, setting, daemon) : undefined;
  const well = again === undefined || again.state === 'succeeded';
  const seen = row.twofold === true ? view : await lookOf(daemon);
  expect({ place, well, again, view: seen }).toMatchObject({ place, well: true, view });
  await settled(daemon);
  await daemon.stop();
  const { ledger, host } = await setting.home.compare();
  expect({ place, host }).toEqual({ place, host: ledger });
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'lxc', 'nft', 'ip', 'dnsmasq', 'tun'],
  'every operation at every step',
  () => {
    it.each(rowsFor('real').map((row) => [titleOf(row), row] as const))(
      '%s',
      { timeout: timeoutMs },
      async (title, row) => {
        const { places, view } = await undisturbed(row);
        expect(view).toBeDefined();
        const random = seededRandom();
        const count = sized({ short: 1, long: places.length });
        for (const place of random.sample(places, count)) await crash(row, place, view);
        for (const place of random.sample(places, count))
          await fail(row, place, view, place === places.at(-1));
        progress(`${title}: crashed and failed at ${count} of ${places.length} places`);
        figure(`every step on real parts: ${title}, places`, `${count} of ${places.length}`);
      },
    );
  },
);
