import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { aGuest, fakeHouse } from './fake-house.ts';

describe('two daemons', () => {
  test('on one state directory: the second refuses, says who holds it, and harms nothing', async () => {
    const house = await fakeHouse();
    const first = await house.start();
    await first.client.done('guest-create', aGuest('web1'));
    await expect(house.start()).rejects.toMatchObject({
      class: 'FailedPrecondition',
      message: expect.stringContaining(`held by roostd with pid ${process.pid}`),
      data: { directory: house.stateDirectory },
    });
    expect((await first.client.call('query-guests', {})).total).toBe(1);
    await (await first.connect()).call('query-version', {});
  });

  test('on two state directories live side by side under ids of their own', async () => {
    const [one, other] = await Promise.all([fakeHouse(), fakeHouse()]);
    const daemons = await Promise.all([one.start(), other.start()]);
    for (const { client } of daemons) await client.done('guest-create', aGuest('web1', { start: true }));
    expect(daemons[0]?.daemon.instance).not.toBe(daemons[1]?.daemon.instance);
    for (const { client } of daemons)
      expect((await client.call('query-guest', { guest: 'web1' })).state).toBe('running');
  });

  test('on one run directory: the second does not take the socket of the first', async () => {
    const [one, other] = await Promise.all([fakeHouse(), fakeHouse()]);
    const first = await one.start();
    Object.assign(other, { runDirectory: one.runDirectory });
    await expect(other.start()).rejects.toMatchObject({
      class: 'FailedPrecondition',
      message: expect.stringContaining(`held by roostd with pid ${process.pid}`),
      data: { directory: one.runDirectory },
    });
    await (await first.connect()).call('query-version', {});
  });

  test('one after the other have the same id, and the place is free after a clean stop', async () => {
    const house = await fakeHouse();
    const first = await house.start();
    const { instance } = first.daemon;
    await first.stop();
    expect((await house.start()).daemon.instance).toBe(instance);
  });

  test('a state directory that is a file, and a file in the place of the socket, are told as what they are', async () => {
    const house = await fakeHouse();
    const path = join(house.runDirectory, 'roost.sock');
    await mkdir(house.runDirectory, { recursive: true });
    await writeFile(path, 'precious');
    await expect(house.start()).rejects.toMatchObject({ class: 'HostError', data: { path } });
    expect(await readFile(path, 'utf8')).toBe('precious');
    Object.assign(house, { stateDirectory: path });
    await expect(house.start()).rejects.toMatchObject({ class: 'HostError', data: { directory: path } });
  });

  test('a daemon that cannot start holds nothing: the next one can', async () => {
    const house = await fakeHouse();
    const first = await house.start();
    await first.stop();
    const parts = vi.spyOn(house, 'parts').mockImplementation(() => {
      throw new Error('no parts');
    });
    await expect(house.start()).rejects.toThrow('no parts');
    parts.mockRestore();
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void taken.close());
    const { port } = taken.address() as AddressInfo;
    await expect(house.start({ webSocketPort: port })).rejects.toThrow('is in use');
    await house.start();
  });
});

describe('the daemon about itself', () => {
  test('says what it is, that it is ready, and how it fares', async () => {
    const house = await fakeHouse();
    const { client, daemon } = await house.start();
    expect(await client.call('query-daemon', {})).toMatchObject({
      pid: process.pid,
      ready: true,
      instance: daemon.instance,
      stateDirectory: house.stateDirectory,
      connections: 1,
      guests: 0,
    });
    expect(await client.call('query-pools', {})).toMatchObject({ pools: [{ kind: 'fake' }] });
    expect(await client.call('query-host', {})).toMatchObject({
      drivers: [{ name: 'fake' }, { name: 'lxc' }],
    });
  });
});
