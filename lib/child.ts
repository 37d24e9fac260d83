/**
 * Children of ours that Node does not know: spawned without the event loop standing still for it, and each reaped as
 * soon as it ends, whatever has become of whoever spawned it.
 */
import { reap, type SpawnRequest, spawnDetached } from '../native/index.ts';
import { deferred } from './abort.ts';
import { signalName } from './signal-name.ts';

/** How our own child ended; nobody else's exit status can be had. */
export interface ExitStatus {
  readonly code: number | null;
  /** Its name; `signal 34` for one without. */
  readonly signal: string | null;
}

export interface Child {
  readonly pid: number;
  /** Resolves once the child is reaped; until then the pid is its own. */
  readonly exit: Promise<ExitStatus>;
  isReaped(): boolean;
  /** Signals it (SIGKILL unless given), unless it is reaped. Does not wait. */
  kill(signal?: NodeJS.Signals): void;
}

const unreaped = new Map<number, (status: ExitStatus) => void>();

/** The descriptors have to stay open until it is done. Errors: NativeError of posix_spawn(3); then nothing runs. */
export const spawnChild = async (request: SpawnRequest): Promise<Child> => {
  listen();
  const pid = await spawnDetached(request);
  const { promise: exit, resolve } = deferred<ExitStatus>();
  let reaped = false;
  unreaped.set(pid, (status) => {
    reaped = true;
    resolve(status);
  });
  // It may have ended before anybody knew its pid.
  reapAll();
  return {
    pid,
    exit,
    isReaped: () => reaped,
    kill: (signal = 'SIGKILL') => {
      if (!reaped) process.kill(pid, signal);
    },
  };
};

let listening = false;

/** By signal and not by pidfd: the pidfd of a traced process is readable before the process can be reaped. */
const listen = (): void => {
  if (listening) return;
  listening = true;
  process.on('SIGCHLD', reapAll);
};

/** One signal may stand for several children; those of Node are looked after by Node. */
const reapAll = (): void => {
  for (const [pid, onReaped] of unreaped) {
    const status = statusOf(pid);
    if (!status) continue;
    unreaped.delete(pid);
    onReaped(status);
  }
};

/** How it ended; undefined while it has not. */
const statusOf = (pid: number): ExitStatus | undefined => {
  try {
    const end = reap(pid);
    return end && { code: end.code, signal: end.signal === null ? null : signalName(end.signal) };
  } catch {
    // ECHILD: it is gone, and how is not to be had.
    return { code: null, signal: null };
  }
};
