/** How each directory of the host is given to a guest that is to be made: shared or copied, and what its user is told. */
import { RoostError } from '../../protocol/errors.ts';
import type { GuestSpec } from '../../protocol/guest.ts';
import type { House } from './house.ts';
import type { GuestRegistry } from './registry.ts';

type Chosen = GuestSpec['filesystems'][number] & { readonly mode: 'share' | 'copy' };

export interface ChosenFilesystems {
  readonly filesystems: readonly Chosen[];
  readonly warnings: string[];
}

/** Pure. `cannotShare`: why directories cannot be shared here, where they cannot. */
export const chooseModes = (
  filesystems: GuestSpec['filesystems'],
  cannotShare: string | undefined,
): ChosenFilesystems => {
  const warnings: string[] = [];
  const chosen = filesystems.map((filesystem): Chosen => {
    const { mode, source, readOnly } = filesystem;
    if (mode !== 'auto') return { ...filesystem, mode };
    if (cannotShare === undefined) return { ...filesystem, mode: 'share' };
    const meaning = readOnly
      ? 'what changes on the host is not seen in the guest'
      : 'what is written does not come back, and what changes on the host is not seen';
    warnings.push(`the guest has a copy of ${source}, because ${cannotShare}: ${meaning}`);
    return { ...filesystem, mode: 'copy' };
  });
  return { filesystems: chosen, warnings };
};

/** Errors: those of `Pool.requireCopyable`, and InvalidArgument for a guest without a program. */
export const chooseFilesystems = async (
  { pool }: Pick<House, 'pool'>,
  registry: Pick<GuestRegistry, 'driverOf'>,
  spec: GuestSpec,
): Promise<ChosenFilesystems> => {
  const { name, program, filesystems } = spec;
  if (filesystems.length === 0) return { filesystems: [], warnings: [] };
  if (program === undefined)
    throw new RoostError(
      'InvalidArgument',
      `Guest ${name} runs no program of an image, whose init would mount directories of the host`,
      {
        data: { guest: name },
        hint: 'Give it a program; or copy files by `roost cp`, or share them over the network.',
      },
    );
  const cannotShare = filesystems.some(({ mode }) => mode === 'auto')
    ? await registry.driverOf(spec).cannotShare?.()
    : undefined;
  const chosen = chooseModes(filesystems, cannotShare);
  for (const { mode, source } of chosen.filesystems) if (mode === 'copy') await pool.requireCopyable(source);
  return chosen;
};
