/**
 * `roost exec`: a program in a guest as if it were run here, as far as the QEMU guest agent can: its input is given
 * whole before it starts, its output comes when it has ended, its exit code is ours.
 */
import type { CommandInput } from '../protocol/commands.ts';
import { usageFailure } from './failure.ts';
import type { Context, Io } from './io.ts';
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

export const execInGuest = async (invocation: Invocation, context: Context): Promise<number> => {
  const { io, note, signal, json } = context;
  const { flags, positionals } = invocation;
  const guest = String(positionals['NAME']);
  const [path = '', ...arg] = positionals['CMD'] ?? [];
  const detach = flags['detach'] === true;
  const request: CommandInput<'guest-exec'> = {
    guest,
    path,
    arg,
    captureOutput: !detach,
    ...(Array.isArray(flags['env']) ? { env: flags['env'].map(String) } : {}),
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
