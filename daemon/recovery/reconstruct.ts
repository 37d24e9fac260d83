/**
 * What the inventory was, from the records that were found: pure. Of two records that claim one thing, that of a guest
 * whose process lives counts, then the one that was written later; what cannot be taken over beside it is left out, with
 * the reason. Nothing is guessed that would change how a guest runs.
 */

import type { Addressing } from '../../network/backend.ts';
import type { RecoveryReport } from '../../protocol/recovery.ts';
import type { GuestId, ImageId, InstanceId, NetworkId } from '../../protocol/types.ts';
import type { StoredImage } from '../../storage/pool.ts';
import { imagesUsed, imageUses } from '../inventory/images-used.ts';
import type { GuestForm, ImageFacts, ImageForm, NetworkFacts, NetworkForm } from '../records/forms.ts';
import { Claims } from './claims.ts';

export interface FoundRecords {
  readonly instance: InstanceId;
  readonly networks: readonly NetworkForm[];
  readonly images: readonly ImageForm[];
  readonly guests: readonly GuestForm[];
  /** Images whose files are complete, with what is known of them without a record. */
  readonly files: ReadonlyMap<ImageId, StoredImage>;
  /** Pids of live processes of guests. */
  readonly alive: ReadonlyMap<GuestId, number>;
  readonly addressing: Pick<Addressing, 'isGuestAddress' | 'overlapping'>;
}

export interface RebuiltAlias {
  readonly alias: string;
  readonly name: string;
  readonly version?: string | undefined;
  readonly createdAt: number;
}

export interface Rebuilt extends Pick<RecoveryReport, 'changed' | 'leftOut'> {
  readonly networks: readonly NetworkFacts[];
  /** The oldest first. */
  readonly images: readonly ImageFacts[];
  readonly aliases: readonly RebuiltAlias[];
  readonly guests: readonly GuestForm[];
}

type Written = { readonly id: string; readonly writtenAt?: number | undefined };

const laterFirst = (one: Written, other: Written): number =>
  (other.writtenAt ?? 0) - (one.writtenAt ?? 0) || (one.id < other.id ? -1 : 1);

/** Every fact once, those of records of their own before those that stand in records of guests. */
const known = <T extends { readonly id: string }>(
  own: readonly T[],
  ofGuests: readonly T[],
): readonly T[] => {
  const byId = new Map<string, T>();
  for (const each of [...own, ...ofGuests]) if (!byId.has(each.id)) byId.set(each.id, each);
  return [...byId.values()];
};

const MAX_LABEL = 63;
/** What a guest is called whose name somebody else has. */
const otherName = (name: string, isTaken: (name: string) => boolean): string => {
  for (let count = 1; ; count += 1) {
    const end = count === 1 ? '-recovered' : `-recovered-${count}`;
    const wanted = `${name.slice(0, MAX_LABEL - end.length)}${end}`;
    if (!isTaken(wanted)) return wanted;
  }
};

/** What an image must be that is used so. */
const kindsNeeded = ({ spec }: GuestForm): ReadonlyMap<string, ImageFacts['kind']> =>
  new Map<string, ImageFacts['kind']>([
    ...imageUses(spec).map(({ image, kind }) => [image, kind] as const),
    // One of its disks is of it.
    ...(spec.program ? [[spec.program.image, 'oci'] as const] : []),
  ]);

class Reconstruction {
  readonly #found: FoundRecords;
  readonly changed: string[] = [];
  readonly leftOut: { readonly what: string; readonly why: string }[] = [];

  constructor(found: FoundRecords) {
    this.#found = found;
  }

  #leaveOut(what: string, why: string): void {
    this.leftOut.push({ what, why });
  }

  /** Those of this instance; the ones without a word of it are from before it was written. */
  ours<T extends { readonly instance?: InstanceId | undefined }>(
    kind: string,
    records: readonly T[],
    label: (record: T) => string,
  ): readonly T[] {
    const { instance } = this.#found;
    return records.filter((record) => {
      if (record.instance === undefined || record.instance === instance) return true;
      this.#leaveOut(
        `${kind} ${label(record)}`,
        `its record is of instance ${record.instance}, and this is ${instance}`,
      );
      return false;
    });
  }

  networks(own: readonly NetworkForm[], guests: readonly GuestForm[]): readonly NetworkFacts[] {
    const { addressing } = this.#found;
    const needed = new Set(guests.flatMap(({ spec }) => spec.nics.map(({ network }) => network)));
    const ofGuests = guests.flatMap(({ networks }) => networks).filter(({ id }) => needed.has(id));
    const claims = new Claims();
    const taken: NetworkFacts[] = [];
    for (const network of known<NetworkFacts>([...own].sort(laterFirst), ofGuests)) {
      const { id, name, number, bridge, subnet } = network;
      const overlap =
        subnet === undefined
          ? undefined
          : addressing.overlapping(
              subnet,
              taken.flatMap((each) => each.subnet ?? []),
            );
      const refused =
        overlap === undefined
          ? claims.refusal({
              [`name ${name}`]: name,
              [`number ${number}`]: name,
              ...(bridge === undefined ? {} : { [`bridge ${bridge}`]: name }),
            })
          : `its subnet ${subnet} overlaps ${overlap} of another network`;
      if (refused !== undefined) {
        this.#leaveOut(`network ${name} (${id})`, refused);
        continue;
      }
      if (!own.some((each) => each.id === id))
        this.changed.push(`network ${name} has no record of its own: taken from that of a guest on it`);
      taken.push(network);
    }
    return taken;
  }

  images(own: readonly ImageForm[], guests: readonly GuestForm[]): readonly ImageFacts[] {
    const { files } = this.#found;
    const needed = new Set<string>(guests.flatMap(({ spec }) => imagesUsed(spec)));
    const ofGuests = guests.flatMap(({ images }) => images).filter(({ id }) => needed.has(id));
    const told = known<ImageFacts>([...own].sort(laterFirst), ofGuests).filter(
      ({ id }) => files.has(id) || needed.has(id),
    );
    for (const { id, name, version } of ofGuests)
      if (!own.some((each) => each.id === id) && told.some((each) => each.id === id))
        this.changed.push(`image ${name}@${version} has no record of its own: taken from that of a guest`);
    const unnamed = [...files].filter(([id]) => told.every((each) => each.id !== id));
    const kinds = new Map(guests.flatMap((guest) => [...kindsNeeded(guest)]));
    return this.#withVersions([
      ...told,
      ...unnamed.flatMap(([id, stored]) => this.#unnamed(id, stored, kinds.get(id))),
    ]);
  }

  /** An image of which nothing but its file is there: what it was called is lost, what it is may be seen. */
  #unnamed(id: ImageId, stored: StoredImage, needed: ImageFacts['kind'] | undefined): readonly ImageFacts[] {
    const kind = needed ?? (stored.format === 'qcow2' ? 'disk' : undefined);
    if (kind === undefined) {
      this.#leaveOut(
        `image ${id}`,
        'nothing tells what it was called, nor whether it is a kernel, an initrd or a disc',
      );
      return [];
    }
    const name = `recovered/${id.slice(0, 8)}`;
    this.changed.push(`image ${id} has no record: it is called ${name} from now on`);
    return [{ id, number: 1, name, version: '1', kind, stored: { ...stored }, createdAt: 0 }];
  }

  #withVersions(images: readonly ImageFacts[]): readonly ImageFacts[] {
    const claims = new Claims();
    const kept = images.map((image) => {
      const { name, version, id } = image;
      if (claims.refusal({ [`name ${name}@${version}`]: id }) === undefined) return image;
      const other = `${version.slice(0, 40)}.${id.slice(0, 8)}`;
      this.changed.push(
        `image ${name}@${version} (${id}): another has that version, so it is ${name}@${other}`,
      );
      return { ...image, version: other };
    });
    return kept.sort((a, b) => a.createdAt - b.createdAt || a.number - b.number);
  }

  aliases(own: readonly ImageForm[], images: readonly ImageFacts[]): readonly RebuiltAlias[] {
    const told = own.flatMap(({ name, aliases }) =>
      aliases.map(({ alias, version, createdAt }) => ({ alias, name, version, createdAt })),
    );
    const latest = new Map<string, RebuiltAlias>();
    for (const each of told) {
      const before = latest.get(each.alias);
      if (!before || before.createdAt < each.createdAt) latest.set(each.alias, each);
    }
    return [...latest.values()].filter(
      ({ alias, name, version }) =>
        images.every((image) => image.name !== alias) &&
        images.some((image) => image.name === name && (version === undefined || image.version === version)),
    );
  }

  guests(
    all: readonly GuestForm[],
    networks: readonly NetworkFacts[],
    images: readonly ImageFacts[],
  ): readonly GuestForm[] {
    const { alive } = this.#found;
    const byId = new Map(networks.map((network) => [network.id, network]));
    const imageIds = new Set<string>(images.map(({ id }) => id));
    const names = new Set<string>();
    const claims = new Claims();
    const taken: GuestForm[] = [];
    const inOrder = [...all].sort(
      (one, other) => Number(alive.has(other.id)) - Number(alive.has(one.id)) || laterFirst(one, other),
    );
    for (const guest of inOrder) {
      const refused =
        contradiction(guest) ??
        this.#lacks(guest, byId, imageIds) ??
        claims.refusal(Object.fromEntries(claimsOf(guest).map((claim) => [claim, `guest ${guest.name}`])));
      if (refused !== undefined) {
        this.#leaveOut(`guest ${guest.name} (${guest.id})`, refused);
        continue;
      }
      const name = names.has(guest.name) ? otherName(guest.name, (each) => names.has(each)) : guest.name;
      if (name !== guest.name)
        this.changed.push(`guest ${guest.id}: another is called ${guest.name}, so it is ${name} from now on`);
      names.add(name);
      taken.push({ ...guest, name });
    }
    return taken;
  }

  /** What it cannot be without. */
  #lacks(
    guest: GuestForm,
    networks: ReadonlyMap<NetworkId, NetworkFacts>,
    images: ReadonlySet<string>,
  ): string | undefined {
    const { addressing } = this.#found;
    for (const { name, network, ipv4 } of guest.spec.nics) {
      const facts = networks.get(network);
      if (!facts) return `its NIC ${name} is on network ${network}, which was not taken over`;
      if (ipv4 !== undefined && facts.subnet !== undefined && !addressing.isGuestAddress(facts.subnet, ipv4))
        return `the address ${ipv4} of its NIC ${name} is none of a guest in ${facts.subnet}`;
    }
    const lost = imagesUsed(guest.spec).find((id) => !images.has(id));
    return lost === undefined ? undefined : `it needs image ${lost}, of which nothing was found`;
  }
}

/** Whether spec and machine are of one guest. */
const contradiction = ({ spec, machine }: GuestForm): string | undefined => {
  const namesOf = (devices: readonly { readonly name: string }[]): string =>
    devices.map(({ name }) => name).join(' ');
  if (namesOf(spec.disks) !== namesOf(machine.disks)) return 'its record contradicts itself about disks';
  if (namesOf(spec.nics) !== namesOf(machine.nics)) return 'its record contradicts itself about NICs';
  if (spec.nics.some(({ mac }, index) => mac !== machine.nics[index]?.mac))
    return 'its record contradicts itself about a MAC address';
  return undefined;
};

/** What no two guests can have. */
const claimsOf = ({ number, spec }: GuestForm): readonly string[] => [
  `number ${number}`,
  ...spec.nics.flatMap(({ mac, ipv4, network, forwards = [] }) => [
    `MAC address ${mac}`,
    ...(ipv4 === undefined ? [] : [`address ${ipv4} on network ${network}`]),
    ...forwards.map(({ protocol, hostPort }) => `${protocol} port ${hostPort} of the host`),
  ]),
];

export const reconstruct = (found: FoundRecords): Rebuilt => {
  const work = new Reconstruction(found);
  const guests = work.ours('guest', found.guests, ({ name, id }) => `${name} (${id})`);
  const ownNetworks = work.ours('network', found.networks, ({ name, id }) => `${name} (${id})`);
  const ownImages = work.ours('image', found.images, ({ name, version }) => `${name}@${version}`);
  const networks = work.networks(ownNetworks, guests);
  const images = work.images(ownImages, guests);
  const aliases = work.aliases(ownImages, images);
  return {
    networks,
    images,
    aliases,
    guests: work.guests(guests, networks, images),
    changed: work.changed,
    leftOut: work.leftOut,
  };
};
