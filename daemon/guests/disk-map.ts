/** The disks of guests with the files they consist of: what lies on which image, and what it takes on the host. */
import type { BlockSource } from '../../protocol/block-source.ts';
import type { DiskFile, DiskUse } from '../../protocol/disk.ts';
import type { ImageId } from '../../protocol/types.ts';
import type { StoredDisk } from '../inventory/guest-table.ts';
import type { Guest } from './guest.ts';
import { volumeSpecOf } from './launch-of.ts';

interface PlacedDisk {
  readonly guest: Guest;
  readonly disk: StoredDisk;
  readonly serial: string;
  readonly attached: boolean;
}

const disksOf = (guest: Guest): readonly PlacedDisk[] => {
  const { spec, machine } = guest.record;
  const serials = new Map(machine.disks.map(({ name, serial }) => [name, serial]));
  return [
    ...spec.disks.map((disk) => ({ guest, disk, serial: serials.get(disk.name) ?? '', attached: true })),
    ...spec.keptDisks.map((disk) => ({ guest, disk, serial: disk.serial, attached: false })),
  ];
};

/** The place of a disk in the order of the list. */
export const placeOfDisk = (use: Pick<DiskUse, 'guest' | 'name'>): string => `${use.guest}/${use.name}`;

/**
 * A page of the disks of these guests, behind a place in their order, on that image if one is named. Sizes are the file
 * system's and the record's word: no image is opened, since a guest writes the headers.
 */
export const diskUses = async (
  guests: readonly Guest[],
  page: {
    readonly after: string | undefined;
    readonly image: ImageId | undefined;
    readonly limit: number;
  },
): Promise<{ readonly items: readonly DiskUse[]; readonly more: boolean }> => {
  const { after, image, limit } = page;
  const disks = guests
    .flatMap(disksOf)
    .filter(({ disk }) => image === undefined || disk.image === image)
    .map((placed) => ({ placed, place: placeOfDisk({ guest: placed.guest.name, name: placed.disk.name }) }))
    .filter(({ place }) => after === undefined || place > after)
    .sort((a, b) => (a.place < b.place ? -1 : 1));
  const items = await Promise.all(disks.slice(0, limit).map(({ placed }) => lookAt(placed)));
  return { items, more: disks.length > limit };
};

const lookAt = async ({ guest, disk, serial, attached }: PlacedDisk): Promise<DiskUse> => {
  const { pool, inventory } = guest.house;
  const volume = volumeSpecOf(guest, disk);
  const own = await pool.allocatedBytes(volume);
  const imageBytes =
    disk.image === undefined ? undefined : inventory.images.byId(disk.image)?.stored?.sizeBytes;
  return {
    guest: guest.name,
    name: disk.name,
    attached,
    readOnly: disk.readOnly,
    sizeBytes: disk.sizeBytes,
    ...(disk.image === undefined ? {} : { image: disk.image }),
    serial,
    files: filesOf(pool.source(volume), [own, imageBytes]),
  };
};

/** The files of a chain, the disk's own first. */
const filesOf = (source: BlockSource, allocated: readonly (number | undefined)[]): DiskFile[] => {
  const files: DiskFile[] = [];
  for (let layer: BlockSource | undefined = source; layer; layer = layer.backing) {
    const bytes = allocated[files.length];
    files.push({
      path: layer.path,
      format: layer.format,
      sizeBytes: layer.sizeBytes,
      ...(bytes === undefined ? {} : { allocatedBytes: bytes }),
    });
  }
  return files;
};
