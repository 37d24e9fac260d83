/**
 * What is asked of guests' disks and NICs is accepted here. What can never come right is refused at once; the rest is
 * looked at again when the operation's turn has come, because others of the guest may come before it.
 */
import type { CommandArguments } from '../../protocol/commands.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { Accepted } from '../../protocol/operation.ts';
import type { DiskAttachment, NicAttachment } from './attach.ts';
import { refuseDisks, refuseUserNetwork } from './container-spec.ts';
import {
  freeName,
  refuseNeededDisk,
  refuseTooMany,
  requireCdrom,
  requireDisk,
  requireKeptDisk,
  requireNic,
} from './device-record.ts';
import type { Guest } from './guest.ts';
import type { Guests } from './guests.ts';
import type { House } from './house.ts';
import type { Asker } from './refusals.ts';
import { resolveDisk } from './resolve-spec.ts';

type Kind = 'disk' | 'nic';

export class GuestDevices {
  readonly #house: House;
  readonly #guests: Guests;

  constructor(house: House, guests: Guests) {
    this.#house = house;
    this.#guests = guests;
  }

  async attachDisk(args: CommandArguments<'guest-disk-attach'>, asker: Asker): Promise<Accepted> {
    const before = this.#guests.before('guest-disk-attach', args);
    if (before) return before;
    const guest = this.#guests.registry.find(args.guest);
    const { spec } = guest.record;
    refuseDisks(guest.name, spec);
    const kept = args.image === undefined && args.sizeBytes === undefined;
    if (kept && args.name === undefined)
      throw new RoostError('InvalidArgument', 'A disk needs an image or a size', {
        hint: 'Or name a disk that the guest has kept, to attach it again.',
      });
    refuseTooMany(spec, 'disk', this.#waiting(guest, 'disk').size);
    return await this.#withName(guest, 'disk', args.name, kept, async (name) => {
      if (kept) requireKeptDisk(spec, name);
      const image = args.image === undefined ? undefined : this.#house.images.require(args.image, 'disk').id;
      const wanted: DiskAttachment = { ...args, name, kept, ...(image === undefined ? {} : { image }) };
      if (!kept) resolveDisk(wanted, name, this.#house.images);
      return await this.#guests.accept('guest-disk-attach', guest, wanted, asker.actor);
    });
  }

  async detachDisk(args: CommandArguments<'guest-disk-detach'>, asker: Asker): Promise<Accepted> {
    const before = this.#guests.before('guest-disk-detach', args);
    if (before) return before;
    const guest = this.#guests.registry.find(args.guest);
    const { spec } = guest.record;
    // One that is detached already may still be there to be deleted.
    const isKept = spec.keptDisks.some((disk) => disk.name === args.disk);
    if (!(isKept && args.delete)) requireDisk(spec, args.disk);
    if (!isKept) refuseNeededDisk(spec, args.disk);
    return await this.#guests.accept('guest-disk-detach', guest, args, asker.actor);
  }

  async resizeDisk(args: CommandArguments<'guest-disk-resize'>, asker: Asker): Promise<Accepted> {
    const before = this.#guests.before('guest-disk-resize', args);
    if (before) return before;
    const guest = this.#guests.registry.find(args.guest);
    const disk = requireDisk(guest.record.spec, args.disk);
    if (disk.readOnly)
      throw new RoostError('FailedPrecondition', `Disk ${disk.name} is read-only`, {
        data: { disk: disk.name },
      });
    if (args.sizeBytes < disk.sizeBytes)
      throw new RoostError(
        'InvalidArgument',
        `Disk ${disk.name} has ${disk.sizeBytes} bytes and never shrinks`,
        {
          data: { disk: disk.name, sizeBytes: disk.sizeBytes, wantedBytes: args.sizeBytes },
          hint: 'Attach a smaller disk, copy what is needed inside the guest, and detach this one.',
        },
      );
    return await this.#guests.accept('guest-disk-resize', guest, args, asker.actor);
  }

  async deleteDisk(args: CommandArguments<'guest-disk-delete'>, asker: Asker): Promise<Accepted> {
    const before = this.#guests.before('guest-disk-delete', args);
    if (before) return before;
    const guest = this.#guests.registry.find(args.guest);
    requireKeptDisk(guest.record.spec, args.disk);
    return await this.#guests.accept('guest-disk-delete', guest, args, asker.actor);
  }

  async attachNic(args: CommandArguments<'guest-nic-attach'>, asker: Asker): Promise<Accepted> {
    const before = this.#guests.before('guest-nic-attach', args);
    if (before) return before;
    const guest = this.#guests.registry.find(args.guest);
    refuseTooMany(guest.record.spec, 'nic', this.#waiting(guest, 'nic').size);
    const network = this.#house.networks.require(args.network);
    refuseUserNetwork(guest.name, guest.record.spec, network);
    if (args.mac !== undefined && this.#house.inventory.guests.macTaken(args.mac))
      throw new RoostError('AlreadyExists', `The MAC address ${args.mac} belongs to another NIC`, {
        data: { mac: args.mac },
        hint: 'Choose another one, or leave it out to get a free one.',
      });
    await this.#house.waiting.giveWay([{ network: network.id, ipv4: args.ipv4 }]);
    this.#house.networks.allocate(network, args.ipv4, []);
    return await this.#withName(guest, 'nic', args.name, false, async (name) => {
      const wanted: NicAttachment = { ...args, name, network: network.id };
      return await this.#guests.accept('guest-nic-attach', guest, wanted, asker.actor);
    });
  }

  async detachNic(args: CommandArguments<'guest-nic-detach'>, asker: Asker): Promise<Accepted> {
    const before = this.#guests.before('guest-nic-detach', args);
    if (before) return before;
    const guest = this.#guests.registry.find(args.guest);
    requireNic(guest.record.spec, args.nic);
    return await this.#guests.accept('guest-nic-detach', guest, args, asker.actor);
  }

  async insertMedium(args: CommandArguments<'guest-cdrom-insert'>, asker: Asker): Promise<Accepted> {
    const before = this.#guests.before('guest-cdrom-insert', args);
    if (before) return before;
    const guest = this.#guests.registry.find(args.guest);
    requireCdrom(guest.record.spec, args.cdrom);
    const wanted = { ...args, image: this.#house.images.require(args.image, 'iso').id };
    return await this.#guests.accept('guest-cdrom-insert', guest, wanted, asker.actor);
  }

  async ejectMedium(args: CommandArguments<'guest-cdrom-eject'>, asker: Asker): Promise<Accepted> {
    const before = this.#guests.before('guest-cdrom-eject', args);
    if (before) return before;
    const guest = this.#guests.registry.find(args.guest);
    requireCdrom(guest.record.spec, args.cdrom);
    return await this.#guests.accept('guest-cdrom-eject', guest, args, asker.actor);
  }

  /** Chooses a name that nobody else of the guest gets while the request is being accepted. */
  async #withName(
    guest: Guest,
    kind: Kind,
    wanted: string | undefined,
    kept: boolean,
    accept: (name: string) => Promise<Accepted>,
  ): Promise<Accepted> {
    const { spec } = guest.record;
    const own = kind === 'disk' ? [...spec.disks, ...(kept ? [] : spec.keptDisks)] : spec.nics;
    const taken = new Set([
      ...own.map((device) => device.name),
      ...this.#waiting(guest, kind),
      ...(guest.reservedNames.get(kind) ?? []),
    ]);
    const name = freeName(kind, wanted, taken);
    const reserved = guest.reservedNames.get(kind) ?? new Set();
    guest.reservedNames.set(kind, reserved.add(name));
    try {
      return await accept(name);
    } finally {
      reserved.delete(name);
    }
  }

  /** Names that accepted attachments have, and the guest has not yet. */
  #waiting(guest: Guest, kind: Kind): ReadonlySet<string> {
    const { disks, nics } = guest.record.spec;
    const there = new Set((kind === 'disk' ? disks : nics).map(({ name }) => name));
    const names = guest.unfinished
      .filter((operation) => operation.kind === `guest-${kind}-attach`)
      .map((operation) => String(operation.arguments['name']));
    return new Set(names.filter((name) => !there.has(name)));
  }
}
