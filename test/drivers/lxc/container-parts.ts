/** A container on paper, for tests of what is made of it. */
import type { ContainerBoot, GuestPlace } from '../../../drivers/driver.ts';
import type { GuestId, InstanceId } from '../../../protocol/types.ts';

const id = '5a9c7f5a-1b2c-4d3e-8f90-a1b2c3d4e5f6' as GuestId;

export const place: GuestPlace = {
  id,
  number: 1,
  instance: 'abcde' as InstanceId,
  stateDirectory: `/var/lib/roost/guests/${id}`,
  runDirectory: `/run/roost/guests/${id}`,
};

export const bootOf = (changes: Partial<ContainerBoot> = {}): ContainerBoot => ({
  kind: 'root',
  root: {
    directory: `/var/lib/roost/pools/default/guests/${id}/root`,
    image: {
      format: 'raw',
      path: '/var/lib/roost/images/debian/image.squashfs',
      readOnly: true,
      sizeBytes: 200 * 1024 ** 2,
    },
    tree: '/var/lib/roost/images/debian/tree/root',
  },
  idRange: { first: 1_073_741_824, count: 65_536 },
  nesting: false,
  keepCapabilities: [],
  dropCapabilities: [],
  ...changes,
});
