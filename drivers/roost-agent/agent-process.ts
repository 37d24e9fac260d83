/** A program in a microVM, seen from the host: its streams, its end, its signals and its terminal. */
import type { Readable, Writable } from 'node:stream';
import { waitOrAbort } from '../../lib/abort.ts';
import { nonsense } from './agent-errors.ts';
import { type AgentSession, type CallOptions, REPLY_TIMEOUT_MS } from './agent-session.ts';
import { OUTPUT_WINDOW_BYTES } from './byte-streams.ts';
import { FieldError, type FieldReader, FieldWriter, required } from './fields.ts';

/** How a program ended, and what it took. */
export interface ProcessEnd {
  readonly exitCode: number | undefined;
  /** Number of the signal that ended it; undefined if it ended itself. */
  readonly signal: number | undefined;
  readonly cpuTimeMicroseconds: number | undefined;
  readonly maxResidentBytes: number | undefined;
}

export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

export interface ProcessLimit {
  /** Number of the resource, RLIMIT_… of Linux (setrlimit(2)). */
  readonly resource: number;
  readonly soft: bigint;
  readonly hard: bigint;
}

export interface ExecInGuest {
  /** Chosen by the host, not 0, and the program's name until it is released; outlives the session. */
  readonly process: number;
  /** The program and its arguments; without a slash it is looked for in PATH of `environment`. */
  readonly argv: readonly [string, ...string[]];
  /** `NAME=VALUE`; the whole of it, but for HOME and TERM, which the agent fills in. */
  readonly environment?: readonly string[];
  readonly directory?: string;
  /** USER, UID, USER:GROUP … as in an OCI image's configuration; root unless given. */
  readonly user?: string;
  /** Further groups, by number. */
  readonly groups?: readonly number[];
  /** Standard input, output and error become one terminal of this size. */
  readonly terminal?: TerminalSize;
  /** Whether the host writes to it; otherwise it is /dev/null. */
  readonly stdin?: boolean;
  readonly stdout?: boolean;
  /** Never with a terminal. */
  readonly stderr?: boolean;
  /** Bits by number (capabilities(7)); all unless given. */
  readonly capabilities?: bigint;
  readonly ambientCapabilities?: bigint;
  readonly noNewPrivileges?: boolean;
  readonly limits?: readonly ProcessLimit[];
  /** `FILE=VALUE` of a control group of its own (version 2): `memory.max=268435456`. */
  readonly cgroup?: readonly string[];
  readonly umask?: number;
  readonly oomScoreAdj?: number;
}

/** Which streams of a program that was started in an earlier session are taken up. */
export interface AttachToProcess {
  readonly process: number;
  readonly stdin?: boolean;
  readonly stdout?: boolean;
  readonly stderr?: boolean;
}

type Wanted = Pick<ExecInGuest, 'stdin' | 'stdout' | 'stderr'>;

const pidOf = (reply: FieldReader): number => {
  try {
    return required(reply.u32('pid'), 'pid');
  } catch (error) {
    throw nonsense('exec', error);
  }
};

interface OpenStreams {
  readonly fields: FieldWriter;
  readonly ids: readonly (number | undefined)[];
  readonly stdin: Writable | undefined;
  readonly stdout: Readable | undefined;
  readonly stderr: Readable | undefined;
}

export class AgentProcess {
  readonly process: number;
  /** What the guest's kernel calls it; undefined of one that was taken up. */
  readonly pid: number | undefined;
  readonly stdin: Writable | undefined;
  readonly stdout: Readable | undefined;
  readonly stderr: Readable | undefined;
  readonly #session: AgentSession;
  readonly #streams: OpenStreams;
  readonly #end: Promise<FieldReader>;

  private constructor(
    session: AgentSession,
    process: number,
    streams: OpenStreams,
    end: Promise<FieldReader>,
    pid?: number,
  ) {
    this.#session = session;
    this.process = process;
    this.pid = pid;
    this.#streams = streams;
    this.#end = end;
    this.stdin = streams.stdin;
    this.stdout = streams.stdout;
    this.stderr = streams.stderr;
  }

  /** Rejects with RoostError; `data.errno` ENOENT, EACCES or ENOEXEC say that the program cannot be executed. */
  static async exec(session: AgentSession, request: ExecInGuest, signal: AbortSignal): Promise<AgentProcess> {
    const { process } = request;
    const end = session.expectEnd(process);
    const streams = openStreams(session, request);
    let reply: FieldReader;
    try {
      reply = await session.call('exec', execFields(request, streams.fields), signal, {
        // Started all the same, with nobody who wants it.
        onLate: () => void abolish(session, process, end),
        onRefused: () => session.forgetEnd(process),
      });
    } catch (error) {
      session.forgetStreams(streams.ids);
      throw error;
    }
    return new AgentProcess(session, request.process, streams, end, pidOf(reply));
  }

  /** Takes up a program of an earlier session; what it wrote while nobody read waits in its pipe. */
  static async attach(
    session: AgentSession,
    request: AttachToProcess,
    signal: AbortSignal,
  ): Promise<AgentProcess> {
    const { process } = request;
    const end = session.expectEnd(process);
    const streams = openStreams(session, request);
    try {
      await session.call('attach', streams.fields.u32('process', process), signal, {
        onRefused: () => session.forgetEnd(process),
      });
    } catch (error) {
      session.forgetStreams(streams.ids);
      throw error;
    }
    return new AgentProcess(session, request.process, streams, end);
  }

  /** Resolves when the program has ended; its output may be under way still. */
  async wait(signal: AbortSignal): Promise<ProcessEnd> {
    try {
      return processEnd(await waitOrAbort(this.#end, signal));
    } catch (error) {
      throw error instanceof FieldError ? nonsense('wait', error) : error;
    }
  }

  /** `all`: the whole process group; with SIGKILL and limits of its own, everything that it has started. */
  async kill(
    number: number,
    signal: AbortSignal,
    { all = false }: { readonly all?: boolean } = {},
  ): Promise<void> {
    const fields = new FieldWriter().u32('process', this.process).u32('signal', number).flag('all', all);
    await this.#session.call('signal', fields, signal);
  }

  async resize(size: TerminalSize, signal: AbortSignal): Promise<void> {
    const fields = new FieldWriter().u32('process', this.process).bytes('terminal', terminalBytes(size));
    await this.#session.call('resize', fields, signal);
  }

  /** Lets the agent forget a program that has ended; what it left in its pipes is gone then. */
  async release(signal: AbortSignal): Promise<void> {
    await this.#session.call('release', new FieldWriter().u32('process', this.process), signal);
    this.#session.forgetStreams(this.#streams.ids);
  }
}

/** The end as the agent tells it. Throws FieldError. */
export const processEnd = (fields: FieldReader): ProcessEnd => {
  const exitCode = fields.u32('exitCode');
  const ended = fields.u32('exitSignal');
  if (exitCode === undefined) required(ended, 'exitSignal');
  if ((exitCode ?? 0) > 255 || (ended ?? 0) > 127) throw new FieldError('an end that no program can have');
  return {
    exitCode,
    signal: ended,
    cpuTimeMicroseconds: fields.size('cpuTime'),
    maxResidentBytes: fields.size('maxRss'),
  };
};

const openStreams = (session: AgentSession, wanted: Wanted): OpenStreams => {
  const stdin = wanted.stdin === true ? session.openInput() : undefined;
  const stdout = wanted.stdout === true ? session.openOutput() : undefined;
  const stderr = wanted.stderr === true ? session.openOutput() : undefined;
  return {
    fields: new FieldWriter()
      .u32('stdin', stdin?.id)
      .u32('stdout', stdout?.id)
      .u32('stderr', stderr?.id)
      .u32('window', OUTPUT_WINDOW_BYTES),
    ids: [stdin?.id, stdout?.id, stderr?.id],
    stdin: stdin?.input,
    stdout: stdout?.output,
    stderr: stderr?.output,
  };
};

const terminalBytes = ({ rows, columns }: TerminalSize): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt16LE(rows, 0);
  bytes.writeUInt16LE(columns, 2);
  return bytes;
};

const limitBytes = ({ resource, soft, hard }: ProcessLimit): Buffer => {
  const bytes = Buffer.alloc(20);
  bytes.writeUInt32LE(resource, 0);
  bytes.writeBigUInt64LE(soft, 4);
  bytes.writeBigUInt64LE(hard, 12);
  return bytes;
};

const execFields = (request: ExecInGuest, fields: FieldWriter): FieldWriter => {
  fields
    .u32('process', request.process)
    .texts('argument', request.argv)
    .texts('environment', request.environment)
    .text('directory', request.directory)
    .text('user', request.user)
    .bytes('terminal', request.terminal && terminalBytes(request.terminal))
    .u64('capabilities', request.capabilities)
    .u64('ambient', request.ambientCapabilities)
    .flag('noNewPrivileges', request.noNewPrivileges)
    .texts('cgroup', request.cgroup)
    .u32('umask', request.umask)
    .i32('oomScoreAdj', request.oomScoreAdj);
  for (const group of request.groups ?? []) fields.u32('group', group);
  for (const limit of request.limits ?? []) fields.bytes('rlimit', limitBytes(limit));
  return fields;
};

/** Ends a program that nobody wants any more, and lets the agent forget it. Failures are the guest's to keep. */
const abolish = async (session: AgentSession, process: number, end: Promise<FieldReader>): Promise<void> => {
  const options: CallOptions = { timeoutMs: REPLY_TIMEOUT_MS };
  const about = (): FieldWriter => new FieldWriter().u32('process', process);
  try {
    await session.call('signal', about().u32('signal', 9).flag('all', true), session.broken, options);
    await waitOrAbort(end, session.broken);
    await session.call('release', about(), session.broken, options);
  } catch {
    // The session broke, or the program was released by somebody else.
  }
};
