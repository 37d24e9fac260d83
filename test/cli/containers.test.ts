/** Containers on the command line: changed, and shown. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { HostView } from '../../protocol/host.ts';
import type { ImageView } from '../../protocol/image.ts';
import type { OperationView } from '../../protocol/operation.ts';
import type { GuestId } from '../../protocol/types.ts';
import { aGuest, endedOperation, FakeDaemon, NOW, OPERATION } from './fake-daemon.ts';
import { runCli } from './run-cli.ts';

const image = '01890a5d-ac96-474b-bcce-b302099a8057';
const CONTAINER = '01890a5d-ac96-774b-bcce-b302099a8058' as GuestId;
const root = { kind: 'root', image, nesting: true, keepCapabilities: ['sys_time'], dropCapabilities: [] };
const container = aGuest({
  id: CONTAINER,
  name: 'c1',
  driver: 'lxc',
  machine: 'lxc-1',
  disks: [],
  process: { pid: 4242, startedAt: NOW - 60_000, accel: 'lxc' },
  boot: { ...root, init: ['/bin/sh', '-c', 'sleep 9'] },
  idRange: { first: 1_073_741_824, count: 65_536 },
  limits: { processes: 64, writeBytesPerSecond: 1_048_576 },
});
const machine = aGuest({ name: 'web1' });

const aHost = (able: HostView['containers']): HostView => ({
  hostname: 'h',
  kernel: '6.1',
  cpus: 2,
  memory: { totalBytes: 1, availableBytes: 1, committedBytes: 0 },
  accelerator: { auto: 'tcg', why: 'no /dev/kvm' },
  privileged: true,
  privilegedWhy: 'root',
  controlGroups: { kind: 'scope', why: 'systemd' },
  ...(able === undefined ? {} : { containers: able }),
  foreignFirewalls: [],
  drivers: [],
  qemuBinaries: [],
});
let containers: HostView['containers'];

const saved: ImageView = {
  id: image as ImageView['id'],
  name: 'web',
  version: 'v2',
  newest: true,
  aliases: [],
  kind: 'root',
  state: 'ready',
  format: 'raw',
  sizeBytes: 1_048_576,
  virtualSizeBytes: 1_048_576,
  source: { kind: 'guest', guest: 'c1', id: CONTAINER, image: 'busybox@20261125' },
  usedBy: [],
  createdAt: NOW - 60_000,
};

let result: OperationView['result'];
let daemon: FakeDaemon;
beforeAll(async () => {
  daemon = await FakeDaemon.start({
    'query-guest': ({ guest }) => (guest === 'c1' ? container : machine),
    'query-images': () => ({ images: [] }),
    'query-image': () => saved,
    'guest-save': () => ({ operation: OPERATION, id: saved.id }),
    'guest-clone': () => ({
      operation: OPERATION,
      id: CONTAINER,
      warnings: ['Port 8080 of the host stays with c1: a port is passed on to one guest alone'],
    }),
    'operation-wait': () => endedOperation(result === undefined ? {} : { result }),
    'query-host': () => aHost(containers),
  });
});
afterAll(() => daemon[Symbol.asyncDispose]());

const roost = async (...argv: readonly string[]): Promise<Awaited<ReturnType<typeof runCli>>> => {
  daemon.calls.length = 0;
  return await runCli(argv, { env: { ROOST_SOCKET: daemon.socketPath } });
};

const asked = (): FakeDaemon['calls'][number] | undefined =>
  daemon.calls.find(({ command }) => command === 'guest-update');

it('keep what of their boot is not changed', async () => {
  expect(
    await roost('update', 'c1', '--no-nesting', '--cap-drop', 'net_raw', '--cap-drop', 'mknod'),
  ).toMatchObject({
    code: 0,
  });
  expect(asked()).toMatchObject({
    command: 'guest-update',
    args: {
      guest: 'c1',
      boot: {
        ...root,
        init: ['/bin/sh', '-c', 'sleep 9'],
        nesting: false,
        dropCapabilities: ['net_raw', 'mknod'],
      },
    },
  });
});

it('have limits that are set and taken away', async () => {
  await roost('update', 'c1', '--processes', '9', '--no-write-limit', '--read-limit', '8MiB');
  expect(asked()?.args).toEqual({
    guest: 'c1',
    limits: { processes: 9, readBytesPerSecond: 8 * 1024 * 1024, writeBytesPerSecond: null },
  });
});

it('are no machines', async () => {
  expect(await roost('update', 'web1', '--nesting')).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('The guest is no container') as string,
  });
});

it('are shown as what they are', async () => {
  const { stdout } = await roost('show', 'c1');
  await expect(stdout).toMatchFileSnapshot('golden/show-container.txt');
});

it('are told of a host: whether it has them, and what of', async () => {
  const seen = async (): Promise<string | undefined> =>
    (await roost('host')).stdout.split('\n').find((line) => line.startsWith('Containers:'));
  const facts = { cgroups: 'v2', lxcfs: true, apparmor: false, idmappedSquashfs: true } as const;
  expect(await seen()).toBeUndefined();
  containers = { available: true, liblxc: '5.0.2', ...facts };
  expect(await seen()).toMatch(/yes: liblxc 5.0.2, control groups v2, lxcfs, no AppArmor$/);
  containers = { available: true, liblxc: '5.0.2', ...facts, idmappedSquashfs: false };
  expect(await seen()).toMatch(/lxcfs, no AppArmor, images are unpacked$/);
  containers = { available: false, why: 'lxc-start is not there', ...facts };
  expect(await seen()).toMatch(/no: lxc-start is not there$/);
});

it('are saved, and the image tells what it was made of', async () => {
  result = { image: saved.id, name: 'web', version: 'v2' };
  expect(await roost('save', 'c1', 'web@v2')).toMatchObject({ code: 0, stdout: 'c1 saved as web@v2\n' });
  const { stdout } = await roost('image', 'show', 'web');
  expect(stdout).toMatch(/^source: +saved: c1, of busybox@20261125$/m);
});

it('are cloned, and what a clone has not is told', async () => {
  result = { guest: CONTAINER };
  expect(await roost('clone', 'c1', 'c2')).toEqual({
    code: 0,
    stdout: 'c1 cloned as c2\n',
    stderr: 'warning: Port 8080 of the host stays with c1: a port is passed on to one guest alone\n',
  });
  expect(await roost('clone', 'c1', 'c2', '--start')).toMatchObject({
    stdout: 'c1 cloned as c2 and started\n',
  });
});
