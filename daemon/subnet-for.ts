/** What a new network needs besides its name: a subnet, the one asked for or a free one, never one in use; or a bridge. */
import type { Addressing } from '../network/backend.ts';
import { RoostError } from '../protocol/errors.ts';
import type { NetworkKind, NetworkSpec } from '../protocol/network.ts';

/** Whether networks of this kind hand out addresses of a subnet of theirs. */
export const hasSubnet = (kind: NetworkKind): boolean => kind === 'nat' || kind === 'isolated';

/** A bridge is named for kind bridge and for no other. Errors: InvalidArgument. */
export const requireBridgeName = ({ kind, bridge }: Pick<NetworkSpec, 'kind' | 'bridge'>): void => {
  if ((kind === 'bridge') === (bridge !== undefined)) return;
  throw kind === 'bridge'
    ? new RoostError('InvalidArgument', 'A network of kind bridge needs the name of the bridge', {
        hint: 'Give bridge, as br0; `ip link show type bridge` lists those of the host.',
      })
    : new RoostError('InvalidArgument', `A network of kind ${kind} joins no bridge of the host`, {
        data: { kind, ...(bridge === undefined ? {} : { bridge }) },
        hint: 'Give kind bridge, or leave out bridge.',
      });
};

/** Undefined for a kind that has none. Errors: InvalidArgument, AlreadyExists, ResourceExhausted. */
export const subnetFor = (
  args: Pick<NetworkSpec, 'kind' | 'subnet'>,
  taken: readonly string[],
  addressing: Addressing,
): string | undefined => {
  if (!hasSubnet(args.kind)) {
    if (args.subnet === undefined) return undefined;
    throw new RoostError('InvalidArgument', `A network of kind ${args.kind} has no subnet of its own`, {
      hint: 'Leave out subnet.',
    });
  }
  if (args.subnet !== undefined) {
    addressing.gatewayOf(args.subnet);
    const other = addressing.overlapping(args.subnet, taken);
    if (other === undefined) return args.subnet;
    throw new RoostError(
      'AlreadyExists',
      `Subnet ${args.subnet} overlaps ${other}, which is in use on this host`,
      {
        data: { subnet: args.subnet, overlaps: other },
        hint: 'Choose another subnet, or leave it out to get a free one.',
      },
    );
  }
  const chosen = addressing.chooseSubnet(taken);
  if (chosen !== undefined) return chosen;
  throw new RoostError('ResourceExhausted', 'No free subnet is left to choose from', {
    hint: 'Name a subnet.',
  });
};
