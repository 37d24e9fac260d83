/** What each QEMU of this host is, for its description; one that cannot be asked is named with why. */
import { isRoostError } from '../../protocol/errors.ts';
import type { HostView } from '../../protocol/host.ts';
import type { Capabilities } from './capabilities.ts';

export const describeBinaries = async (
  capabilities: Capabilities,
  signal: AbortSignal,
): Promise<HostView['qemuBinaries']> =>
  await Promise.all(
    capabilities.names.map(async (name) => {
      const path = capabilities.pathOf(name);
      try {
        const { version, machines } = await capabilities.factsOf(name, signal);
        return { name, path, version, machines: machines.map((machine) => machine.name) };
      } catch (error) {
        if (!isRoostError(error)) throw error;
        return { name, path, machines: [], problem: error.message };
      }
    }),
  );
