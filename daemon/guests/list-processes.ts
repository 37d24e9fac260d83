/** The processes in a guest: by its init, or by ps(1), which the guest agent runs. */
import type { GuestProcess } from '../../protocol/agent.ts';
import { RoostError } from '../../protocol/errors.ts';
import { execStatus } from './agent-exec.ts';
import type { Guest } from './guest.ts';

const MOST = 4096;
const COLUMNS = ['pid', 'ppid', 'uid', 'stat', 'cputimes', 'rss', 'args'] as const;
const LINE = /^ *(\d+) +(\d+) +(\d+) +(\S)\S* +(\d+) +(\d+) (.*)$/;
const KIBIBYTE = 1024;
const MAX_COMMAND = 4096;
/** The parent of all threads of a Linux kernel. */
const KTHREADD = 2;

/** What ps(1) of procps has written; lines of another form are left out. Pure. */
export const parsePs = (text: string): readonly GuestProcess[] =>
  text
    .split('\n')
    .slice(0, MOST)
    .flatMap((line) => {
      const [, pid, parentPid, uid, state = '', seconds, kibibytes, command = ''] = LINE.exec(line) ?? [];
      if (pid === undefined) return [];
      return {
        pid: Number(pid),
        parentPid: Number(parentPid),
        uid: Number(uid),
        state,
        cpuTimeMs: Number(seconds) * 1000,
        residentBytes: Number(kibibytes) * KIBIBYTE,
        command: command.slice(0, MAX_COMMAND),
      };
    })
    .filter(({ pid, parentPid }) => pid !== KTHREADD && parentPid !== KTHREADD);

/** Errors: those of every request; FailedPrecondition where the guest has no ps that does it. */
export const listProcesses = async (
  guest: Guest,
  waiting: { readonly signal: AbortSignal; readonly timeoutMs: number },
): Promise<readonly GuestProcess[]> => {
  const found = await guest.agent.use(
    (agent, limit) => agent.processes?.(limit) ?? Promise.resolve(undefined),
    waiting,
  );
  if (found) return found.slice(0, MOST);
  const request = {
    path: 'ps',
    arg: ['-e', '-o', COLUMNS.map((name) => `${name}=`).join(',')],
    captureOutput: true,
  };
  const pid = await guest.agent.use((agent, limit) => agent.exec(request, limit), waiting);
  const { timeoutMs, signal } = waiting;
  const status = await execStatus(guest, { pid, waitMs: timeoutMs, timeoutMs }, signal);
  if (status.exited && status.exitcode === 0)
    return parsePs(Buffer.from(status.outData ?? '', 'base64').toString('utf8'));
  const said = Buffer.from(status.errData ?? '', 'base64')
    .toString('utf8')
    .trim()
    .slice(0, 200);
  throw new RoostError(
    'FailedPrecondition',
    `ps in guest ${guest.name} ${status.exited ? 'failed' : 'does not end'}`,
    {
      data: {
        guest: guest.name,
        said,
        ...(status.exitcode === undefined ? {} : { exitCode: status.exitcode }),
      },
      hint: 'It needs ps(1) of procps in the guest.',
    },
  );
};
