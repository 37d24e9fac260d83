/** Has a guest mount the directories of the host that it is served. */
import { isRoostError, RoostError } from '../../protocol/errors.ts';
import type { GuestSetup } from '../driver.ts';
import type { MicrovmAgent } from './microvm-agent.ts';

/** mount(2). */
const MS_RDONLY = 1;

/** One after the other: one may lie in another. Errors: FailedPrecondition in the guest's own words. */
export const mountFilesystems = async (
  agent: Pick<MicrovmAgent, 'mount'>,
  { filesystems = [] }: Pick<GuestSetup, 'filesystems'>,
  signal: AbortSignal,
): Promise<void> => {
  for (const { name, target, readOnly } of filesystems)
    try {
      // That the guest knows it, too, is for what it tells its programs: it is the host that keeps it.
      const flags = readOnly ? MS_RDONLY : 0;
      await agent.mount({ source: name, target, fstype: 'virtiofs', flags }, signal);
    } catch (error) {
      throw cannotMount(target, error);
    }
};

const cannotMount = (target: string, error: unknown): unknown => {
  if (!isRoostError(error) || error.data?.['errno'] === undefined) return error;
  const isUnknown = error.data['errno'] === 'ENODEV';
  return new RoostError(
    'FailedPrecondition',
    `The guest cannot mount a directory of the host at ${target}: ${isUnknown ? 'its kernel has no virtiofs' : error.message}`,
    {
      cause: error,
      data: { target, said: error.message },
      hint: isUnknown
        ? 'Its init brings no modules for that. Build microvm-kernel and microvm-init anew (roost image build), and make the guest again.'
        : 'See that nothing of the image is in the way at that path.',
    },
  );
};
