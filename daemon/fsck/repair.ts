/**
 * Mends what ledger and host differ in, one owner after the other. It acts on what a look has just seen, asks again
 * before it removes anything, and leaves to people what only they can decide.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Driver, GuestPlace } from '../../drivers/driver.ts';
import { enter } from '../../lib/account.ts';
import { toRoostError } from '../../protocol/errors.ts';
import type { Difference } from '../../protocol/fsck.ts';
import { type HostObject, hostObjectKey } from '../../protocol/host-object.ts';
import { type GuestId, guestId, imageId, type NetworkId } from '../../protocol/types.ts';
import { mendGuest } from '../guests/mend.ts';
import { networkRecordPaths } from '../records/network-records.ts';
import type { LookOptions } from './look.ts';

export interface RepairOptions extends LookOptions {
  readonly now: () => number;
}

const isOurs = ({ mend }: Difference): boolean => mend.by === 'repair';

const idsOf = (
  differences: readonly Difference[],
  kind: NonNullable<Difference['owner']>['kind'],
): string[] => [...new Set(differences.flatMap(({ owner }) => (owner?.kind === kind ? [owner.id] : [])))];

export class Repair {
  readonly #options: RepairOptions;
  /** What could not be mended, in words. */
  readonly problems: string[] = [];

  constructor(options: RepairOptions) {
    this.#options = options;
  }

  /** Guests, networks and images of the inventory. */
  async mendKnown(differences: readonly Difference[], signal: AbortSignal): Promise<void> {
    const { guests, networks, inventory } = this.#options;
    const ours = differences.filter(isOurs);
    for (const id of idsOf(ours, 'network'))
      if (inventory.networks.find(id))
        await this.#attempt(`network ${id}`, signal, () => networks.repair(id as NetworkId, signal));
    for (const id of idsOf(ours, 'image'))
      await this.#attempt(`image ${id}`, signal, () => this.#mendImage(id));
    for (const id of idsOf(ours, 'guest')) {
      const guest = guests.registry.byId(id);
      if (guest)
        await this.#attempt(`guest ${guest.name}`, signal, () => guest.mailbox.post(() => mendGuest(guest)));
    }
  }

  /** What has no owner any more: objects, then the rows of those that are gone. */
  async removeLeftovers(differences: readonly Difference[], signal: AbortSignal): Promise<void> {
    const ours = differences.filter((each) => isOurs(each) && !this.#isKnown(each));
    const objects = ours.flatMap(({ object }) => object ?? []);
    await this.#discardOfNetworks(objects, signal);
    await this.#attempt('records of networks', signal, () => this.#removeNetworkRecords(objects));
    for (const id of idsOf(ours, 'guest')) {
      const ofGuest = ours.filter(({ owner }) => owner?.id === id).flatMap(({ object }) => object ?? []);
      await this.#attempt(`what is left of guest ${id}`, signal, () => this.#removeOfGuest(id, ofGuest));
    }
    for (const id of idsOf(ours, 'image'))
      await this.#attempt(`what is left of image ${id}`, signal, async () => {
        const image = imageId.safeParse(id).data;
        if (image === undefined) return;
        await this.#options.imageStore.remove(image);
        enter({ kind: 'removed', object: `image ${id}` });
      });
  }

  /** Rows of owners that are gone, whose objects are gone as well. */
  forget(differences: readonly Difference[], host: ReadonlySet<string>): void {
    const { inventory } = this.#options;
    inventory.db.soon(() => {
      for (const { kind, object, owner } of differences) {
        if (kind !== 'abandoned' || !object || !owner || host.has(hostObjectKey(object))) continue;
        inventory.ledger.forget(owner.id, object);
        enter({ kind: 'note', text: `forgot the row of ${hostObjectKey(object)}` });
      }
    });
  }

  #isKnown({ owner }: Difference): boolean {
    const { guests, inventory } = this.#options;
    switch (owner?.kind) {
      case 'guest':
        return guests.registry.byId(owner.id) !== undefined;
      case 'network':
        return inventory.networks.find(owner.id) !== undefined;
      case 'image':
        return inventory.images.byId(owner.id) !== undefined;
      case 'host':
      case undefined:
        return false;
    }
  }

  async #mendImage(id: string): Promise<void> {
    const { inventory, imageStore, images, now } = this.#options;
    const image = inventory.images.byId(id);
    if (!image) return;
    inventory.db.soon(() =>
      inventory.ledger.record({ kind: 'image', id: image.id }, 'existence', imageStore.plan(image.id), now()),
    );
    await images.records.write(image.id);
    enter({ kind: 'note', text: `wrote the rows and the record of image ${image.name}` });
  }

  /** Each backend knows its own names and leaves all others. What a stray process has of a port is left to it. */
  async #discardOfNetworks(objects: readonly HostObject[], signal: AbortSignal): Promise<void> {
    const strays = await this.#strays();
    const removable = objects.filter(
      ({ kind }) => !(strays.length > 0 && (kind === 'tap' || kind === 'veth' || kind === 'nft-element')),
    );
    for (const backend of this.#options.backends)
      await this.#attempt('what is left of networks', signal, () =>
        backend.discard(this.#options, removable, signal),
      );
  }

  async #removeNetworkRecords(objects: readonly HostObject[]): Promise<void> {
    const there = new Set(await networkRecordPaths(this.#options.stateDirectory));
    for (const object of objects) {
      if (object.kind !== 'file' || !there.has(object.name)) continue;
      await rm(object.name, { force: true });
      enter({ kind: 'removed', object: hostObjectKey(object) });
    }
  }

  async #strays(): Promise<readonly string[]> {
    const { drivers, guests, stateDirectory, runDirectory } = this.#options;
    const processes = (await Promise.all(drivers.map((driver) => driver.processes()))).flat();
    return processes
      .filter(({ lock }) => lock.startsWith(`${stateDirectory}/`) || lock.startsWith(`${runDirectory}/`))
      .filter(({ guest }) => guests.registry.byId(guest) === undefined)
      .map(({ guest }) => guest);
  }

  async #removeOfGuest(id: string, objects: readonly HostObject[]): Promise<void> {
    const { drivers, pool, stateDirectory } = this.#options;
    const guest = guestId.safeParse(id).data;
    if (guest === undefined) return;
    const place = this.#placeOf(guest);
    if (await anyAlive(drivers, place)) return;
    await clearByAny(drivers, place);
    const planned = new Set(pool.plan(guest, []).map(hostObjectKey));
    for (const object of objects) {
      if (object.kind !== 'directory') continue;
      if (planned.has(hostObjectKey(object))) await pool.removeGuest(guest);
      else if (object.name === join(stateDirectory, 'guests', guest))
        await rm(object.name, { recursive: true, force: true });
      else continue;
      enter({ kind: 'removed', object: hostObjectKey(object) });
    }
  }

  /** Enough of a place to look for a process and to clear its files away; such a guest has no number any more. */
  #placeOf(id: GuestId): GuestPlace {
    const { instance, stateDirectory, runDirectory } = this.#options;
    return {
      id,
      number: 0,
      instance,
      stateDirectory: join(stateDirectory, 'guests', id),
      runDirectory: join(runDirectory, 'guests', id),
    };
  }

  async #attempt(what: string, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    signal.throwIfAborted();
    try {
      await work();
    } catch (error) {
      signal.throwIfAborted();
      const { message } = toRoostError(error);
      this.problems.push(`${what}: ${message}`);
      enter({ kind: 'note', text: `${what} could not be mended: ${message}` });
    }
  }
}

/** Whose it was is not known any more: where one cannot clear away what is another's, it can once that one has. */
const clearByAny = async (drivers: readonly Driver[], place: GuestPlace): Promise<void> => {
  const left: Driver[] = [];
  for (const driver of drivers) await driver.clear(place).catch(() => left.push(driver));
  for (const driver of left) await driver.clear(place);
};

const anyAlive = async (drivers: readonly Driver[], place: GuestPlace): Promise<boolean> => {
  const probes = await Promise.all(drivers.map((driver) => driver.probe(place)));
  return probes.some((probe) => probe !== 'gone');
};
