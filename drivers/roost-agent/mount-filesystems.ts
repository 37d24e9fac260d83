/** Has a guest mount the directories of the host: those that it is served, and those that it has been given as disks. */
import { isRoostError, RoostError } from '../../protocol/errors.ts';
import type { GuestSetup } from '../driver.ts';
import type { GuestMount, MicrovmAgent } from './microvm-agent.ts';

/** mount(2). */
const MS_RDONLY = 1;

/** One after the other: one may lie in another. Errors: FailedPrecondition in the guest's own words. */
export const mountFilesystems = async (
  agent: Pick<MicrovmAgent, 'mount'>,
  { filesystems = [] }: Pick<GuestSetup, 'filesystems'>,
  signal: AbortSignal,
): Promise<void> => {
  for (const filesystem of filesystems)
    try {
      await agent.mount(mountOf(filesystem), signal);
    } catch (error) {
      throw cannotMount(filesystem, error);
    }
};

type Filesystem = NonNullable<GuestSetup['filesystems']>[number];

const mountOf = ({ name, target, readOnly, serial }: Filesystem): GuestMount => {
  // That the guest knows it, too, is for what it tells its programs: it is the host that keeps it.
  const flags = readOnly ? MS_RDONLY : 0;
  if (serial === undefined) return { source: name, target, fstype: 'virtiofs', flags };
  const source = `serial:${serial}`;
  return readOnly
    ? { source, target, fstype: 'squashfs', flags }
    : { source, target, fstype: 'overlay', flags, options: name };
};

const cannotMount = ({ target, serial }: Filesystem, error: unknown): unknown => {
  if (!isRoostError(error) || error.data?.['errno'] === undefined) return error;
  if (serial !== undefined) return cannotMountCopy(target, error);
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

/** An init that an earlier Roost built takes the serial number for a path, and the name for an option. */
const olderInit: ReadonlySet<unknown> = new Set(['ENOENT', 'EINVAL']);

const cannotMountCopy = (target: string, error: RoostError): RoostError =>
  new RoostError(
    'FailedPrecondition',
    `The guest cannot mount the copy of a directory of the host at ${target}: ${error.message}`,
    {
      cause: error,
      data: { target, said: error.message },
      hint: olderInit.has(error.data?.['errno'])
        ? 'Its init may be of an earlier Roost: build microvm-init anew (roost image build), and make the guest again.'
        : 'See that nothing of the image is in the way at that path.',
    },
  );
