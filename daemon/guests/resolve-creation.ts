/** What a guest that is asked for would be recorded as, but for what it gets for itself. */
import type { Driver, PinnedMachine } from '../../drivers/driver.ts';
import type { GuestSpec } from '../../protocol/guest.ts';
import type { GuestId } from '../../protocol/types.ts';
import type { StoredSpec } from '../inventory/guest-table.ts';
import type { House } from './house.ts';
import type { GuestRegistry } from './registry.ts';
import { resolveProgram } from './resolve-program.ts';
import { resolveSpec, specToPin } from './resolve-spec.ts';

/** Errors: those of `resolveProgram`, `resolveSpec` and of the driver. */
export const resolveCreation = async (
  house: House,
  registry: GuestRegistry,
  spec: GuestSpec,
  id: GuestId,
): Promise<{ readonly like: StoredSpec; readonly machine: PinnedMachine; readonly driver: Driver }> => {
  const like = resolveSpec(spec, house, await resolveProgram(spec, house.images));
  const driver = registry.driverOf(spec);
  return { like, driver, machine: await driver.pin(specToPin(spec, like), id, house.stopping) };
};
