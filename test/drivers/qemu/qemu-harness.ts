/** Real QEMUs for the tests of their driver: boot-sector guests under TCG, each test on a host of its own. */
import { randomUUID } from 'node:crypto';
import { closeSync } from 'node:fs';
import { chmod, chown, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Credentials, Launch, ProcessIdentity } from '../../../drivers/driver.ts';
import { lockPath } from '../../../drivers/processes/guest-files.ts';
import { type QemuDriver, type QemuDriverOptions, qemuDriver } from '../../../drivers/qemu/qemu-driver.ts';
import { silentLog } from '../../../lib/log.ts';
import { launcherPath, openPidfd, watchReadable } from '../../../native/index.ts';
import { type GuestSpec, guestSpec, wantsAgent } from '../../../protocol/guest.ts';
import type { GuestId, InstanceId } from '../../../protocol/types.ts';
import { type DriverHarness, type GuestBehaviour, never } from '../../conformance/driver.ts';
import { type BootSectorBehaviour, bootSectorBanner, bootSectorDisk } from '../../guests/boot-sector.ts';
import { makeDirectory } from '../../harness/test-directory.ts';

const binaryPath = '/usr/bin/qemu-system-x86_64';
/** A uid that no account and no other test has. */
const guestUid = 1_879_048_192 + (process.pid % 50_000);

export interface QemuHarness extends DriverHarness {
  readonly stateRoot: string;
  driver(options?: Partial<QemuDriverOptions>): QemuDriver;
  makeLaunch(behaviour: GuestBehaviour | BootSectorBehaviour, changes?: Partial<GuestSpec>): Promise<Launch>;
}

export interface QemuHarnessOptions {
  /** Whether each guest's process gets a uid of its own; needs root. */
  readonly ownUid: boolean;
  /** The state directory lies in a directory that only root may pass. */
  readonly hidden?: boolean;
}

/** Facts of the binary, asked once for all tests of a file. */
const facts = new Map<string, unknown>();

export const makeQemuHarness = async (options: QemuHarnessOptions): Promise<QemuHarness> => {
  const root = await makeDirectory('qemu');
  const stateRoot = join(root, 'state');
  const runDirectory = join(root, 'run');
  const pool = join(stateRoot, 'pool');
  for (const directory of [stateRoot, pool, join(stateRoot, 'guests'), runDirectory]) {
    await mkdir(directory, { mode: 0o711 });
  }
  if (options.hidden === true) await chmod(root, 0o700);
  const credentials: Credentials | undefined = options.ownUid
    ? { uid: guestUid, gid: guestUid, groups: [] }
    : undefined;

  const driver = (changes: Partial<QemuDriverOptions> = {}): QemuDriver =>
    qemuDriver({
      virtiofsdPath: '/usr/lib/qemu/virtiofsd',
      binaries: { default: binaryPath },
      launcherPath: launcherPath(),
      stateRoot,
      cache: { get: (key) => facts.get(key), set: (key, value) => facts.set(key, value) },
      log: silentLog(),
      ...changes,
    });

  const spec = (changes: Partial<GuestSpec> = {}): GuestSpec => ({
    ...guestSpec.parse({
      name: 'tested',
      memoryBytes: 32 * 1024 ** 2,
      qemu: { accel: 'tcg' },
      disks: [{ sizeBytes: 1024 ** 2 }],
    }),
    ...changes,
  });

  const makeLaunch: QemuHarness['makeLaunch'] = async (behaviour, changes) => {
    const id = randomUUID() as GuestId;
    const place = {
      id,
      number: 7,
      instance: 'qtest' as InstanceId,
      stateDirectory: join(stateRoot, 'guests', id),
      runDirectory: join(runDirectory, 'guests', id),
      ...(credentials === undefined ? {} : { credentials }),
    };
    await mkdir(place.stateDirectory, { mode: 0o711 });
    await chmod(place.stateDirectory, 0o711);
    const path = join(pool, `${id}.raw`);
    await writeFile(path, bootSectorDisk(behaviour), { mode: 0o600 });
    if (credentials) await chown(path, credentials.uid, credentials.gid);
    const wanted = spec(changes);
    return {
      place,
      name: wanted.name,
      machine: await driver().pin(wanted, id, never()),
      memoryBytes: wanted.memoryBytes,
      cpu: wanted.cpu,
      qemu: wanted.qemu,
      agent: wantsAgent(wanted),
      boot: { kind: 'disk' },
      disks: wanted.disks.map(() => ({ format: 'raw', path, readOnly: false, sizeBytes: 1024 ** 2 })),
      nics: wanted.nics.map(({ mac }) => {
        if (mac === undefined) throw new Error('a NIC of a test has a MAC address');
        return { kind: 'user', mac };
      }),
    };
  };

  return {
    instance: 'qtest' as InstanceId,
    runDirectory,
    stateRoot,
    banner: bootSectorBanner.trim(),
    driver,
    spec,
    makeLaunch,
    resumed: () => undefined,
    killByOther: (_launch, { pid }) => process.kill(pid, 'SIGKILL'),
    gone: (_launch, identity) => processEnd(identity),
    loseLock: ({ place }) => rm(lockPath(place)),
    badLaunch: (good) => {
      const argument = '-no-such-option-of-mine';
      const extraArgs = [{ argument, reason: 'to break it' }];
      return { launch: { ...good, qemu: { ...good.qemu, extraArgs } }, says: argument };
    },
    makeDisk: async ({ place }, name) => {
      const path = join(pool, `${place.id}-${name}.raw`);
      await writeFile(path, Buffer.alloc(1024 ** 2), { mode: 0o600 });
      if (credentials) await chown(path, credentials.uid, credentials.gid);
      return { format: 'raw', path, readOnly: false, sizeBytes: 1024 ** 2 };
    },
    // A boot sector hears of nothing; at a reset the machine itself lets go of what it was asked for.
    answerUnplug: async (_launch, handle, answer) => {
      if (answer === 'consents') await handle.reset(never());
    },
    [Symbol.asyncDispose]: () => rm(root, { recursive: true, force: true }),
  };
};

/** Resolves when a process is gone; by the kernel's word. */
export const processEnd = ({ pid }: Pick<ProcessIdentity, 'pid'>): Promise<void> =>
  new Promise((resolve) => {
    let pidfd: number;
    try {
      pidfd = openPidfd(pid);
    } catch {
      resolve();
      return;
    }
    // What is watched keeps nobody alive; the runner's own timer of the test does.
    const watch = watchReadable(pidfd, () => {
      watch.close();
      closeSync(pidfd);
      resolve();
    });
  });
