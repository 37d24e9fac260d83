/** Verbs that find out what happened and mend what is broken. */
import type { Difference } from '../../protocol/fsck.ts';
import type { OperationView } from '../../protocol/operation.ts';
import { exitCodeOf } from '../exit-codes.ts';
import { CliFailure } from '../failure.ts';
import type { Context } from '../io.ts';
import { printDifferences, printFsck } from '../print/fsck.ts';
import type { Verb } from '../verb.ts';

/** Mends, and gives the operation as it ended. */
const repair = async ({ client, signal }: Context): Promise<OperationView> => {
  const connection = await client();
  const { operation } = await connection.call('fsck-repair', {}, { signal });
  const ended = await connection.call('operation-wait', { operation }, { signal });
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

export const recoveryVerbs: readonly Verb[] = [fsck];
