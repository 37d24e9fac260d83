/** Waits, outside of what is measured, until a fork waits for whoever asks. */
import type { Instance } from './instance.ts';

/** Resolves with what resolves once one waits of the template. */
export const waitingIn = async (instance: Instance, template: string): Promise<() => Promise<void>> => {
  const watcher = await instance.connect();
  await watcher.call('events-subscribe', { events: ['OPERATION_CHANGED'] });
  const events = watcher.events()[Symbol.asyncIterator]();
  return async () => {
    for (;;) {
      const { template: seen } = await watcher.call('query-guest', { guest: template });
      if ((seen?.waiting ?? 0) > 0) return;
      await events.next();
    }
  };
};
