/**
 * guest-adopt: takes over a guest of this instance that is lost from the inventory. One that runs is known by its live
 * process. Whose that is, the lock tells that it holds; what the guest is, its record tells that lies beside the disks, or
 * else the process itself. One that is stopped is known by that record alone.
 */
import { z } from 'zod';
import type { Driver, FoundProcess, GuestPlace } from '../../drivers/driver.ts';
import type { CommandArguments } from '../../protocol/commands.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import type { Accepted } from '../../protocol/operation.ts';
import { type GuestId, guestId, guestName } from '../../protocol/types.ts';
import type { GuestRecord } from '../inventory/guest-table.ts';
import { imagesUsed } from '../inventory/images-used.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { settleForwards } from '../port-forwards.ts';
import { refuseLeftovers } from './gather.ts';
import type { Guest } from './guest.ts';
import type { House } from './house.ts';
import { overlaps } from './id-range.ts';
import { existenceObjects, recordRun } from './launch-of.ts';
import type { Procedure } from './perform.ts';
import { placeOf } from './place.ts';
import { type RebuiltRecord, rebuildRecord } from './rebuild-record.ts';
import { restorePorts } from './reconcile.ts';
import type { Asker } from './refusals.ts';
import type { GuestRegistry } from './registry.ts';

/** What is needed of a record beside the disks; its spec and machine are as this daemon's pool wrote them. */
const keptRecord = z.looseObject({
  id: guestId,
  instance: z.string().optional(),
  number: z.int().positive(),
  name: guestName,
  spec: z.looseObject({ driver: z.string(), disks: z.array(z.unknown()), nics: z.array(z.unknown()) }),
  machine: z.looseObject({ formatVersion: z.int(), type: z.string() }),
  createdAt: z.int().nonnegative(),
  generation: z.int().positive(),
});
type KeptRecord = RebuiltRecord['record'];

/** What is to be taken over; `found` is its process, where it runs. */
interface Adopted extends RebuiltRecord {
  readonly found?: FoundProcess;
}

export class Adoptions {
  readonly #house: House;
  readonly #registry: GuestRegistry;
  readonly #hostObjects: () => Promise<readonly HostObject[]>;

  /** `hostObjects`: what of this instance is on the host. */
  constructor(house: House, registry: GuestRegistry, hostObjects: () => Promise<readonly HostObject[]>) {
    this.#house = house;
    this.#registry = registry;
    this.#hostObjects = hostObjects;
  }

  /**
   * Errors: NotFound for a process that is none of a guest, and where there is no record beside the disks; FailedPrecondition
   * for one of another instance, or that is in the inventory, and for a stopped one that runs; AlreadyExists when its name,
   * its number, an address, a port of the host or ids are taken.
   */
  async adopt(args: CommandArguments<'guest-adopt'>, asker: Asker): Promise<Accepted> {
    const { inventory, operations, clock } = this.#house;
    const before = operations.repeated(args.idempotencyKey, 'guest-adopt');
    if (before) return { operation: before.id, id: before.subject.id };
    const { record: kept, unknown, found } = await this.#lost(args);
    const outcome = await inventory.db.durably(() => {
      const repeated = operations.repeated(args.idempotencyKey, 'guest-adopt');
      if (repeated) return { operation: repeated, guest: undefined };
      this.#refuseTaken(kept);
      const { number, generation, ...rest } = kept;
      const record = inventory.guests.insert(
        { ...rest, target: found ? 'running' : 'stopped', targetActor: asker.actor },
        number === undefined ? undefined : { number, generation },
      );
      const guest = this.#registry.created(record);
      inventory.guests.writeStatus(guest.id, {
        ...guest.status,
        // Whether a fork has run is lost; with the memory that it began with its disks would be ruined.
        ...(record.spec.forkOf === undefined ? {} : { forkedAt: clock.now() }),
      });
      inventory.ledger.record(
        { kind: 'guest', id: guest.id },
        'existence',
        existenceObjects(guest),
        clock.now(),
      );
      recordRun(guest);
      const operation = operations.insert({
        kind: 'guest-adopt',
        subject: { kind: 'guest', id: guest.id, name: guest.name },
        actor: asker.actor,
        arguments: { ...args, ...(found ? { pid: found.process.pid } : {}), unknown },
        idempotencyKey: args.idempotencyKey,
      });
      return { operation, guest };
    });
    const { operation, guest } = outcome;
    if (guest) {
      guest.markReconciled();
      const forked = guest.record.spec.forkOf === undefined ? {} : { forkedAt: clock.now() };
      guest.setStatus({ state: 'unknown', reason: 'it is being adopted', ...forked });
      this.#registry.add(guest);
      guest.enqueue(operation);
    }
    return { operation: operation.id, id: operation.subject.id };
  }

  async #lost(args: CommandArguments<'guest-adopt'>): Promise<Adopted> {
    if (args.guest !== undefined) return await this.#stopped(args.guest);
    const { found, driver } = await this.#find(args);
    await this.#refuseForeign(found);
    return { ...(await this.#record(found, driver)), found };
  }

  async #stopped(id: GuestId): Promise<Adopted> {
    const known = this.#registry.byId(id);
    if (known)
      throw new RoostError('FailedPrecondition', `Guest ${known.name} is in the inventory`, {
        data: { guest: known.name },
        hint: 'There is nothing to adopt.',
      });
    for (const driver of this.#house.drivers.values()) {
      const process = (await driver.processes()).find(({ guest }) => guest === id)?.process;
      if (!process && (await driver.probe(this.#placeOf(id))) === 'gone') continue;
      throw new RoostError('FailedPrecondition', `Guest ${id} runs, or it cannot be told whether it does`, {
        data: { guest: id, ...(process ? { pid: process.pid } : {}) },
        hint: process ? `Adopt it by its pid: ${process.pid}` : 'See what query-fsck says of it.',
      });
    }
    const kept = await this.#kept(id);
    if (!kept)
      throw new RoostError('NotFound', `There is no record of a guest ${id} beside the disks`, {
        data: { guest: id },
        hint: 'query-fsck lists those that can be adopted; without its record it cannot be told what a stopped guest is.',
      });
    return { record: kept, unknown: [] };
  }

  async #find({
    pid,
    socket,
  }: CommandArguments<'guest-adopt'>): Promise<{ readonly found: FoundProcess; readonly driver: Driver }> {
    const { drivers, runDirectory } = this.#house;
    for (const driver of drivers.values()) {
      const found = (await driver.processes()).find(
        ({ process, guest }) =>
          process.pid === pid ||
          (socket !== undefined && socket.startsWith(`${runDirectory}/guests/${guest}/`)),
      );
      if (found) return { found, driver };
    }
    const what =
      pid === undefined ? `No live process serves ${socket}` : `Process ${pid} is no guest of Roost`;
    throw new RoostError('NotFound', `${what}: none that its launcher made holds a guest's lock there`, {
      data: { ...(pid === undefined ? {} : { pid }), ...(socket === undefined ? {} : { socket }) },
      hint: 'query-fsck names the processes that can be adopted.',
    });
  }

  /** By the lock: nobody else's process holds the one that our names give. */
  async #refuseForeign({ guest, lock, process, name }: FoundProcess): Promise<void> {
    const inInventory = this.#registry.byId(guest);
    if (inInventory)
      throw new RoostError(
        'FailedPrecondition',
        `Process ${process.pid} is that of guest ${inInventory.name}`,
        {
          data: { pid: process.pid, guest: inInventory.name },
          hint: 'It is in the inventory; there is nothing to adopt.',
        },
      );
    const place = this.#placeOf(guest);
    for (const driver of this.#house.drivers.values()) {
      const ours = driver
        .runObjects(place, { agent: false })
        .some((each) => each.kind === 'process' && each.name === lock);
      if (ours && (await driver.probe(place)) === 'alive') return;
    }
    throw new RoostError(
      'FailedPrecondition',
      `Process ${process.pid}, guest ${name}, is not of this instance`,
      {
        data: { pid: process.pid, lock },
        hint: 'Ask the daemon whose state directory its lock lies in.',
      },
    );
  }

  /** As it lies beside the disks; without one, as the process tells it. */
  async #record(found: FoundProcess, driver: Driver): Promise<RebuiltRecord> {
    const kept = await this.#kept(found.guest);
    if (kept) return { record: kept, unknown: [] };
    const rebuilt = await rebuildRecord(this.#house, driver, found, {
      place: this.#placeOf(found.guest),
      hostObjects: this.#hostObjects,
    });
    if (rebuilt) return rebuilt;
    throw new RoostError('NotFound', `There is no record of guest ${found.name} beside its disks`, {
      data: { pid: found.process.pid, guest: found.guest },
      hint: 'Its driver cannot tell what it is without. Shut it down from inside, or end the process.',
    });
  }

  async #kept(guest: GuestId): Promise<KeptRecord | undefined> {
    const { pool, instance } = this.#house;
    const { records } = await pool.readRecords();
    const mine = records
      .map((record) => keptRecord.safeParse(record).data)
      .find((record) => record?.id === guest && (record.instance ?? instance) === instance);
    if (!mine) return undefined;
    const { id, number, name, createdAt, generation } = mine;
    const spec = mine.spec as unknown as GuestRecord['spec'];
    const machine = mine.machine as unknown as GuestRecord['machine'];
    return { id, number, name, spec, machine, createdAt, generation };
  }

  #refuseTaken({ id, number, name, spec }: KeptRecord): void {
    const { inventory, images, networks } = this.#house;
    const refuse = (what: string): never => {
      throw new RoostError('AlreadyExists', `Guest ${name} cannot be adopted: ${what}`, {
        data: { guest: name, id },
        hint: 'Rename or delete what has it now, then adopt again.',
      });
    };
    if (inventory.guests.idByName(name) !== undefined) refuse('there is a guest of that name');
    if (number !== undefined && inventory.guests.all().some(({ record }) => record.number === number))
      refuse(`guest number ${number} is taken, and with it the names of its links`);
    for (const nic of spec.nics) {
      networks.require(nic.network);
      if (inventory.guests.macTaken(nic.mac)) refuse(`the MAC address ${nic.mac} belongs to another NIC`);
      if (nic.ipv4 !== undefined && inventory.guests.addressesOf(nic.network).includes(nic.ipv4))
        refuse(`the address ${nic.ipv4} is kept for another NIC`);
      settleForwards(name, nic.forwards ?? [], inventory.guests.forwards(), new Set());
    }
    const { idRange } = spec;
    if (idRange && inventory.guests.idRanges().some((taken) => overlaps(taken, idRange)))
      refuse(`ids of the host from ${idRange.first} on are another container's`);
    for (const image of imagesUsed({ ...spec, keptDisks: [], cdroms: [] })) images.require(image);
  }

  #placeOf(id: GuestPlace['id']): GuestPlace {
    return placeOf(this.#house, { id, number: 0 });
  }
}

/** What a run of it has left on the host, with the rows of that. */
const clear = (guest: Guest): Procedure['steps'][number] => ({
  name: 'clear',
  do: async () => {
    refuseLeftovers(guest, await guest.freeRun());
    guest.setStatus({ state: 'stopped', reason: undefined });
  },
});

const attach = (guest: Guest, operation: OperationRecord): Procedure['steps'][number] => ({
  name: 'attach',
  do: async () => {
    await guest.lookForProcess();
    const { handle } = guest;
    const isMine =
      handle === undefined
        ? guest.status.state === 'unresponsive'
        : handle.process.pid === operation.arguments['pid'];
    if (isMine) {
      await restorePorts(guest);
      return;
    }
    throw new RoostError('HostError', `The process of guest ${guest.name} could not be taken over`, {
      data: { guest: guest.name, state: guest.status.state },
      hint: 'Look whether it lives still.',
    });
  },
});

export const adoption = (guest: Guest, operation: OperationRecord): Procedure => {
  const { inventory } = guest.house;
  return {
    steps: [
      operation.arguments['pid'] === undefined ? clear(guest) : attach(guest, operation),
      { name: 'record', do: () => guest.saveRecord() },
    ],
    finish: (state) => {
      const { unknown = [] } = operation.arguments as { readonly unknown?: readonly string[] };
      if (state === 'succeeded') return { guest: guest.id, ...(unknown.length === 0 ? {} : { unknown }) };
      // As before: the process and the disks are nobody's again, and untouched.
      inventory.guests.delete(guest.id);
      inventory.ledger.release({ kind: 'guest', id: guest.id });
      return undefined;
    },
    withdraw: () => guest.remove('its adoption was cancelled'),
    after: async (ended) => {
      if (ended.state === 'succeeded') return;
      const { handle } = guest;
      guest.handle = undefined;
      guest.remove(`its adoption ended as ${ended.state}`);
      await handle?.release();
    },
  };
};
