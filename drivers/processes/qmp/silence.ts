/**
 * Says why a QEMU that does not answer on its monitor is silent, from what the kernel tells about its threads
 * (proc(5): `/proc/PID/task/TID/stat` and `wchan`). A late answer alone proves nothing about a guest.
 */
import { readdir, readFile } from 'node:fs/promises';

/**
 * `stopped`: by a signal, a debugger or the freezer, and silent until continued; one thread is enough, because the
 * others wait for what it holds. `storage`: a thread waits uninterruptibly in the kernel, in practice for a disk or a
 * network file system; not always the one that serves the monitor, which waits for it. `busy`: alive and neither; wait. `dead`: a zombie, or gone. `unknown`: the kernel would not tell.
 */
export type Silence = 'stopped' | 'storage' | 'busy' | 'dead' | 'unknown';

export interface TaskState {
  /** One letter, the third field of `stat`. */
  readonly state: string;
  /** Kernel function that the thread sleeps in; empty or `0` where not known. */
  readonly wchan: string;
}

/**
 * Where frozen threads sleep: in state D under cgroup v1's freezer, in state S under v2's, whose trap compilers
 * like to inline into its only caller.
 */
const FREEZER_WCHANS: ReadonlySet<string> = new Set(['__refrigerator', 'do_freezer_trap', 'get_signal']);

/**
 * Where threads sleep that wait for a file system in user space (FUSE), also virtiofs: in state S, as if a signal could
 * end it, until a signal comes.
 */
const STORAGE_WCHANS: ReadonlySet<string> = new Set(['request_wait_answer']);

/**
 * Classifies the process `pid` at this moment. Only a process whose identity the caller has checked tells
 * anything; the number may belong to another by now.
 */
export async function classifySilence(pid: number): Promise<Silence> {
  const tasks = await readTasks(pid);
  return tasks === 'unknown' ? 'unknown' : classifyTasks(tasks);
}

/** The pure half: what the states of all threads of a process mean. No thread at all means dead. */
export function classifyTasks(tasks: readonly TaskState[]): Silence {
  const living = tasks.filter((task) => !isDead(task));
  if (living.length === 0) return 'dead';
  if (living.some(waitsForStorage)) return 'storage';
  if (living.some(isStopped) || living.every(isFrozen)) return 'stopped';
  return 'busy';
}

/**
 * The state letter in a `stat` line: the field after the last `)`, because the name before it may hold
 * anything, parentheses and spaces too. `undefined` for a line of another shape.
 */
export function parseTaskState(stat: string): string | undefined {
  return /^ (\S) /.exec(stat.slice(stat.lastIndexOf(')') + 1))?.[1];
}

function isDead(task: TaskState): boolean {
  return task.state === 'Z' || task.state === 'X' || task.state === 'x';
}

function isFrozen(task: TaskState): boolean {
  return FREEZER_WCHANS.has(task.wchan);
}

function waitsForStorage(task: TaskState): boolean {
  return (task.state === 'D' && !isFrozen(task)) || STORAGE_WCHANS.has(task.wchan);
}

function isStopped(task: TaskState): boolean {
  return task.state === 'T' || task.state === 't';
}

async function readTasks(pid: number): Promise<readonly TaskState[] | 'unknown'> {
  const directory = `/proc/${pid}/task`;
  try {
    const tids = await readdir(directory);
    const tasks = await Promise.all(tids.map((tid) => readTask(`${directory}/${tid}`)));
    return tasks.includes('unknown') ? 'unknown' : tasks.filter((task) => typeof task === 'object');
  } catch (error) {
    return isGone(error) ? [] : 'unknown';
  }
}

async function readTask(directory: string): Promise<TaskState | 'gone' | 'unknown'> {
  try {
    const state = parseTaskState(await readFile(`${directory}/stat`, 'utf8'));
    return state === undefined ? 'unknown' : { state, wchan: await readWchan(directory) };
  } catch (error) {
    return isGone(error) ? 'gone' : 'unknown';
  }
}

/** Empty where it can't be read: only the freezer and FUSE are known by it. */
async function readWchan(directory: string): Promise<string> {
  try {
    return await readFile(`${directory}/wchan`, 'utf8');
  } catch {
    return '';
  }
}

/** A thread that ends while it is read shows as ESRCH, one that ended before as ENOENT. */
function isGone(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH');
}
