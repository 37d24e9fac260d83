/**
 * The ways a QMP call can fail, kept apart by who failed: the session never came up
 * ({@link QmpConnectError}), QEMU said no ({@link QmpCommandError}), QEMU's answer makes no sense
 * ({@link QmpReplyError}), the line died first ({@link QmpDisconnectedError}). A call that its caller gave up
 * rejects with the reason of its signal, never with one of these.
 */
import type { QmpEnd, QmpErrorReply } from './qmp-types.ts';

/** What was asked, for a person who reads the error. */
export interface QmpRequest {
  readonly command: string;
  readonly arguments: Readonly<Record<string, unknown>>;
}

export type QmpConnectPhase = 'connect' | 'greeting' | 'negotiation';

/** No session came up; `phase` says how far it got, `cause` why. */
export class QmpConnectError extends Error {
  override readonly name = 'QmpConnectError';
  readonly phase: QmpConnectPhase;

  constructor(phase: QmpConnectPhase, target: string, cause: unknown) {
    const why = cause instanceof Error ? cause.message : String(cause);
    super(`No QMP session with ${target} (${phase}): ${why}`, { cause });
    this.phase = phase;
  }
}

/** QEMU refused or failed the command. Decide by `class`; `desc` is prose. */
export class QmpCommandError extends Error implements QmpRequest {
  override readonly name = 'QmpCommandError';
  readonly class: string;
  readonly desc: string;
  readonly command: string;
  readonly arguments: Readonly<Record<string, unknown>>;

  constructor(request: QmpRequest, reply: QmpErrorReply) {
    super(`${request.command}: ${reply.desc} (${reply.class})`);
    this.class = reply.class;
    this.desc = reply.desc;
    this.command = request.command;
    this.arguments = request.arguments;
  }
}

/** The reply has not the shape that this command's replies have. */
export class QmpReplyError extends Error implements QmpRequest {
  override readonly name = 'QmpReplyError';
  readonly command: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  readonly reply: unknown;

  constructor(request: QmpRequest, reply: unknown, cause: unknown) {
    super(`${request.command}: the reply has an unexpected shape`, { cause });
    this.command = request.command;
    this.arguments = request.arguments;
    this.reply = reply;
  }
}

/** The session ended before the answer; whether the command took effect is not known. */
export class QmpDisconnectedError extends Error implements QmpRequest {
  override readonly name = 'QmpDisconnectedError';
  readonly command: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  readonly end: QmpEnd;

  constructor(request: QmpRequest, end: QmpEnd) {
    super(`${request.command}: ${describeEnd(end)}`, 'error' in end ? { cause: end.error } : {});
    this.command = request.command;
    this.arguments = request.arguments;
    this.end = end;
  }
}

/** The bytes or messages on the line are not QMP. */
export class QmpProtocolError extends Error {
  override readonly name = 'QmpProtocolError';
}

const endTexts: { readonly [R in QmpEnd['reason']]: string } = {
  closed: 'the QMP session was closed',
  eof: 'the monitor ended the QMP session',
  'protocol-error': 'the QMP session broke',
  'socket-error': 'the QMP socket failed',
};

export function describeEnd(end: QmpEnd): string {
  const text = endTexts[end.reason];
  return 'error' in end ? `${text}: ${end.error.message}` : text;
}
