/** Gathers what ledger, inventory and host say, and compares them. Looks twice where it sees a difference. */
import { basename, dirname } from 'node:path';
import type { Driver, FoundProcess } from '../../drivers/driver.ts';
import type { NetworkBackend } from '../../network/backend.ts';
import { toRoostError } from '../../protocol/errors.ts';
import type { Difference, FsckReport } from '../../protocol/fsck.ts';
import { type HostObject, hostObjectKey } from '../../protocol/host-object.ts';
import type { SubjectKind } from '../../protocol/operation.ts';
import type { InstanceId } from '../../protocol/types.ts';
import type { ImageStore, KeptRecords, Pool } from '../../storage/pool.ts';
import type { Guest } from '../guests/guest.ts';
import type { Guests } from '../guests/guests.ts';
import { existenceObjects, portObjects, runObjects, volumeSpecs } from '../guests/launch-of.ts';
import { inspectHost } from '../host-objects.ts';
import type { Images } from '../images.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Networks } from '../networks.ts';
import type { Operations } from '../operations/operations.ts';
import { compare, differenceKey, type LastOperation, type Owner, type Row } from './compare.ts';

export interface LookOptions {
  readonly inventory: Inventory;
  readonly operations: Operations;
  readonly guests: Guests;
  readonly networks: Networks;
  readonly pool: Pool;
  readonly imageStore: ImageStore;
  readonly images: Images;
  readonly drivers: readonly Driver[];
  readonly backends: readonly NetworkBackend[];
  readonly instance: InstanceId;
  readonly stateDirectory: string;
  readonly runDirectory: string;
}

type OwnerRef = { readonly kind: SubjectKind; readonly id: string };

const UUID = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g;

/** By the id in its name, whose kind the directory above it tells. */
const ownerInName = ({ name }: HostObject): OwnerRef | undefined => {
  const id = name.match(UUID)?.at(-1);
  if (id === undefined) return undefined;
  const path = name.slice(0, name.lastIndexOf(id));
  switch (basename(path)) {
    case 'networks':
      return { kind: 'network', id };
    case 'images':
      return { kind: 'image', id };
    default:
      return { kind: 'guest', id };
  }
};

const leavesNothing = ({ kind, state }: OperationRecord): boolean =>
  kind.endsWith('-delete') ||
  ((kind.endsWith('-create') || kind === 'image-import') && (state === 'failed' || state === 'cancelled'));

const isPlainRecord = (record: unknown): record is { readonly id: string; readonly name: string } =>
  typeof record === 'object' &&
  record !== null &&
  'id' in record &&
  typeof record.id === 'string' &&
  'name' in record &&
  typeof record.name === 'string';

export class Look {
  readonly #options: LookOptions;

  constructor(options: LookOptions) {
    this.#options = options;
  }

  /** Compares now. A difference that a second look does not see was work under way. */
  async report(signal: AbortSignal): Promise<FsckReport> {
    const first = await this.#once(signal);
    if (first.differences.length === 0) return first;
    const second = await this.#once(signal);
    const seen = new Set(first.differences.map(differenceKey));
    return { ...second, differences: second.differences.filter((each) => seen.has(differenceKey(each))) };
  }

  async #once(signal: AbortSignal): Promise<FsckReport> {
    const { inventory, pool, imageStore } = this.#options;
    const busy = this.#busyOwners();
    const before = inventory.ledger.all();
    const [host, processes, ofGuests, ofImages, missing, foreign] = await Promise.all([
      inspectHost(this.#options, this.#options, signal),
      this.#processes(),
      pool.readRecords(),
      imageStore.readRecords(),
      this.#missingFiles(busy, signal),
      this.#foreign(signal),
    ]);
    signal.throwIfAborted();
    const after = inventory.ledger.all();
    for (const [id, owner] of this.#busyOwners()) busy.set(id, owner);
    const recordNames = new Map(ofGuests.records.filter(isPlainRecord).map(({ id, name }) => [id, name]));
    const planned = this.#planned();
    const ours = processes.filter((process) => this.#isOurs(process));
    const differences = compare({
      before,
      after,
      host: this.#withUnlinkedLocks(host, ours),
      known: (owner) => this.#known(owner),
      isBusy: (id) => busy.has(id),
      namedOwner: (object) => planned.get(hostObjectKey(object)) ?? ownerInName(object),
      lastOperation: (id) => this.#lastOperation(id),
      processes: new Map(ours.map(({ lock, process, name }) => [lock, { pid: process.pid, name }])),
      recordIn: (object) =>
        object.kind === 'directory' && object.name.startsWith(`${pool.path}/`)
          ? recordNames.get(basename(object.name))
          : undefined,
    });
    return {
      differences: [
        ...differences,
        ...this.#unlocked(ours).filter(({ owner }) => owner === undefined || !busy.has(owner.id)),
        ...missing.filter((each) => each.owner === undefined || !busy.has(each.owner.id)),
        ...this.#lackingRecords(ofGuests, ofImages).filter(
          ({ owner }) => owner === undefined || !busy.has(owner.id),
        ),
      ],
      compared: agreed(before, host),
      underWay: [...busy.values()],
      foreign: [
        ...foreign.map((object) => ({
          what: hostObjectKey(object),
          whose: 'another instance on this host',
        })),
        ...processes
          .filter((process) => !this.#isOurs(process))
          .map(({ process, name, lock }) => ({
            what: `process ${process.pid}, guest ${name}`,
            whose: `the instance in ${dirname(dirname(lock))}`,
          })),
      ],
    };
  }

  /** What is not compared, with the reason where it is not that work is under way. */
  #busyOwners(): Map<string, FsckReport['underWay'][number]> {
    const { guests, networks, inventory, operations } = this.#options;
    const busy = new Map<string, FsckReport['underWay'][number]>();
    for (const guest of guests.registry.everyone())
      if (guest.missingDriver !== undefined) {
        const why = `this daemon has no driver called ${guest.missingDriver}`;
        busy.set(guest.id, { kind: 'guest', id: guest.id, name: guest.name, why });
      } else if (guest.mailbox.busy || guest.unfinished.length > 0)
        busy.set(guest.id, { kind: 'guest', id: guest.id, name: guest.name });
    for (const { id, name } of inventory.networks.all())
      if (networks.isBusy(id) || operations.isUnderWay(({ subject }) => subject.id === id))
        busy.set(id, { kind: 'network', id, name });
    const imagesAtWork = operations.isUnderWay(({ subject }) => subject.kind === 'image');
    for (const { id, name, state } of inventory.images.all())
      if (imagesAtWork && state !== 'ready') busy.set(id, { kind: 'image', id, name });
    return busy;
  }

  #known({ kind, id }: OwnerRef): Owner | undefined {
    const { guests, inventory } = this.#options;
    switch (kind) {
      case 'guest': {
        const guest = guests.registry.byId(id);
        return guest && { kind, id, name: guest.name };
      }
      case 'network': {
        const network = inventory.networks.find(id);
        return network && { kind, id, name: network.name };
      }
      case 'image': {
        const image = inventory.images.byId(id);
        return image && { kind, id, name: image.name };
      }
      case 'host':
        return undefined;
    }
  }

  /** What everything in the inventory has, or would have while it runs. */
  #planned(): ReadonlyMap<string, OwnerRef> {
    const { guests, networks, inventory } = this.#options;
    const planned = new Map<string, OwnerRef>();
    const put = (owner: OwnerRef, objects: readonly HostObject[]): void => {
      for (const object of objects) planned.set(hostObjectKey(object), owner);
    };
    for (const guest of guests.registry.everyone())
      put({ kind: 'guest', id: guest.id }, [
        ...existenceObjects(guest),
        ...runObjects(guest),
        ...portObjects(guest),
      ]);
    for (const network of inventory.networks.all())
      put({ kind: 'network', id: network.id }, networks.objectsOf(network));
    return planned;
  }

  #lastOperation(id: string): LastOperation | undefined {
    const [last] = this.#options.operations.query({ subject: id, limit: 1 });
    return (
      last && {
        id: last.id,
        kind: last.kind,
        state: last.state,
        subjectName: last.subject.name,
        leavesNothing: leavesNothing(last),
      }
    );
  }

  async #processes(): Promise<readonly FoundProcess[]> {
    return (await Promise.all(this.#options.drivers.map((driver) => driver.processes()))).flat();
  }

  #isOurs({ lock }: FoundProcess): boolean {
    const { stateDirectory, runDirectory } = this.#options;
    return lock.startsWith(`${stateDirectory}/guests/`) || lock.startsWith(`${runDirectory}/guests/`);
  }

  /** A process whose lock somebody unlinked is there all the same; its guest's own handle still knows it. */
  #withUnlinkedLocks(host: readonly HostObject[], ours: readonly FoundProcess[]): readonly HostObject[] {
    const there = new Set(host.map(hostObjectKey));
    const unlinked = ours
      .map(({ lock }): HostObject => ({ kind: 'process', name: lock }))
      .filter((object) => !there.has(hostObjectKey(object)));
    return [...host, ...unlinked];
  }

  /** Processes of guests of the inventory that do not hold their lock any more. */
  #unlocked(ours: readonly FoundProcess[]): readonly Difference[] {
    return ours.flatMap(({ process: { pid }, guest: id, lock, holdsLock }) => {
      const guest = this.#options.guests.registry.byId(id);
      if (holdsLock || !guest) return [];
      const isInHand = guest.handle?.process.pid === pid;
      return {
        kind: 'unlocked-process',
        object: { kind: 'process', name: lock },
        owner: { kind: 'guest', id, name: guest.name },
        cause: `somebody took away the lock of process ${pid} of guest ${guest.name}, by which a daemon knows that it lives`,
        mend: isInHand
          ? { by: 'repair', how: 'makes the lock anew and hands it to the process' }
          : {
              by: 'person',
              how: `end process ${pid}: this daemon took it for gone and has no line to it; do not start the guest before`,
            },
      } satisfies Difference;
    });
  }

  async #foreign(signal: AbortSignal): Promise<readonly HostObject[]> {
    const { backends, instance } = this.#options;
    const found = await Promise.all(backends.map(async (backend) => backend.foreign?.({ instance }, signal)));
    return found.flatMap((objects) => objects ?? []);
  }

  async #missingFiles(
    busy: ReadonlyMap<string, unknown>,
    signal: AbortSignal,
  ): Promise<readonly Difference[]> {
    const { guests, inventory, imageStore } = this.#options;
    const missing: Difference[] = [];
    for (const { id, name, state, stored } of inventory.images.all()) {
      if (state !== 'ready' || stored === undefined || busy.has(id)) continue;
      const lacks = await missingFile(imageStore.check(id, stored));
      if (lacks) missing.push(fileMissing(lacks, { kind: 'image', id, name }));
    }
    for (const guest of guests.registry.everyone()) {
      if (busy.has(guest.id)) continue;
      missing.push(...(await this.#missingVolumes(guest, signal)));
      signal.throwIfAborted();
    }
    return missing;
  }

  async #missingVolumes(guest: Guest, signal: AbortSignal): Promise<readonly Difference[]> {
    const { pool, inventory } = this.#options;
    const images = guest.record.spec.disks.map((disk) => disk.image);
    // What is wrong with an image is told of the image.
    if (images.some((id) => id !== undefined && inventory.images.byId(id)?.state !== 'ready')) return [];
    const found = await Promise.all(
      volumeSpecs(guest).map((volume) => missingFile(pool.lease(volume, signal))),
    );
    const own = pool.plan(guest.id, []).map(({ name }) => `${name}/`);
    return found
      .filter((lacks) => lacks !== undefined)
      .filter(({ path }) => path === undefined || own.some((prefix) => path.startsWith(prefix)))
      .map((lacks) => fileMissing(lacks, { kind: 'guest', id: guest.id, name: guest.name }));
  }

  /** Guests and images without a record that can be read, and records that cannot be read of what is not there. */
  #lackingRecords(ofGuests: KeptRecords, ofImages: KeptRecords): readonly Difference[] {
    const { guests, inventory } = this.#options;
    const owners: readonly Owner[] = [
      ...guests.registry.everyone().map(({ id, name }) => ({ kind: 'guest', id, name }) as const),
      ...inventory.images
        .all()
        .flatMap(({ id, name, state }) => (state === 'ready' ? [{ kind: 'image', id, name } as const] : [])),
    ];
    const there = new Set([...ofGuests.records, ...ofImages.records].map(({ id }) => id));
    const unreadable = new Map(
      [...ofGuests.unreadable, ...ofImages.unreadable].map(({ path, why }) => [
        basename(dirname(path)),
        { path, why },
      ]),
    );
    const strangers = [...unreadable].filter(([id]) => owners.every((owner) => owner.id !== id));
    return [
      ...owners
        .filter(({ id }) => !there.has(id))
        .map((owner) => recordLacking(owner, unreadable.get(owner.id))),
      ...strangers.map(([, found]) => recordLacking(undefined, found)),
    ];
  }
}

const recordLacking = (
  owner: Owner | undefined,
  found: { readonly path: string; readonly why: string } | undefined,
): Difference => ({
  kind: 'missing-file',
  ...(found === undefined ? {} : { path: found.path }),
  ...(owner === undefined ? {} : { owner }),
  cause:
    found === undefined
      ? `the record of ${owner?.kind} ${owner?.name}, from which a lost inventory is rebuilt, is missing`
      : `this record, from which a lost inventory is rebuilt, cannot be read: ${found.why}`,
  mend:
    owner === undefined
      ? { by: 'person', how: 'look at the file; whose it is, is not in the inventory' }
      : { by: 'repair', how: 'writes it again' },
});

const agreed = (rows: readonly Row[], host: readonly HostObject[]): number => {
  const keys = new Set(rows.map((row) => hostObjectKey(row.object)));
  return host.filter((object) => keys.has(hostObjectKey(object))).length;
};

interface Missing {
  readonly path?: string;
  readonly why: string;
}

/** What a check found wrong; a file that cannot even be looked at is as good as missing. */
const missingFile = async (check: Promise<unknown>): Promise<Missing | undefined> => {
  try {
    await check;
    return undefined;
  } catch (error) {
    const { message, data } = toRoostError(error);
    const path = data?.['path'];
    return { why: message, ...(typeof path === 'string' ? { path } : {}) };
  }
};

const fileMissing = ({ path, why }: Missing, owner: Owner): Difference => ({
  kind: 'missing-file',
  ...(path === undefined ? {} : { path }),
  owner,
  cause: why,
  mend: {
    by: 'person',
    how: `put it back from a backup, or delete the ${owner.kind}${owner.kind === 'image' ? ' and import it again' : ''}`,
  },
});
