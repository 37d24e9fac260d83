/** roostd: reads its configuration, puts the daemon together from real parts, and stops it when it is told to. */
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { describeContainers, hasLiblxc } from '../drivers/lxc/host-facts.ts';
import { type LxcDriverOptions, lxcDriver } from '../drivers/lxc/lxc-driver.ts';
import type { RootPlaces } from '../drivers/lxc/mapped-ids.ts';
import { qemuDriver } from '../drivers/qemu/qemu-driver.ts';
import { buildInitramfs } from '../guest/initramfs.ts';
import { extractPvhKernel } from '../guest/pvh-kernel.ts';
import { hostControlGroups } from '../lib/control-groups.ts';
import { createLog, isJournal, type Log, silentLog } from '../lib/log.ts';
import { initPath, launcherPath, splicePath, wardenPath } from '../native/index.ts';
import * as addressing from '../network/addressing.ts';
import { linuxBridgeBackend } from '../network/linux-bridge/linux-bridge.ts';
import { userNetworkBackend } from '../network/user/user-network.ts';
import { type RoostError, toRoostError } from '../protocol/errors.ts';
import { versionText } from '../protocol/version.ts';
import { debianBuilder } from '../storage/debian/build.ts';
import { directoryPool } from '../storage/directory/directory-pool.ts';
import { imageBuilders } from '../storage/image-builders.ts';
import { imageStore } from '../storage/images/image-store.ts';
import { microvmBuilder } from '../storage/microvm/build.ts';
import { ociImages } from '../storage/oci/oci-images.ts';
import type { ImageBuilder } from '../storage/pool.ts';
import { checkConfig } from './check-config.ts';
import { type CommandLine, parseCommandLine, usage } from './config.ts';
import { type Daemon, type Parts, type PartsContext, startDaemon } from './daemon.ts';
import { guestUidBase, importerUidOf } from './instance.ts';
import type { StepObserver } from './operations/steps.ts';
import { recoverInventory } from './recovery/recover.ts';
import { reportText } from './recovery/report-text.ts';
import { ServiceManager, takeInheritedSocket, watchdogTimeoutMs } from './service-manager.ts';

/** The parts of a real host. `lower`: what roots of containers lie on, whatever the kernel can do. */
export const realParts = (context: PartsContext, { lower }: Pick<LxcDriverOptions, 'lower'> = {}): Parts => {
  const { config, inventory, privileged, log } = context;
  const groups = hostControlGroups();
  const driver = qemuDriver({
    binaries: config.qemu.binaries,
    launcherPath: launcherPath(),
    virtiofsdPath: config.qemu.virtiofsd,
    stateRoot: config.stateDirectory,
    cache: {
      get: (key) => inventory.meta.binaryFacts(key),
      set: (key, facts) => inventory.db.soon(() => inventory.meta.setBinaryFacts(key, facts)),
    },
    groups,
    log,
  });
  const places = placesOf(config);
  const containers = lxcDriver({
    wardenPath: wardenPath(),
    agentPath: initPath(),
    places,
    groups,
    ...(lower === undefined ? {} : { lower }),
    stateRoot: config.stateDirectory,
    log,
  });
  return {
    drivers: privileged && hasLiblxc() ? [driver, containers] : [driver],
    backends: privileged
      ? [linuxBridgeBackend({ log, groups }), userNetworkBackend()]
      : [userNetworkBackend()],
    addressing,
    ...storageOf(context),
    imageBuilder: builders(),
    describeQemu: async (signal) => ({
      accelerator: await driver.describeAccelerator(),
      qemuBinaries: await driver.describeBinaries(signal),
    }),
    describeContainers: (signal) => describeContainers({ wardenPath: wardenPath(), places }, signal),
    describeGroups: { kind: groups.kind, why: groups.why },
  };
};

const storageOf = ({
  config,
  instance,
  imagesGid,
}: PartsContext): Pick<Parts, 'pool' | 'imageStore' | 'ociImages'> => {
  const places = placesOf(config);
  const uid = importerUidOf(guestUidBase(config.guests.firstUid, instance));
  // Only root reads as somebody else, and mounts.
  const importer = imagesGid === undefined ? undefined : { uid, gid: uid };
  const programs = { launcherPath: launcherPath(), wardenPath: wardenPath() };
  return {
    pool: directoryPool({
      name: 'default',
      path: places.pool,
      launcherPath: launcherPath(),
      ...(importer === undefined ? {} : { rootPacking: { ...programs, packer: importer } }),
    }),
    imageStore: imageStore({
      path: places.images,
      launcherPath: launcherPath(),
      splicePath: splicePath(),
      ...(importer === undefined || imagesGid === undefined
        ? {}
        : { imagesGid, importer, wardenPath: wardenPath() }),
    }),
    ociImages: ociImages({
      imagesPath: places.images,
      launcherPath: launcherPath(),
      splicePath: splicePath(),
      importer,
      registries: config.registries,
    }),
  };
};

const placesOf = ({ stateDirectory }: PartsContext['config']): RootPlaces => ({
  images: join(stateDirectory, 'images'),
  pool: join(stateDirectory, 'pools', 'default'),
});

const builders = (): ImageBuilder => {
  const microvm = microvmBuilder({
    extractKernel: extractPvhKernel,
    buildInit: (moduleFolder) => buildInitramfs({ init: initPath(), moduleFolder }),
  });
  const debian = debianBuilder();
  return imageBuilders({
    debian,
    'debian-root': debian,
    'microvm-kernel': microvm,
    'microvm-init': microvm,
    'microvm-upper': microvm,
  });
};

const stopOnSignal = (daemon: Daemon, manager: ServiceManager, log: Log): void => {
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) process.exit(1);
    stopping = true;
    log.info({ signal }, 'stopping; guests go on running');
    manager.stopping();
    daemon.stop().then(
      () => process.exit(0),
      (error: unknown) => {
        log.error({ err: error }, 'could not stop cleanly');
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
};

/**
 * V8 lets its young generation grow to 32 MiB, and what lives for a request is done with long before: a third of the
 * memory of a daemon with 1,000 guests, for nothing (bench daemon-memory-1000, request-50). Only here, where the code of
 * this program has been taken from its cache: that is of V8's usual flags.
 */
const keepYoungGenerationSmall = (): void => setFlagsFromString('--semi-space-growth-factor=1');

/** Asks the inventory; fails when it does not answer. */
const guestCounts = ({ inventory }: Daemon): string => {
  const { guests, live } = inventory.guests.count();
  return `${guests} ${guests === 1 ? 'guest' : 'guests'}, ${live} with a process`;
};

/** What a daemon for tests does otherwise. */
export interface MainOptions {
  readonly observeStep?: StepObserver;
  /** Other parts than those of a real host. */
  readonly parts?: (context: PartsContext) => Parts;
}

/** As `roost fsck` does: something differs from what there was. */
const EXIT_LEFT_OUT = 6;

/** Rebuilds the inventory and says what came of it. Only that is on standard output. */
const recoverAndSay = async (
  { config, dryRun, json }: Extract<CommandLine, { kind: 'recover' }>,
  parts: (context: PartsContext) => Parts,
): Promise<void> => {
  const report = await recoverInventory({ config, dryRun, log: silentLog(), parts });
  process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : reportText(report));
  if (report.leftOut.length > 0) process.exitCode = EXIT_LEFT_OUT;
};

export const main = async (argv: readonly string[], options: MainOptions = {}): Promise<void> => {
  const commandLine = parseCommandLine(argv, { uid: process.getuid?.() ?? 0, env: process.env });
  if (commandLine.kind === 'help') {
    process.stdout.write(usage);
    return;
  }
  if (commandLine.kind === 'version') {
    process.stdout.write(`roostd ${versionText}\n`);
    return;
  }
  const { config } = commandLine;
  if (commandLine.kind === 'check') {
    const { text, fits } = await checkConfig(commandLine.path, config);
    process.stdout.write(text);
    if (!fits) process.exitCode = EXIT_CONFIG;
    return;
  }
  if (commandLine.kind === 'recover') {
    await recoverAndSay(commandLine, options.parts ?? realParts);
    return;
  }
  const log = createLog({ level: config.log.level, journal: isJournal(process.env, process.stdout.fd) });
  const manager = new ServiceManager({ log });
  const inherited = takeInheritedSocket(process.env, process.pid);
  const watchdogMs = watchdogTimeoutMs(process.env, process.pid);
  process.on('unhandledRejection', (error) =>
    log.error({ err: error }, 'a promise was left without an owner'),
  );
  keepYoungGenerationSmall();
  const daemon = await startDaemon({
    config,
    log,
    parts: realParts,
    ...(inherited === undefined ? {} : { inheritedSocket: inherited }),
    ...options,
  });
  stopOnSignal(daemon, manager, log);
  // From here on: a guest that is slow to look at holds up readiness, and not the event loop.
  if (watchdogMs !== undefined) manager.watch(watchdogMs, () => guestCounts(daemon));
  log.info({ socket: daemon.socketPath, instance: daemon.instance, version: versionText }, 'listening');
  await daemon.ready;
  manager.ready(guestCounts(daemon));
  log.info('ready');
};

/** Those of sysexits.h after which another try is in vain: systemd/roostd.service names them. */
const EXIT_CONFIG = 78;
const EXIT_DATA = 65;

const exitCodeOf = (error: RoostError['class']): number =>
  error === 'InvalidArgument' ? EXIT_CONFIG : error === 'DataLoss' ? EXIT_DATA : 1;

/** Says why the daemon could not start, and ends with the exit code of sysexits.h that fits. */
export const runMain = (argv: readonly string[], options: MainOptions = {}): void => {
  main(argv, options).catch((error: unknown) => {
    const failure = toRoostError(error);
    const priority = isJournal(process.env, process.stderr.fd) ? '<3>' : '';
    const hint = failure.hint ? `${priority}hint: ${failure.hint}\n` : '';
    process.stderr.write(`${priority}roostd: ${failure.message}\n${hint}`);
    process.exit(exitCodeOf(failure.class));
  });
};
