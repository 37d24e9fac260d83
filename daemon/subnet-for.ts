/** The subnet of a new network: the one asked for or a free one, never one in use. */
import type { Addressing } from '../network/backend.ts';
import { RoostError } from '../protocol/errors.ts';
import type { NetworkSpec } from '../protocol/network.ts';

/** Undefined for a kind that has none. Errors: InvalidArgument, AlreadyExists, ResourceExhausted. */
export const subnetFor = (
  args: Pick<NetworkSpec, 'kind' | 'subnet'>,
  taken: readonly string[],
  addressing: Addressing,
): string | undefined => {
  if (args.kind === 'user') {
    if (args.subnet === undefined) return undefined;
    throw new RoostError('InvalidArgument', 'A network of kind user has no subnet of its own', {
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
