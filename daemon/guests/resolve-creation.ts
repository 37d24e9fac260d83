/** What a guest that is asked for would be recorded as, but for what it gets for itself. */
import type { Driver, PinnedMachine } from '../../drivers/driver.ts';
import type { GuestSpec } from '../../protocol/guest.ts';
import type { GuestId } from '../../protocol/types.ts';
import type { StoredSpec } from '../inventory/guest-table.ts';
import { chooseFilesystems } from './choose-filesystems.ts';
import { refuseContradiction } from './container-spec.ts';
import type { House } from './house.ts';
import type { GuestRegistry } from './registry.ts';
import { resolveProgram } from './resolve-program.ts';
import { resolveSpec, specToPin } from './resolve-spec.ts';

/**
 * `copies`: whether those of directories are to be made, or lie on a template's. Errors: those of
 * `refuseContradiction`, `chooseFilesystems`, `resolveProgram`, `resolveSpec` and of the driver.
 */
export const resolveCreation = async (
  house: House,
  registry: GuestRegistry,
  spec: GuestSpec,
  { id, copies }: { readonly id: GuestId; readonly copies: 'new' | 'of-template' },
): Promise<{
  readonly like: StoredSpec;
  readonly machine: PinnedMachine;
  readonly driver: Driver;
  readonly warnings: string[];
}> => {
  refuseContradiction(spec);
  const { filesystems, warnings } =
    copies === 'new' ? await chooseFilesystems(house, registry, spec) : { ...spec, warnings: [] };
  const chosen = { ...spec, filesystems: [...filesystems] };
  const like = resolveSpec(chosen, house, await resolveProgram(spec, house.images));
  const driver = registry.driverOf(spec);
  return { like, driver, warnings, machine: await driver.pin(specToPin(chosen, like), id, house.stopping) };
};
