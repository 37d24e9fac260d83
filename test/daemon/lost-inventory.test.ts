/** The database is gone or emptied, and the disks of guests are there: the daemon does not begin anew beside them. */
import { rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { aGuest, fakeHouse } from './fake-house.ts';

const lose = {
  removed: (path: string) => rm(path),
  emptied: (path: string) => truncate(path, 0),
} as const;

test.each(['removed', 'emptied'] as const)(
  'a database that was %s is told of, again and again',
  async (how) => {
    const house = await fakeHouse();
    const daemon = await house.start();
    await daemon.client.done('guest-create', aGuest('web1'));
    await daemon.stop();
    const path = join(house.stateDirectory, 'roost.db');
    await lose[how](path);
    const before = house.pool.calls.length;
    for (let attempt = 0; attempt < 2; attempt += 1)
      await expect(house.start()).rejects.toMatchObject({
        class: 'DataLoss',
        message: expect.stringContaining('holds the disks of 1 guests') as string,
        hint: expect.stringContaining(`put back a backup of ${path}`) as string,
      });
    expect(house.pool.calls).toHaveLength(before);
  },
);

test('a new daemon without any disks begins anew', async () => {
  const house = await fakeHouse();
  const daemon = await house.start();
  expect(await daemon.client.call('query-guests', {})).toMatchObject({ guests: [] });
});
