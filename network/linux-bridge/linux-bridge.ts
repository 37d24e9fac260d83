/**
 * Networks as Linux bridges: kinds `nat` and `isolated`. A network is a bridge with the host's address in it, elements
 * of the instance's nftables sets, and a dnsmasq; a port is a tap that goes with the process which holds it.
 *
 * Rules it keeps:
 * - Nothing passes unguarded: a bridge comes up only after the firewall knows it; a tap may be in its bridge before its
 *   addresses are in the guard's sets, because the guard drops whatever comes from a tap that has none there.
 * - The tables are every network's of the instance: whoever makes a network renews them, whoever removes the last one
 *   deletes them; one at a time, in turn.
 * - Kind nat turns on `net.ipv4.ip_forward` and never turns it off: others may have come to rely on it.
 */
import { closeSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import type { Log } from '../../lib/log.ts';
import { Mailbox } from '../../lib/mailbox.ts';
import { UndoStack } from '../../lib/undo-stack.ts';
import { enslaveLink, openTap, setLinkUp } from '../../native/index.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { AttachedPort, NetworkBackend, NetworkPlace, PortPlan, PortSpec } from '../backend.ts';
import { bridgePrefix } from '../link-names.ts';
import {
  addElementsText,
  deleteElementsText,
  elementObject,
  networkElements,
  tablesRemovalText,
  tablesText,
} from '../ruleset.ts';
import { discard } from './discard.ts';
import { ensureServer, reloadServer, stopServer } from './dnsmasq.ts';
import { toolFailed } from './host-tool.ts';
import { foreignObjects, inspectHost } from './inspect.ts';
import { deleteLink, ensureBridge, linkNames, usedSubnets } from './links.ts';
import { nft, nftIfPresent } from './nft.ts';
import { makePortDirectories, removePortDirectories, removePortFiles, writePortFiles } from './port-files.ts';
import { elementsOf, type Site, siteObjects, siteOf, tapOf } from './site.ts';

export interface LinuxBridgeOptions {
  /** Program of the DHCP and DNS server; found by PATH unless given. */
  readonly dnsmasqPath?: string;
  /** Where the files of ports lie that the DHCP server reads, a directory for each bridge; shared by instances. */
  readonly portsRoot?: string;
  readonly log?: Log;
}

const IP_FORWARD = '/proc/sys/net/ipv4/ip_forward';

export function linuxBridgeBackend(options: LinuxBridgeOptions = {}): NetworkBackend {
  const portsRoot = options.portsRoot ?? '/run/roost-dhcp';
  const site = (network: NetworkPlace): Site => siteOf(network, portsRoot);
  const tables = new Mailbox();
  return {
    kinds: ['nat', 'isolated'],
    plan: (network) => siteObjects(site(network)),
    ensure: async (network, signal) => {
      requirePrivileges();
      const at = site(network);
      await makePortDirectories(at);
      await tables.post(() => makeLinks(at, signal));
      if (at.kind === 'nat') await turnOnForwarding(options.log);
      await ensureServer(at, options.dnsmasqPath ?? 'dnsmasq', signal);
    },
    remove: async (network, signal) => {
      requirePrivileges();
      const at = site(network);
      await stopServer(at, signal);
      await tables.post(() => removeLinks(at, signal));
      await removePortDirectories(at);
      await rm(at.runDirectory, { recursive: true, force: true });
      await rm(at.stateDirectory, { recursive: true, force: true });
    },
    planPort: (network, port) => planPort(site(network), port),
    attach: (network, port, signal) => attach(site(network), port, signal),
    restorePort: (network, port, signal) => permit(site(network), port, signal),
    detach: async (network, port, signal) => {
      const at = site(network);
      await forbid(at, port, signal);
      await deleteLink(tapOf(at, port), signal);
    },
    discard: (place, objects, signal) => tables.post(() => discard(place, objects, portsRoot, signal)),
    foreign: foreignObjects,
    usedSubnets,
    inspect: (place, signal) => inspectHost(place, portsRoot, signal),
  };
}

function requirePrivileges(): void {
  if (process.getuid?.() === 0) return;
  throw new RoostError('Unsupported', 'Bridged networks need a daemon that runs as root', {
    hint: 'Run the daemon as root, or use a network of kind user.',
  });
}

async function makeLinks(site: Site, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  await nft([tablesText(site.instance) + addElementsText(site.instance, networkElements(site))], signal);
  await ensureBridge(site, signal);
}

async function removeLinks(site: Site, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  await deleteLink(site.bridge, signal);
  await nftIfPresent([deleteElementsText(site.instance, networkElements(site))], signal);
  const left = (await linkNames(signal)).filter((name) => name.startsWith(bridgePrefix(site.instance)));
  if (left.length === 0) await nft([tablesRemovalText(site.instance)], signal);
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

function planPort(site: Site, port: PortSpec): PortPlan {
  const tap = tapOf(site, port);
  return {
    port: { kind: 'tap', link: tap, mac: port.mac },
    objects: [
      ...elementsOf(site, port).map((element) => elementObject(site.instance, element)),
      { kind: 'tap', name: tap },
    ],
  };
}

async function attach(site: Site, port: PortSpec, signal: AbortSignal): Promise<AttachedPort> {
  requirePrivileges();
  signal.throwIfAborted();
  const tap = tapOf(site, port);
  await using undo = new UndoStack();
  const descriptor = makeTap(tap);
  undo.add(() => closeSync(descriptor));
  // Most of an attach, and QEMU's start takes longer: the two go on beside each other.
  const guarded = permit(site, port, signal);
  const permitted = guarded.catch(() => undefined);
  undo.add(async () => {
    await permitted;
    await forbid(site, port, new AbortController().signal);
  });
  await leaveWithoutIpv6(tap);
  signal.throwIfAborted();
  joinBridge(tap, site.bridge);
  undo.succeed();
  return { port: { kind: 'tap', link: tap, mac: port.mac }, descriptor, guarded };
}

/** A tap that exists is somebody's: of a guest that still runs, or of one whose detaching was never done. */
function makeTap(tap: string): number {
  try {
    return openTap(tap);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EBUSY')
      throw new RoostError('FailedPrecondition', `The tap ${tap} exists already`, {
        cause: error,
        data: { tap },
        hint: 'Another process holds it; stop the guest, and the port is detached.',
      });
    throw toolFailed(`The tap ${tap} could not be made`, String(error), error);
  }
}

function joinBridge(tap: string, bridge: string): void {
  try {
    enslaveLink(tap, bridge);
    setLinkUp(tap);
  } catch (error) {
    throw toolFailed(`The tap ${tap} could not join the bridge ${bridge}`, String(error), error);
  }
}

/** The host is no neighbour of the guest on the tap itself. A host without IPv6 has no such file. */
async function leaveWithoutIpv6(tap: string): Promise<void> {
  await writeFile(`/proc/sys/net/ipv6/conf/${tap}/disable_ipv6`, '1').catch(() => undefined);
}

/** Lets a port's own frames through and tells the server of it. Both ends are waited for, so that an undo comes after. */
async function permit(site: Site, port: PortSpec, signal: AbortSignal): Promise<void> {
  const outcomes = await Promise.allSettled([
    nft([addElementsText(site.instance, elementsOf(site, port))], signal),
    writePortFiles(site, port),
  ]);
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

async function forbid(site: Site, port: PortSpec, signal: AbortSignal): Promise<void> {
  await nftIfPresent([deleteElementsText(site.instance, elementsOf(site, port))], signal);
  await removePortFiles(site, port);
  await reloadServer(site);
}
