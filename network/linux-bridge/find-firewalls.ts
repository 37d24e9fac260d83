/** Asks nft for what foreign-firewalls.ts decides on. */
import type { ForeignFirewall } from '../../protocol/host.ts';
import type { InstanceId } from '../../protocol/types.ts';
import { foreignFirewalls, type NftChain } from '../foreign-firewalls.ts';
import { nft, nftIfPresent } from './nft.ts';

interface Listing {
  readonly nftables: readonly { readonly chain?: NftChain }[];
}

export const findFirewalls = async (
  instance: InstanceId,
  signal: AbortSignal,
): Promise<readonly ForeignFirewall[]> => {
  const { nftables } = JSON.parse(await nft(['-j', 'list', 'chains'], signal)) as Listing;
  const chains = nftables.flatMap(({ chain }) => chain ?? []);
  const exempted = chains.some(({ name }) => name === 'DOCKER-USER')
    ? await nftIfPresent(['list', 'chain', 'ip', 'filter', 'DOCKER-USER'], signal)
    : undefined;
  return foreignFirewalls(instance, chains, exempted);
};
