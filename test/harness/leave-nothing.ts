/** The end of a test that has a daemon: all that was made is deleted, and then nothing of it is left. */
import { expect } from 'vitest';
import type { DaemonHome, RealDaemon } from './real-daemon.ts';

/** Guests first, and of them templates last, the newest before the older ones: forks lie on them. */
export const leaveNothing = async ({
  home,
  daemon,
}: {
  readonly home: DaemonHome;
  readonly daemon: RealDaemon;
}): Promise<void> => {
  const { guests } = await daemon.client.call('query-guests', { limit: 1000 });
  const age = ({ template }: (typeof guests)[number]): number => template?.madeAt ?? Infinity;
  for (const { name } of guests.toSorted((one, other) => age(other) - age(one)))
    await daemon.succeed('guest-delete', { guest: name ?? '', force: true });
  for (const { name } of (await daemon.client.call('query-networks', {})).networks)
    await daemon.succeed('network-delete', { network: name });
  await daemon.stop();
  const { ledger, host } = await home.compare();
  expect(host).toEqual(ledger);
};
