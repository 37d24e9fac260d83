/** Removes what is left of networks and ports that nothing is known of any more, by the names that inspection gave. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { enter } from '../../lib/account.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import { bridgePrefix, tapPrefix, vethPrefix } from '../link-names.ts';
import { elementWord, tableName } from '../ruleset.ts';
import { stopServerOf } from './dnsmasq.ts';
import type { InspectedPlace } from './inspect.ts';
import { deleteLink } from './links.ts';
import { nftIfPresent } from './nft.ts';

/** Servers before links, elements before tables, directories last. */
const ORDER: readonly HostObject['kind'][] = [
  'process',
  'tap',
  'veth',
  'bridge',
  'nft-element',
  'nft-table',
  'directory',
];

export async function discard(
  place: InspectedPlace,
  objects: readonly HostObject[],
  portsRoot: string,
  signal: AbortSignal,
): Promise<void> {
  for (const kind of ORDER)
    for (const object of objects.filter((each) => each.kind === kind && isOurs(place, each, portsRoot))) {
      await discardOne(object, signal);
      enter({ kind: 'removed', object: `${object.kind} ${object.name}` });
    }
}

/** Asked again here, because a mistake of the caller must not reach others. */
function isOurs(place: InspectedPlace, { kind, name }: HostObject, portsRoot: string): boolean {
  const { instance } = place;
  switch (kind) {
    case 'tap':
      return name.startsWith(tapPrefix(instance));
    case 'veth':
      return name.startsWith(vethPrefix(instance));
    case 'bridge':
      return name.startsWith(bridgePrefix(instance));
    case 'nft-table':
      return name.endsWith(`/${tableName(instance)}`);
    case 'nft-element':
      return name.split('/')[1] === tableName(instance);
    case 'process':
      return name.startsWith(join(place.stateDirectory, 'networks/'));
    case 'directory':
      return [
        join(place.stateDirectory, 'networks/'),
        join(place.runDirectory, 'networks/'),
        join(portsRoot, bridgePrefix(instance)),
      ].some((prefix) => name.startsWith(prefix));
    default:
      return false;
  }
}

async function discardOne({ kind, name }: HostObject, signal: AbortSignal): Promise<void> {
  switch (kind) {
    case 'process':
      return await stopServerOf(name, signal);
    case 'tap':
    case 'veth':
    case 'bridge':
      return await deleteLink(name, signal);
    case 'nft-table':
      await nftIfPresent(['delete', 'table', ...name.split('/')], signal);
      return undefined;
    case 'nft-element':
      await nftIfPresent([deleteElement(name)], signal);
      return undefined;
    case 'directory':
      return await rm(name, { recursive: true, force: true });
    default:
      return undefined;
  }
}

/** `family/table/set/value`, whose value may hold a slash, as an `nft` command. */
function deleteElement(name: string): string {
  const [family = '', table = '', set = '', ...rest] = name.split('/');
  const value = rest.join('/');
  const words = value.split(' . ').map(elementWord);
  return `delete element ${family} ${table} ${set} { ${words.join(' . ')} }`;
}
