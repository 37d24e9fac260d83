/** Exit codes of a program that was run in a guest, as docker run and a shell have them. */
import { exitCodeOf } from './exit-codes.ts';
import { CliFailure } from './failure.ts';

/** It could not be run at all, not be executed, not be found; it was ended by a signal. */
export const programCodes = {
  notRun: exitCodeOf('notRun'),
  notExecutable: 126,
  notFound: 127,
  signalled: 128,
} as const;

/** Of a program that an agent was asked to run; undefined where something else is what failed. */
export const exitCodeOfRefusal = (error: unknown): number | undefined => {
  if (!(error instanceof CliFailure) || error.wire.data?.['program'] === undefined) return undefined;
  switch (error.wire.data['errno']) {
    case 'ENOENT':
      return programCodes.notFound;
    case 'EACCES':
    case 'ENOEXEC':
      return programCodes.notExecutable;
    default:
      return undefined;
  }
};
