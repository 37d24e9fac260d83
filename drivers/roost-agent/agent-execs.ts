/** Programs that are run to their end in a microVM, with what they wrote: what `guest-exec` and its status need. */
import { randomInt } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { ExecRequest, ExecStatus } from '../../protocol/agent.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { AgentProcess, ProcessEnd } from './agent-process.ts';
import type { MicrovmAgent } from './microvm-agent.ts';

/** Of each output; what comes after it is read and thrown away. */
const MAX_OUTPUT_BYTES = 8 * 1024 * 1024;
/** Programs that have ended and whose end nobody has asked for; the oldest is forgotten. */
const MAX_KEPT = 256;
/** Below are the numbers of others. */
const FIRST = 1_000;
/** Programs of an earlier daemon may run on under theirs. */
const FIRSTS = 2 ** 30;

class Captured {
  readonly #chunks: Buffer[] = [];
  #size = 0;
  truncated = false;

  /** Resolves when no more comes; a stream that breaks has no more to give. */
  async take(from: Readable | undefined): Promise<void> {
    if (!from) return;
    try {
      for await (const chunk of from) this.#keep(chunk as Buffer);
    } catch {
      this.truncated = true;
    }
  }

  #keep(chunk: Buffer): void {
    const room = MAX_OUTPUT_BYTES - this.#size;
    if (chunk.length > room) this.truncated = true;
    if (room <= 0) return;
    this.#chunks.push(chunk.subarray(0, room));
    this.#size += Math.min(room, chunk.length);
  }

  base64(): string | undefined {
    return this.#size === 0 ? undefined : Buffer.concat(this.#chunks).toString('base64');
  }
}

interface Run {
  readonly out: Captured;
  readonly err: Captured;
  end: ProcessEnd | undefined;
  lost: boolean;
}

export class AgentExecs {
  readonly #runs = new Map<number, Run>();
  #last = FIRST + randomInt(FIRSTS);

  /** A number that no program has. */
  number(): number {
    this.#last += 1;
    return this.#last;
  }

  /** Resolves with its pid in the guest, by which its status is asked for. Errors: those of `MicrovmAgent.exec`. */
  async start(
    agent: MicrovmAgent,
    {
      path,
      arg,
      env,
      environment,
      inputData,
      captureOutput,
    }: ExecRequest & { readonly environment: readonly string[] },
    signal: AbortSignal,
  ): Promise<number> {
    const program = await agent.exec(
      {
        process: this.number(),
        argv: [path, ...arg],
        environment: env ?? environment,
        stdin: inputData !== undefined,
        stdout: captureOutput,
        stderr: captureOutput,
      },
      signal,
    );
    const run: Run = { out: new Captured(), err: new Captured(), end: undefined, lost: false };
    const pid = program.pid ?? program.process;
    this.#keep(pid, run);
    program.stdin?.on('error', () => undefined);
    if (inputData !== undefined) program.stdin?.end(Buffer.from(inputData, 'base64'));
    void this.#carry(agent, program, run);
    return pid;
  }

  async #carry(agent: MicrovmAgent, program: AgentProcess, run: Run): Promise<void> {
    try {
      const [end] = await Promise.all([
        program.wait(agent.broken),
        run.out.take(program.stdout),
        run.err.take(program.stderr),
      ]);
      run.end = end;
      await program.release(agent.broken);
    } catch {
      run.lost = run.end === undefined;
    }
  }

  #keep(pid: number, run: Run): void {
    // The guest gives a pid anew; of one that has ended under it nobody can ask any more.
    this.#runs.delete(pid);
    this.#runs.set(pid, run);
    if (this.#runs.size <= MAX_KEPT) return;
    const oldest = [...this.#runs].find(([, each]) => each.end !== undefined || each.lost);
    if (oldest) this.#runs.delete(oldest[0]);
  }

  /** How it is; it is forgotten once it was told to have exited. Errors: NotFound, Unavailable when the session broke. */
  async status(pid: number): Promise<ExecStatus> {
    const run = this.#runs.get(pid);
    if (!run || run.lost) {
      this.#runs.delete(pid);
      throw new RoostError(
        run ? 'Unavailable' : 'NotFound',
        run ? `What became of program ${pid} is not known` : `No program ${pid} was started here`,
        { data: { pid }, hint: 'It may run on: the session that started it is gone.' },
      );
    }
    const { end, out, err } = run;
    if (!end) return { exited: false };
    this.#runs.delete(pid);
    const [outData, errData] = [out.base64(), err.base64()];
    return {
      exited: true,
      ...(end.exitCode === undefined ? {} : { exitcode: end.exitCode }),
      ...(end.signal === undefined ? {} : { signal: end.signal }),
      ...(outData === undefined ? {} : { outData }),
      ...(errData === undefined ? {} : { errData }),
      ...(out.truncated ? { outTruncated: true } : {}),
      ...(err.truncated ? { errTruncated: true } : {}),
    };
  }

  /** The session broke: what runs is followed no more. */
  lost(): void {
    for (const run of this.#runs.values()) if (!run.end) run.lost = true;
  }
}
