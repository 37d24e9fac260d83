/** The processes of a guest by its /proc (proc(5)), which its init reads. */
import type { Readable } from 'node:stream';
import type { GuestProcess } from '../../protocol/agent.ts';
import { isRoostError } from '../../protocol/errors.ts';
import { guestText } from '../qemu/agent/agent-types.ts';
import type { MicrovmAgent } from './microvm-agent.ts';

/** Of Linux on every machine that there is: USER_HZ, and the pages of x86. */
const TICKS_PER_SECOND = 100;
const PAGE_BYTES = 4096;
const MOST_PROCESSES = 4096;
/** Read at once: the init has a helper for each. */
const AT_ONCE = 8;
const MAX_FILE_BYTES = 4096;
/** PF_KTHREAD, of the flags in /proc/PID/stat. Their numbers tell nothing: in a container the second process is any. */
const KERNEL_THREAD = 0x0020_0000;

type Stat = Omit<GuestProcess, 'uid' | 'command'> & { readonly name: string; readonly flags: number };

/** /proc/PID/stat; undefined for another form. The name may have anything in it, brackets and spaces too. Pure. */
export const parseStat = (text: string): Stat | undefined => {
  const [open, close] = [text.indexOf('('), text.lastIndexOf(')')];
  const fields = text
    .slice(close + 1)
    .trim()
    .split(/\s+/);
  const number = (index: number): number => Number(fields[index]);
  const read = {
    pid: Number(text.slice(0, open)),
    name: guestText(text.slice(open + 1, close), 64),
    state: fields[0] ?? '',
    parentPid: number(1),
    flags: number(6),
    cpuTimeMs: ((number(11) + number(12)) * 1000) / TICKS_PER_SECOND,
    residentBytes: number(21) * PAGE_BYTES,
  };
  const { name: _name, state, ...numbers } = read;
  const isGood = open > 0 && close > open && state.length === 1;
  return isGood && Object.values(numbers).every((value) => Number.isSafeInteger(value) && value >= 0)
    ? read
    : undefined;
};

/** /proc/PID/cmdline. Pure. */
export const commandOf = (cmdline: string, name: string): string =>
  cmdline === '' ? `[${name}]` : guestText(cmdline.replace(/\0+$/, '').replaceAll('\0', ' '), MAX_FILE_BYTES);

const textOf = async (content: Readable): Promise<string> => {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const chunk of content as AsyncIterable<Buffer>) {
    parts.push(chunk);
    size += chunk.length;
    if (size >= MAX_FILE_BYTES) break;
  }
  return Buffer.concat(parts).subarray(0, MAX_FILE_BYTES).toString('utf8');
};

/** One that has ended meanwhile is none. */
const readProcess = async (
  agent: MicrovmAgent,
  pid: string,
  signal: AbortSignal,
): Promise<GuestProcess | undefined> => {
  try {
    const { status, content } = await agent.readFile(`/proc/${pid}/stat`, signal);
    const stat = parseStat(await textOf(content));
    if (!stat || (stat.flags & KERNEL_THREAD) !== 0) return undefined;
    const { name, flags: _flags, ...rest } = stat;
    const cmdline = await textOf((await agent.readFile(`/proc/${pid}/cmdline`, signal)).content);
    return { ...rest, uid: status.uid, command: commandOf(cmdline, name) };
  } catch (error) {
    signal.throwIfAborted();
    if (agent.broken.aborted || !isRoostError(error)) throw error;
    return undefined;
  }
};

/** In the order of their numbers. */
export const readProcesses = async (
  agent: MicrovmAgent,
  signal: AbortSignal,
): Promise<readonly GuestProcess[]> => {
  const pids = (await agent.list('/proc', signal))
    .map((name) => name.toString('latin1'))
    .filter((name) => /^[1-9]\d{0,6}$/.test(name))
    .toSorted((one, other) => Number(one) - Number(other))
    .slice(0, MOST_PROCESSES);
  const found: (GuestProcess | undefined)[] = [];
  for (let index = 0; index < pids.length; index += AT_ONCE)
    found.push(
      ...(await Promise.all(
        pids.slice(index, index + AT_ONCE).map((pid) => readProcess(agent, pid, signal)),
      )),
    );
  return found.filter((process) => process !== undefined);
};
