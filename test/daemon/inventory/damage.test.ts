/**
 * The database's file cut, zeroed in part and lost: each time it is either used as if nothing had happened to it, because
 * what was hit held nothing, or refused as DataLoss with the next step. Never is something else made of it.
 */
import { copyFile, mkdtemp, open, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { inventoryFailure } from '../../../daemon/inventory/database.ts';
import { type Inventory, openInventory } from '../../../daemon/inventory/inventory.ts';
import { isRoostError, type RoostError } from '../../../protocol/errors.ts';
import type { GuestId, MacAddress } from '../../../protocol/types.ts';
import { testDirectory } from '../../harness/test-directory.ts';
import { anOperation, aRecord, aStatus, NETWORK, nthId } from '../records.ts';

const PAGE = 4096;
const GUESTS = 30;
let sound: string;

/** Everything that a daemon reads of it. */
const readAll = (inventory: Inventory): unknown => [
  inventory.guests.all(),
  inventory.images.all(),
  inventory.networks.all(),
  inventory.tokens.all(),
  inventory.meta.get('instance'),
  inventory.ledger.keys(),
  inventory.operations.query({ limit: 1000 }),
  inventory.operations.unfinished(),
  inventory.events.since(0, 1000),
];

beforeAll(async () => {
  const path = join(await mkdtemp(join(tmpdir(), 'sound-')), 'roost.db');
  const inventory = openInventory(path);
  inventory.db.soon(() => {
    inventory.networks.insert({ id: NETWORK, name: 'lan', kind: 'nat', createdAt: 1 });
    for (let n = 1; n <= GUESTS; n += 1) {
      const id = nthId(n) as GuestId;
      const { spec, ...record } = aRecord({ id, name: `web${n}` });
      const nics = spec.nics.map((nic) => ({
        ...nic,
        mac: `52:54:00:00:01:${n.toString(16).padStart(2, '0')}` as MacAddress,
        ipv4: `10.91.7.${n + 1}`,
      }));
      inventory.guests.insert({ ...record, spec: { ...spec, nics } });
      inventory.guests.writeStatus(id, aStatus());
      inventory.ledger.record({ kind: 'guest', id }, 'existence', [{ kind: 'file', name: `/g/${n}` }], n);
      inventory.operations.insert(anOperation(n));
      inventory.events.insert({ atMs: n, event: 'GUEST_CREATED', guest: id, data: { name: `web${n}` } });
    }
    inventory.meta.set('instance', 'abcde');
  });
  inventory.db.close();
  sound = path;
});
afterAll(() => rm(dirname(sound), { recursive: true }));

const damagedCopy = async (harm: (path: string) => Promise<void>): Promise<string> => {
  const path = join(await testDirectory('damaged'), 'roost.db');
  await copyFile(sound, path);
  await harm(path);
  return path;
};

/** What using the file comes to. */
const use = (
  path: string,
): { readonly read?: unknown; readonly error?: unknown; readonly opened: boolean } => {
  let inventory: Inventory | undefined;
  try {
    inventory = openInventory(path);
    return { read: readAll(inventory), opened: true };
  } catch (error) {
    return { error: inventoryFailure(error), opened: inventory !== undefined };
  } finally {
    inventory?.db.close();
  }
};

const expectDataLoss = (error: unknown, path: string): void => {
  expect(error).toMatchObject({ class: 'DataLoss' });
  expect((error as RoostError).hint).toMatch(/^Guests run on/);
  expect((error as RoostError).message).toContain(path);
};

const zero = async (path: string, from: number, bytes: number): Promise<void> => {
  await using file = await open(path, 'r+');
  await file.write(Buffer.alloc(bytes), 0, bytes, from);
};

describe('a file that is cut', () => {
  test('is refused wherever it is cut, with the next step', async () => {
    const { size } = await stat(sound);
    const cuts = [100, 512, PAGE - 1, PAGE, PAGE + 1, size / 2, size - PAGE, size - 1];
    for (const cut of cuts) {
      const path = await damagedCopy((copy) => truncate(copy, Math.floor(cut)));
      const { error, opened } = use(path);
      expect({ cut, opened }).toEqual({ cut, opened: false });
      expectDataLoss(error, path);
      expect((await stat(path)).size).toBe(Math.floor(cut));
    }
  });

  test('is refused with the name of the backup there is', async () => {
    const path = await damagedCopy((copy) => truncate(copy, PAGE));
    const backup = join(dirname(path), 'roost.db.layout-2.20251125T221100Z');
    await copyFile(sound, backup);
    expect(use(path).error).toMatchObject({
      class: 'DataLoss',
      data: { path, backups: [backup] },
      hint: expect.stringContaining(backup) as string,
    });
  });
});

describe('a file that is zeroed in part', () => {
  const outcomesOf = async (parts: readonly (readonly [number, number])[]): Promise<readonly string[]> => {
    const before = use(sound).read;
    const outcomes: string[] = [];
    for (const [from, bytes] of parts) {
      const path = await damagedCopy((copy) => zero(copy, from, bytes));
      const { read, error, opened } = use(path);
      if (error === undefined) {
        expect({ from, read }).toEqual({ from, read: before });
        outcomes.push('harmless');
      } else {
        expect({ from, class: isRoostError(error) ? error.class : error }).toEqual({
          from,
          class: 'DataLoss',
        });
        if (!opened) expectDataLoss(error, path);
        outcomes.push(opened ? 'told when used' : 'refused');
      }
    }
    return outcomes;
  };

  test('is refused, or told of when the history is read; page for page', async () => {
    const { size } = await stat(sound);
    const pages = Array.from({ length: size / PAGE }, (_, page) => [page * PAGE, PAGE] as const);
    const outcomes = await outcomesOf(pages);
    expect(outcomes[0]).toBe('refused');
    expect(outcomes.filter((outcome) => outcome === 'refused').length).toBeGreaterThan(8);
  });

  test('is found whole after an end that was no clean one', async () => {
    const { size } = await stat(sound);
    let refused = 0;
    for (let page = 1; page < size / PAGE; page += 1) {
      const path = await damagedCopy(async (copy) => {
        await zero(copy, page * PAGE, PAGE);
        // As a crash leaves it: a log with something in it, though nothing that counts.
        await using log = await open(`${copy}-wal`, 'w');
        await log.write(Buffer.alloc(32));
      });
      const { opened, error } = use(path);
      expect({ page, toldLate: opened && error !== undefined }).toEqual({ page, toldLate: false });
      if (!opened) refused += 1;
    }
    expect(refused).toBeGreaterThan(8);
  });
});

test('a directory in its place is told of', async () => {
  const directory = await testDirectory('directory');
  const error = use(directory).error;
  expect(error).toMatchObject({ class: 'HostError', hint: expect.stringMatching(/writing/) as string });
});
