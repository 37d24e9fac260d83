/** `roost top`: the processes in a guest. */
import type { Context } from './io.ts';
import { renderTable } from './print/table.ts';
import { formatSize } from './units.ts';
import type { Invocation } from './verb.ts';

const time = (ms: number): string => {
  const seconds = Math.floor(ms / 1000);
  const part = (value: number): string => String(value).padStart(2, '0');
  return `${Math.floor(seconds / 3600)}:${part(Math.floor(seconds / 60) % 60)}:${part(seconds % 60)}`;
};

export const topOfGuest = async ({ positionals }: Invocation, context: Context): Promise<number> => {
  const client = await context.client();
  const args = { guest: String(positionals['NAME']) };
  const { processes } = await client.call('query-guest-processes', args, { signal: context.signal });
  if (context.json) context.printJson(processes);
  else
    context.print(
      renderTable(
        ['pid', 'ppid', 'uid', 'state', 'time', 'memory', 'command'],
        processes.map(({ pid, parentPid, uid, state, cpuTimeMs, residentBytes, command }) => [
          String(pid),
          String(parentPid),
          String(uid),
          state,
          time(cpuTimeMs),
          formatSize(residentBytes),
          command,
        ]),
      ),
    );
  return 0;
};
