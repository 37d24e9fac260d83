import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  chooseHierarchy,
  noGroups,
  plainGroups,
  systemdScopes,
  writableHierarchies,
} from '../../lib/control-groups.ts';
import { testDirectory } from '../harness/test-directory.ts';

const { signal } = new AbortController();

/** As proc(5) has them: a v1 host, a v2 host, a container that may only read. */
const v1 = `22 21 0:20 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
23 22 0:21 / /sys/fs/cgroup/cpu rw,relatime shared:5 - cgroup cgroup rw,cpu
24 22 0:22 / /sys/fs/cgroup/memory rw,relatime shared:6 - cgroup cgroup rw,memory
25 22 0:23 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`;
const v2 =
  '30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n';
const readOnly = v2.replace('rw,nosuid', 'ro,nosuid');

const found = (mountinfo: string, controllers: readonly string[] = []): string | undefined =>
  chooseHierarchy(writableHierarchies(mountinfo, () => controllers))?.mount;

describe('the hierarchy that is taken', () => {
  test.each([
    ['version 1 with memory beside an empty version 2', v1, [], '/sys/fs/cgroup/memory'],
    ['version 2 with memory', v2, ['cpu', 'memory'], '/sys/fs/cgroup'],
    ['version 2 with memory beside version 1', v1, ['memory'], '/sys/fs/cgroup/unified'],
    ['version 2 without controllers, alone', v2, [], '/sys/fs/cgroup'],
    ['none: it may only be read', readOnly, ['memory'], undefined],
    ['none: version 1 without memory', v1.split('\n').slice(0, 2).join('\n'), [], undefined],
    ['none: nothing is mounted', '', [], undefined],
  ])('%s', (_, mountinfo, controllers, mount) => {
    expect(found(mountinfo, controllers)).toBe(mount);
  });
});

describe('plain groups', () => {
  test('are made and removed, both as often as one likes, and listed by their beginning', async () => {
    const mount = await testDirectory('hierarchy');
    const groups = plainGroups({ mount, why: 'because' });
    const object = { kind: 'cgroup', name: join(mount, 'roost-a-1') } as const;
    expect(groups.object('roost-a-1')).toEqual(object);
    await mkdir(join(mount, 'roost-b-1'));
    for (let round = 0; round < 2; round += 1) await groups.prepare('roost-a-1');
    await groups.join('roost-a-1', 4711);
    expect(await readFile(join(object.name, 'cgroup.procs'), 'utf8')).toBe('4711');
    await rm(join(object.name, 'cgroup.procs'));
    expect(await groups.list('roost-a-')).toEqual([object]);
    for (let round = 0; round < 2; round += 1) await groups.remove('roost-a-1', signal);
    expect(await groups.list('roost-')).toEqual([{ kind: 'cgroup', name: join(mount, 'roost-b-1') }]);
  });
});

test('a scope is entered by systemd-run, which becomes the program, and stops before what guests need', () => {
  const scopes = systemdScopes();
  expect(scopes.object('roost-a-1')).toEqual({ kind: 'scope', name: 'roost-a-1.scope' });
  const argv = scopes.argv('roost-a-1', 'Guest web of Roost');
  expect(argv).toEqual(
    expect.arrayContaining([
      '--scope',
      '--collect',
      '--unit=roost-a-1.scope',
      '--slice=roost.slice',
      '--property=Before=roost-guests.service',
    ]),
  );
  expect(argv.at(-1)).toBe('--');
});

test('where there are none, nothing is done and the reason is kept', async () => {
  const groups = noGroups('no privileges');
  expect({ ...groups, list: await groups.list('') }).toMatchObject({
    kind: 'none',
    why: 'no privileges',
    list: [],
  });
  expect([groups.object('x'), groups.argv('x', 'y')]).toEqual([undefined, []]);
});
