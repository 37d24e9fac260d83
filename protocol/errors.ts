/**
 * The error classes of the contract. A class says what the caller does next, never where the failure arose;
 * `data` carries machine-readable facts, `hint` the next step in words. Clients match on `class` only: `desc`
 * is for people and may change (QMP specification, "Error").
 */
import { z } from 'zod';

export const errorClasses = {
  InvalidArgument: 'The request itself is wrong: correct it and send it again.',
  CommandNotFound: 'The daemon knows no such command: see query-commands.',
  NotFound: 'The named object does not exist: list what does.',
  AlreadyExists: 'An object of that name exists already: choose another name or use the existing one.',
  FailedPrecondition: 'The object is not in a state that allows this: change its state first.',
  PermissionDenied: 'This client may not do that: use one with the needed role.',
  ResourceExhausted: 'The host lacks memory, disk or another resource: free some, or ask for less.',
  Unavailable: 'It cannot be done now, but may work later without any change: try again.',
  DeadlineExceeded:
    'It did not finish in the time given: look at the operation, then wait longer or force it.',
  Cancelled: 'Somebody cancelled it: nothing is left to do.',
  Unsupported: 'This driver, binary or host cannot do that: see query-host for what it can.',
  HostError: 'The host, QEMU or a tool refused: the data has its own words; mend the host and try again.',
  DataLoss: 'Stored data is damaged: see the documentation on recovery before anything else.',
  Internal: 'A defect in Roost: report it with the data shown.',
} as const;

export type ErrorClass = keyof typeof errorClasses;

export const errorClass = z.enum(Object.keys(errorClasses) as [ErrorClass, ...ErrorClass[]]);

/** The `error` member of a reply: QMP's `class` and `desc`, and beyond QMP `data` and `hint`. */
export const wireError = z.strictObject({
  class: errorClass.describe('Stable class; names what the caller does next'),
  desc: z.string().describe('What happened, to what; for people'),
  data: z.record(z.string(), z.json()).optional().describe('Machine-readable facts'),
  hint: z.string().optional().describe('What to do next; for people'),
});

export type WireError = Readonly<z.infer<typeof wireError>>;
export type ErrorData = NonNullable<WireError['data']>;

export interface RoostErrorDetail {
  readonly data?: ErrorData;
  readonly hint?: string;
  readonly cause?: unknown;
}

/** The only error that reaches a client as it is; every other becomes `Internal`. */
export class RoostError extends Error {
  readonly class: ErrorClass;
  readonly data: ErrorData | undefined;
  readonly hint: string | undefined;

  constructor(errorClass: ErrorClass, message: string, detail: RoostErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.name = 'RoostError';
    this.class = errorClass;
    this.data = detail.data;
    this.hint = detail.hint;
  }

  /** The error again as it came over the wire or out of the journal. */
  static fromWire(error: WireError): RoostError {
    return new RoostError(error.class, error.desc, {
      ...(error.data === undefined ? {} : { data: error.data }),
      ...(error.hint === undefined ? {} : { hint: error.hint }),
    });
  }

  toWire(): WireError {
    return {
      class: this.class,
      desc: this.message,
      ...(this.data === undefined ? {} : { data: this.data }),
      ...(this.hint === undefined ? {} : { hint: this.hint }),
    };
  }
}

/** What a request is answered with that the daemon does not live to answer; clients know it by its data. */
export const daemonStopping = (): RoostError =>
  new RoostError('Unavailable', 'The daemon is stopping', {
    data: { daemon: 'stopping' },
    hint: 'Operations that were accepted go on when it runs again.',
  });

export const isRoostError = (error: unknown, wanted?: ErrorClass): error is RoostError =>
  error instanceof RoostError && (wanted === undefined || error.class === wanted);

/** Any thrown value as a RoostError; what is not one already is a defect of ours. */
export const toRoostError = (error: unknown): RoostError => {
  if (error instanceof RoostError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new RoostError('Internal', `Unexpected failure: ${message}`, {
    cause: error,
    hint: 'This is a defect in Roost; the daemon log has the stack. Please report it.',
  });
};
