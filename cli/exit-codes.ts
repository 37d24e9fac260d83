/** Exit codes of `roost`, in one table: what scripts may rely on, and what docs/reference/exit-codes.md is made from. */
import type { ErrorClass } from '../protocol/errors.ts';

export const exitCodes = {
  success: { code: 0, meaning: 'Done' },
  failed: { code: 1, meaning: 'The command was refused or failed, or its operation failed' },
  usage: { code: 2, meaning: 'The command line or an argument is wrong; nothing was done' },
  notFound: { code: 3, meaning: 'What was named does not exist' },
  unreachable: {
    code: 4,
    meaning: 'No daemon answers on the socket, or it went away and did not come back within two minutes',
  },
  permissionDenied: { code: 5, meaning: 'This user may not do that' },
  differences: { code: 6, meaning: 'fsck found differences between ledger and host, or left some' },
  deadlineExceeded: { code: 124, meaning: 'It did not finish in the time given' },
  notRun: { code: 125, meaning: '`roost run` and nothing else: what it was to run was not run' },
  interrupted: { code: 130, meaning: 'Interrupted by Ctrl-C; an operation already accepted goes on' },
} as const;

export type ExitReason = keyof typeof exitCodes;

/** Error classes that have an exit code of their own; every other is `failed`. */
export const exitReasonOfClass: Readonly<Partial<Record<ErrorClass, ExitReason>>> = {
  InvalidArgument: 'usage',
  CommandNotFound: 'usage',
  NotFound: 'notFound',
  PermissionDenied: 'permissionDenied',
  DeadlineExceeded: 'deadlineExceeded',
};

export const exitCodeOf = (reason: ExitReason): number => exitCodes[reason].code;

/** The code for several results: the highest, which is the one that needs most attention. */
export const worstOf = (codes: readonly number[]): number => Math.max(0, ...codes);
