/**
 * A failure as the user sees it: the wire's own error, with the exit code that goes with it. Kept apart from
 * protocol/errors.ts so that the plain commands start without loading the schemas.
 */
import type { ErrorClass, ErrorData, WireError } from '../protocol/errors.ts';
import { type ExitReason, exitCodeOf, exitReasonOfClass } from './exit-codes.ts';
import { hintInVerbs } from './verb-words.ts';

export class CliFailure extends Error {
  override readonly name = 'CliFailure';
  readonly wire: WireError;
  readonly exitCode: number;

  constructor(wire: WireError, reason?: ExitReason, cause?: unknown) {
    super(wire.desc, cause === undefined ? undefined : { cause });
    this.wire = wire;
    this.exitCode = exitCodeOf(reason ?? exitReasonOfClass[wire.class] ?? 'failed');
  }

  /** The same with another exit code. */
  withReason(reason: ExitReason): CliFailure {
    return new CliFailure(this.wire, reason, this);
  }

  /** The same with a further sentence. */
  because(text: string): CliFailure {
    const told = new CliFailure({ ...this.wire, desc: `${this.wire.desc}. ${text}` }, 'unreachable', this);
    return told;
  }
}

/** Whether the daemon went away, or is about to; what it was asked may be asked again of the next one. */
export const isAway = (error: unknown): boolean =>
  error instanceof CliFailure &&
  (error.exitCode === exitCodeOf('unreachable') || error.wire.data?.['daemon'] === 'stopping');

/** Whether a daemon may be there that says nothing, as one does that stands still until its watchdog ends it. */
export const isSilent = (error: unknown): boolean =>
  error instanceof CliFailure && error.wire.data?.['daemon'] === 'silent';

/** The command line is wrong. */
export const usageFailure = (desc: string, hint?: string): CliFailure =>
  new CliFailure({ class: 'InvalidArgument', desc, ...(hint === undefined ? {} : { hint }) });

/** No daemon to talk to, or no longer. */
export const unreachable = (desc: string, hint: string, cause?: unknown): CliFailure =>
  new CliFailure({ class: 'Unavailable', desc, hint }, 'unreachable', cause);

/** The user ended the command by a signal. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly exitCode: number;

  constructor(signalNumber = 2) {
    super('Interrupted');
    this.exitCode = 128 + signalNumber;
  }
}

const isWireError = (value: unknown): value is WireError =>
  typeof value === 'object' && value !== null && 'class' in value && 'desc' in value;

/** What a daemon answered as `error`; a strange answer is kept in words. */
export const failureFromWire = (error: unknown): CliFailure =>
  isWireError(error)
    ? new CliFailure(error)
    : new CliFailure({
        class: 'Internal' satisfies ErrorClass,
        desc: `Strange error: ${JSON.stringify(error)}`,
      });

/** Any thrown value as a failure; what is not one is a defect of ours. */
export const toFailure = (error: unknown): CliFailure => {
  if (error instanceof CliFailure) return error;
  const desc = error instanceof Error ? error.message : String(error);
  return new CliFailure(
    {
      class: 'Internal',
      desc: `Unexpected failure: ${desc}`,
      hint: 'This is a defect in roost; please report it.',
    },
    'failed',
    error,
  );
};

interface Issue {
  readonly path: string;
  readonly message: string;
}

const isIssue = (value: unknown): value is Issue =>
  typeof value === 'object' && value !== null && 'path' in value && 'message' in value;

/** The parts of `data` that help a person: single issues of an argument, a tool's own words, similar names. */
const factLines = (data: ErrorData, desc: string): string[] => {
  const lines: string[] = [];
  const { issues, stderr, candidates } = data;
  if (Array.isArray(issues) && issues.length > 1) {
    const known: readonly unknown[] = issues;
    const untold = known.filter(isIssue).filter((issue) => !desc.includes(issue.message));
    lines.push(...untold.map((issue) => `  ${issue.path}: ${issue.message}`));
  }
  if (typeof stderr === 'string')
    lines.push(
      ...stderr
        .trimEnd()
        .split('\n')
        .map((line) => `  ${line}`),
    );
  const names = Array.isArray(candidates) ? candidates.filter((name) => typeof name === 'string') : [];
  if (names.length > 0) {
    lines.push(`Did you mean ${names.map((name) => `'${name}'`).join(' or ')}?`);
  }
  return lines;
};

interface Telling {
  /** What it happened to, where several were named. */
  readonly subject?: string;
  /** The user spoke the contract's words; so does the hint. */
  readonly plain?: boolean;
}

/** Lines for standard error, without their line ends. */
export const failureLines = (failure: CliFailure, { subject, plain = false }: Telling = {}): string[] => {
  const { desc, hint, data } = failure.wire;
  return [
    `roost: ${subject === undefined ? '' : `${subject}: `}${desc}`,
    ...(data === undefined ? [] : factLines(data, desc)),
    ...(hint === undefined ? [] : [`hint: ${plain ? hint : hintInVerbs(hint)}`]),
  ];
};
