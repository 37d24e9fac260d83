/** A network as it is told: its record, and what is on the host of it. Pure. */
import type { NetworkView } from '../protocol/network.ts';
import type { NetworkRecord } from './inventory/network-table.ts';

export const networkView = (
  { id, name, kind, state, reason, subnet, gateway, createdAt }: NetworkRecord,
  found: Pick<NetworkView, 'bridge' | 'names' | 'usedBy'>,
): NetworkView => ({
  id,
  name,
  kind,
  state,
  ...(reason === undefined ? {} : { reason }),
  ...(subnet === undefined ? {} : { subnet }),
  ...(gateway === undefined ? {} : { gateway }),
  ...found,
  createdAt,
});
