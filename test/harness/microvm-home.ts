/** A daemon's inventory with what container images boot by, and a small image of busybox. */
import { join } from 'node:path';
import type { CommandInput } from '../../protocol/commands.ts';
import { makeMicrovmParts } from '../guests/microvm.ts';
import { archiveOf, Layout, tool } from './oci-layout.ts';
import type { ChangingCommand } from './real-daemon.ts';
import { makeDirectory } from './test-directory.ts';

/** Who takes them in: a daemon of a test, or of the bench. */
interface Importing {
  readonly succeed: <N extends ChangingCommand>(name: N, args: CommandInput<N>) => Promise<unknown>;
}

export interface MicrovmImages {
  /** Holds all of it; the maker removes it. */
  readonly directory: string;
  /** Takes the images in: `box`, and the three by which it boots. */
  importInto(daemon: Importing): Promise<void>;
}

const UPPER_SIZE = '256M';

/** Made once for a file of tests; a few seconds. */
export const makeMicrovmImages = async (): Promise<MicrovmImages> => {
  const directory = await makeDirectory('microvm-images');
  const parts = await makeMicrovmParts(directory);
  const upper = join(directory, 'upper.raw');
  await tool(['mke2fs', '-q', '-t', 'ext4', upper, UPPER_SIZE]);
  const layout = await Layout.make(join(directory, 'layout'));
  const layer = await layout.layer(await archiveOf(join(directory, 'root'), join(directory, 'layer.tar')));
  await layout.image('box', [layer], {
    config: { Env: ['PATH=/bin', 'COLOUR=red'], Cmd: ['sh', '-c', 'echo "no command"'], WorkingDir: '/srv' },
  });
  return {
    directory,
    importInto: async (daemon) => {
      await daemon.succeed('image-import', { name: 'microvm-kernel', kind: 'kernel', path: parts.vmlinux });
      await daemon.succeed('image-import', { name: 'microvm-init', kind: 'initrd', path: parts.initramfs });
      await daemon.succeed('image-import', { name: 'microvm-upper', format: 'raw', path: upper });
      await daemon.succeed('image-import', { name: 'box', kind: 'oci', path: layout.path });
    },
  };
};
