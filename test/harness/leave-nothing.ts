/** The end of a test that has a daemon: all that was made is deleted, and then nothing of it is left. */
import { expect } from 'vitest';
import { type DaemonHome, guestsInOrderOfDeletion, type RealDaemon } from './real-daemon.ts';

export const leaveNothing = async ({
  home,
  daemon,
}: {
  readonly home: DaemonHome;
  readonly daemon: RealDaemon;
}): Promise<void> => {
  for (const guest of await guestsInOrderOfDeletion(daemon))
    await daemon.succeed('guest-delete', { guest, force: true });
  for (const { name } of (await daemon.client.call('query-networks', {})).networks)
    await daemon.succeed('network-delete', { network: name });
  await daemon.stop();
  const { ledger, host } = await home.compare();
  expect(host).toEqual(ledger);
};
