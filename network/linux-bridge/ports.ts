/** Ports of a network: made, let through, taken away. */
import { writeFile } from 'node:fs/promises';
import { UndoStack } from '../../lib/undo-stack.ts';
import type { NetPort } from '../../protocol/net-port.ts';
import type { AttachedPort, PortPlan, PortSpec } from '../backend.ts';
import { addElementsText, deleteElementsText, dropElements, elementObject } from '../ruleset.ts';
import { requireFree } from '../user/port-check.ts';
import { vethPort } from '../veth-port.ts';
import { reloadServer } from './dnsmasq.ts';
import { deleteLink } from './links.ts';
import { nft, nftIfPresent } from './nft.ts';
import { claimEnd, joinBridge, prepareEnd } from './port-ends.ts';
import { removePortFiles, writePortFiles } from './port-files.ts';
import { type AnySite, elementsOf, linkOf } from './site.ts';

export function planPort(site: AnySite, port: PortSpec): PortPlan {
  return {
    port: portOf(site, port),
    objects: [
      ...elementsOf(site, port).map((element) => elementObject(site.instance, element)),
      { kind: port.end ?? 'tap', name: linkOf(site, port) },
    ],
  };
}

const portOf = (site: AnySite, port: PortSpec): NetPort =>
  port.end === 'veth' ? vethPort(site, port) : { kind: 'tap', link: linkOf(site, port), mac: port.mac };

export async function attachPort(site: AnySite, port: PortSpec, signal: AbortSignal): Promise<AttachedPort> {
  signal.throwIfAborted();
  if (site.kind === 'nat') await preparePassingOn(site.bridge, port, signal);
  await using undo = new UndoStack();
  const descriptor = await claimEnd(site, port, undo, signal);
  // Most of an attach, and QEMU's start takes longer: the two go on beside each other.
  const guarded = permitPort(site, port, signal);
  const permitted = guarded.catch(() => undefined);
  undo.add(async () => {
    await permitted;
    await forbidPort(site, port, new AbortController().signal);
  });
  await prepareEnd(site, port, signal);
  signal.throwIfAborted();
  joinBridge(linkOf(site, port), site.bridge);
  undo.succeed();
  return { port: portOf(site, port), ...(descriptor === undefined ? {} : { descriptor }), guarded };
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
  const elements = [...elementsOf(site, port), ...dropElements(linkOf(site, port))];
  await nftIfPresent([deleteElementsText(site.instance, elements)], signal);
  if (site.kind === 'bridge') return;
  await removePortFiles(site, port);
  await reloadServer(site);
}

export async function announcePort(site: AnySite, port: PortSpec): Promise<void> {
  if (site.kind !== 'bridge') await writePortFiles(site, port);
}

/** The link first: what a guest still sends by it would be counted again, under a name that the next run has too. */
export async function detachPort(site: AnySite, port: PortSpec, signal: AbortSignal): Promise<void> {
  await deleteLink(linkOf(site, port), signal);
  await forbidPort(site, port, signal);
}
