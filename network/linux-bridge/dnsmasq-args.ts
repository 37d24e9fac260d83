/** Command line of the DHCP and DNS server of a network (dnsmasq(8)). Pure. */
import { netmaskOf, networkAddressOf } from '../addressing.ts';
import { LEASE_SECONDS } from './leases.ts';
import type { Site } from './site.ts';

/** Tells our server of a network from every other process. */
export const pidFileArgument = (site: Site): string => `--pid-file=${site.pidFile}`;

/** @param user whom the server becomes once its sockets are open */
export const dnsmasqArgs = (site: Site, user: string): readonly string[] => [
  '--keep-in-foreground',
  '--conf-file=/dev/null',
  pidFileArgument(site),
  `--user=${user}`,
  '--log-facility=-',
  '--quiet-dhcp',
  // Only on this bridge, so that any number of servers can live side by side.
  `--interface=${site.bridge}`,
  '--bind-dynamic',
  '--except-interface=lo',
  // Only guests we know, at their own addresses, under the names we gave them.
  `--dhcp-range=${networkAddressOf(site.subnet)},static,${netmaskOf(site.subnet)},${LEASE_SECONDS}`,
  `--dhcp-hostsdir=${site.dhcpDirectory}`,
  `--dhcp-leasefile=${site.leaseFile}`,
  '--dhcp-lease-max=65536',
  '--dhcp-authoritative',
  '--dhcp-ignore-names',
  '--no-hosts',
  `--hostsdir=${site.namesDirectory}`,
  `--domain=${site.networkName}`,
  `--local=/${site.networkName}/`,
  '--expand-hosts',
  '--domain-needed',
  '--bogus-priv',
  ...(site.kind === 'isolated' ? ['--no-resolv', '--dhcp-option=option:router'] : []),
];
