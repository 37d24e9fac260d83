/**
 * Firewalls of others that drop what networks of kind nat forward. A packet passes every base chain of the forward hook,
 * whoever's, and one that drops it is enough (nft(8), "verdict statement"): our own rules cannot let pass what Docker's
 * policy drops. So they are named, with the line that lets our bridges pass. Pure: from what nft tells.
 */
import type { ForeignFirewall } from '../protocol/host.ts';
import type { InstanceId } from '../protocol/types.ts';
import { bridgePrefix } from './link-names.ts';

/** A chain as `nft -j list chains` tells of it (libnftables-json(5)); a base chain has a hook. */
export interface NftChain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly hook?: string;
  readonly policy?: string;
}

interface Known {
  readonly who: string;
  /** Whether these are its chains. */
  readonly owns: (base: NftChain, all: readonly NftChain[]) => boolean;
  /** What to run, with `+` behind the beginning of our bridges' names where it takes patterns. */
  readonly hint: (prefix: string) => string;
}

const hasChain = (all: readonly NftChain[], { family, table }: NftChain, name: RegExp): boolean =>
  all.some((chain) => chain.family === family && chain.table === table && name.test(chain.name));

/** The first that fits counts: they share the table of iptables. */
const known: readonly Known[] = [
  {
    who: 'Docker',
    owns: (base, all) => hasChain(all, base, /^DOCKER(-USER|-FORWARD)?$/),
    hint: (prefix) =>
      `iptables -I DOCKER-USER -i ${prefix}+ -j ACCEPT && iptables -I DOCKER-USER -o ${prefix}+ -j ACCEPT`,
  },
  {
    who: 'ufw',
    owns: (base, all) => hasChain(all, base, /^ufw-before-forward$/),
    hint: () =>
      'ufw route allow in on BRIDGE && ufw route allow out on BRIDGE (roost network ls tells the bridge)',
  },
  {
    who: 'firewalld',
    owns: ({ table }) => table === 'firewalld',
    hint: () =>
      'firewall-cmd --permanent --zone=trusted --add-interface=BRIDGE && firewall-cmd --reload (roost network ls tells the bridge)',
  },
];

/** firewalld accepts by policy and rejects by its last rule. */
const refuses = (chain: NftChain): boolean => chain.policy === 'drop' || chain.table === 'firewalld';

const isIpv4 = ({ family }: NftChain): boolean => family === 'ip' || family === 'inet';

/**
 * @param chains every chain on the host
 * @param exempted text of the rules of DOCKER-USER, in which somebody may have let our bridges pass already
 */
export const foreignFirewalls = (
  instance: InstanceId,
  chains: readonly NftChain[],
  exempted = '',
): readonly ForeignFirewall[] => {
  const prefix = bridgePrefix(instance);
  return chains
    .filter((chain) => chain.hook === 'forward' && isIpv4(chain) && refuses(chain))
    .filter(({ table }) => !/^roost_[a-z0-9]{5}$/.test(table))
    .flatMap((chain): readonly ForeignFirewall[] => {
      const owner = known.find(({ owns }) => owns(chain, chains));
      if (owner?.who === 'Docker' && exempted.includes(`"${prefix}*" `)) return [];
      const place = `${chain.family} ${chain.table} ${chain.name}`;
      return [
        {
          who: owner?.who ?? `table ${chain.family} ${chain.table}`,
          chain: place,
          hint:
            owner?.hint(prefix) ?? `Let what comes from and goes to ${prefix}* pass in the chain ${place}.`,
        },
      ];
    });
};
