/**
 * Firmware that QEMU would not choose by itself: UEFI, and that of a microvm. A microvm boots a disk by a SeaBIOS of its own only; what QEMU takes
 * for it by default may be qboot (so on Debian), which starts kernels and nothing else.
 */
import { access } from 'node:fs/promises';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestSpec, MachineFamily } from '../../protocol/guest.ts';
import type { Launch, PinnedFirmware } from '../driver.ts';

const MICROVM_SEABIOS = '/usr/share/seabios/bios-microvm.bin';

/** Debian's OVMF, without Secure Boot. */
const OVMF: PinnedFirmware = {
  codePath: '/usr/share/OVMF/OVMF_CODE_4M.fd',
  variablesTemplatePath: '/usr/share/OVMF/OVMF_VARS_4M.fd',
};

/** The firmware of which this is the code; undefined for none of ours. */
export const knownFirmware = (codePath: string): PinnedFirmware | undefined =>
  codePath === OVMF.codePath ? OVMF : undefined;

const requireOvmf = async (
  name: string,
  { codePath, variablesTemplatePath }: PinnedFirmware,
): Promise<void> => {
  for (const path of [codePath, variablesTemplatePath]) {
    try {
      await access(path);
    } catch (error) {
      throw new RoostError('Unsupported', `Guest ${name} cannot start by UEFI: ${path} is missing`, {
        cause: error,
        data: { guest: name, firmware: path },
        hint: 'Install it (Debian: ovmf), or make the guest with the firmware bios.',
      });
    }
  }
};

/** What to pin for a new guest; undefined for SeaBIOS. Errors: InvalidArgument, Unsupported. */
export const uefiFor = async (
  { name, firmware }: Pick<GuestSpec, 'name' | 'firmware'>,
  family: MachineFamily,
): Promise<PinnedFirmware | undefined> => {
  if (firmware === 'bios') return undefined;
  if (family === 'microvm') {
    throw new RoostError('InvalidArgument', `Guest ${name} cannot start by UEFI: a microvm has none`, {
      data: { guest: name, machine: family },
      hint: 'Use a q35 machine, or the firmware bios.',
    });
  }
  await requireOvmf(name, OVMF);
  return OVMF;
};

/** Errors: Unsupported when the guest needs firmware that this host does not have. */
export const firmwareFor = async ({
  name,
  machine,
  boot,
}: Launch): Promise<{ readonly firmwarePath?: string }> => {
  if (machine.firmware) {
    await requireOvmf(name, machine.firmware);
    return {};
  }
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
