/** Real containers for the tests of their driver: busybox under liblxc, each test on a host of its own, without NICs. */
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Driver, GuestPlace, Launch } from '../../../drivers/driver.ts';
import { type LxcDriverOptions, lxcDriver } from '../../../drivers/lxc/lxc-driver.ts';
import type { Lower } from '../../../drivers/lxc/mapped-ids.ts';
import { lockPath } from '../../../drivers/processes/guest-files.ts';
import { silentLog } from '../../../lib/log.ts';
import { initPath, wardenPath } from '../../../native/index.ts';
import type { BlockSource } from '../../../protocol/block-source.ts';
import { type GuestSpec, guestSpec, wantsAgent } from '../../../protocol/guest.ts';
import type { GuestId, InstanceId } from '../../../protocol/types.ts';
import { type DriverHarness, type GuestBehaviour, never } from '../../conformance/driver.ts';
import { BUSYBOX_READY, makeBusyboxTree } from '../../harness/busybox-root.ts';
import { makeDirectory } from '../../harness/test-directory.ts';
import { processEnd } from '../qemu/qemu-harness.ts';

/** Ids that no guest of another test has. */
const FIRST_ID = 1_500_000_000 + (process.pid % 5_000) * 65_536;

const wait = 'while :; do sleep 3600 & wait $!; done';
/** A shell waits for its child with its traps at hand. */
const inits: Readonly<Record<GuestBehaviour, readonly string[]>> = {
  idle: ["trap '' PWR", `echo ${BUSYBOX_READY}`, wait],
  acpi: ["trap 'exit 0' PWR", `echo ${BUSYBOX_READY}`, wait],
  poweroff: [`echo ${BUSYBOX_READY}`, 'exit 0'],
  echo: ['stty raw -echo', `echo ${BUSYBOX_READY}`, 'exec cat'],
};

export interface LxcHarness extends DriverHarness {
  readonly stateRoot: string;
  driver(options?: Partial<LxcDriverOptions>): Driver;
  makeLaunch(behaviour: GuestBehaviour | readonly string[], changes?: Partial<GuestSpec>): Promise<Launch>;
}

/** One image for all behaviours, and its tree: which it is, is the container's init command. */
const makeImage = async (
  directory: string,
): Promise<{ readonly image: BlockSource; readonly tree: string }> => {
  const tree = join(directory, 'busybox');
  await makeBusyboxTree(tree);
  for (const [name, lines] of Object.entries(inits)) {
    await writeFile(join(tree, 'sbin', name), ['#!/bin/sh', ...lines, ''].join('\n'));
    await chmod(join(tree, 'sbin', name), 0o755);
  }
  const path = join(directory, 'busybox.squashfs');
  execFileSync('mksquashfs', [tree, path, '-all-root', '-no-progress', '-quiet', '-noI', '-noD', '-noF']);
  return { image: { format: 'raw', path, readOnly: true, sizeBytes: 0 }, tree };
};

/** `lower`: what the roots of its containers lie on; what the kernel can do unless given. */
export const makeLxcHarness = async (lower?: Lower): Promise<LxcHarness> => {
  const root = await makeDirectory('lxc');
  const stateRoot = join(root, 'state');
  const runDirectory = join(root, 'run');
  const pool = join(root, 'pool');
  for (const directory of [
    stateRoot,
    join(stateRoot, 'guests'),
    runDirectory,
    join(runDirectory, 'guests'),
  ]) {
    await mkdir(directory, { mode: 0o711 });
  }
  await mkdir(pool, { mode: 0o700 });
  const { image, tree } = await makeImage(pool);
  const instance = `l${randomUUID().slice(0, 4)}` as InstanceId;
  const places: GuestPlace[] = [];

  const driver = (changes: Partial<LxcDriverOptions> = {}): Driver =>
    lxcDriver({
      wardenPath: wardenPath(),
      agentPath: initPath(),
      places: { images: pool, pool },
      ...(lower === undefined ? {} : { lower }),
      stateRoot,
      log: silentLog(),
      ...changes,
    });

  const spec = (changes: Partial<GuestSpec> = {}): GuestSpec => ({
    ...guestSpec.parse({
      name: 'tested',
      driver: 'lxc',
      memoryBytes: 64 * 1024 ** 2,
      boot: { kind: 'root', image: 'busybox' },
      // Its agent would be a part of every story.
      agent: { enabled: false },
    }),
    ...changes,
  });

  const makeLaunch: LxcHarness['makeLaunch'] = async (behaviour, changes) => {
    const id = randomUUID() as GuestId;
    const place: GuestPlace = {
      id,
      number: 7,
      instance,
      stateDirectory: join(stateRoot, 'guests', id),
      runDirectory: join(runDirectory, 'guests', id),
    };
    places.push(place);
    await mkdir(place.stateDirectory, { mode: 0o711 });
    const directory = join(pool, id);
    for (const path of [directory, join(directory, 'upper'), join(directory, 'work')])
      await mkdir(path, 0o755);
    const wanted = spec(changes);
    if (wanted.boot.kind !== 'root') throw new Error('a container of a test has a root');
    const { nesting, keepCapabilities, dropCapabilities } = wanted.boot;
    return {
      place,
      name: wanted.name,
      machine: await driver().pin(wanted, id, never()),
      memoryBytes: wanted.memoryBytes,
      cpu: wanted.cpu,
      qemu: wanted.qemu,
      limits: wanted.limits,
      agent: wantsAgent(wanted),
      boot: {
        kind: 'root',
        root: { directory, image, tree },
        idRange: { first: FIRST_ID, count: 65_536 },
        init: typeof behaviour === 'string' ? [`/sbin/${behaviour}`] : behaviour,
        nesting,
        keepCapabilities,
        dropCapabilities,
      },
      disks: [],
      nics: [],
    };
  };

  return {
    instance,
    runDirectory,
    stateRoot,
    banner: BUSYBOX_READY,
    driver,
    spec,
    makeLaunch,
    resumed: () => undefined,
    killByOther: (_launch, { pid }) => process.kill(pid, 'SIGKILL'),
    gone: (_launch, identity) => processEnd(identity),
    loseLock: ({ place }) => rm(lockPath(place)),
    badLaunch: (good) => {
      if (good.boot.kind !== 'root') throw new Error('a container of a test has a root');
      const path = join(pool, 'no-such-image');
      const root = { ...good.boot.root, image: { ...image, path }, tree: path };
      return { launch: { ...good, boot: { ...good.boot, root } }, says: path };
    },
    makeDisk: () => Promise.reject(new Error('a container has no disks')),
    answerUnplug: () => Promise.reject(new Error('a container lets go of nothing')),
    [Symbol.asyncDispose]: async () => {
      // What a test has ended by its own hand is its driver's to clear.
      for (const place of places) await driver().clear(place);
      await rm(root, { recursive: true, force: true });
    },
  };
};
