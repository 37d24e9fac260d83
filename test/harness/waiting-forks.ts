/** Forks that wait for somebody who asks, seen from outside: only their template and the journal tell of them. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect } from '../../cli/client.ts';
import type { DaemonHome, RealDaemon } from './real-daemon.ts';
import { testDirectory } from './test-directory.ts';

/** Resolves once so many wait of the template. */
export const untilWaiting = async (
  { home, daemon }: { readonly home: DaemonHome; readonly daemon: RealDaemon },
  template: string,
  count: number,
): Promise<void> => {
  const signal = new AbortController().signal;
  const watcher = await connect({ socketPath: `${home.runDirectory}/roost.sock`, signal });
  const events = watcher.events();
  const isReached = async (): Promise<boolean> => (await daemon.guest(template)).template?.waiting === count;
  try {
    await watcher.call('events-subscribe', { events: ['OPERATION_CHANGED'] });
    if (await isReached()) return;
    for await (const _event of events) if (await isReached()) return;
  } finally {
    watcher.close();
  }
};

/** Whether the guest was made before it was asked for. */
export const hasWaited = async (daemon: RealDaemon, guest: string): Promise<boolean> => {
  const { id } = await daemon.guest(guest);
  const { operations } = await daemon.client.call('query-operations', { subject: id });
  return operations.some(({ kind }) => kind === 'guest-prepare');
};

/** What a daemon is told of templates, as arguments for its start. */
export const templateArgs = async (
  templates: { readonly waiting?: number; readonly memoryBytes?: number },
  log: { readonly level?: 'debug' } = {},
): Promise<readonly string[]> => {
  const path = join(await testDirectory(), 'roostd.yaml');
  await writeFile(path, JSON.stringify({ templates, log }));
  return ['--config', path];
};

/** Resolves once so many wait in all and no more is about to be done about them; only a daemon tells that logs all. */
export const untilAsWanted = (daemon: RealDaemon, count: number): Promise<void> =>
  daemon.logged(`"waiting":${count},"msg":"as many guests wait as are wanted"`);
