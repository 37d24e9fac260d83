/** What the records beside files say: from the inventory's rows. Pure but for the look-up of names. */
import { isDeepStrictEqual } from 'node:util';
import type { InstanceId } from '../../protocol/types.ts';
import type { KeptRecord, StoredImage } from '../../storage/pool.ts';
import type { GuestRecord } from '../inventory/guest-table.ts';
import type { ImageRecord } from '../inventory/image-table.ts';
import { imagesUsed } from '../inventory/images-used.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { NetworkRecord } from '../inventory/network-table.ts';

const networkFactsOf = ({ state: _state, reason: _reason, ...facts }: NetworkRecord): KeptRecord => facts;

const imageFactsOf = ({ state: _state, ...facts }: ImageRecord, stored = facts.stored): KeptRecord => ({
  ...facts,
  stored,
});

export const recordOfNetwork = (instance: InstanceId, network: NetworkRecord): KeptRecord => ({
  ...networkFactsOf(network),
  instance,
});

/** `stored`: of an image that is about to be ready. */
export const recordOfImage = (
  instance: InstanceId,
  inventory: Inventory,
  image: ImageRecord,
  stored?: StoredImage,
): KeptRecord => ({
  ...imageFactsOf(image, stored),
  aliases: inventory.images
    .aliases()
    .filter(({ name }) => name === image.name)
    .map(({ name: _name, ...alias }) => alias),
  instance,
});

export const recordOfGuest = (
  instance: InstanceId,
  inventory: Inventory,
  { target: _target, targetActor: _actor, ...record }: GuestRecord,
): KeptRecord & { readonly generation: number } => ({
  ...record,
  instance,
  networks: [...new Set(record.spec.nics.map(({ network }) => network))]
    .map((id) => inventory.networks.find(id))
    .filter((network) => network !== undefined)
    .map(networkFactsOf),
  images: imagesUsed(record.spec)
    .map((id) => inventory.images.byId(id))
    .filter((image) => image !== undefined)
    .map((image) => imageFactsOf(image)),
});

/** Whether a record that was found says the same; when it was written, and by which generation, is no matter. */
export const saysTheSame = (found: KeptRecord, wanted: KeptRecord): boolean => {
  const said = ({ writtenAt: _at, generation: _generation, ...rest }: KeptRecord): unknown =>
    JSON.parse(JSON.stringify(rest));
  return isDeepStrictEqual(said(found), said(wanted));
};
