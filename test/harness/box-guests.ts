/** Guests that run `box`, the small image of busybox, and a template of one that tests fork. */
import type { CommandInput } from '../../protocol/commands.ts';
import type { GuestView } from '../../protocol/guest.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import type { MicrovmImages } from './microvm-home.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from './real-daemon.ts';

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

/** A daemon of the test's own that has the image. */
export const beginWithBox = async (images: Images): Promise<{ home: DaemonHome; daemon: RealDaemon }> => {
  const home = await testDaemonHome();
  const daemon = await home.start();
  await images.importInto(daemon);
  return { home, daemon };
};

/** Forks of these names, all asked for at once, as each is once it runs. */
export const forkAll = async (
  daemon: RealDaemon,
  template: string,
  names: readonly string[],
): Promise<readonly GuestView[]> =>
  await Promise.all(
    names.map(async (name) => {
      await daemon.succeed('guest-fork', { template, name });
      return await daemon.guest(name);
    }),
  );

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
