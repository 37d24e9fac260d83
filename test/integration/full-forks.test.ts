/**
 * A Debian that runs, forked: by UEFI, with a seed of cloud-init, two disks and a CD-ROM drive. One boot for all of it: its
 * forks are themselves and are reached, it goes on as itself, daemons die in the middle, and a fork that lies is none.
 */
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import type { GuestView } from '../../protocol/guest.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { debianBootTimeoutMs, debianImage, debianImageTimeoutMs } from '../guests/debian-image.ts';
import { forkAll } from '../harness/box-guests.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { wasForked } from '../harness/microvm-images.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { TestClient } from '../harness/test-client.ts';

const GIBIBYTE = 1024 * MEBIBYTE;
/** For one answer of an agent under emulation on a busy machine. */
const timeoutMs = 120_000;
const TOKEN = '/run/roost-fork-token';
let image: string;

/** What a program in a guest writes, by the agent. */
const said = async (home: DaemonHome, guest: string, ...argv: readonly string[]): Promise<string> => {
  const { code, stdout, stderr } = await runRoost(home, ['exec', guest, '--', ...argv]);
  expect({ guest, argv, code, stderr }).toEqual({ guest, argv, code: 0, stderr: '' });
  return stdout.trimEnd();
};

/** The first words of its SSH server, at the address that Roost says it has. */
const reached = async (home: DaemonHome, { nics }: GuestView): Promise<string> =>
  await home.run(['bash', '-c', `exec 3<>/dev/tcp/${nics[0]?.ipv4}/22; head -c 4 <&3`]);

/**
 * What comes of the generator next. Two that go on from one state give the same, however often one of them was asked in
 * between: there is one key after the other, whoever asks.
 */
const RANDOM =
  'open($from, "<", "/dev/urandom"); for (1..2000) { sysread($from, $bytes, 16); print unpack("H*", $bytes), "\n" }';
const randomOf = async (home: DaemonHome, guest: string): Promise<readonly string[]> =>
  (await said(home, guest, 'perl', '-e', RANDOM)).split('\n');

interface Self {
  readonly hostname: string;
  readonly machineId: string;
  readonly mac: string;
  readonly address: string;
  readonly bootId: string;
}

const selfOf = async (home: DaemonHome, guest: string): Promise<Self> => {
  const script = [
    'hostname; cat /etc/machine-id /sys/class/net/nic0/address',
    'ip -4 -o address show dev nic0 | tr -s " " | cut -d " " -f 4',
    'cat /proc/sys/kernel/random/boot_id',
  ].join('; ');
  const lines = (await said(home, guest, 'sh', '-c', script)).split('\n');
  const [hostname = '', machineId = '', mac = '', address = '', bootId = ''] = lines;
  return { hostname, machineId, mac, address, bootId };
};

const expectItself = (guest: GuestView, self: Self): void =>
  expect(self).toMatchObject({
    hostname: guest.name,
    machineId: guest.id.replaceAll('-', ''),
    mac: guest.nics[0]?.mac,
    address: `${guest.nics[0]?.ipv4}/24`,
  });

/** Begins a daemon with a Debian that has come up whole. */
const boot = async (home: DaemonHome): Promise<RealDaemon> => {
  const daemon = await home.start();
  await using watcher = await TestClient.connect(join(home.runDirectory, 'roost.sock'), 0);
  await daemon.succeed('image-import', { name: 'debian', path: image });
  await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
  await daemon.succeed('guest-create', {
    name: 'web',
    memoryBytes: 512 * MEBIBYTE,
    firmware: 'uefi',
    disks: [{ image: 'debian', sizeBytes: 4 * GIBIBYTE }, { sizeBytes: 64 * MEBIBYTE }],
    cdroms: [{}],
    nics: [{ network: 'lan' }],
    cloudInit: {},
    qemu: { accel: 'tcg' },
    start: true,
  });
  await expect(daemon.change('template-create', { guest: 'web', name: 'early' })).rejects.toThrow(
    'The agent of guest web is absent',
  );
  await watcher.waitForEvent(
    ({ event, data }) => event === 'GUEST_AGENT_CHANGED' && data['version'] !== undefined,
    AbortSignal.timeout(debianBootTimeoutMs),
  );
  await said(home, 'web', 'cloud-init', 'status', '--wait');
  return daemon;
};

/** The template, and what it says of the guest's pause. */
const freeze = async (daemon: RealDaemon, guest: string, name: string): Promise<GuestView> => {
  const { error, result } = await daemon.change('template-create', { guest, name });
  expect(error).toBeUndefined();
  expect(result).toMatchObject({ pausedMs: expect.any(Number) });
  const template = await daemon.guest(name);
  expect(template).toMatchObject({ state: 'paused', reason: 'template' });
  return template;
};

const forksOf = async (
  daemon: RealDaemon,
  template: string,
  names: readonly string[],
): Promise<readonly GuestView[]> => {
  const forks = await forkAll(daemon, template, names);
  for (const fork of forks) {
    expect(fork).toMatchObject({ state: 'running', ready: { kind: 'agent' } });
    expect(await wasForked(fork)).toBe(true);
  }
  return forks;
};

const itGoesOn = async (home: DaemonHome, daemon: RealDaemon): Promise<Self> => {
  const before = await daemon.guest('web');
  const self = await selfOf(home, 'web');
  await freeze(daemon, 'web', 'warm');
  const after = await daemon.guest('web');
  expect(after).toMatchObject({ id: before.id, nics: before.nics, state: 'running' });
  expect(after.process?.pid).not.toBe(before.process?.pid);
  expect(await wasForked(after)).toBe(true);
  expect(await selfOf(home, 'web')).toEqual(self);
  return self;
};

const forksAreThemselves = async (home: DaemonHome, daemon: RealDaemon, webs: Self): Promise<void> => {
  const forks = await forksOf(daemon, 'warm', ['one', 'two']);
  const drawn = await Promise.all(['one', 'two', 'web'].map((name) => randomOf(home, name)));
  expect(new Set(drawn.flat()).size).toBe(3 * 2000);
  const selves = await Promise.all(
    forks.map(async (fork) => {
      const self = await selfOf(home, fork.name);
      expectItself(fork, self);
      // Its memory is that of the guest's own boot.
      expect(self.bootId).toBe(webs.bootId);
      expect(await reached(home, fork)).toBe('SSH-');
      const clock = Number(await said(home, fork.name, 'date', '+%s'));
      expect(Math.abs(clock - Date.now() / 1000)).toBeLessThan(60);
      return self;
    }),
  );
  const web = await selfOf(home, 'web');
  for (const member of ['hostname', 'machineId', 'mac', 'address'] as const)
    expect(new Set([...selves, web].map((self) => self[member])).size).toBe(3);
  expect(await reached(home, await daemon.guest('web'))).toBe('SSH-');
  // Each writes its own disk.
  await said(home, 'one', 'sh', '-c', 'echo one >/root/who && sync');
  for (const name of ['two', 'web']) expect(await said(home, name, 'ls', '/root')).toBe('');
};

/** Handed over already, it is taken back: to the process that it had. */
const failureLeavesIt = async (home: DaemonHome, first: RealDaemon, web: Self): Promise<RealDaemon> => {
  await first.stop();
  const daemon = await home.start({ failAt: 'template-create/share/before' });
  const { process } = await daemon.guest('web');
  const { state } = await daemon.change('template-create', { guest: 'web', name: 'failed' });
  expect(state).toBe('failed');
  expect((await daemon.guest('web')).process).toEqual(process);
  expect(await selfOf(home, 'web')).toEqual(web);
  return daemon;
};

/** Kill -9 of the daemon where the steps differ from those of a guest with our init; the next one finishes. */
const daemonsDie = async (home: DaemonHome, first: RealDaemon, { bootId }: Self): Promise<RealDaemon> => {
  await first.stop();
  for (const place of ['hand-over/before', 'hand-over/after', 'go-on/before', 'go-on/after']) {
    const name = place.replace('/', '-');
    const doomed = await home.start({ crashAt: `template-create/${place}` });
    const asked = { guest: 'web', name, idempotencyKey: name };
    await expect(doomed.change('template-create', asked)).rejects.toThrow(/connection/i);
    await doomed.ended;
    const next = await home.start();
    const { state } = await next.change('template-create', asked);
    expect({ place, state }).toEqual({ place, state: 'succeeded' });
    expect({ place, ...(await selfOf(home, 'web')) }).toMatchObject({ place, hostname: 'web', bootId });
    await next.succeed('guest-delete', { guest: name, force: true }).catch(() => undefined);
    await next.stop();
  }
  for (const place of ['resume/before', 'program/before', 'program/after']) {
    const name = place.replace('/', '-');
    const doomed = await home.start({ crashAt: `guest-start/${place}` });
    const asked = { template: 'warm', name, idempotencyKey: name };
    await expect(doomed.change('guest-fork', asked)).rejects.toThrow(/connection/i);
    await doomed.ended;
    const next = await home.start();
    const { state } = await next.change('guest-fork', asked);
    expect({ place, state }).toEqual({ place, state: 'succeeded' });
    const fork = await next.guest(name);
    expect({ place, forked: await wasForked(fork) }).toEqual({ place, forked: true });
    expectItself(fork, await selfOf(home, name));
    expect(await reached(home, fork)).toBe('SSH-');
    await next.succeed('guest-delete', { guest: name, force: true });
    await next.stop();
    const { ledger, host } = await home.compare();
    expect({ place, host }).toEqual({ place, host: ledger });
  }
  return await home.start();
};

const forkOfFork = async (home: DaemonHome, daemon: RealDaemon): Promise<void> => {
  const forked = await runRoost(home, ['fork', 'one', '--name', 'three']);
  expect(forked).toMatchObject({
    code: 0,
    stdout: 'three\n',
    stderr: expect.stringContaining('stood still'),
  });
  const three = await daemon.guest('three');
  expect(await wasForked(three)).toBe(true);
  expectItself(three, await selfOf(home, 'three'));
  expectItself(await daemon.guest('one'), await selfOf(home, 'one'));
  for (const name of ['one', 'three']) expect(await said(home, name, 'cat', '/root/who')).toBe('one');
};

/** A guest that says another token than it was told, and so does each fork of its memory. */
const liarsBoot = async (home: DaemonHome, daemon: RealDaemon): Promise<void> => {
  const script = `while :; do echo lie >${TOKEN}; done`;
  await daemon.client.call('guest-exec', { guest: 'two', path: 'sh', arg: ['-c', script], timeoutMs });
  const { id, state } = await daemon.change('template-create', { guest: 'two', name: 'lying' });
  expect(state).toBe('succeeded');
  const fork = await daemon.change('guest-fork', { template: 'lying', name: 'four' });
  for (const [operation, name] of [
    [id, 'two'],
    [fork.id, 'four'],
  ] as const) {
    const guest = await daemon.guest(name);
    expect(guest.state).toBe('running');
    expect(guest.ready).toBeUndefined();
    expect(await wasForked(guest)).toBe(false);
    expect((await runRoost(home, ['explain', operation])).stdout).toContain(
      'it does not know its token; it is booted',
    );
  }
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun', 'ovmf', 'mmdebstrap'],
  'forks of a Debian that runs',
  () => {
    beforeAll(async () => {
      image = await debianImage();
    }, debianImageTimeoutMs);

    it('are themselves, leave it as it was, and are none where they lie', {
      timeout: 2 * debianBootTimeoutMs,
    }, async () => {
      const home = await testDaemonHome();
      const first = await boot(home);
      const web = await itGoesOn(home, first);
      await forksAreThemselves(home, first, web);
      const second = await failureLeavesIt(home, first, web);
      const daemon = await daemonsDie(home, second, web);
      await forkOfFork(home, daemon);
      await liarsBoot(home, daemon);
      expect(await reached(home, await daemon.guest('web'))).toBe('SSH-');
      await leaveNothing({ home, daemon });
    });
  },
);
