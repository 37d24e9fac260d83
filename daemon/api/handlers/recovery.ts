/** Handlers of what finds out and mends: fsck. */
import type { Handlers } from '../call.ts';
import type { Services } from './services.ts';

type FsckCommands = 'query-fsck' | 'fsck-repair';

export const fsckHandlers = ({ fsck }: Services): Pick<Handlers, FsckCommands> => ({
  'query-fsck': (_args, call) => fsck.report(call.signal),
  'fsck-repair': (args, call) => fsck.repair(args, call.actor),
});
