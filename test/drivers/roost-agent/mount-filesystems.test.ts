import { expect, it } from 'vitest';
import type { GuestMount } from '../../../drivers/roost-agent/microvm-agent.ts';
import { mountFilesystems } from '../../../drivers/roost-agent/mount-filesystems.ts';
import { RoostError } from '../../../protocol/errors.ts';
import { never } from '../../conformance/driver.ts';

const filesystems = [
  { name: 'fs1', target: '/data', readOnly: false },
  { name: 'fs0', target: '/data/kept', readOnly: true },
];

const refusing = (errno: string): Promise<void> =>
  mountFilesystems(
    {
      mount: () =>
        Promise.reject(new RoostError('FailedPrecondition', 'mount fs1 at /data', { data: { errno } })),
    },
    { filesystems },
    never(),
  );

it('mounts one after the other, and tells the guest what is read-only', async () => {
  const mounted: GuestMount[] = [];
  let underWay = 0;
  const mount = async (asked: GuestMount): Promise<void> => {
    underWay += 1;
    expect(underWay).toBe(1);
    await Promise.resolve();
    mounted.push(asked);
    underWay -= 1;
  };
  await mountFilesystems({ mount }, { filesystems }, never());
  expect(mounted).toEqual([
    { source: 'fs1', target: '/data', fstype: 'virtiofs', flags: 0 },
    { source: 'fs0', target: '/data/kept', fstype: 'virtiofs', flags: 1 },
  ]);
});

it('mounts a disk that is a copy by its serial number, under what is written or as it is', async () => {
  const mounted: GuestMount[] = [];
  const mount = async (asked: GuestMount): Promise<void> => {
    mounted.push(await Promise.resolve(asked));
  };
  const copies = [
    { name: 'copy0', target: '/data', readOnly: false, serial: 'a-2' },
    { name: 'copy1', target: '/kept', readOnly: true, serial: 'a-3' },
  ];
  await mountFilesystems({ mount }, { filesystems: copies }, never());
  expect(mounted).toEqual([
    { source: 'serial:a-2', target: '/data', fstype: 'overlay', flags: 0, options: 'copy0' },
    { source: 'serial:a-3', target: '/kept', fstype: 'squashfs', flags: 1 },
  ]);
});

it('says what to do about an init that has no modules for it', async () => {
  await expect(refusing('ENODEV')).rejects.toMatchObject({
    class: 'FailedPrecondition',
    message: 'The guest cannot mount a directory of the host at /data: its kernel has no virtiofs',
    hint: expect.stringContaining('microvm-init'),
  });
});

it('gives the words of the guest otherwise, and no error number that a program would have', async () => {
  const failure = refusing('ENOTDIR');
  await expect(failure).rejects.toMatchObject({ message: expect.stringContaining('mount fs1 at /data') });
  await expect(failure).rejects.not.toMatchObject({ data: { errno: expect.anything() } });
});

it('passes on what is no word of the guest', async () => {
  const mount = (): Promise<void> => Promise.reject(new Error('the line broke'));
  await expect(mountFilesystems({ mount }, { filesystems }, never())).rejects.toThrow('the line broke');
});
