/**
 * Firmware that QEMU would not choose by itself. A microvm boots a disk by a SeaBIOS of its own only; what QEMU takes
 * for it by default may be qboot (so on Debian), which starts kernels and nothing else.
 */
import { access } from 'node:fs/promises';
import { RoostError } from '../../protocol/errors.ts';
import type { Launch } from '../driver.ts';

const MICROVM_SEABIOS = '/usr/share/seabios/bios-microvm.bin';

/** Errors: Unsupported when the guest needs firmware that this host does not have. */
export const firmwareFor = async ({
  name,
  machine,
  boot,
}: Launch): Promise<{ readonly firmwarePath?: string }> => {
  if (machine.settings['family'] !== 'microvm' || boot.kind !== 'disk') return {};
  try {
    await access(MICROVM_SEABIOS);
    return { firmwarePath: MICROVM_SEABIOS };
  } catch (error) {
    throw new RoostError(
      'Unsupported',
      `Guest ${name} cannot boot from its disk: the microvm's SeaBIOS is missing`,
      {
        cause: error,
        data: { guest: name, firmware: MICROVM_SEABIOS },
        hint: 'Install it (Debian: seabios), boot the guest by a kernel, or use a q35 machine.',
      },
    );
  }
};
