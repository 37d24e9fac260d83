/**
 * What a failed system call or tool means to whoever asked storage for something: one table for all of storage.
 * Errors of the contract, aborts and defects pass through as they are.
 */
import { ExecError } from '../../lib/exec-result.ts';
import { type ErrorData, RoostError } from '../../protocol/errors.ts';

/** errno names, and what the C library and xorriso say for them, of a file system that can take no more. */
const fullErrnos: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);
const fullTexts = /No space left on device|Disk quota exceeded|File too large|exceeds free space on media/;

const isErrno = (error: unknown): error is NodeJS.ErrnoException =>
  error instanceof Error && 'code' in error && 'syscall' in error;

/** Whether a tool or system call failed because the file system is full, or a limit on file sizes was met. */
export const saysFull = (error: unknown): boolean => {
  if (error instanceof ExecError) return error.terminatedBy === 'SIGXFSZ' || fullTexts.test(error.stderr);
  return isErrno(error) && fullErrnos.has(error.code ?? '');
};

const toolFacts = (error: ExecError): ErrorData => ({
  tool: error.argv.join(' '),
  stderr: error.stderr.slice(-4096),
  ...(error.exitCode === undefined ? {} : { exitCode: error.exitCode }),
  ...(error.terminatedBy === undefined ? {} : { terminatedBy: error.terminatedBy }),
});

const errnoFacts = (error: NodeJS.ErrnoException): ErrorData => ({
  errno: error.code ?? 'unknown',
  ...(error.syscall === undefined ? {} : { syscall: error.syscall }),
  ...(error.path === undefined ? {} : { path: error.path }),
});

/** Facts of a failed tool or system call; undefined for any other error. */
export const failureFacts = (error: unknown): ErrorData | undefined => {
  if (error instanceof ExecError) return toolFacts(error);
  return isErrno(error) ? errnoFacts(error) : undefined;
};

/**
 * `error` in the contract's words. `doing` completes "Could not …".
 * ResourceExhausted when the file system is full, else HostError.
 */
export const toStorageError = (error: unknown, doing: string): unknown => {
  const data = failureFacts(error);
  if (data === undefined) return error;
  if (saysFull(error)) {
    return new RoostError('ResourceExhausted', `Could not ${doing}: the file system is full`, {
      data,
      hint: 'Free space on it, or move the state directory to a larger one, then try again.',
      cause: error,
    });
  }
  const message = error instanceof Error ? error.message : String(error);
  return new RoostError('HostError', `Could not ${doing}: ${message}`, {
    data,
    hint: 'Mend what the message names, then try again.',
    cause: error,
  });
};

/** Runs `action`; its failures come out as `toStorageError` puts them. */
export const withStorageErrors = async <T>(doing: string, action: () => Promise<T>): Promise<T> => {
  try {
    return await action();
  } catch (error) {
    throw toStorageError(error, doing);
  }
};
