/** What goes wrong between the host and our agent in a guest, in the classes of the contract. */
import { getSystemErrorName } from 'node:util';
import { type ErrorClass, RoostError } from '../../protocol/errors.ts';
import { guestText } from '../qemu/agent/agent-types.ts';
import type { FieldReader } from './fields.ts';

/** How much of the guest's own words is passed on. */
const MAX_SAID = 512;

const classOf: Readonly<Record<string, ErrorClass>> = {
  ENOENT: 'NotFound',
  ESRCH: 'NotFound',
  ENODEV: 'NotFound',
  EEXIST: 'AlreadyExists',
  ENOSYS: 'Unsupported',
  EOPNOTSUPP: 'Unsupported',
  ENOTSUP: 'Unsupported',
  EAGAIN: 'Unavailable',
  EBUSY: 'Unavailable',
  ETIMEDOUT: 'DeadlineExceeded',
  ECANCELED: 'Cancelled',
  ENOMEM: 'ResourceExhausted',
  ENOSPC: 'ResourceExhausted',
  EMFILE: 'ResourceExhausted',
  E2BIG: 'InvalidArgument',
};

/** Linux's name of an error number. */
const errnoName = (errno: number): string => {
  try {
    return getSystemErrorName(-errno);
  } catch {
    return `errno ${errno}`;
  }
};

/** The agent refused a request: its class by the error number, its words as they are; `data.errno` is the number's name. */
export const refusal = (request: string, fields: FieldReader): RoostError => {
  const errno = fields.u32('errno') ?? 0;
  const name = errno > 0 && errno < 4096 ? errnoName(errno) : 'unknown';
  const said = guestText(fields.text('message', 4096) ?? '', MAX_SAID);
  return new RoostError(
    classOf[name] ?? 'FailedPrecondition',
    `The guest refused ${request}: ${said === '' ? name : `${said} (${name})`}`,
    { data: { request, errno: name, said }, hint: 'These are the words of the guest; mend it there.' },
  );
};

/** The agent's answer has another form than the protocol gives it. */
export const nonsense = (request: string, cause?: unknown): RoostError =>
  new RoostError('Unavailable', `The guest's agent answered ${request} with what is no answer to it`, {
    cause,
    data: { request },
    hint: 'Its init is broken, of another version, or lies: start the guest with the one of this Roost.',
  });

/** The session with the agent is over. */
export const agentGone = (why: string, cause?: unknown): RoostError =>
  new RoostError('Unavailable', `The guest's agent is out of reach: ${why}`, {
    cause,
    hint: 'Whether the guest has done what it was asked for is not known; the guest itself may run on.',
  });
