/**
 * Networks as Linux bridges. Of kinds `nat` and `isolated` a network is a bridge with the host's address in it, elements
 * of the instance's nftables sets, and a dnsmasq; of kind `bridge` it is a bridge of somebody else, of which nothing is
 * ours but what our ports may send. A port is a tap that goes with the process which holds it, or a veth pair that goes
 * with the network namespace which has its other end.
 *
 * Rules it keeps:
 * - Nothing passes unguarded: a bridge comes up only after the firewall knows it; a port may be in its bridge before its
 *   addresses are in the guard's sets, because the guard drops whatever comes from one that has none there.
 * - The tables are every network's of the instance: whoever makes a network renews them, whoever removes the last one
 *   deletes them; one at a time, in turn.
 * - Kind nat turns on `net.ipv4.ip_forward` and never turns it off: others may have come to rely on it.
 * - A bridge of somebody else is looked at and joined, never changed.
 */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { enter } from '../../lib/account.ts';
import { type ControlGroups, noGroups } from '../../lib/control-groups.ts';
import type { Log } from '../../lib/log.ts';
import { Mailbox } from '../../lib/mailbox.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import type { NetworkBackend, NetworkPlace, PortAnswer, PortSpec } from '../backend.ts';
import { bridgePrefix } from '../link-names.ts';
import { addElementsText, deleteElementsText, tablesRemovalText, tablesText } from '../ruleset.ts';
import { portsInUse } from '../user/ports-in-use.ts';
import { answerOf } from './answer.ts';
import { discard } from './discard.ts';
import { ensureServer, stopServer } from './dnsmasq.ts';
import { findFirewalls } from './find-firewalls.ts';
import { toolFailed } from './host-tool.ts';
import { foreignObjects, inspectHost, joinedBridges } from './inspect.ts';
import { LEASE_SECONDS, readLeases, watchLeases } from './leases.ts';
import { deleteLink, ensureBridge, linkNames, requireBridge, usedSubnets } from './links.ts';
import { NeighbourEvents } from './neighbours.ts';
import { nft, nftIfPresent } from './nft.ts';
import { makePortDirectories, removePortDirectories } from './port-files.ts';
import { reportOf } from './port-report.ts';
import { announcePort, attachPort, detachPort, permitPort, planPort } from './ports.ts';
import { type ResolvedOptions, tellResolved } from './resolved.ts';
import {
  type AnySite,
  type Site,
  serverGroup,
  serverGroupPrefix,
  siteElements,
  siteObjects,
  siteOf,
} from './site.ts';

export interface LinuxBridgeOptions {
  /** Program of the DHCP and DNS server; found by PATH unless given. */
  readonly dnsmasqPath?: string;
  /** Where the files of ports lie that the DHCP server reads, a directory for each bridge; shared by instances. */
  readonly portsRoot?: string;
  readonly resolved?: ResolvedOptions;
  /** Where servers, which outlive the daemon, get a scope each if these are scopes. */
  readonly groups?: ControlGroups;
  readonly log?: Log;
}

const IP_FORWARD = '/proc/sys/net/ipv4/ip_forward';

export function linuxBridgeBackend(options: LinuxBridgeOptions = {}): NetworkBackend {
  const portsRoot = options.portsRoot ?? '/run/roost-dhcp';
  const site = (network: NetworkPlace): AnySite => siteOf(network, portsRoot);
  const tables = new Mailbox();
  const neighbours = new NeighbourEvents();
  /** Bridges whose domain this host's own resolver asks. */
  const resolvedHere = new Set<string>();
  const scopes = options.groups?.kind === 'scope' ? options.groups : noGroups('servers need none');
  const ensureOwn = async (at: Site, signal: AbortSignal): Promise<void> => {
    await makePortDirectories(at);
    await tables.post(() => makeLinks(at, signal));
    if (at.kind === 'nat') {
      await turnOnForwarding(options.log);
      await warnOfFirewalls(at, options.log, signal);
    }
    await ensureServer(at, { program: options.dnsmasqPath ?? 'dnsmasq', scopes }, signal);
    const log = options.log === undefined ? {} : { log: options.log };
    if (await tellResolved(at, { ...log, ...options.resolved }, signal)) resolvedHere.add(at.bridge);
    else resolvedHere.delete(at.bridge);
  };
  return {
    kinds: ['nat', 'isolated', 'bridge'],
    plan: (network) => planned(site(network), scopes),
    ensure: async (network, signal) => {
      requirePrivileges();
      const at = site(network);
      if (at.kind !== 'bridge') return await ensureOwn(at, signal);
      await requireBridge(at.bridge, at.instance, signal);
      await tables.post(() => renewTables(at, signal));
    },
    remove: async (network, signal) => {
      requirePrivileges();
      const at = site(network);
      if (at.kind !== 'bridge') await stopServer(at, scopes, signal);
      await tables.post(() => removeLinks(at, signal));
      if (at.kind === 'bridge') return;
      resolvedHere.delete(at.bridge);
      await removePortDirectories(at);
      await rm(at.runDirectory, { recursive: true, force: true });
      await rm(at.stateDirectory, { recursive: true, force: true });
    },
    planPort: (network, port) => planPort(site(network), port),
    attach: async (network, port, signal) => {
      requirePrivileges();
      const at = site(network);
      return await attachPort(at, port, signal);
    },
    restorePort: (network, port, signal) => permitPort(site(network), port, signal),
    announce: (network, port) => announcePort(site(network), port),
    detach: (network, port, signal) => detachPort(site(network), port, signal),
    answer: (network, port, since, signal) => answerAt(site(network), port, since, neighbours, signal),
    report: (network, port, signal) => reportOf(site(network), port, signal),
    namesOf: (network) => {
      const at = site(network);
      if (at.kind === 'bridge') return undefined;
      return { domain: at.networkName, server: at.gateway, onHost: resolvedHere.has(at.bridge) };
    },
    discard: (place, objects, signal) => tables.post(() => discard(place, objects, portsRoot, signal)),
    foreign: foreignObjects,
    foreignFirewalls: ({ instance }, signal) => findFirewalls(instance, signal),
    usedSubnets,
    usedPorts: portsInUse,
    inspect: async (place, signal) => [
      ...(await inspectHost(place, portsRoot, signal)),
      ...(await scopes.list(serverGroupPrefix(place.instance))),
    ],
  };
}

function requirePrivileges(): void {
  if (process.getuid?.() === 0) return;
  throw new RoostError('Unsupported', 'Bridged networks need a daemon that runs as root', {
    hint: 'Run the daemon as root, or use a network of kind user.',
  });
}

async function makeLinks(site: Site, signal: AbortSignal): Promise<void> {
  await renewTables(site, signal);
  await ensureBridge(site, signal);
}

async function renewTables(site: AnySite, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  await nft([tablesText(site.instance) + addElementsText(site.instance, siteElements(site))], signal);
}

async function removeLinks(site: AnySite, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { instance } = site;
  if (site.kind !== 'bridge') await deleteLink(site.bridge, signal);
  await nftIfPresent([deleteElementsText(instance, siteElements(site))], signal);
  const own = (await linkNames(signal)).filter((name) => name.startsWith(bridgePrefix(instance)));
  if (own.length > 0 || (await joinedBridges(instance, signal)).length > 0) return;
  await nft([tablesRemovalText(instance)], signal);
}

/** A lease is of this run when it was taken while we waited, or ends so late that it must have been. */
async function answerAt(
  site: AnySite,
  port: PortSpec,
  since: number,
  events: NeighbourEvents,
  signal: AbortSignal,
): Promise<PortAnswer> {
  if (site.kind === 'bridge')
    return await answerOf(
      { bridge: site.bridge, port, leased: async () => false, watchLeases: () => () => undefined },
      events,
      signal,
    );
  const leaseEnd = async (): Promise<number> =>
    (await readLeases(site)).find(({ mac, address }) => mac === port.mac && address === port.ipv4)
      ?.expiresAt ?? 0;
  const before = await leaseEnd();
  const ofThisRun = Math.floor(since / 1000) * 1000 + LEASE_SECONDS * 1000;
  const leased = async (): Promise<boolean> => {
    const now = await leaseEnd();
    return now > 0 && (now !== before || now >= ofThisRun);
  };
  const leases = (changed: () => void): (() => void) => watchLeases(site, changed);
  return await answerOf({ bridge: site.bridge, port, leased, watchLeases: leases }, events, signal);
}

const planned = (at: AnySite, scopes: ControlGroups): readonly HostObject[] => {
  const scope = at.kind === 'bridge' ? undefined : scopes.object(serverGroup(at));
  return [...siteObjects(at), ...(scope === undefined ? [] : [scope])];
};

/** Guests have no way out then, and nothing of ours tells why. */
async function warnOfFirewalls(
  { instance, networkName }: Site,
  log: Log | undefined,
  signal: AbortSignal,
): Promise<void> {
  for (const { who, chain, hint } of await findFirewalls(instance, signal)) {
    const text = `${who} drops what network ${networkName} forwards (chain ${chain}); to let it pass: ${hint}`;
    enter({ kind: 'note', text });
    log?.warn({ network: networkName, who, chain, hint }, text);
  }
}

async function turnOnForwarding(log: Log | undefined): Promise<void> {
  if ((await readFile(IP_FORWARD, 'utf8')).trim() !== '0') return;
  try {
    await writeFile(IP_FORWARD, '1');
  } catch (error) {
    throw toolFailed('IPv4 forwarding could not be turned on', String(error), error);
  }
  log?.info('turned on net.ipv4.ip_forward, which networks of kind nat need');
}
