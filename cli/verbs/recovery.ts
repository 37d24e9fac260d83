/** Verbs that find out what happened and mend what is broken. */

import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Difference } from '../../protocol/fsck.ts';
import type { OperationView } from '../../protocol/operation.ts';
import { change } from '../change.ts';
import { exitCodeOf } from '../exit-codes.ts';
import { CliFailure } from '../failure.ts';
import type { Context } from '../io.ts';
import { lastingWait } from '../lasting.ts';
import { printHistory, printJournal } from '../print/explain.ts';
import { printDifferences, printFsck } from '../print/fsck.ts';
import { query, type Verb } from '../verb.ts';

/** Mends, and gives the operation as it ended. */
const repair = async (context: Context): Promise<OperationView> => {
  const connection = await context.client();
  const { operation } = await connection.call('fsck-repair', {}, { signal: context.signal });
  const ended = await lastingWait(context, 'operation-wait', { operation });
  if (ended.error) throw new CliFailure(ended.error);
  return ended;
};

const report = async (context: Context): Promise<number> => {
  const connection = await context.client();
  const found = await connection.call('query-fsck', {}, { signal: context.signal });
  if (context.json) context.printJson(found);
  else context.print(printFsck(found));
  return found.differences.length === 0 ? 0 : exitCodeOf('differences');
};

const mend = async (context: Context): Promise<number> => {
  const ended = await repair(context);
  const {
    found = 0,
    left = [],
    problems = [],
  } = (ended.result ?? {}) as {
    readonly found?: number;
    readonly left?: readonly Difference[];
    readonly problems?: readonly string[];
  };
  if (context.json) context.printJson(ended);
  else {
    context.print(
      found === 0
        ? 'Ledger and host agree; there was nothing to mend.'
        : `${found - left.length} of ${found} mended`,
    );
    for (const problem of problems) context.note(problem);
    context.print(printDifferences(left));
  }
  return left.length === 0 ? 0 : exitCodeOf('differences');
};

const fsck: Verb = {
  words: 'fsck',
  command: 'query-fsck',
  uses: ['fsck-repair', 'operation-wait'],
  summary: 'Compare the ledger with the host, and mend what differs',
  details:
    'Exits with 0 when they agree and with 6 when they do not. Without --repair nothing is changed. docs/recovery.md says what each difference means.',
  positionals: [],
  flags: [
    {
      name: 'repair',
      description: 'Mend what is ours to mend; ends no process and removes no disk in doubt',
    },
  ],
  run: ({ flags }, context) => (flags['repair'] === true ? mend(context) : report(context)),
};

const resetState = change({
  words: 'reset-state',
  command: 'guest-reset-state',
  positionals: [{ name: 'NAME', member: 'guest', variadic: true, complete: 'guest' }],
  flags: [
    { name: 'to', member: 'to' },
    { name: 'force', short: 'f', member: 'force' },
  ],
  done: (args) => `is recorded as ${args['to'] === 'failed' ? 'failed' : 'stopped'}`,
});

const explain = query({
  words: 'explain',
  command: 'query-operation',
  summary: 'Tell in plain words what an operation did, what failed, and what was undone',
  positionals: [
    {
      name: 'OPERATION',
      member: 'operation',
      description: "Id of an operation, as in 'roost operation ls'",
      complete: 'operation',
    },
  ],
  print: (reply, _, { io }) => printJournal(reply, io.now()),
});

const history = query({
  words: 'history',
  command: 'query-guest-history',
  summary: "Tell a guest's life: what was done to it, by whom, and what it did itself",
  details: 'Also of a guest that was deleted, as far back as operations and events are kept.',
  positionals: [{ name: 'NAME', member: 'guest', complete: 'guest' }],
  pages: 'entries',
  print: (reply, _, { note }) => {
    if (reply.deleted) note(`${reply.name} (${reply.id}) is gone from the inventory.`);
    return printHistory(reply.entries);
  },
});

const qmpLog: Verb = {
  words: 'qmp-log',
  command: 'query-guest-qmp-log',
  details:
    'Marks: > asked, < answered, ! refused, * told by the monitor itself, - of the session. What waits for an answer comes last.',
  positionals: [{ name: 'NAME', member: 'guest', complete: 'guest' }],
  flags: [
    { name: 'follow', short: 'f', description: 'Go on with what comes, until Ctrl-C' },
    { name: 'lines', short: 'n', member: 'limit', description: 'Only the last of them, so many' },
  ],
  run: async (...given) => (await import('../qmp-log.ts')).showQmpLog(...given),
};

const ID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/;

const adopt = change({
  words: 'adopt',
  command: 'guest-adopt',
  positionals: [
    {
      name: 'PID|SOCKET|ID',
      description: 'Pid of its process, path of its monitor socket, or id of a stopped guest',
      complete: 'file',
    },
  ],
  prepare: (_args, { positionals }) => {
    const named = String(positionals['PID|SOCKET|ID']);
    if (/^\d+$/.test(named)) return { pid: Number(named) };
    return ID.test(named) ? { guest: named } : { socket: resolve(named) };
  },
  done: (_args, { unknown }) =>
    Array.isArray(unknown)
      ? ['adopted; it had no record, and its process does not know', ...unknown].join('\n    ')
      : 'adopted',
});

/** Of the same release, and beside this program. */
const daemonProgram = (): string => {
  const own = realpathSync(process.argv[1] ?? '');
  return join(dirname(own), basename(own).replace(/^roost\b/, 'roostd'));
};

const recover: Verb = {
  words: 'recover',
  summary: 'Rebuild an inventory that is lost or damaged from the records beside disks, images and networks',
  details:
    'Works while no daemon runs on the state directory, and touches no guest. The damaged database is kept under a dated name. What could not be known is listed. Exits with 6 when something was left out. See docs/recovery.md.',
  positionals: [],
  flags: [
    {
      name: 'state-dir',
      type: 'string',
      value: 'dir',
      description: "The daemon's state directory; /var/lib/roost as root unless given",
      complete: 'file',
    },
    {
      name: 'run-dir',
      type: 'string',
      value: 'dir',
      description: "The daemon's run directory; /run/roost as root unless given",
      complete: 'file',
    },
    {
      name: 'config',
      type: 'string',
      value: 'file',
      description: "The daemon's configuration",
      complete: 'file',
    },
    { name: 'dry-run', description: 'Only say what would be made' },
  ],
  run: async ({ flags }, { io, json, signal }) => {
    const given = ['state-dir', 'run-dir', 'config'].flatMap((name) => {
      const value = flags[name];
      return typeof value === 'string' ? [`--${name}`, value] : [];
    });
    const switches = [...(flags['dry-run'] === true ? ['--dry-run'] : []), ...(json ? ['--json'] : [])];
    return await io.runProgram(
      [process.execPath, daemonProgram(), '--recover', ...given, ...switches],
      signal,
    );
  },
};

export const recoveryVerbs: readonly Verb[] = [explain, history, qmpLog, fsck, adopt, recover, resetState];
