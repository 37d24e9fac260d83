/**
 * Whole daemons in this process over a pretended host: storage, network and guests in memory, the inventory and the
 * socket real. The host outlives its daemons, so that one can be stopped or crashed and the next be started on what it
 * left.
 */
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { configFile } from '../../daemon/config.ts';
import { type Daemon, type DaemonOptions, type Parts, startDaemon } from '../../daemon/daemon.ts';
import { inspectHost } from '../../daemon/host-objects.ts';
import type { StepObserver } from '../../daemon/operations/steps.ts';
import { deferred } from '../../lib/abort.ts';
import { silentLog } from '../../lib/log.ts';
import * as addressing from '../../network/addressing.ts';
import type { PortAnswer, PortReport, PortSpec } from '../../network/backend.ts';
import {
  type FakeNetworkBackend,
  type FakeNetworkCall,
  fakeNetworkBackend,
} from '../../network/fake/fake-network.ts';
import type { CommandInput } from '../../protocol/commands.ts';
import { hostObjectKey } from '../../protocol/host-object.ts';
import type { ImageId } from '../../protocol/types.ts';
import { FakeImageBuilder } from '../../storage/fake/fake-image-builder.ts';
import { FakeImageStore } from '../../storage/fake/fake-image-store.ts';
import { FakeOciImages } from '../../storage/fake/fake-oci-images.ts';
import { FakePool, type PoolEffect } from '../../storage/fake/fake-pool.ts';
import { TestClient } from '../harness/test-client.ts';
import { testDirectory } from '../harness/test-directory.ts';
import { ManualClock } from './manual-clock.ts';
import { NamedHost } from './named-host.ts';

type Place = Parameters<StepObserver>[0];
export interface StartOptions extends Partial<Pick<DaemonOptions, 'bootId' | 'observeStep' | 'parts'>> {
  /** Serves the WebSocket there; 0 is any port that is free. */
  readonly webSocketPort?: number;
  readonly limits?: { readonly starts?: number; readonly diskCopies?: number };
}

export class FakeDaemon {
  readonly daemon: Daemon;
  readonly client: TestClient;
  readonly house: FakeHouse;
  #over = false;

  constructor(daemon: Daemon, client: TestClient, house: FakeHouse) {
    this.daemon = daemon;
    this.client = client;
    this.house = house;
  }

  /** A further client. */
  async connect(): Promise<TestClient> {
    const client = await TestClient.connect(this.daemon.socketPath);
    onTestFinished(() => client[Symbol.asyncDispose]());
    return client;
  }

  async stop(): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    await this.client[Symbol.asyncDispose]();
    this.#remember();
    await this.daemon.stop();
  }

  /** The end without a word: from here on it records nothing and reaches no guest. `thaw` lets go what was frozen. */
  async crash(thaw: () => void = () => undefined): Promise<void> {
    this.#over = true;
    this.#remember();
    this.daemon.inventory.db.close();
    const stopped = this.daemon.stop();
    thaw();
    await stopped;
    await this.client[Symbol.asyncDispose]();
  }

  #remember(): void {
    this.house.lastSequence = this.daemon.inventory.events.bounds().newest;
  }

  get ledger(): readonly string[] {
    return [...this.daemon.inventory.ledger.keys()].sort();
  }

  /** What is on the pretended host, in the words of the ledger. */
  async host(): Promise<readonly string[]> {
    const { stateDirectory, runDirectory } = this.house;
    const place = { instance: this.daemon.instance, stateDirectory, runDirectory };
    const found = await inspectHost(this.house.parts(), place, new AbortController().signal);
    return found.map(hostObjectKey).sort();
  }
}

export class FakeHouse {
  readonly clock = new ManualClock();
  readonly host = new NamedHost(() => this.clock.now());
  /** Sequence of the last event of the daemons so far. */
  lastSequence = 0;
  readonly images = new FakeImageStore();
  readonly builder = new FakeImageBuilder((path) => this.images.offer(path, 1024 * 1024));
  readonly oci = new FakeOciImages((path) => this.images.offer(path, 1024 * 1024));
  readonly network: FakeNetworkBackend = fakeNetworkBackend({
    before: (call) => this.beforeNetwork(call),
    guard: () => this.guardPort(),
    answer: (port) => this.answer(port),
    report: (port) => this.report(port),
  });
  readonly pool: FakePool;
  readonly stateDirectory: string;
  readonly runDirectory: string;
  /** Runs ahead of each effect of the pool. */
  beforePool: (effect: PoolEffect) => Promise<void> | void = () => undefined;
  /** Runs ahead of each call of the network. */
  beforeNetwork: (call: FakeNetworkCall) => Promise<void> | void = () => undefined;
  /** What an attached port still waits for before its guest may run. */
  guardPort: () => Promise<void> = async () => undefined;
  /** What the guest of a port answers when it is asked whether it is up; nothing, for ever. */
  answer: (port: PortSpec) => Promise<PortAnswer> = () => new Promise(() => undefined);
  /** What the host knows of a port. */
  report: (port: PortSpec) => PortReport = () => ({ addresses: [], droppedFrames: {} });

  constructor(directory: string) {
    this.stateDirectory = join(directory, 's');
    this.runDirectory = join(directory, 'r');
    this.pool = new FakePool({
      before: (effect) => this.beforePool(effect),
      saved: (path) => this.images.offer(path, 1024 * 1024),
    });
  }

  parts(): Parts {
    return {
      drivers: [this.host.driver(), this.host.driver('lxc')],
      backends: [this.network],
      addressing,
      pool: this.pool,
      imageStore: this.images,
      imageBuilder: this.builder,
      describeGroups: { kind: 'none', why: 'all is pretended' },
      ociImages: this.oci,
      describeQemu: async () => ({ accelerator: { auto: 'tcg', why: 'all is pretended' }, qemuBinaries: [] }),
    };
  }

  /** Starts a daemon; resolves when it has looked at every guest. Its client has every event since its start. */
  async start({ webSocketPort, limits = {}, ...options }: StartOptions = {}): Promise<FakeDaemon> {
    const websocket =
      webSocketPort === undefined ? {} : { listen: { host: '127.0.0.1', port: webSocketPort } };
    const daemon = await startDaemon({
      config: {
        ...configFile.parse({ memory: { reserveBytes: 0 }, limits }),
        stateDirectory: this.stateDirectory,
        runDirectory: this.runDirectory,
        websocket,
      },
      log: silentLog(),
      parts: () => this.parts(),
      clock: this.clock,
      bootId: 'first boot',
      ...options,
    });
    const client = await TestClient.connect(daemon.socketPath, this.lastSequence);
    const started = new FakeDaemon(daemon, client, this);
    onTestFinished(() => started.stop());
    await daemon.ready;
    return started;
  }
}

/** A house in a directory of the running test. */
export const fakeHouse = async (): Promise<FakeHouse> => new FakeHouse(await testDirectory('h'));

/** A small guest with a disk; the rest as given. */
export const aGuest = (
  name: string,
  more: Partial<CommandInput<'guest-create'>> = {},
): CommandInput<'guest-create'> => ({
  name,
  driver: 'fake',
  memoryBytes: 1024 * 1024,
  disks: [{ sizeBytes: 1024 * 1024 }],
  ...more,
});

/** The image that containers are made of; see `importRoot`. */
const ROOT_IMAGE = 'busybox';

/** Imports the image that `aContainer` is made of. */
export const importRoot = async (house: FakeHouse, { client }: FakeDaemon): Promise<ImageId> => {
  house.images.offer('/srv/busybox.tar', 1024 * 1024);
  return (await client.done('image-import', {
    name: ROOT_IMAGE,
    kind: 'root',
    path: '/srv/busybox.tar',
  })) as ImageId;
};

/** A small container; the rest as given. */
export const aContainer = (
  name: string,
  more: Partial<CommandInput<'guest-create'>> = {},
): CommandInput<'guest-create'> => ({
  name,
  driver: 'lxc',
  memoryBytes: 1024 * 1024,
  boot: { kind: 'root', image: ROOT_IMAGE },
  ...more,
});

/** Freezes an operation at a place, as a debugger would. */
export const freezeAt = (
  fits: (place: Place) => boolean,
): { readonly observeStep: StepObserver; readonly reached: Promise<Place>; readonly thaw: () => void } => {
  const reached = deferred<Place>();
  const frozen = deferred<void>();
  frozen.promise.catch(() => undefined);
  return {
    reached: reached.promise,
    thaw: () => frozen.reject(new Error('the daemon was killed here')),
    observeStep: (place) => {
      if (!fits(place)) return undefined;
      reached.resolve(place);
      return frozen.promise;
    },
  };
};
