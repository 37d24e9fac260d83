/** Guests that run `box`, the small image of busybox, and a template of one that tests fork. */
import type { CommandInput } from '../../protocol/commands.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import type { MicrovmImages } from './microvm-home.ts';
import type { DaemonHome, RealDaemon } from './real-daemon.ts';

/** The spec of one that does nothing for a day, under TCG and without a network. */
export const boxGuest = (
  name: string,
  more: Partial<CommandInput<'guest-create'>> = {},
): CommandInput<'guest-create'> => ({
  name,
  machine: 'microvm',
  memoryBytes: 128 * MEBIBYTE,
  program: { image: 'box', command: ['sleep', '100000'] },
  qemu: { accel: 'tcg' },
  ...more,
});

type Images = Pick<MicrovmImages, 'importInto'>;

/** Gives a new daemon the template `mother` on the network `lan`, of which nothing has been forked yet. */
export const makeMother = async (daemon: RealDaemon, images: Images, asTemplate = true): Promise<void> => {
  await images.importInto(daemon);
  await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
  await daemon.succeed('guest-create', boxGuest('mother', { nics: [{ network: 'lan' }] }));
  if (asTemplate) await daemon.succeed('template-create', { guest: 'mother' });
};

/** The same for a daemon that starts there later; without `asTemplate` the guest is there to become one. */
export const leaveMother = async (home: DaemonHome, images: Images, asTemplate = true): Promise<void> => {
  const daemon = await home.start();
  await makeMother(daemon, images, asTemplate);
  await daemon.stop();
};
