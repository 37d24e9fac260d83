import { describe, expect, it } from 'vitest';
import {
  controllersIn,
  describeContainers,
  describeFacts,
  type HostFacts,
  hasLiblxc,
} from '../../../drivers/lxc/host-facts.ts';
import { wardenPath } from '../../../native/index.ts';
import { never } from '../../conformance/driver.ts';

const facts: HostFacts = {
  isRoot: true,
  liblxc: '5.0.2',
  mapped: { squashfs: true, images: true, pool: true, words: [] },
  places: { images: '/srv/images', pool: '/srv/pool' },
  controllers: new Map([['memory', 2]]),
  protections: { hasAppArmor: true, lxcfsPath: '/var/lib/lxcfs' },
};

describe('what a host has for containers', () => {
  it('is told with all that stands around them', () => {
    expect(describeFacts(facts)).toEqual({
      available: true,
      liblxc: '5.0.2',
      cgroups: 'v2',
      lxcfs: true,
      apparmor: true,
      idmappedSquashfs: true,
    });
    const bare = { controllers: new Map([['memory', 1] as const]), protections: { hasAppArmor: false } };
    expect(describeFacts({ ...facts, ...bare })).toEqual({
      available: true,
      liblxc: '5.0.2',
      cgroups: 'v1',
      lxcfs: false,
      apparmor: false,
      idmappedSquashfs: true,
    });
  });

  it.each<[string, Partial<HostFacts>]>([
    ['lxc-start', { liblxc: undefined }],
    ['as root', { isRoot: false }],
    ['/srv/images, where images are,', { mapped: { squashfs: false, images: false, pool: true, words: [] } }],
    [
      'ids: no, said the kernel',
      { mapped: { squashfs: true, images: true, pool: false, words: ['no, said the kernel'] } },
    ],
    ['control groups', { controllers: new Map() }],
  ])('is not enough without %s', (word, changes) => {
    const told = describeFacts({ ...facts, ...changes });
    expect(told).toMatchObject({ available: false, why: expect.stringContaining(word) });
    expect(told.liblxc).toBe('liblxc' in changes ? undefined : facts.liblxc);
  });

  it('is enough without a squashfs, where images can be unpacked', () => {
    const mapped = { ...facts.mapped, squashfs: false };
    expect(describeFacts({ ...facts, mapped })).toMatchObject({ available: true, idmappedSquashfs: false });
  });

  it('is found out on this host', async () => {
    const places = { images: '/nonexistent/images', pool: '/nonexistent/pool' };
    const found = await describeContainers({ wardenPath: wardenPath(), places }, never());
    expect(found.liblxc !== undefined).toBe(hasLiblxc());
    expect(found.available).toBe(found.why === undefined);
    expect(found.liblxc ?? '0.0').toMatch(/^\d+\.\d+/);
  });
});

describe('controllers of control groups', () => {
  it('are of version 1 where a hierarchy of that has them, and else of version 2', () => {
    const found = controllersIn([
      { mount: '/sys/fs/cgroup/memory', version: 1, controllers: ['memory'] },
      { mount: '/sys/fs/cgroup/unified', version: 2, controllers: ['memory', 'pids'] },
    ]);
    expect(Object.fromEntries(found)).toEqual({ memory: 1, pids: 2 });
  });
});
