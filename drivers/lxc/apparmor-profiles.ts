/**
 * The AppArmor profile that liblxc generates for a container (`lxc.apparmor.profile = generated`), and the namespace of policies
 * with it: it takes both back when the container has ended, but for one that was killed.
 */
import { readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { orIfMissing } from '../../lib/durable-files.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestId } from '../../protocol/types.ts';

const APPARMOR = '/sys/kernel/security/apparmor';

/** As liblxc calls them, whatever the path of its containers. */
const isOf = (guest: GuestId, name: string): boolean => name.startsWith(`lxc-${guest}_`);

/** A line of the kernel's list is `NAME (MODE)`. Pure. */
export const profilesIn = (list: string, guest: GuestId): readonly string[] =>
  list
    .split('\n')
    .filter((line) => isOf(guest, line))
    .map((line) => line.replace(/ \(\w+\)$/, ''));

/** Once no process is in the container: without its profile it would be free of it. May be done again. Errors: HostError. */
export const removeProfiles = async (guest: GuestId): Promise<void> => {
  // Who may not look has loaded none.
  const profiles = profilesIn(await readFile(join(APPARMOR, 'profiles'), 'utf8').catch(() => ''), guest);
  const namespaces = join(APPARMOR, 'policy/namespaces');
  try {
    for (const name of profiles) await orIfMissing(writeFile(join(APPARMOR, '.remove'), name), undefined);
    for (const name of await orIfMissing(readdir(namespaces), []))
      if (isOf(guest, name)) await orIfMissing(rmdir(join(namespaces, name)), undefined);
  } catch (error) {
    throw new RoostError('HostError', `The AppArmor profile of the container could not be removed`, {
      cause: error,
      data: { guest, profiles: [...profiles] },
      hint: 'See with aa-status what uses it.',
    });
  }
};
