/** What is known of a port at this moment: asked of the leases, the neighbour table and the counters of the rules. */
import type { PortReport, PortSpec } from '../backend.ts';
import { reasonOfSet, tableName } from '../ruleset.ts';
import { readLeases } from './leases.ts';
import { neighboursOn } from './neighbours.ts';
import { nftIfPresent } from './nft.ts';
import { type AnySite, linkOf } from './site.ts';

/** States of a neighbour that was met; any other may be of a question that we ourselves put. */
const MET: ReadonlySet<string> = new Set(['reachable', 'stale', 'delay']);

export async function reportOf(site: AnySite, port: PortSpec, signal: AbortSignal): Promise<PortReport> {
  const [leases, neighbours, droppedFrames] = await Promise.all([
    site.kind === 'bridge' ? [] : readLeases(site),
    neighboursOn(site.bridge, signal).catch(() => []),
    droppedFramesOf(site, port, signal),
  ]);
  return {
    addresses: [
      ...leases
        .filter(({ mac }) => mac === port.mac)
        .map(({ address, expiresAt }) => ({ source: 'lease', address, expiresAt }) as const),
      ...neighbours
        .filter(({ mac, state }) => mac === port.mac && MET.has(state))
        .map(({ address, state }) => ({ source: 'neighbour', address, state }) as const),
    ],
    droppedFrames,
  };
}

/** A set of `nft -j` with what its rule has counted for each port (libnftables-json(5)). */
interface NftListing {
  readonly nftables: readonly {
    readonly set?: {
      readonly name: string;
      readonly elem?: readonly {
        readonly elem?: { readonly val?: unknown; readonly counter?: { readonly packets?: number } };
      }[];
    };
  }[];
}

async function droppedFramesOf(
  site: AnySite,
  port: PortSpec,
  signal: AbortSignal,
): Promise<PortReport['droppedFrames']> {
  const listing = await nftIfPresent(['-j', 'list', 'table', 'bridge', tableName(site.instance)], signal);
  if (listing === undefined) return {};
  const link = linkOf(site, port);
  const counted = (JSON.parse(listing) as NftListing).nftables.flatMap(({ set }) => {
    const reason = set && reasonOfSet(set.name);
    const found = set?.elem?.find(({ elem }) => elem?.val === link)?.elem?.counter?.packets;
    return reason === undefined || found === undefined ? [] : [[reason, found] as const];
  });
  return Object.fromEntries(counted);
}
