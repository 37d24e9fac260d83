/**
 * `roost exec`: a program in a guest as if it were run here; its exit code is ours. Our own agent gives its streams. The
 * QEMU guest agent runs it to its end: its input is given whole before it starts, its output comes when it has ended.
 */
import type { CommandInput } from '../protocol/commands.ts';
import { requireTerminal } from './attach.ts';
import { carryByteSession, exitCodeOf, terminalSizeOf } from './byte-session.ts';
import { CliFailure, usageFailure } from './failure.ts';
import type { Context, Io } from './io.ts';
import { exitCodeOfRefusal } from './program-exit.ts';
import type { Invocation } from './verb.ts';

const MAX_INPUT_BYTES = 262_144;
/** One wait; the daemon is asked again until the program has ended. */
const WAIT_MS = 60_000;

const inputOf = async ({ stdin }: Io): Promise<string> => {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stdin) {
    const bytes = Buffer.from(chunk);
    size += bytes.length;
    if (size > MAX_INPUT_BYTES)
      throw usageFailure(
        `Standard input is longer than ${MAX_INPUT_BYTES} bytes, which is what an agent is given`,
        "Copy it into the guest first: 'roost cp FILE NAME:/path'.",
      );
    chunks.push(bytes);
  }
  return Buffer.concat(chunks).toString('base64');
};

const write = (stream: NodeJS.WritableStream, data: string | undefined): Promise<void> =>
  new Promise((resolve) => {
    if (data === undefined || data === '') resolve();
    else stream.write(Buffer.from(data, 'base64'), () => resolve());
  });

/** What the agent is asked for, whichever way. */
const programOf = ({
  flags,
  positionals,
}: Invocation): { guest: string; path: string; arg: string[]; env?: string[] } => {
  const [path = '', ...arg] = positionals['CMD'] ?? [];
  return {
    guest: String(positionals['NAME']),
    path,
    arg: arg.map(String),
    ...(Array.isArray(flags['env']) ? { env: flags['env'].map(String) } : {}),
  };
};

/** Its streams are ours. Resolves with its exit code; undefined where the agent cannot do that. */
const runHere = async (invocation: Invocation, context: Context): Promise<number | undefined> => {
  const { io, signal, note } = context;
  const { flags } = invocation;
  const [interactive, terminal] = [flags['interactive'] === true, flags['terminal'] === true];
  requireTerminal(context, { interactive, terminal });
  const size = terminal ? (terminalSizeOf(io) ?? { rows: 24, columns: 80 }) : undefined;
  const request: CommandInput<'guest-exec-session'> = {
    ...programOf(invocation),
    interactive,
    ...(size === undefined ? {} : { terminal: size }),
    ...(typeof flags['user'] === 'string' ? { user: flags['user'] } : {}),
    ...(typeof flags['workdir'] === 'string' ? { workingDirectory: flags['workdir'] } : {}),
  };
  const client = await context.client();
  const socket = await client.attach('guest-exec-session', request, { signal }).catch((error: unknown) => {
    if (isUnsupported(error)) return undefined;
    const code = exitCodeOfRefusal(error);
    if (code === undefined) throw error;
    note(`roost: ${(error as CliFailure).message}`);
    return code;
  });
  if (socket === undefined || typeof socket === 'number') return socket;
  const ending = await carryByteSession(socket, io, {
    of: 'program',
    interactive,
    terminal,
    mayLeave: false,
  });
  // Nothing but the program ends it.
  return ending === 'left' ? 0 : exitCodeOf(ending);
};

/** What only our own agent can do. */
const NEEDS_SESSION = ['terminal', 'user', 'workdir'] as const;

const isUnsupported = (error: unknown): boolean =>
  error instanceof CliFailure && error.wire.class === 'Unsupported';

/** Prints its output when it has ended. Resolves with its exit code. */
const runToEnd = async (invocation: Invocation, context: Context): Promise<number> => {
  const { io, note, signal, json } = context;
  const { flags } = invocation;
  const detach = flags['detach'] === true;
  const program = programOf(invocation);
  const { guest } = program;
  const request: CommandInput<'guest-exec'> = {
    ...program,
    captureOutput: !detach,
    ...(flags['interactive'] === true ? { inputData: await inputOf(io) } : {}),
  };
  const client = await context.client();
  const { pid } = await client.call('guest-exec', request, { signal });
  if (detach) {
    if (json) context.printJson({ pid });
    else context.print(String(pid));
    return 0;
  }
  try {
    for (;;) {
      const status = await client.call('guest-exec-status', { guest, pid, waitMs: WAIT_MS }, { signal });
      if (!status.exited) continue;
      if (json) context.printJson({ pid, ...status });
      else {
        await write(io.stdout, status.outData);
        await write(io.stderr, status.errData);
      }
      if (status.outTruncated === true) note('roost: standard output was longer than the agent keeps');
      if (status.errTruncated === true) note('roost: standard error was longer than the agent keeps');
      return status.exitcode ?? 128 + (status.signal ?? 0);
    }
  } catch (error) {
    note(`roost: whether it has ended is not known; it is process ${pid} in guest ${guest}`);
    throw error;
  }
};

export const execInGuest = async (invocation: Invocation, context: Context): Promise<number> => {
  const needed = NEEDS_SESSION.find((name) => invocation.flags[name] !== undefined);
  const apart = invocation.flags['detach'] === true || context.json;
  if (apart && needed !== undefined)
    throw usageFailure(`--${needed} does not go with --detach or --json`, 'Leave one of them out.');
  const exitCode = apart ? undefined : await runHere(invocation, context);
  if (exitCode !== undefined) return exitCode;
  if (needed !== undefined)
    throw usageFailure(
      `The agent in the guest knows no --${needed}: it runs programs to their end only`,
      "Use 'roost ssh' or 'roost console'.",
    );
  return await runToEnd(invocation, context);
};
