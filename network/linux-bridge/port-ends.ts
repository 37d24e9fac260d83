/**
 * The links that ports are: a tap, which goes with its descriptor, or a veth pair, which goes with the network namespace
 * that its other end was moved to. Either is made down, joins its bridge, and comes up.
 *
 * A veth pair keeps its offloads. What comes out of a container has no checksum until it leaves by a link that makes
 * none, as a tap whose VM takes no offloads; there the kernel makes it. Programs that read DHCP from raw frames are told
 * that it is still to be made (packet(7), PACKET_AUXDATA), as they are in a VM; dhclient and udhcpc were tried. To have
 * it made at once (ETHTOOL_STXCSUM) costs a container four fifths of its TCP throughput, because segmentation goes with it.
 */
import { closeSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import type { UndoStack } from '../../lib/undo-stack.ts';
import { enslaveLink, linkIndex, openTap, setLinkUp } from '../../native/index.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { PortSpec } from '../backend.ts';
import { vethPeerName } from '../link-names.ts';
import { ip, toolFailed } from './host-tool.ts';
import { deleteLink, requireBridge } from './links.ts';
import { type AnySite, linkOf } from './site.ts';

const peerOf = ({ instance }: AnySite, { guestNumber, index }: PortSpec): string =>
  vethPeerName(instance, guestNumber, index);

/**
 * Takes the port's name: a tap is made by that and its descriptor returned; of a veth pair only a former one is deleted.
 * Errors: FailedPrecondition where somebody runs with the port, and then nothing is changed; HostError.
 */
export async function claimEnd(
  site: AnySite,
  port: PortSpec,
  undo: UndoStack,
  signal: AbortSignal,
): Promise<number | undefined> {
  const link = linkOf(site, port);
  if (port.end === 'veth') {
    await requireUntaken(link, peerOf(site, port), signal);
    undo.add(() => deleteLink(link, new AbortController().signal));
    return undefined;
  }
  const descriptor = makeTap(link);
  undo.add(() => closeSync(descriptor));
  return descriptor;
}

/**
 * Makes of what was claimed a link that fits its bridge; still down, and outside of it. A bridge takes the lowest MAC
 * address among its ports, and the lowest MTU, unless somebody fixed them; so a port must have neither the one nor the
 * other, or the bridge's own address would change under the host that uses it. One of ours has its own address fixed.
 * Errors: HostError.
 */
export async function prepareEnd(site: AnySite, port: PortSpec, signal: AbortSignal): Promise<void> {
  const link = linkOf(site, port);
  const mtu = site.kind === 'bridge' ? await mtuOf(site, signal) : [];
  const own = ['address', `fe${port.mac.slice(2)}`, ...mtu];
  if (port.end === 'veth') {
    const peer = ['name', peerOf(site, port), 'address', port.mac, ...mtu];
    await ip({ args: ['link', 'add', 'name', link, ...own, 'type', 'veth', 'peer', ...peer] }, signal);
  } else if (site.kind === 'bridge') await ip({ args: ['link', 'set', 'dev', link, ...own] }, signal);
  await leaveWithoutIpv6(link);
}

export function joinBridge(link: string, bridge: string): void {
  try {
    enslaveLink(link, bridge);
    setLinkUp(link);
  } catch (error) {
    throw toolFailed(`The link ${link} could not join the bridge ${bridge}`, String(error), error);
  }
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

/** A pair of which both ends are here is nobody's: its guest has ended, or was never run. */
async function requireUntaken(link: string, peer: string, signal: AbortSignal): Promise<void> {
  if (linkIndex(link) === undefined || linkIndex(peer) !== undefined) return await deleteLink(link, signal);
  throw new RoostError('FailedPrecondition', `The veth pair ${link} exists already`, {
    data: { link },
    hint: 'Its other end is in another network namespace; stop the guest, and the port is detached.',
  });
}

/** The host is no neighbour of the guest on the port itself. A host without IPv6 has no such file. */
async function leaveWithoutIpv6(link: string): Promise<void> {
  await writeFile(`/proc/sys/net/ipv6/conf/${link}/disable_ipv6`, '1').catch(() => undefined);
}

async function mtuOf({ bridge, instance }: AnySite, signal: AbortSignal): Promise<readonly string[]> {
  const { mtu } = await requireBridge(bridge, instance, signal);
  return ['mtu', String(mtu)];
}
