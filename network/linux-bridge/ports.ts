/** Ports of a network as taps: made, let through, taken away. */
import { closeSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { UndoStack } from '../../lib/undo-stack.ts';
import { enslaveLink, openTap, setLinkUp } from '../../native/index.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { MacAddress } from '../../protocol/types.ts';
import type { AttachedPort, PortPlan, PortSpec } from '../backend.ts';
import { addElementsText, deleteElementsText, dropElements, elementObject } from '../ruleset.ts';
import { requireFree } from '../user/port-check.ts';
import { reloadServer } from './dnsmasq.ts';
import { ip, toolFailed } from './host-tool.ts';
import { deleteLink, requireBridge } from './links.ts';
import { nft, nftIfPresent } from './nft.ts';
import { removePortFiles, writePortFiles } from './port-files.ts';
import { type AnySite, elementsOf, tapOf } from './site.ts';

export function planPort(site: AnySite, port: PortSpec): PortPlan {
  const tap = tapOf(site, port);
  return {
    port: { kind: 'tap', link: tap, mac: port.mac },
    objects: [
      ...elementsOf(site, port).map((element) => elementObject(site.instance, element)),
      { kind: 'tap', name: tap },
    ],
  };
}

export async function attachPort(site: AnySite, port: PortSpec, signal: AbortSignal): Promise<AttachedPort> {
  signal.throwIfAborted();
  if (site.kind === 'nat') await preparePassingOn(site.bridge, port, signal);
  const tap = tapOf(site, port);
  await using undo = new UndoStack();
  const descriptor = makeTap(tap);
  undo.add(() => closeSync(descriptor));
  // Most of an attach, and QEMU's start takes longer: the two go on beside each other.
  const guarded = permitPort(site, port, signal);
  const permitted = guarded.catch(() => undefined);
  undo.add(async () => {
    await permitted;
    await forbidPort(site, port, new AbortController().signal);
  });
  await leaveWithoutIpv6(tap);
  if (site.kind === 'bridge') await fitInto(tap, port.mac, site, signal);
  signal.throwIfAborted();
  joinBridge(tap, site.bridge);
  undo.succeed();
  return { port: { kind: 'tap', link: tap, mac: port.mac }, descriptor, guarded };
}

/** Nobody may listen where the rules take everything away; and the host itself comes by its loopback interface. */
async function preparePassingOn(
  bridge: string,
  { forwards = [] }: PortSpec,
  signal: AbortSignal,
): Promise<void> {
  if (forwards.length === 0) return;
  for (const forward of forwards) await requireFree(forward, 'rules', signal);
  await writeFile(`/proc/sys/net/ipv4/conf/${bridge}/route_localnet`, '1');
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

/**
 * A bridge takes the lowest MAC address among its ports, and the lowest MTU, unless somebody fixed them; so a port must
 * have neither the one nor the other, or the bridge's own address would change under the host that uses it.
 */
async function fitInto(
  tap: string,
  mac: MacAddress,
  { bridge, instance }: AnySite,
  signal: AbortSignal,
): Promise<void> {
  const { mtu } = await requireBridge(bridge, instance, signal);
  const settings = ['address', `fe${mac.slice(2)}`, 'mtu', String(mtu)];
  await ip({ args: ['link', 'set', 'dev', tap, ...settings] }, signal);
}

/** Lets a port's own frames through and tells the server of it. Both ends are waited for, so that an undo comes after. */
export async function permitPort(site: AnySite, port: PortSpec, signal: AbortSignal): Promise<void> {
  const outcomes = await Promise.allSettled([
    nft([addElementsText(site.instance, elementsOf(site, port))], signal),
    site.kind === 'bridge' ? undefined : writePortFiles(site, port),
  ]);
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

/** What its drops were counted under goes too: the next run counts anew. */
export async function forbidPort(site: AnySite, port: PortSpec, signal: AbortSignal): Promise<void> {
  const elements = [...elementsOf(site, port), ...dropElements(tapOf(site, port))];
  await nftIfPresent([deleteElementsText(site.instance, elements)], signal);
  if (site.kind === 'bridge') return;
  await removePortFiles(site, port);
  await reloadServer(site);
}

export async function announcePort(site: AnySite, port: PortSpec): Promise<void> {
  if (site.kind !== 'bridge') await writePortFiles(site, port);
}

export async function detachPort(site: AnySite, port: PortSpec, signal: AbortSignal): Promise<void> {
  await forbidPort(site, port, signal);
  await deleteLink(tapOf(site, port), signal);
}
