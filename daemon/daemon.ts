/**
 * The daemon put together from its parts, and its life: take the state directory, open the inventory, answer queries,
 * look at every guest, be ready. Which drivers, pools and backends there are is decided by whoever calls.
 */
import { setMaxListeners } from 'node:events';
import { chownSync, closeSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import type { Driver } from '../drivers/driver.ts';
import { type Clock, systemClock } from '../lib/clock.ts';
import { SOCKET_FILE } from '../lib/default-directories.ts';
import type { Log } from '../lib/log.ts';
import { UndoStack } from '../lib/undo-stack.ts';
import { groupId, listenUnix } from '../native/index.ts';
import type { Addressing, NetworkBackend } from '../network/backend.ts';
import { daemonStopping, RoostError } from '../protocol/errors.ts';
import type { DaemonView, HostView, PoolView } from '../protocol/host.ts';
import type { SubjectKind } from '../protocol/operation.ts';
import type { InstanceId } from '../protocol/types.ts';
import { versionText } from '../protocol/version.ts';
import type { ImageBuilder, ImageStore, OciImages, Pool } from '../storage/pool.ts';
import { createDispatch, type Dispatch } from './api/dispatch.ts';
import { agentHandlers, programHandlers } from './api/handlers/agent.ts';
import { deviceHandlers } from './api/handlers/devices.ts';
import { guestFindingHandlers } from './api/handlers/guest-finding.ts';
import { guestHandlers } from './api/handlers/guests.ts';
import { hostHandlers, imageHandlers, networkHandlers, operationHandlers } from './api/handlers/others.ts';
import { recoveryHandlers } from './api/handlers/recovery.ts';
import type { Services } from './api/handlers/services.ts';
import { sessionHandlers } from './api/handlers/session.ts';
import { type ApiServer, serveUnixSocket } from './api/unix-socket.ts';
import type { WebSocketApi, WebSocketOptions } from './api/websocket.ts';
import type { Config } from './config.ts';
import { describeHost } from './describe-host.ts';
import { EventLog } from './event-log.ts';
import { Fsck } from './fsck/fsck.ts';
import { credentialsFor, idRangesFor, imagesGroup } from './guest-credentials.ts';
import { Adoptions } from './guests/adoption.ts';
import { AgentFiles } from './guests/agent-files.ts';
import { Consoles } from './guests/console.ts';
import { GuestDevices } from './guests/guest-devices.ts';
import { Guests } from './guests/guests.ts';
import { Histories } from './guests/histories.ts';
import { HOST_SHUTDOWN } from './guests/host-stops.ts';
import type { House } from './guests/house.ts';
import { Health } from './health.ts';
import { inspectHost } from './host-objects.ts';
import { HostShutdown } from './host-shutdown.ts';
import { ImageBuilds } from './image-builds.ts';
import { ImagePulls } from './image-pulls.ts';
import { Images } from './images.ts';
import { instanceIdOf, prepareDirectories, readBootId, takeLock } from './instance.ts';
import { type Inventory, openInventory } from './inventory/inventory.ts';
import type { OperationRecord } from './inventory/operation-table.ts';
import { Networks } from './networks.ts';
import { Limits } from './operations/limits.ts';
import { Operations } from './operations/operations.ts';
import type { StepObserver } from './operations/steps.ts';
import { RecordKeeping } from './records/record-keeping.ts';
import { RootSaves } from './root-saves.ts';
import type { InheritedSocket } from './service-manager.ts';
import { Tokens } from './tokens.ts';

/** What the daemon is put together from, besides itself. */
export interface Parts {
  readonly drivers: readonly Driver[];
  readonly backends: readonly NetworkBackend[];
  readonly addressing: Addressing;
  readonly pool: Pool;
  readonly imageStore: ImageStore;
  readonly imageBuilder: ImageBuilder;
  readonly ociImages: OciImages;
  readonly describeQemu: (signal: AbortSignal) => Promise<Pick<HostView, 'accelerator' | 'qemuBinaries'>>;
  readonly describeGroups: HostView['controlGroups'];
  /** Absent where nothing is known of containers. */
  readonly describeContainers?: (signal: AbortSignal) => Promise<HostView['containers']>;
}

export interface PartsContext {
  readonly config: Config;
  readonly inventory: Inventory;
  readonly instance: InstanceId;
  readonly privileged: boolean;
  /** Gid that may read images; undefined without privileges. */
  readonly imagesGid: number | undefined;
  readonly log: Log;
}

export interface DaemonOptions {
  readonly config: Config;
  readonly log: Log;
  readonly parts: (context: PartsContext) => Parts;
  readonly clock?: Clock;
  readonly observeStep?: StepObserver;
  /** Listens already, and is used instead of a socket of our own making. */
  readonly inheritedSocket?: InheritedSocket;
  /** The boot of the host, as the kernel names it; tests give another to act a boot out. */
  readonly bootId?: string;
}

export interface Daemon {
  readonly socketPath: string;
  readonly instance: InstanceId;
  readonly inventory: Inventory;
  readonly webSocketPort: number | undefined;
  /** Resolves when every guest has been looked at. */
  readonly ready: Promise<void>;
  /** Lets go of everything and leaves the guests running. */
  stop(): Promise<void>;
}

const SWEEP_INTERVAL_MS = 180_000;

const openWebSocket = async (
  config: Config,
  serving: Omit<WebSocketOptions, 'host' | 'port'>,
): Promise<WebSocketApi | undefined> => {
  if (!config.websocket.listen) return undefined;
  const { serveWebSocket } = await import('./api/websocket.ts');
  return await serveWebSocket({ ...serving, ...config.websocket.listen });
};

const listenOn = (path: string): number => {
  try {
    return listenUnix(path, { mode: 0o660, backlog: 512 });
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    throw new RoostError('HostError', `The socket ${path} cannot be made: ${said}`, {
      cause: error,
      data: { path },
      hint: 'What stands there is no socket of an earlier daemon; take it away, or name another --run-dir.',
    });
  }
};

/** One that was handed over has the mode and group that its maker gave it, and its file stays when the daemon goes. */
const openSocket = (
  { config, inheritedSocket }: DaemonOptions,
  privileged: boolean,
): { readonly descriptor: number; readonly path: string } => {
  if (inheritedSocket) return inheritedSocket;
  const path = join(config.runDirectory, SOCKET_FILE);
  const descriptor = listenOn(path);
  const group = privileged ? groupId(config.socket.group) : undefined;
  if (group !== undefined) chownSync(path, 0, group);
  return { descriptor, path };
};

/** Everything between the parts and the doors. */
export interface Core {
  readonly inventory: Inventory;
  readonly instance: InstanceId;
  readonly eventLog: EventLog;
  readonly operations: Operations;
  readonly images: Images;
  readonly imageBuilds: ImageBuilds;
  readonly imagePulls: ImagePulls;
  readonly rootSaves: RootSaves;
  readonly networks: Networks;
  readonly guests: Guests;
  readonly devices: GuestDevices;
  readonly tokens: Tokens;
  readonly fsck: Fsck;
  readonly hostShutdown: HostShutdown;
  readonly adoptions: Adoptions;
  readonly records: RecordKeeping;
  readonly parts: Parts;
  readonly privileged: boolean;
}

export const buildCore = (
  options: Omit<DaemonOptions, 'bootId'>,
  inventory: Inventory,
  stopping: AbortSignal,
): Core => {
  // Whatever waits listens to it, one for each guest and more.
  setMaxListeners(0, stopping);
  const { config, log } = options;
  const { stateDirectory, runDirectory } = config;
  const clock = options.clock ?? systemClock;
  const privileged = process.getuid?.() === 0;
  const instance = instanceIdOf(inventory.meta, stateDirectory);
  const imagesGid = imagesGroup(config, instance, privileged);
  const parts = options.parts({ config, inventory, instance, privileged, imagesGid, log });
  const { pool, imageStore: store, backends, addressing } = parts;
  const events = new EventLog(inventory.db, inventory.events, clock);
  const operations = new Operations({ inventory, events, clock, log, observeStep: options.observeStep });
  const limits = new Limits(operations, config.limits);
  const shared = {
    inventory,
    operations,
    limits,
    events,
    clock,
    log,
    instance,
    stateDirectory,
    runDirectory,
    stopping,
  };
  const images = new Images({ ...shared, store });
  const imageBuilds = new ImageBuilds(images, parts.imageBuilder);
  const imagePulls = new ImagePulls(images, parts.ociImages);
  const networks = new Networks({ ...shared, backends, addressing });
  const house: House = {
    ...shared,
    images,
    networks,
    pool,
    drivers: new Map(parts.drivers.map((driver) => [driver.name, driver])),
    credentialsOf: credentialsFor(config, instance, imagesGid),
    idRangeFor: idRangesFor(config, instance),
    guestById: (id) => guests.registry.byId(id),
    get waiting() {
      return guests.waiting;
    },
  };
  const guests: Guests = new Guests({ house, config });
  const adoptions = new Adoptions(house, guests.registry, () => inspectHost(parts, shared, stopping));
  const fsck = new Fsck({ ...shared, ...parts, guests, networks, images, now: () => clock.now() });
  return {
    inventory,
    instance,
    eventLog: events,
    operations,
    images,
    imageBuilds,
    imagePulls,
    rootSaves: new RootSaves(house, guests.registry),
    networks,
    guests,
    devices: new GuestDevices(house, guests),
    tokens: new Tokens(inventory, clock),
    fsck,
    hostShutdown: new HostShutdown({ ...shared, guests, timeoutMs: config.hostShutdown.timeoutMs }),
    adoptions,
    records: new RecordKeeping(house, guests),
    parts,
    privileged,
  };
};

const describePool = async (pool: Pool): Promise<PoolView> => ({
  name: pool.name,
  kind: pool.kind,
  path: pool.path,
  ...(await pool.usage()),
});

const dispatchOf = (core: Core, describeDaemon: () => DaemonView): Dispatch => {
  const services: Services = {
    ...core,
    consoles: new Consoles(),
    histories: new Histories(core.inventory, core.guests.registry),
    describeHost: (signal) => describeHost(core, signal),
    describeDaemon,
    describePools: async () => [await describePool(core.parts.pool)],
  };
  return createDispatch({
    ...sessionHandlers(services),
    ...guestHandlers(services),
    ...deviceHandlers(services),
    ...guestFindingHandlers(services),
    ...agentHandlers(services, new AgentFiles()),
    ...programHandlers(services),
    ...operationHandlers(services),
    ...imageHandlers(services),
    ...networkHandlers(services),
    ...hostHandlers(services),
    ...recoveryHandlers(services),
  });
};

/**
 * An inventory that never knew an operation beside disks of guests has been lost: going on with it would make strangers of
 * all of them. Errors: DataLoss.
 */
const refuseLostInventory = async ({ inventory, parts }: Core, path: string): Promise<void> => {
  if (inventory.operations.highestSequence() > 0) return;
  const places = (await parts.pool.inspect()).map(({ name }) => name);
  if (places.length === 0) return;
  throw new RoostError(
    'DataLoss',
    `The inventory ${path} is empty, but ${parts.pool.path} holds the disks of ${places.length} guests`,
    {
      data: { path, guests: places.slice(0, 100) },
      hint: `Guests run on, and nothing was changed. 'roost recover' rebuilds it from the records beside the disks; or put back a backup of ${path}; or move ${parts.pool.path} away to begin anew.`,
    },
  );
};

/** Takes up what an earlier daemon left; resolves when every guest has been looked at. */
const recover = async (core: Core, bootId: string, signal: AbortSignal): Promise<void> => {
  const { inventory, networks, images, guests } = core;
  const lastBootId = inventory.meta.get('boot-id');
  const hostBooted = lastBootId !== undefined && lastBootId !== bootId;
  const leftovers = inventory.operations.unfinished();
  const ofKind = (kind: SubjectKind): OperationRecord[] =>
    leftovers.filter((operation) => operation.subject.kind === kind);
  networks.recover(ofKind('network'), signal);
  images.recover(ofKind('image'));
  const looked = guests.recover(ofKind('guest'), hostBooted);
  const ofHost = ofKind('host');
  const isShutdown = ({ kind }: OperationRecord): boolean => kind === HOST_SHUTDOWN;
  core.hostShutdown.recover(ofHost.filter(isShutdown), looked, hostBooted);
  core.fsck.recover(
    ofHost.filter((each) => !isShutdown(each)),
    looked,
  );
  await looked;
  if (signal.aborted) return;
  inventory.db.soon(() => {
    inventory.meta.set('boot-id', bootId);
    if (hostBooted) guests.policies.planAutostart();
  });
  void guests.policies.autostart();
  guests.waiting.begin();
  core.records.keep();
};

/** Looks at everything again, the rules before the guests that need them; one round at a time. */
const sweeping = (core: Core, signal: AbortSignal): (() => Promise<void>) => {
  let underWay = false;
  return async () => {
    if (underWay || signal.aborted) return;
    underWay = true;
    try {
      await core.networks.mend(signal);
      await core.guests.restorePorts();
      if (!signal.aborted) core.guests.registry.sweep();
    } finally {
      underWay = false;
    }
  };
};

/** Guests are given paths relative to their own directory, which symbolic links would lead astray. */
export const withRealPaths = (config: Config): Config => ({
  ...config,
  stateDirectory: realpathSync(config.stateDirectory),
  runDirectory: realpathSync(config.runDirectory),
});

/** Resolves when no mailbox has anything under way. */
const idle = async ({ guests, images, networks, fsck, hostShutdown, records }: Core): Promise<void> => {
  const owners = [guests.registry, guests.waiting, images, networks, fsck, hostShutdown, records];
  await Promise.all(owners.map((owner) => owner.idle()));
};

/** Builds and starts a daemon; resolves when its socket answers. Errors: see takeLock and openInventory. */
export const startDaemon = async (asked: DaemonOptions): Promise<Daemon> => {
  prepareDirectories(asked.config.stateDirectory, asked.config.runDirectory);
  const options = { ...asked, config: withRealPaths(asked.config) };
  const { config, log } = options;
  const startedAt = (options.clock ?? systemClock).now();
  await using undo = new UndoStack();
  const locks = [takeLock(config.stateDirectory, 'state')];
  undo.add(() => locks.forEach((lock) => closeSync(lock)));
  if (config.runDirectory !== config.stateDirectory) locks.push(takeLock(config.runDirectory, 'run'));
  const inventory = openInventory(join(config.stateDirectory, 'roost.db'), config.events);
  undo.add(() => inventory.db.close());
  const controller = new AbortController();
  const core = buildCore(options, inventory, controller.signal);
  const { instance, eventLog, guests } = core;
  await refuseLostInventory(core, join(config.stateDirectory, 'roost.db'));
  const health = new Health(log);
  health.start();
  let isReady = false;
  const servers: ApiServer[] = [];
  const dispatch = dispatchOf(core, () => ({
    version: versionText,
    pid: process.pid,
    startedAt,
    ready: isReady,
    instance,
    stateDirectory: config.stateDirectory,
    runDirectory: config.runDirectory,
    memoryBytes: process.memoryUsage.rss(),
    guests: guests.registry.size,
    connections: servers.reduce((sum, server) => sum + server.connections, 0),
    eventLoopLagMs: health.eventLoopLagMs(),
    eventLoopBlocks: health.eventLoopBlocks(),
    commitMs: inventory.db.commitMs.quantiles(),
    lastEventSequence: eventLog.lastSequence,
  }));

  // Every mailbox has its first message before the first client can send one.
  const sweep = sweeping(core, controller.signal);
  const ready = recover(core, options.bootId ?? readBootId(), controller.signal).then(() => {
    isReady = true;
    void guests.restorePorts();
  });
  const letGo = async (): Promise<void> => {
    controller.abort(daemonStopping());
    core.operations.suspend();
    await Promise.all(servers.map((server) => server.close()));
    await idle(core);
    await guests.registry.release();
    health.stop();
  };
  undo.add(letGo);
  const serving = { dispatch, events: eventLog, log, signal: controller.signal };
  const { path: socketPath, ...socket } = openSocket(options, core.privileged);
  servers.push(await serveUnixSocket({ ...serving, ...socket }));
  const webSocket = await openWebSocket(config, { ...serving, tokens: core.tokens });
  if (webSocket) servers.push(webSocket);
  const sweeper = setInterval(() => void sweep(), SWEEP_INTERVAL_MS).unref();
  undo.succeed();

  return {
    socketPath,
    instance,
    inventory,
    webSocketPort: webSocket?.port,
    ready,
    stop: async () => {
      clearInterval(sweeper);
      await letGo();
      inventory.db.close();
      for (const lock of locks) closeSync(lock);
    },
  };
};
