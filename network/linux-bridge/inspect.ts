/** What of our networks is on the host, in the words of the ledger. */
import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { HostObject } from '../../protocol/host-object.ts';
import { type InstanceId, networkId } from '../../protocol/types.ts';
import { bridgePrefix, tapPrefix, vethPrefix } from '../link-names.ts';
import { reasonOfSet, tableName } from '../ruleset.ts';
import { serverLives } from './dnsmasq.ts';
import { linkNames } from './links.ts';
import { nftIfPresent } from './nft.ts';
import { SERVER_LOG } from './site.ts';

export interface InspectedPlace {
  readonly instance: InstanceId;
  readonly runDirectory: string;
  readonly stateDirectory: string;
}

export async function inspectHost(
  place: InspectedPlace,
  portsRoot: string,
  signal: AbortSignal,
): Promise<readonly HostObject[]> {
  const { instance } = place;
  const [links, bridgeTable, inetTable, state, run, ports] = await Promise.all([
    linkNames(signal),
    tableObjects('bridge', instance, signal),
    tableObjects('inet', instance, signal),
    networkDirectories(place.stateDirectory),
    networkDirectories(place.runDirectory),
    entries(portsRoot),
  ]);
  const directories = [
    ...state,
    ...run,
    ...ports.filter((path) => path.startsWith(join(portsRoot, bridgePrefix(instance)))),
  ];
  return [
    ...directories.map((name) => ({ kind: 'directory', name }) as const),
    ...bridgeTable,
    ...inetTable,
    ...links.flatMap((name) => linkObject(instance, name)),
    ...state
      .map((directory) => join(directory, SERVER_LOG))
      .filter(serverLives)
      .map((name) => ({ kind: 'process', name }) as const),
  ];
}

const OUR_LINK = /^r[btv]([a-z0-9]{5})[a-z0-9]+$/;
const OUR_TABLE = /^table (bridge|inet) (roost_[a-z0-9]{5})$/gm;

/** Links and tables that other instances have made in this network namespace. */
export async function foreignObjects(
  { instance }: Pick<InspectedPlace, 'instance'>,
  signal: AbortSignal,
): Promise<readonly HostObject[]> {
  const [links, tables] = await Promise.all([linkNames(signal), nftIfPresent(['list', 'tables'], signal)]);
  return [
    ...links
      .map((name) => [OUR_LINK.exec(name)?.[1], name] as const)
      .flatMap(([owner, name]) =>
        owner === undefined || owner === instance ? [] : linkObject(owner as InstanceId, name),
      ),
    ...[...(tables ?? '').matchAll(OUR_TABLE)]
      .filter(([, , name]) => name !== tableName(instance))
      .map(([, family, name]) => ({ kind: 'nft-table', name: `${family}/${name}` }) as const),
  ];
}

/** The guest's end of a veth pair is no object of its own. */
function linkObject(instance: InstanceId, name: string): readonly HostObject[] {
  if (name.startsWith(bridgePrefix(instance))) return [{ kind: 'bridge', name }];
  if (name.startsWith(tapPrefix(instance))) return [{ kind: 'tap', name }];
  if (name.startsWith(vethPrefix(instance))) return [{ kind: 'veth', name }];
  return [];
}

/** Beside them lie the daemon's own records of networks. */
async function networkDirectories(directory: string): Promise<readonly string[]> {
  const paths = await entries(join(directory, 'networks'));
  return paths.filter((path) => networkId.safeParse(basename(path)).success);
}

async function entries(directory: string): Promise<readonly string[]> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  return names.map((name) => join(directory, name));
}

/** Bridges of somebody else that networks of the instance have joined. */
export async function joinedBridges(instance: InstanceId, signal: AbortSignal): Promise<readonly string[]> {
  const listing = await nftIfPresent(['-j', 'list', 'set', 'bridge', tableName(instance), 'joined'], signal);
  return listing === undefined ? [] : setsIn(listing).flatMap(({ elem }) => elem.map(words));
}

/** What the rules have counted is no object of its own: it goes with its table, or with its port. */
const setsIn = (listing: string): readonly { readonly name: string; readonly elem: readonly NftValue[] }[] =>
  (JSON.parse(listing) as NftListing).nftables.flatMap(({ set, map }) => {
    if (set && reasonOfSet(set.name) === undefined) return [{ name: set.name, elem: set.elem ?? [] }];
    return map ? [{ name: map.name, elem: (map.elem ?? []).map(([key]) => key) }] : [];
  });

/** A value of `nft -j`: a word, a concatenation, or a subnet (libnftables-json(5)). */
type NftValue =
  | string
  | number
  | { readonly concat: readonly NftValue[] }
  | { readonly prefix: { readonly addr: string; readonly len: number } };

interface NftListing {
  readonly nftables: readonly {
    readonly set?: { readonly name: string; readonly elem?: readonly NftValue[] };
    readonly map?: { readonly name: string; readonly elem?: readonly (readonly [NftValue, NftValue])[] };
  }[];
}

async function tableObjects(
  family: 'bridge' | 'inet',
  instance: InstanceId,
  signal: AbortSignal,
): Promise<readonly HostObject[]> {
  const table = `${family}/${tableName(instance)}`;
  const listing = await nftIfPresent(['-j', 'list', 'table', family, tableName(instance)], signal);
  if (listing === undefined) return [];
  const sets = setsIn(listing);
  return [
    { kind: 'nft-table', name: table },
    ...sets.flatMap(({ name, elem }) =>
      elem.map((value) => ({ kind: 'nft-element', name: `${table}/${name}/${words(value)}` }) as const),
    ),
  ];
}

function words(value: NftValue): string {
  if (typeof value === 'string' || typeof value === 'number') return String(value);
  if ('concat' in value) return value.concat.map(words).join(' . ');
  return `${value.prefix.addr}/${value.prefix.len}`;
}
