/**
 * A QMP client of another project in a process of its own. The two programs beside this file put the same small line
 * protocol on their standard input and output, before their client's own functions, so that one suite tests both:
 *   they say {"version": …} once they are connected and have negotiated;
 *   {"execute", "arguments"} is answered by {"return"}, or by {"error": {"class"?, "desc"}}, or by {"failure"} if the
 *   client itself gave up;
 *   {"await": EVENT} is answered by {"event": …}, the next one of that name;
 *   at the end of input they disconnect, say {"disconnected": true} or {"failure"}, and exit.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { onTestFinished } from 'vitest';

export interface ForeignEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
}

export interface Answer {
  /** The greeting's version, as the client understood it. */
  readonly version?: unknown;
  readonly return?: unknown;
  readonly error?: { readonly class?: string; readonly desc: string };
  readonly event?: ForeignEvent;
  /** The client itself failed: what it said. */
  readonly failure?: string;
  readonly disconnected?: boolean;
}

export interface ForeignClient {
  readonly version: unknown;
  /** Gives whatever comes of the command. */
  execute(name: string, args?: object): Promise<Answer>;
  /** What the command returns; throws if it does anything else. */
  query<T>(name: string, args?: object): Promise<T>;
  nextEvent(name: string): Promise<ForeignEvent>;
  /** Ends the program; gives its last words. */
  disconnect(): Promise<Answer>;
}

/** Runs `argv` with the path of a QMP socket as its last argument; ends it with the test. */
export const startForeignClient = async (
  argv: readonly [string, ...string[]],
  socketPath: string,
): Promise<ForeignClient> => {
  const [file, ...args] = argv;
  const child = spawn(file, [...args, socketPath]);
  let complaints = '';
  child.stderr.on('data', (chunk: Buffer) => {
    complaints += chunk.toString('utf8');
  });
  const exited = once(child, 'close');
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const nextAnswer = async (): Promise<Answer> => {
    const line = await lines.next();
    if (line.done === true) throw new Error(`${file} ended without an answer:\n${complaints}`);
    return JSON.parse(line.value) as Answer;
  };
  const ask = (request: object): Promise<Answer> => {
    child.stdin.write(`${JSON.stringify(request)}\n`);
    return nextAnswer();
  };
  const unexpected = (answer: Answer): Error =>
    new Error(`Unexpected: ${JSON.stringify(answer)}\n${complaints}`);

  const hello = await nextAnswer();
  if (hello.version === undefined) throw unexpected(hello);
  const execute = (name: string, args?: object): Promise<Answer> => ask({ execute: name, arguments: args });
  return {
    version: hello.version,
    execute,
    query: async <T>(name: string, args?: object) => {
      const answer = await execute(name, args);
      if (answer.return === undefined) throw unexpected(answer);
      return answer.return as T;
    },
    nextEvent: async (name) => {
      const answer = await ask({ await: name });
      if (answer.event === undefined) throw unexpected(answer);
      return answer.event;
    },
    disconnect: async () => {
      child.stdin.end();
      const answer = await nextAnswer();
      await exited;
      return answer;
    },
  };
};
