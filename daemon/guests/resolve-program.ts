/** The main program of a guest: what its image wants run, and what was asked for over it. Pure but for the look-up. */
import { constants } from 'node:os';
import { isRoostError, RoostError } from '../../protocol/errors.ts';
import type { GuestSpec } from '../../protocol/guest.ts';
import type { OciConfig } from '../../protocol/oci.ts';
import type { ImageId } from '../../protocol/types.ts';
import type { Images } from '../images.ts';
import type { StoredDisk, StoredProgram } from '../inventory/guest-table.ts';

type ProgramSpec = NonNullable<GuestSpec['program']>;

const DEFAULT_STOP_SIGNAL = 'SIGTERM';
const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Names by which a guest that boots a container image has its disks; a user's have others. */
export const programDisks = { root: 'root', upper: 'upper' } as const;

/** Images that such a guest boots by and writes to, where it names none. */
export const microvmImages = {
  kernel: 'microvm-kernel',
  initrd: 'microvm-init',
  upper: 'microvm-upper',
} as const;

const nameOf = (variable: string): string => variable.slice(0, variable.indexOf('='));

/** Later ones take the place of earlier ones. */
const merged = (variables: readonly string[]): readonly string[] => [
  ...new Map(variables.map((variable) => [nameOf(variable), variable])).values(),
];

/** The signal's name; `15` and `TERM` are those of some images. */
const signalName = (text: string): string => {
  const byNumber = Object.entries(constants.signals).find(([, number]) => String(number) === text);
  const name = byNumber?.[0] ?? (text.startsWith('SIG') ? text : `SIG${text}`);
  return name in constants.signals ? name : DEFAULT_STOP_SIGNAL;
};

/** As Docker does: a command takes the place of the image's arguments, an entrypoint that of both. */
const argvOf = ({ entrypoint, command }: ProgramSpec, config: OciConfig): readonly string[] => [
  ...(entrypoint ?? config.entrypoint),
  ...(command ?? (entrypoint === undefined ? config.cmd : [])),
];

/** Errors: InvalidArgument when nothing is to be run. */
export const programOf = (spec: ProgramSpec, image: ImageId, config: OciConfig): StoredProgram => {
  const argv = argvOf(spec, config);
  if (argv.length === 0 || argv[0] === '')
    throw new RoostError('InvalidArgument', `Image ${spec.image} names no program to run`, {
      data: { image: spec.image },
      hint: 'Give a command.',
    });
  const workingDirectory = spec.workingDirectory ?? config.workingDir;
  const user = spec.user ?? config.user;
  return {
    image,
    argv,
    environment: merged([
      DEFAULT_PATH,
      ...config.env.filter((one) => one.includes('=')),
      ...spec.environment,
    ]),
    ...(workingDirectory === undefined ? {} : { workingDirectory }),
    ...(user === undefined ? {} : { user }),
    ...(spec.terminal ? { terminal: true } : {}),
    ...(spec.interactive ? { interactive: true } : {}),
    stopSignal: signalName(config.stopSignal ?? DEFAULT_STOP_SIGNAL),
  };
};

/** Undefined for a guest that runs none. Errors: those of `Images.require`, InvalidArgument when nothing is to be run. */
export const resolveProgram = async (
  { program }: Pick<GuestSpec, 'program'>,
  images: Images,
): Promise<StoredProgram | undefined> => {
  if (program === undefined) return undefined;
  const { id } = images.require(program.image, 'oci');
  return programOf(program, id, await images.store.ociConfig(id));
};

/** The image, which is only read, and what is written over it. Errors: those of `Images.require`. */
export const disksOfProgram = ({ image }: StoredProgram, images: Images): readonly StoredDisk[] => {
  const root = images.require(image, 'oci');
  const upper = requirePart(images, microvmImages.upper, 'disk');
  return [
    { name: programDisks.root, image, sizeBytes: root.stored.virtualSizeBytes, readOnly: true },
    { name: programDisks.upper, image: upper.id, sizeBytes: upper.stored.virtualSizeBytes, readOnly: false },
  ];
};

/** One of the images that every microVM needs. Errors: FailedPrecondition while there is none. */
export const requirePart = (
  images: Images,
  name: string,
  kind: 'kernel' | 'initrd' | 'disk',
): ReturnType<Images['require']> => {
  try {
    return images.require(name, kind);
  } catch (error) {
    if (!isRoostError(error, 'NotFound')) throw error;
    throw new RoostError('FailedPrecondition', `There is no image called ${name}, which microVMs need`, {
      data: { image: name },
      hint: `Build it: image-build with the recipe ${name}. Or import one of your own under that name.`,
    });
  }
};
