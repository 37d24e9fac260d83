/**
 * A live guest process, ours or an earlier daemon's: told of its end by the kernel, ended without a race. A pidfd
 * means one process for ever, whatever becomes of the number.
 */
import { closeSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import type { Child, ExitStatus } from '../../lib/child.ts';
import { openPidfd, signalPidfd, type Watch, watchReadable } from '../../native/index.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { ProcessIdentity } from '../driver.ts';
import { askedPath } from './guest-files.ts';
import { identityOf, isSame } from './process-lock.ts';

export class GuestProcess {
  readonly identity: ProcessIdentity;
  /** Resolves when the process is gone, with its exit status if it was our child. Not after `close`. */
  readonly gone: Promise<ExitStatus | undefined>;
  readonly #pidfd: number;
  readonly #watch: Watch;
  readonly #runDirectory: string;
  #open = true;

  private constructor(
    identity: ProcessIdentity,
    pidfd: number,
    runDirectory: string,
    exit: Promise<ExitStatus> | undefined,
  ) {
    this.identity = identity;
    this.#pidfd = pidfd;
    this.#runDirectory = runDirectory;
    const ended = deferred<void>();
    this.#watch = watchReadable(pidfd, ended.resolve);
    this.gone = ended.promise.then(() => exit);
  }

  /** Takes charge of a child that was just spawned; undefined when it is gone already. */
  static async ofChild(child: Child, runDirectory: string): Promise<GuestProcess | undefined> {
    if (child.isReaped()) return undefined;
    const pidfd = openPidfd(child.pid);
    // Until it is reaped, a child that ended keeps its number and its entry in /proc.
    const identity = identityOf(child.pid);
    if (identity) return new GuestProcess(identity, pidfd, runDirectory, child.exit);
    closeSync(pidfd);
    return undefined;
  }

  /** Takes charge of a process by its identity; undefined when it is gone. */
  static async adopt(identity: ProcessIdentity, runDirectory: string): Promise<GuestProcess | undefined> {
    let pidfd: number;
    try {
      pidfd = openPidfd(identity.pid);
    } catch {
      return undefined;
    }
    // The descriptor is of whatever had the number when it was opened; only then can it be checked.
    if (isSame(identity)) return new GuestProcess(identity, pidfd, runDirectory, undefined);
    closeSync(pidfd);
    return undefined;
  }

  /**
   * Kills the process and waits until it is gone. The wish is written down first, so that whoever looks for the cause
   * finds it, also after a crash of the daemon in between.
   */
  async kill(signal: AbortSignal): Promise<void> {
    if (!this.#open) throw new RoostError('FailedPrecondition', 'The guest was let go of');
    await writeFile(askedPath(this.#runDirectory), '').catch(() => undefined);
    this.killNow();
    await waitOrAbort(this.gone, signal);
  }

  /** Kills the process, does not wait, and leaves no word of it. */
  killNow(): void {
    if (!this.#open) return;
    try {
      signalPidfd(this.#pidfd, constants.signals.SIGKILL);
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
    }
  }

  /** Lets go of the process, without touching it. May be called twice. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#watch.close();
    closeSync(this.#pidfd);
  }
}
