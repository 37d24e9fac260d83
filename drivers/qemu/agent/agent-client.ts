/**
 * The line to the agent of one guest: made when it is first needed, synchronized whenever it is new, one request at a
 * time. It trusts nothing: a reply has bounds and a form, a line that is in doubt is let go of, and what a request that
 * was given up left behind is thrown away by the next sync. Whether somebody listens at the other end is told to it by
 * QEMU's events, so that nothing is asked of a guest without an agent.
 */
import { deferred, waitOrAbort } from '../../../lib/abort.ts';
import { Mailbox } from '../../../lib/mailbox.ts';
import type { ExecRequest, ExecStatus } from '../../../protocol/agent.ts';
import { isRoostError, RoostError } from '../../../protocol/errors.ts';
import type { GuestAgent, Observer } from '../../driver.ts';
import { AgentLine, AgentLineError } from './agent-line.ts';
import {
  type AgentCommandName,
  type AgentReturn,
  agentErrorSchema,
  agentReturns,
  guestText,
  interfacesOf,
  MAX_EXEC_REPLY_BYTES,
  MAX_REPLY_BYTES,
} from './agent-types.ts';

/** Requests that may wait for the one under way. */
const MAX_WAITING = 64;
/** How much of an agent's own words is passed on. */
const MAX_SAID = 256;
/** In a millisecond. */
const NANOSECONDS = 1_000_000;

type Arguments = Readonly<Record<string, unknown>>;

export class AgentClient implements GuestAgent {
  readonly #path: string;
  readonly #mailbox = new Mailbox();
  readonly #closing = new AbortController();
  #line: AgentLine | undefined;
  #isOpen = false;
  #opened = deferred<void>();

  /** `path`: the host end of the channel, a unix socket. */
  constructor(path: string) {
    this.#path = path;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** An event, or QEMU's answer, about the guest's end. The next program behind it knows nothing of what was asked. */
  portChanged(isOpen: boolean): void {
    if (this.#isOpen === isOpen) return;
    this.#isOpen = isOpen;
    this.#line?.break('the agent closed the channel');
    this.#line = undefined;
    if (isOpen) this.#opened.resolve();
    else this.#opened = deferred<void>();
  }

  /** The same observer, behind this client: whoever is told of the agent can ask it already. */
  listening(observe: Observer): Observer {
    return (observation, cursor) => {
      if (observation.kind === 'agent') this.portChanged(observation.isOpen);
      observe(observation, cursor);
    };
  }

  /** Waits until a program in the guest has the channel open. */
  async whenOpen(signal: AbortSignal): Promise<void> {
    await waitOrAbort(this.#opened.promise, AbortSignal.any([signal, this.#closing.signal]));
  }

  /** Lets go of the channel; what waits is told. May be called twice. */
  close(): void {
    this.#closing.abort(absent('The guest was let go of'));
    this.#line?.break('the guest was let go of');
    this.#line = undefined;
  }

  async ping(signal: AbortSignal): Promise<void> {
    await this.#call('guest-ping', {}, signal);
  }

  async info(signal: AbortSignal): ReturnType<GuestAgent['info']> {
    const { version, supported_commands: commands } = await this.#call('guest-info', {}, signal);
    return {
      version: guestText(version, 64),
      supportedCommands: commands.filter(({ enabled }) => enabled).map(({ name }) => guestText(name, 64)),
    };
  }

  async interfaces(signal: AbortSignal): ReturnType<GuestAgent['interfaces']> {
    return interfacesOf(await this.#call('guest-network-get-interfaces', {}, signal));
  }

  async exec({ inputData, captureOutput, ...request }: ExecRequest, signal: AbortSignal): Promise<number> {
    const { pid } = await this.#call(
      'guest-exec',
      {
        ...request,
        ...(inputData === undefined ? {} : { 'input-data': inputData }),
        'capture-output': captureOutput,
      },
      signal,
    );
    return pid;
  }

  async execStatus(pid: number, signal: AbortSignal): Promise<ExecStatus> {
    const reply = await this.#call('guest-exec-status', { pid }, signal, MAX_EXEC_REPLY_BYTES);
    const {
      'out-data': outData,
      'err-data': errData,
      'out-truncated': outTruncated,
      'err-truncated': errTruncated,
      ...rest
    } = reply;
    return { ...rest, ...given({ outData, errData, outTruncated, errTruncated }) };
  }

  async openFile(path: string, mode: string, signal: AbortSignal): Promise<number> {
    return await this.#call('guest-file-open', { path, mode }, signal);
  }

  async readFile(...[handle, count, signal]: Parameters<GuestAgent['readFile']>) {
    const reply = await this.#call('guest-file-read', { handle, count }, signal);
    const bytes = Buffer.from(reply['buf-b64'], 'base64');
    if (bytes.length !== reply.count || bytes.length > count) throw nonsense('guest-file-read');
    return { bytes, eof: reply.eof };
  }

  async writeFile(...[handle, bytes, signal]: Parameters<GuestAgent['writeFile']>): Promise<number> {
    const request = { handle, 'buf-b64': bytes.toString('base64') };
    const { count } = await this.#call('guest-file-write', request, signal);
    if (count > bytes.length) throw nonsense('guest-file-write');
    return count;
  }

  async seekFile(...[handle, offset, whence, signal]: Parameters<GuestAgent['seekFile']>): Promise<number> {
    return (await this.#call('guest-file-seek', { handle, offset, whence }, signal)).position;
  }

  async closeFile(handle: number, signal: AbortSignal): Promise<void> {
    await this.#call('guest-file-flush', { handle }, signal).catch((error: unknown) => {
      // One that was only read has nothing to flush; an agent may refuse it.
      if (!isRoostError(error, 'FailedPrecondition')) throw error;
    });
    await this.#call('guest-file-close', { handle }, signal);
  }

  async freeze(signal: AbortSignal): Promise<number> {
    return await this.#call('guest-fsfreeze-freeze', {}, signal);
  }

  async thaw(signal: AbortSignal): Promise<number> {
    return await this.#call('guest-fsfreeze-thaw', {}, signal);
  }

  async freezeStatus(signal: AbortSignal): ReturnType<GuestAgent['freezeStatus']> {
    return await this.#call('guest-fsfreeze-status', {}, signal);
  }

  /** Milliseconds since the epoch. An agent may set the clock and then fail to write it into the machine's own. */
  async setTime(ms: number, signal: AbortSignal): Promise<void> {
    await this.#call('guest-set-time', { time: ms * NANOSECONDS }, signal);
  }

  async time(signal: AbortSignal): Promise<number> {
    return (await this.#call('guest-get-time', {}, signal)) / NANOSECONDS;
  }

  /** The end of the channel is as good as an answer: the agent goes down with the guest. */
  async shutdown(signal: AbortSignal): Promise<void> {
    try {
      await this.#call('guest-shutdown', { mode: 'powerdown' }, signal);
    } catch (error) {
      if (!(error instanceof RoostError && error.cause instanceof AgentLineError) || this.#isOpen)
        throw error;
    }
  }

  async #call<C extends AgentCommandName>(
    command: C,
    commandArguments: Arguments,
    signal: AbortSignal,
    maxReplyBytes = MAX_REPLY_BYTES,
  ): Promise<AgentReturn<C>> {
    if (this.#mailbox.waiting >= MAX_WAITING) {
      throw new RoostError(
        'Unavailable',
        `${this.#mailbox.waiting} requests wait for the guest's agent already`,
        {
          data: { command },
          hint: 'Try again when some of them have ended.',
        },
      );
    }
    const both = AbortSignal.any([signal, this.#closing.signal]);
    return await waitOrAbort(
      this.#mailbox.post(async () => {
        const message = await this.#exchange(command, commandArguments, maxReplyBytes, both);
        try {
          return read(command, message);
        } catch (error) {
          // Whoever answers nonsense may go on to do so.
          if (isRoostError(error, 'Unavailable')) this.#line?.break('an answer made no sense');
          throw error;
        }
      }),
      both,
    );
  }

  async #exchange(
    command: AgentCommandName,
    commandArguments: Arguments,
    maxReplyBytes: number,
    signal: AbortSignal,
  ): Promise<Arguments> {
    signal.throwIfAborted();
    if (!this.#isOpen) throw absent("No agent in the guest has the agent's channel open");
    try {
      const line = await this.#ready(signal);
      return await line.ask(command, commandArguments, maxReplyBytes, signal);
    } catch (error) {
      if (!(error instanceof AgentLineError)) throw error;
      throw new RoostError(
        'Unavailable',
        `The guest's agent gave no answer to ${command}: ${error.message}`,
        {
          cause: error,
          data: { command },
          hint: 'Whether the guest has done it is not known. Look at the agent in the guest.',
        },
      );
    }
  }

  /** A line on which the next thing to come is the next answer. */
  async #ready(signal: AbortSignal): Promise<AgentLine> {
    if (this.#line && !this.#line.isBroken) return this.#line;
    const line = await AgentLine.open(this.#path, signal);
    this.#line = line;
    await line.sync(signal);
    return line;
  }
}

/** What a message says. Errors: those of the contract of an agent. */
const read = <C extends AgentCommandName>(command: C, message: Arguments): AgentReturn<C> => {
  if ('error' in message) throw refusal(command, message['error']);
  const parsed = agentReturns[command].safeParse(message['return']);
  if (!parsed.success) throw nonsense(command);
  return parsed.data as AgentReturn<C>;
};

const refusal = (command: AgentCommandName, error: unknown): RoostError => {
  const parsed = agentErrorSchema.safeParse(error);
  if (!parsed.success) return nonsense(command);
  const said = guestText(parsed.data.desc, MAX_SAID);
  if (parsed.data.class === 'CommandNotFound') {
    return new RoostError('Unsupported', `The guest's agent cannot do ${command}: ${said}`, {
      data: { command, said },
      hint: 'It may be too old, or its configuration blocks the command; guest-info lists what it does.',
    });
  }
  return new RoostError('FailedPrecondition', `The guest's agent refused ${command}: ${said}`, {
    data: { command, said },
    hint: 'These are the words of the guest; mend it there.',
  });
};

const nonsense = (command: AgentCommandName): RoostError =>
  new RoostError('Unavailable', `The guest's agent answered ${command} with what is no answer to it`, {
    data: { command },
    hint: 'Look at the agent in the guest: it is broken, or lies.',
  });

const absent = (message: string): RoostError =>
  new RoostError('Unavailable', message, {
    hint: 'Install and start qemu-guest-agent in the guest, or wait until the guest has booted.',
  });

/** Only the members that have a value. */
const given = <T extends object>(members: T): { [K in keyof T]?: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
